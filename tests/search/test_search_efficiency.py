"""The benchmark of searches: its grounds, its starts and its table, on a small star."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "search_efficiency.py"
DOCS = FILE.parents[1] / "docs" / "search.md"
STARS = FILE.parents[2] / "shared" / "paper" / "stars.json"
STAR = {
    "optimizer": "adamw",
    "scale": "130m",
    "ratio": 1,
    "incumbent": {"learning_rate": 0.008, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.98, "epsilon": 1e-10,
                  "max_grad_norm": 1, "train_batch_size": 128, "warmup": 2000},
    "incumbent_loss": 3.5,
    "changes": [["learning_rate", 0.004, 3.54], ["learning_rate", 0.016, 7.9], ["weight_decay", 0, 3.52],
                ["weight_decay", 0.2, 3.51], ["beta2", 0.95, 3.504], ["warmup", 1000, 3.53]],
}  # fmt: skip


def loaded(name):
    """A benchmark as a module."""
    spec = importlib.util.spec_from_file_location(name, FILE.with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bench():
    return loaded("search_efficiency")


@pytest.fixture(scope="module")
def whole(bench):
    return loaded("certificate_claims")


def test_the_grid_ends_with_the_table_and_starts_converge(bench):
    ground = bench.ground(STAR, "additive", 0)
    free = {axis.name: axis.values for axis in ground.space.axes if not axis.pinned}
    assert free["learning_rate"] == (0.004, 0.008, 0.016) and set(free) == {
        "learning_rate",
        "weight_decay",
        "beta2",
        "warmup",
    }
    assert all(not axis.above and not axis.below for axis in ground.space.axes if not axis.pinned)
    for number in range(30):
        start = dict(bench.start_at(ground, random.Random(number), False).start)
        assert ground.surface.true_loss(start) is not None
    drawn = {dict(bench.start_at(ground, random.Random(number), True).start)["learning_rate"] for number in range(30)}
    assert drawn == {0.004, 0.008, 0.016}


def test_sparse_stars_are_left_out(bench):
    assert bench.complete([STAR, {**STAR, "changes": STAR["changes"][:2]}]) == [STAR]


@pytest.mark.parametrize("loss", [None, float("nan"), 7.8])
@pytest.mark.parametrize("factor", ["1", "5"])
def test_a_star_without_the_loss_of_its_incumbent_is_left_out_and_said_so(bench, tmp_path, capsys, loss, factor):
    stars = tmp_path / "stars.json"
    without = {**STAR, "incumbent_loss": loss}
    nothing = {**STAR, "optimizer": "lion", "changes": [["learning_rate", 0.004, None]]}
    stars.write_text(json.dumps([without, STAR, {**without, "optimizer": "muon"}, nothing]))
    common = ["--stars", str(stars), "--starts", "1", "--searchers", "cyclic", "--magnify", factor]
    assert bench.main(common) == 0
    told = capsys.readouterr()
    assert "| adamw (6)" in told.out and "muon (" not in told.out and "lion (" not in told.out
    assert "muon: no star" in told.err and "lion: no star" in told.err
    assert bench.complete([without, STAR]) == [STAR]


def test_every_searcher_ends_within_its_budget_and_the_table_says_how(bench, tmp_path, capsys):
    stars = tmp_path / "stars.json"
    stars.write_text(json.dumps([STAR]))
    assert bench.main(["--stars", str(stars), "--starts", "3", "-o", str(tmp_path / "out.md")]) == 0
    table = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert capsys.readouterr().out == (tmp_path / "out.md").read_text()
    assert [(row["surface"], row["searcher"]) for row in table] == [
        (surface, searcher) for surface in ("additive", "pairwise") for searcher in bench.SEARCHERS
    ]
    by = {(row["surface"], row["searcher"]): row for row in table}
    for surface in ("additive", "pairwise"):
        assert by[surface, "joint"]["success"] == 1.0
        assert by[surface, "random"]["trials"] == by[surface, "tpe"]["trials"] == by[surface, "joint"]["trials"]
        assert by[surface, "random"]["waves"] == 1
        # A fifth of the trials at a time, rounded up: so small a budget may be spent after four waves.
        assert by[surface, "tpe"]["waves"] in (4, 5)
    assert bench.main(["--stars", str(stars), "--starts", "3", "-o", str(tmp_path / "again.md")]) == 0
    assert (tmp_path / "again.md").read_text() == (tmp_path / "out.md").read_text()


def test_claims_are_counted_against_the_truth_whatever_the_noise(bench, tmp_path):
    stars = tmp_path / "stars.json"
    stars.write_text(json.dumps([STAR]))
    common = ["--stars", str(stars), "--starts", "3", "--searchers", "joint,model", "-o", str(tmp_path / "out.md")]
    assert bench.main([*common, "--noise", "0.003", "--uneven", "--magnify", "2"]) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert (written["noise"], written["uneven"], written["magnify"]) == (0.003, True, 2.0)
    assert written["tolerance"] == pytest.approx(0.003 * 1.645 * 2**0.5)
    by = {(row["surface"], row["searcher"]): row for row in written["rows"]}
    assert by["additive", "joint"]["claim"] == written["tolerance"]
    assert 0 < by["additive", "model"]["claim"] < 0.03
    claim = bench.Ending(20, 3, 0.01, claim=0.004, missed=0.005)
    assert claim.false and not bench.Ending(20, 3, 0.01, claim=None, missed=1.0).false
    assert not bench.Ending(20, 3, 0.01, claim=0.005, missed=0.005).false


@pytest.mark.parametrize("kind", ["jump", "rough", "bowl"])
def test_invented_surfaces_are_lowest_at_their_incumbents(bench, whole, kind):
    grounds = [bench.ground(whole.invented(STAR, kind, seed), "pairwise", seed) for seed in range(5)]
    for seed, ground in enumerate(grounds):
        star = whole.invented(STAR, kind, seed)
        assert ground.surface.regret(star["incumbent"]) == pytest.approx(0, abs=1e-12)
        assert ["learning_rate", 0.016, None] in star["changes"], "what diverges still does"
    assert len({str(whole.invented(STAR, kind, seed)["changes"]) for seed in range(5)}) == 5


def test_the_claims_of_whole_sweeps_are_told_with_what_they_cost(whole, tmp_path, capsys):
    stars = tmp_path / "stars.json"
    stars.write_text(json.dumps([STAR]))
    assert whole.main(["--stars", str(stars), "--starts", "1", "--replicates", "1", "--policy", "model"]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["1", "additive"], ["1", "pairwise"]]
    for _, _, false, certified, nats, beyond, even in rows:
        assert false in ("0 of 1", "1 of 1") and certified in ("0", "1")
        assert 0 < float(nats) < 1 and float(beyond) >= 0 and 0 < float(even) < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prefix", "searcher", "optimizer", "starts", "noise", "magnify"),
    [
        ("", "cyclic", "adamw", 20, {}, 1.0),
        ("", "joint", "cautious", 100, {}, 1.0),
        ("| `--noise 0.025 --magnify 5` ", "model", "adamw", 40, {"sigma": 0.025}, 5.0),
    ],
)
def test_rows_of_the_docs_are_what_the_benchmark_prints(bench, prefix, searcher, optimizer, starts, noise, magnify):
    """On the published stars, where they are at hand."""
    if not STARS.exists():
        pytest.skip("the published stars are not at hand")
    stars = [star for star in json.loads(STARS.read_text()) if star["optimizer"] == optimizer]
    stars = [bench.magnified(star, magnify) for star in stars]
    row = next(iter(bench.rows(stars, starts, False, [searcher], bench.Noise(**noise))))
    printed = prefix + bench.markdown([row]).splitlines()[-1]
    if not prefix:  # those tables leave out what the search claims
        printed = "|".join(printed.split("|")[:8]) + "|"
    assert printed in DOCS.read_text().splitlines()


@pytest.mark.slow
def test_the_rows_of_whole_sweeps_are_what_their_benchmark_prints(whole, capsys):
    if not STARS.exists():
        pytest.skip("the published stars are not at hand")
    told = "--starts 10 --scale 130m --magnify 1 --sigma 0.0005"
    assert whole.main(["--stars", str(STARS), "--replicates", "3", *told.split()]) == 0
    printed = [f"| `{told}` {line}" for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(printed) == 2 and set(printed) <= set(DOCS.read_text().splitlines())


def test_tuning_and_seeds_share_a_fixed_number_of_runs(bench):
    split = loaded("tuning_or_seeds")
    chosen = bench.ground(bench.magnified(STAR, 5), "additive", 0)
    space = split.start_beside(chosen, random.Random(0), 2)
    assert {axis.name for axis in space.varied} == {"learning_rate", "weight_decay"}
    best = dict(split.lowest(space, chosen))
    assert (best["learning_rate"], best["weight_decay"]) == (0.008, 0.1)
    exact = split.tune(space, chosen, 9, 12, 0.0, "seed")
    assert exact.regret == pytest.approx(0, abs=1e-12) and exact.error == pytest.approx(0, abs=1e-12)
    noisy = split.tune(space, chosen, 4, 12, 0.025, "seed")
    assert noisy.regret >= 0 and 12 - 4 < noisy.seeds <= 12
    assert noisy.error != noisy.regret


def test_a_longer_tuning_ends_lower(bench):
    split = loaded("tuning_or_seeds")
    chosen = bench.ground(bench.magnified(STAR, 5), "additive", 0)
    means = []
    for tuning in (3, 12):
        found = [
            split.tune(split.start_beside(chosen, random.Random(number), 4), chosen, tuning, 16, 0.025, str(number))
            for number in range(12)
        ]
        means.append(sum(one.regret for one in found) / len(found))
    assert means[1] < 0.6 * means[0]
