import dataclasses
import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from analysis_samples import BETA, PARAMETERS, RATIOS, known_noise, law, published, result, study
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from tuneopt.analysis import as_table, read_runs, summary
from tuneopt.analysis.noise import NoiseModel, measure
from tuneopt.analysis.scaling import fit
from tuneopt.analysis.speedup import IntervalSettings, Speedup, baseline_laws, falls, speedups
from tuneopt.analysis.winner import winners
from tuneopt.spec import SCALES, InputError

SILENT = NoiseModel({})

SEEDS_ONLY = IntervalSettings(tuning=0.0, drift=0.0)
"""Perfect tuning and a law that is known to be one power law: what is left is the noise between seeds."""


def by_name(found: tuple[Speedup, ...], name: str) -> list[Speedup]:
    return [item for item in found if item.optimizer == name]


def test_a_choice_by_single_runs_is_as_uncertain_as_one_run() -> None:
    """The study's 0.003 nats at its noise, sigma where runs are noisier, and what is declared in its place."""
    assert IntervalSettings().tuning_error(0.0012) == pytest.approx(0.003 / 1.645)
    assert IntervalSettings().tuning_error(0.02) == pytest.approx(0.02)
    assert IntervalSettings(tuning=0.0).tuning_error(0.02) == 0.0


@settings(deadline=None, max_examples=40)
@given(st.floats(0.6, 3.0))
def test_a_true_speedup_is_recovered_at_every_ratio(speed: float) -> None:
    # On an edge itself rounding decides what is inside.
    assume(all(abs(ratio * speed / edge - 1) > 1e-4 for ratio in RATIOS for edge in (1 / 1.02, 8 * 1.02)))
    found = by_name(speedups(study({"adamw": 1.0, "muon": speed}), SILENT), "muon")
    assert [item.speedup for item in found] == pytest.approx([speed] * 4, rel=1e-4)
    assert all(item.low is None and item.high is None for item in found)
    beyond = [item.regime.ratio for item in found if "extrapolated" in item.flags]
    inside = [ratio for ratio in RATIOS if 1 / 1.02 <= ratio * speed <= 8 * 1.02]
    assert beyond == [ratio for ratio in RATIOS if ratio not in inside]


def test_intervals_hold_the_estimate_and_grow_with_noise_and_extrapolation() -> None:
    results = study({"adamw": 1.0, "muon": 1.3})
    narrow = by_name(speedups(results, known_noise(0.001, results), SEEDS_ONLY), "muon")
    wide = by_name(speedups(results, known_noise(0.002, results), SEEDS_ONLY), "muon")
    for one, other in zip(narrow, wide, strict=True):
        assert one.low is not None and one.high is not None and other.low is not None and other.high is not None
        assert one.low < one.speedup < one.high
        assert other.high - other.low > 1.5 * (one.high - one.low)
    widths = [item.high - item.low for item in narrow]  # type: ignore[operator]
    assert widths[-1] > 2 * widths[0]


def test_more_seeds_narrow_and_few_replicates_widen_an_interval() -> None:
    results = study({"adamw": 1.0, "muon": 1.3})
    more = [dataclasses.replace(item, runs=4) for item in results]

    def width(items: list, freedom: int | None = None) -> float:
        item = by_name(speedups(items, known_noise(0.001, items, freedom), SEEDS_ONLY), "muon")[0]
        assert item.low is not None and item.high is not None
        return item.high - item.low

    assert width(more) == pytest.approx(width(results) / 2, rel=0.15)
    assert width(results, freedom=3) > 1.25 * width(results)
    assert width(results, freedom=500) == pytest.approx(width(results), rel=0.1)


def test_a_seed_fixes_the_intervals_whatever_else_is_in_the_table() -> None:
    results = study({"adamw": 1.0, "muon": 1.3})
    other = [result(item.optimizer, item.regime.ratio, item.loss, scale="300m") for item in results]
    alone = speedups(results, known_noise(0.001, results), IntervalSettings(seed=3))
    assert alone == speedups(results, known_noise(0.001, results), IntervalSettings(seed=3))
    assert alone != speedups(results, known_noise(0.001, results), IntervalSettings(seed=4))
    both = speedups([*other, *results], known_noise(0.001, [*other, *results]), IntervalSettings(seed=3))
    assert tuple(item for item in both if item.regime.scale == "130m") == alone


def test_intervals_do_not_hang_on_the_last_bits_of_losses_and_noise() -> None:
    """Machines add up in other orders: a sigma that ends in other bits must not draw other random numbers."""
    results = study({"adamw": 1.0, "muon": 1.3})
    nudged = [dataclasses.replace(item, loss=item.loss * (1 + 2e-16)) for item in results]
    assert nudged != results
    here = speedups(results, known_noise(0.003, results, 5))
    there = speedups(nudged, known_noise(0.003 * (1 + 2e-16), nudged, 5))
    assert 0.003 * (1 + 2e-16) != 0.003
    for one, other in zip(here, there, strict=True):
        assert (one.low, one.high) == pytest.approx((other.low, other.high), rel=1e-6)


def test_under_the_floor_the_speedup_is_a_lower_bound() -> None:
    results = [*study({"adamw": 1.0}), result("magic", 2, BETA - 0.01)]
    for noise in (SILENT, known_noise(0.001, results)):
        (item,) = by_name(speedups(results, noise), "magic")
        assert "lower bound" in item.flags and item.effective_tokens is None
        assert item.speedup >= 4.0  # the baseline's longest run, 8x, is worse than this run at 2x
        assert np.isfinite(item.speedup) and item.high is None
        assert item.low is None or item.low <= item.speedup
    assert "open above" in item.flags


def test_near_the_floor_the_interval_is_open_above() -> None:
    """However low its loss, all that a result beyond the law's reach is known to be worth is the longest run."""
    results = [*study({"adamw": 1.0}), result("fast", 8, BETA + 0.0015), result("faster", 4, BETA + 0.0015)]
    speeds = speedups(results, known_noise(0.001, results))
    for name, worth in (("fast", 1.0), ("faster", 2.0)):
        (item,) = by_name(speeds, name)
        assert item.low == item.speedup == worth and item.high is None
        assert {"lower bound", "open above"} <= set(item.flags)


@pytest.mark.parametrize(("sigma", "worth"), [(0.003, 6), (0.02, 9), (0.03, 6), (0.2, 2)])
def test_no_end_of_an_interval_lies_where_no_run_says_anything(sigma: float, worth: float) -> None:
    """At the noise of small models the law's tail put the end of an interval at 22 million."""
    rival = result("fast", 1, float(law(20 * PARAMETERS * worth)))
    results = [*study({"adamw": 1.0}), rival]
    (item,) = by_name(speedups(results, known_noise(sigma, results)), "fast")
    assert ("open above" in item.flags) == (item.high is None)
    assert item.high is None or item.speedup <= item.high <= 16 * 8
    assert (item.high is None) == (sigma >= 0.02) and (item.speedup == 0) == ("no law" in item.flags)


def test_a_speedup_of_which_an_interval_says_nothing_has_no_law() -> None:
    """At this noise anything from a hundredth to a hundred times the tokens explains the loss."""
    results = [*study({"adamw": 1.0}), result("fast", 1, float(law(40 * PARAMETERS)))]
    for sigma, known in ((0.02, True), (1.0, False)):
        (item,) = by_name(speedups(results, known_noise(sigma, results)), "fast")
        assert ("no law" in item.flags) != known and ("lower bound" not in item.flags or known)
        (base,) = baseline_laws(results, known_noise(sigma, results))
        assert falls(base, known_noise(sigma, results)) == known


def test_a_speedup_that_no_run_says_anything_of_is_a_lower_bound() -> None:
    results = [
        *study({"adamw": 1.0}),
        *(result(f"by {far}", 1, float(law(160 * PARAMETERS * far))) for far in (12, 20)),
    ]
    near, (beyond,) = (by_name(speedups(results, SILENT), f"by {far}") for far in (12, 20))
    assert near[0].speedup == pytest.approx(96, rel=0.01) and near[0].flags == ("extrapolated",)
    assert beyond.speedup == 8.0 and "lower bound" in beyond.flags and beyond.effective_tokens is None


def test_two_ratios_bend_as_loss_laws_do_and_one_gives_nothing() -> None:
    two = speedups(study({"adamw": 1.0, "muon": 1.2}, ratios=(1, 2)), SILENT)
    assert all("interpolated" in item.flags for item in two)
    base = study({"adamw": 1.0}, ratios=(1, 2))
    between = result("muon", 1, (base[0].loss + base[1].loss) / 2)
    (found,) = by_name(speedups([*base, between], SILENT), "muon")
    # A law of exponent 0.4 through both points; a straight line in log D would say sqrt(2), the true law 1.373.
    middle = (1 + 2**-0.4) / 2
    assert found.speedup == pytest.approx(middle ** (-1 / 0.4), rel=1e-4)
    assert speedups(study({"adamw": 1.0, "muon": 1.2}, ratios=(1,)), SILENT) == ()
    assert speedups(study({"muon": 1.2}), SILENT) == ()


def test_two_ratios_leave_the_bend_of_the_law_open() -> None:
    """Two points show no bend: the interval must hold what laws of other exponents through both say."""
    rng = np.random.default_rng(4)
    hits = []
    for number in range(60):
        results = study({"adamw": 1.0, "muon": 1.35}, ratios=(1, 2), noise=lambda: 0.0012 * rng.standard_normal())
        how = IntervalSettings(draws=200, seed=number, tuning=0.0)
        for item in by_name(speedups(results, known_noise(0.0012, results), how), "muon"):
            assert item.low is not None and item.low <= item.speedup <= (item.high or np.inf)
            hits.append(item.low <= 1.35 <= (item.high or np.inf))
    assert np.mean(hits) >= 0.9


def test_another_baseline_and_corpora_apart() -> None:
    results = study({"adamw": 1.0, "muon": 1.25})
    found = by_name(speedups(results, SILENT, IntervalSettings(baseline="muon")), "adamw")
    assert [item.speedup for item in found] == pytest.approx([0.8] * 4, rel=1e-4)
    moved = [dataclasses.replace(item, regime=item.regime._replace(corpus="other")) for item in results]
    assert len(baseline_laws([*results, *moved], SILENT)) == 2
    assert len(speedups([*results, *moved], SILENT)) == 16


def test_the_baseline_is_once_as_fast_as_itself_whatever_its_law_misses() -> None:
    bent = [result("adamw", ratio, loss) for ratio, loss in ((1, 3.53), (2, 3.40), (4, 3.36), (8, 3.25), (16, 3.24))]
    twin = replace(bent[2], optimizer="twin")
    for noise in (SILENT, known_noise(0.0012, bent)):
        found = speedups([*bent, twin], noise)
        own, rival = by_name(found, "adamw"), by_name(found, "twin")[0]
        assert [item.speedup for item in own] == [1.0] * 5 and all(item.flags in ((), ("open above",)) for item in own)
        assert all(item.effective_tokens == 20 * item.regime.ratio * 134_217_728 for item in own)
        assert rival.speedup < 0.95  # who ends where the baseline's law does not pass is judged by the law
        assert noise is SILENT or all(item.low <= 1 <= (item.high or np.inf) for item in own)  # type: ignore[operator]


@pytest.mark.parametrize("level", [0, 1, 1.5, float("nan")])
def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(InputError, match="level"):
        speedups(study({"adamw": 1.0}), SILENT, IntervalSettings(level=level))


def test_tables_of_values() -> None:
    table = as_table(speedups(study({"adamw": 1.0, "muon": 1.2}), SILENT))
    assert table.num_rows == 8
    assert {"optimizer", "scale", "ratio", "speedup", "low", "high", "flags"} <= set(table.column_names)


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(7)
    speeds = {"adamw": 1.0, "soap": 1.15, "muon": 1.3}
    hits: dict[tuple[str, float], int] = {}
    studies = 400
    for number in range(studies):
        results = study(speeds, noise=lambda: 0.0012 * rng.standard_normal())
        for item in speedups(results, known_noise(0.0012, results), replace(SEEDS_ONLY, draws=400, seed=number)):
            low, high = item.low or 0.0, item.high or np.inf
            key = (item.optimizer, item.regime.ratio)
            hits[key] = hits.get(key, 0) + (low <= speeds[item.optimizer] <= high)
    shares = {key: count / studies for key, count in hits.items()}
    rivals = {key: share for key, share in shares.items() if key[0] != "adamw"}
    assert len(shares) == 12 and len(rivals) == 8
    assert all(0.85 <= share <= 0.95 for share in rivals.values()), shares
    assert 0.88 <= sum(rivals.values()) / len(rivals) <= 0.92
    # The baseline is judged as a rival with its loss would be, but the law knows that loss: its interval is wider.
    assert all(share >= 0.95 for key, share in shares.items() if key[0] == "adamw"), shares


def test_the_study_s_own_method_gives_its_figures() -> None:
    """One power law over all budgets, as in arXiv 2509.02046."""
    runs = read_runs(published("results.json"))
    noise = measure(runs)
    best = {(winner.optimizer, winner.regime.scale, winner.regime.ratio): winner for winner in winners(runs, noise)}
    laws = {known.scale: known.law for known in baseline_laws(best.values(), noise)}
    figures = {("muon", "130m", 1): 1.419, ("muon", "130m", 2): 1.327, ("muon", "130m", 4): 1.320,
               ("muon", "130m", 8): 1.408, ("soap", "520m", 8): 1.267, ("nadamw", "300m", 1): 1.097}  # fmt: skip
    for (name, scale, ratio), speed in figures.items():
        winner = best[name, scale, float(ratio)]
        assert float(laws[scale].budget(winner.loss)) / winner.tokens == pytest.approx(speed, abs=0.002)


def test_a_longer_run_of_the_baseline_stays_within_what_was_said_before_it() -> None:
    """AdamW at 130m and 16x. Its loss is that with which one power law over all budgets gives Muon 1.30 at 8x."""
    rows = published("results.json")
    small = [row for row in rows if row["scale"] == "130m"]

    def longer(loss: float) -> list[dict[str, Any]]:
        return [*small, {**next(row for row in small if row["optimizer"] == "adamw"), "ratio": 16, "loss": loss}]

    muon = next(row["loss"] for row in small if (row["optimizer"], row["ratio"]) == ("muon", 8))
    base = sorted((row["ratio"], row["loss"]) for row in small if row["optimizer"] == "adamw")

    def one_law(loss: float) -> float:
        ratios, losses = zip(*base, (16, loss), strict=True)
        return float(fit(np.array(ratios, float), losses).budget(muon)) / 8 - 1.30

    loss = float(brentq(one_law, 3.19, 3.225))
    before, after = (
        {(item["optimizer"], item["ratio"]): item for item in summary(table)["speedups"]}
        for table in (small, longer(loss))
    )
    told, now = before["muon", 8.0], after["muon", 8.0]
    assert "extrapolated" in told["flags"] and told["settled_by"] == 16 and "extrapolated" not in now["flags"]
    line = 2 ** ((base[-1][1] - muon) / (base[-1][1] - loss))
    assert line == pytest.approx(1.353, abs=0.002)
    for speed in (now["speedup"], 1.30, line):  # what the run itself, one law and a straight line then say
        assert told["low"] < speed < told["high"]
    assert now["low"] < 1.30 < line < now["high"] and now["bound_low"] <= now["speedup"] <= now["bound_high"]
    assert now["high"] - now["low"] < 0.45 * (told["high"] - told["low"])
    assert told["low"] > 1.2 and told["high"] < 1.8
    for table in (before, after):
        own = [item for (name, _), item in table.items() if name == "adamw"]
        assert all(item["low"] < 1 < item["high"] and abs(item["speedup"] - 1) < 0.03 for item in own)
    settled = [item for (_, ratio), item in after.items() if ratio == 8]
    assert len(settled) == 11
    assert all(before[key]["low"] < after[key]["speedup"] < (before[key]["high"] or np.inf) for key in before)


def test_the_published_study() -> None:
    document = summary(published("results.json"))
    found = {(item["optimizer"], item["scale"], item["ratio"]): item for item in document["speedups"]}
    assert len(found) == 126
    expected = {1: 1.419, 2: 1.327, 4: 1.320, 8: 1.408}
    for ratio, speed in expected.items():
        assert found["muon", "130m", ratio]["speedup"] == pytest.approx(speed, abs=0.01)
    assert found["soap", "520m", 8]["speedup"] == pytest.approx(1.279, abs=0.01)
    assert found["nadamw", "300m", 1]["speedup"] == pytest.approx(1.097, abs=0.01)
    assert found["muon", "130m", 1]["high"] - found["muon", "130m", 1]["low"] < 0.09  # between two runs of AdamW
    for item in found.values():
        assert item["low"] <= item["speedup"] <= (item["high"] or np.inf)
        assert item["optimizer"] != "adamw" or item["low"] < 1 < item["high"]
        beyond = item["speedup"] * item["ratio"] > 8 * 1.02 or item["speedup"] * item["ratio"] < 1 / 1.02
        assert ("extrapolated" in item["flags"]) == beyond == (item["settled_by"] is not None)
    assert all(0.8 <= item["speedup"] <= 1.6 for item in found.values() if item["scale"] == "130m")
    for name in ("muon", "soap", "kron", "scion"):  # matrix optimizers lead, and by less at larger scales
        means = [np.mean([found[name, scale, ratio]["speedup"] for ratio in RATIOS]) for scale in ("130m", "520m")]
        assert 1.4 > means[0] > means[1] > 1.1
    assert all(0.98 < found["adamw", scale, ratio]["speedup"] < 1.02 for scale in ("130m", "300m") for ratio in RATIOS)
    assert all(law["kind"] == "power" and 0.3 < law["exponent"] < 0.6 for law in document["laws"])
    floors = {law["scale"]: law["beta"] for law in document["laws"]}
    assert 3.2 > floors["130m"] > floors["300m"] > floors["520m"] > 2.6
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert set(floors) <= set(SCALES)
