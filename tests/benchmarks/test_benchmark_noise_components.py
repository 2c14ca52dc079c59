"""The page on noise says what its script prints, and the script finds components that were put in."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("noise_components", ROOT / "benchmarks" / "noise_components.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_holds_the_tables_that_the_script_prints(script, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.argv", ["noise_components.py"])
    script.main()
    page = (ROOT / "docs" / "noise.md").read_text()
    parts = [part.strip() for part in capsys.readouterr().out.strip().split("\n\n")]
    assert len(parts) == 6 and all(part in page for part in parts)


def test_components_that_were_put_in_are_found(script) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 1)) * 3 + rng.normal(size=(1, 50)) * 2 + rng.normal(size=(60, 50))
    parts = script.components(x)
    for name, truth in (("weights", 3), ("order", 2), ("rest", 1), ("both", 14**0.5), ("only order", 5**0.5)):
        estimate, low, high = parts[name]
        assert estimate == pytest.approx(truth, rel=0.25) and low < estimate < high
    assert max(script.tests(x)) < 1e-6


def test_intervals_of_a_small_design_hold_the_truth(script) -> None:
    rng, hits = np.random.default_rng(1), []
    script.DRAWS = 2000
    for _ in range(300):
        x = rng.normal(size=(4, 1)) + rng.normal(size=(1, 3)) + rng.normal(size=(4, 3))
        parts = script.components(x)
        hits.append([parts[n][1] <= t <= parts[n][2] for n, t in (("order", 1), ("rest", 1), ("both", 3**0.5))])
    assert (np.mean(hits, axis=0) > 0.86).all()


def test_the_f_test_is_that_of_a_two_way_layout(script) -> None:
    x = np.random.default_rng(2).normal(size=(4, 3))
    rows = x.mean(1) - x.mean()
    rest = x - x.mean(1)[:, None] - x.mean(0) + x.mean()
    f = (3 * (rows**2).sum() / 3) / ((rest**2).sum() / 6)
    assert script.tests(x)[0] == pytest.approx(stats.f.sf(f, 3, 6))
