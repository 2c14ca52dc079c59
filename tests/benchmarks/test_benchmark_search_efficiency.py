"""The surfaces of the search benchmark: their lowest point is known, and so are the slices through it."""

import importlib
import itertools
from pathlib import Path

import pytest

STAR = {
    "incumbent": {"learning_rate": 4, "weight_decay": 2},
    "incumbent_loss": 3.0,
    "changes": [
        ["learning_rate", 2, 3.05],
        ["learning_rate", 8, 3.2],
        ["learning_rate", 16, None],
        ["weight_decay", 1, 3.02],
        ["weight_decay", 4, 3.01],
    ],
}


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "benchmarks"))
    return importlib.import_module("search_efficiency")


def test_a_pairwise_surface_keeps_its_lowest_point_and_the_slices_through_it(bench):
    plain = bench.AdditiveSurrogate.from_star(STAR)
    coupled = bench.PairwiseSurrogate(plain, seed=3)
    best = {"learning_rate": 4, "weight_decay": 2}
    assert coupled.regret(best) == 0 and coupled.true_loss(best) == plain.lowest == 3.0
    for name, value, loss in STAR["changes"]:
        changed = coupled.true_loss({**best, name: value})
        assert changed == (None if loss is None else pytest.approx(loss))
    both = {"learning_rate": 8, "weight_decay": 1}
    assert coupled.true_loss(both) != pytest.approx(plain.true_loss(both), abs=1e-6)
    for rate, decay in itertools.product((2, 4, 8), (1, 2, 4)):
        assert coupled.regret({"learning_rate": rate, "weight_decay": decay}) >= 0
