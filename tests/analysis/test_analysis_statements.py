"""The first screen's sentences, and costs."""

import dataclasses
import re

import pytest
from analysis_samples import known_noise, result, study

from tuneopt.analysis.costs import costs, pareto
from tuneopt.analysis.inputs import from_rows
from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.ranking import rankings
from tuneopt.analysis.runs import TrainingRun
from tuneopt.analysis.speedup import IntervalSettings, speedups
from tuneopt.analysis.statements import Statement, noise_line, statements
from tuneopt.analysis.study import analyse
from tuneopt.analysis.winner import Winner

SILENT = NoiseModel({})


def state(results: list[Winner], noise: NoiseModel | None = None) -> tuple[Statement, ...]:
    noise = known_noise(0.0012, results) if noise is None else noise
    return statements(results, rankings(results, noise), speedups(results, noise, IntervalSettings(draws=300)), noise)


def test_a_clear_winner_is_named_with_its_lead() -> None:
    (found,) = state(study({"adamw": 1.0, "muon": 1.4, "lion": 0.9}))
    assert found.regime.ratio == 8 and found.leaders == ("muon",) and found.compared == 3
    (gain,) = found.gains
    assert gain.speedup == pytest.approx(1.4, rel=1e-3) and gain.low < 1.4 < gain.high  # type: ignore[operator]
    # The 90% interval of a difference of two single runs is 1.645 * sqrt(2) * sigma to each side.
    assert gain.nats_high - gain.nats == pytest.approx(1.645 * 2**0.5 * 0.0012, rel=1e-3)  # type: ignore[operator]
    assert gain.nats - gain.nats_low == pytest.approx(gain.nats_high - gain.nats)  # type: ignore[operator]
    assert found.sentence.startswith(
        f"At 130m/8x muon is the best of 3 optimizers by more than noise explains, {gain.nats:.4f} nats under adamw; "
        f"speedup over it, with 90% intervals: muon 1.40 [{gain.low:.2f}, {gain.high:.2f}]"
    )


def test_what_is_extrapolated_says_so_and_names_what_was_measured_and_the_run_that_settles_it() -> None:
    (found,) = state(study({"adamw": 1.0, "muon": 1.4, "lion": 0.9}))
    (gain,), (measured,) = found.gains, found.bracketed
    assert gain.extrapolated and gain.settled_by == 16 and found.bracketed_ratio == 4 and not measured.extrapolated
    assert found.sentence.endswith(
        f"muon 1.40 [{gain.low:.2f}, {gain.high:.2f}] (extrapolated). Between runs of adamw, at 130m/4x: muon 1.40 "
        f"[{measured.low:.2f}, {measured.high:.2f}]. A run of adamw at 130m/16x would settle what is extrapolated."
    )
    longer = [*study({"adamw": 1.0, "muon": 1.4, "lion": 0.9}), *study({"adamw": 1.0}, ratios=(16,))]
    (settled,) = state(longer)
    assert settled.regime.ratio == 8 and "extrapolated" not in settled.sentence and settled.bracketed == ()
    (slow,) = state(study({"adamw": 1.0, "muon": 0.7}))
    assert "extrapolated" not in slow.sentence  # adamw leads: nothing is said of a speedup
    magic = state([*study({"adamw": 1.0}), result("magic", 8, 3.0)])[0]
    assert (
        "magic at least" in magic.sentence
        and "(extrapolated)" in magic.sentence
        and "adamw at 130m/32x" in magic.sentence
    )


def test_a_line_says_what_half_and_twice_the_noise_would_change() -> None:
    results = study({"adamw": 1.0, "muon": 1.4, "soap": 1.28, "lion": 0.9})
    noise = known_noise(0.0012, results)
    gap = [item.loss for item in results if item.optimizer in ("muon", "soap")][-2:]
    assert 2 * 0.0012 < gap[1] - gap[0] < 6 * 0.0012
    assert [state(results, noise.scaled(factor))[0].leaders for factor in (0.5, 1, 2)] == [
        ("muon",), ("muon",), ("muon", "soap")
    ]  # fmt: skip
    assert noise_line(results, state(results, noise), noise) == (
        "If sigma (0.0012 nats) were half as large, no best group named here would change. "
        "If it were twice as large, the best group would change at 130m/8x (with soap)."
    )
    calm = study({"adamw": 1.0, "muon": 2.0})
    assert noise_line(calm, state(calm), known_noise(0.0012, calm)) == (
        "No best group named here would change if sigma (0.0012 nats) were half or twice as large."
    )
    assert noise_line(calm, state(calm, SILENT), SILENT) == ""


def test_a_group_is_named_and_never_a_lone_winner() -> None:
    (found,) = state(study({"adamw": 1.0, "muon": 1.4, "soap": 1.39, "lion": 0.9}))
    assert found.leaders == ("muon", "soap")
    assert "muon and soap share the best group of 4 optimizers" in found.sentence
    assert "is the best" not in found.sentence and [gain.optimizer for gain in found.gains] == ["muon", "soap"]


def test_a_group_that_holds_the_baseline_claims_nothing() -> None:
    (found,) = state(study({"adamw": 1.0, "nadamw": 1.005, "lion": 0.7}))
    assert set(found.leaders) == {"adamw", "nadamw"}
    assert found.sentence == (
        "At 130m/8x nadamw and adamw share the best group of 3 optimizers: no optimizer is shown to beat adamw."
    )
    (alone,) = state(study({"adamw": 1.0, "lion": 0.5}))
    assert alone.leaders == ("adamw",) and alone.gains == ()
    assert alone.sentence == "At 130m/8x adamw is the best of 2 optimizers by more than noise explains."
    (all_,) = state(study({"adamw": 1.0, "nadamw": 1.001}))
    assert "none of the 2 optimizers (nadamw and adamw) can be told from the best" in all_.sentence


def test_without_noise_law_or_baseline_it_says_so() -> None:
    results = study({"adamw": 1.0, "muon": 1.4})
    (silent,) = state(results, SILENT)
    assert silent.leaders == () and "noise is not known, so no best optimizer can be named" in silent.sentence
    (one,) = state(study({"adamw": 1.0, "muon": 1.4}, ratios=(1,)))
    assert one.gains[0].speedup is None and "nats under adamw, with 90% intervals: muon 0.0" in one.sentence
    (none,) = state(study({"muon": 1.4, "soap": 1.0}))
    assert none.gains == () and "adamw has no result there" in none.sentence
    (lone,) = state(study({"muon": 1.4}))
    assert "nothing to compare" in lone.sentence
    short = study({"muon": 1.4, "soap": 1.0}, ratios=(1, 2))
    (found,) = state([*short, *study({"muon": 1.4}, ratios=(8,))])
    assert (found.regime.ratio, found.compared) == (2, 2), "a lone result at a larger ratio says nothing"


def test_a_long_group_gives_its_ends_and_a_floor_its_bound() -> None:
    many = {f"o{number}": 1.4 - number / 900 for number in range(6)}
    (found,) = state(study({"adamw": 1.0, **many}))
    assert len(found.leaders) == 6 and "from the first to the last, o0 1.40" in found.sentence
    assert "o5 1.39" in found.sentence and "o3 1." not in found.sentence
    magic = [*study({"adamw": 1.0}), result("magic", 8, 3.0)]
    assert "magic at least" in state(magic)[0].sentence


def test_a_scale_is_judged_where_most_of_it_was_run() -> None:
    results = study({"adamw": 1.0, "muon": 1.4, "soap": 1.2, "kron": 1.1})
    only = [item for item in results if item.regime.ratio < 8 or item.optimizer == "adamw"]
    assert state(only)[0].regime.ratio == 4
    gone = [item for item in results if item.regime.ratio < 8 or item.optimizer != "adamw"]
    assert state(gone)[0].regime.ratio == 4
    two = [*results, *(dataclasses.replace(item, regime=item.regime._replace(scale="300m")) for item in results)]
    assert [found.regime.scale for found in state(two)] == ["130m", "300m"]


def ran(item: Winner, seconds: float | None, flops: float | None = None, peak: float | None = None) -> TrainingRun:
    return TrainingRun(
        item.trials[0], item.optimizer, item.regime, item.parameters, item.tokens, (), 0, "completed",
        item.loss, item.loss, seconds=seconds, flops=flops, peak_bytes=peak,
    )  # fmt: skip


def test_a_token_speedup_that_costs_more_time_than_it_saves() -> None:
    results = study({"adamw": 1.0, "soap": 1.3})
    pace = {"adamw": 100.0, "soap": 150.0}
    runs = [ran(item, pace[item.optimizer] * item.regime.ratio, 1e15 * item.regime.ratio, 1e9) for item in results]
    found = costs(results, runs, speedups(results, SILENT))
    for cost in found:
        if cost.optimizer == "soap":
            assert cost.speedup == pytest.approx(1.3, rel=1e-3) and cost.speedup_flops == pytest.approx(1.3, rel=1e-3)
            assert cost.speedup_seconds == pytest.approx(1.3 * 100 / 150, rel=1e-3)
            assert dict(cost.ranks) == {
                "loss": 1, "seconds": 2, "flops": 1, "peak_bytes": 1, "checkpoint_bytes": None,
                "speedup_seconds": 2, "speedup_flops": 1,
            }  # fmt: skip
            assert cost.seconds == 150 * cost.regime.ratio


def test_costs_are_means_over_seeds_and_none_where_nothing_was_measured() -> None:
    item = dataclasses.replace(result("adamw", 1, 3.5), runs=2, trials=("a", "b"))
    runs = [dataclasses.replace(ran(item, 10.0), trial="a"), dataclasses.replace(ran(item, 14.0), trial="b")]
    (cost,) = costs([item], runs, ())
    assert cost.seconds == 12 and cost.speedup is None and cost.speedup_seconds is None and cost.flops is None
    (bare,) = costs([item], [], ())
    assert bare.seconds is None and pareto([item], [bare]) == ()


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    results = [
        result("a", 1, 3.4), result("b", 1, 3.5), result("c", 1, 3.3), result("a", 2, 3.35), result("d", 1, 3.4),
        result("a", 1, 3.9, scale="300m"),
    ]  # fmt: skip
    seconds = (10.0, 5.0, 40.0, 50.0, 20.0, 99.0)
    runs = [ran(item, each) for item, each in zip(results, seconds, strict=True)]
    points = pareto(results, costs(results, runs, ()))
    front = {(point.optimizer, point.regime.label) for point in points if point.front}
    assert front == {("b", "130m/1x"), ("a", "130m/1x"), ("c", "130m/1x"), ("a", "300m/1x")}
    for point in points:  # the definition, pair by pair
        rivals = [each for each in points if each.regime[:2] == point.regime[:2]]
        beaten = any(each.seconds <= point.seconds and each.loss < point.loss for each in rivals) or any(
            each.seconds < point.seconds and each.loss <= point.loss for each in rivals
        )
        assert point.front != beaten


def test_a_gain_in_nats_has_the_digits_of_its_error() -> None:
    results = study({"adamw": 1.0, "muon": 2.0})
    known = {sigma: state(results, known_noise(sigma, results))[0].sentence for sigma in (0.0012, 0.012)}
    under = {sigma: re.search(r"([\d.]+) nats under", words)[1] for sigma, words in known.items()}  # type: ignore[index]
    assert [len(number.partition(".")[2]) for number in under.values()] == [4, 3]


def test_who_diverged_at_a_budget_is_not_said_to_have_had_another() -> None:
    rows = [{"optimizer": name, "scale": "130m", "ratio": ratio, "loss": loss}
            for name, ratio, loss in (("adamw", 2, 3.3), ("muon", 1, 3.35), ("muon", 2, None))]  # fmt: skip
    told = " ".join(one.sentence for one in analyse(from_rows(rows), draws=50, sigma=0.002).statements)
    assert "have results only with other budgets" in told and "were run with" not in told
