"""What a whole table shows, what a target takes, compute over sizes, and seconds by medians."""

import pytest
from analysis_samples import public_table
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.analysis.costs import paces
from tuneopt.analysis.inputs import from_rows, load, published
from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.study import Analysis, analyse
from tuneopt.analysis.targets import TargetTrial, ToTarget, differ, scores, to_target
from tuneopt.reporting.answer import answer
from tuneopt.spec import InputError


@pytest.fixture(scope="module")
def study() -> Analysis:
    return analyse(published(), draws=300)


def test_the_two_findings_of_the_published_study(study: Analysis) -> None:
    (family,) = [one for one in study.findings if one.kind == "family"]
    assert (family.count, family.of, family.optimizers) == (12, 12, ("kron", "muon", "scion", "soap"))
    assert "take the first four places in all twelve regimes" in family.sentence
    trends = {one.scales: (one.count, one.of) for one in study.findings if one.kind == "trend"}
    assert trends == {("130m", "520m"): (4, 4), ("300m", "520m"): (0, 4)}
    missing = [one for one in study.findings if one.kind == "missing"]
    assert missing[0].scales == ("1.2b",) and "no result at 1.2B" in missing[0].sentence


def test_the_findings_go_on_where_only_some_optimizers_ran() -> None:
    """At 1.2b and 16x there are two of the four matrix optimizers: first places are counted where all four ran."""
    findings = analyse(published(further=True), draws=300).findings
    (family,) = [one for one in findings if one.kind == "family"]
    assert (family.count, family.of) == (12, 12)
    assert "take the first four places in all twelve regimes that had all of them, in four of them" in family.sentence
    trends = {one.scales: (one.count, one.of) for one in findings if one.kind == "trend"}
    assert trends == {("130m", "1.2b"): (4, 4), ("520m", "1.2b"): (4, 4)}
    (missing,) = [one for one in findings if one.kind == "missing"]
    assert missing.sentence.endswith("Adam-mini, Cautious, Kron, Lion, MARS and Scion in twelve; Sophia in six.")


def test_one_run_without_a_schedule_says_what_shorter_ones_end_with() -> None:
    curve = [[0.25, 3.71], [0.5, 3.52], [1.0, 3.4]]  # of a part of the split, on which losses are 0.1 higher
    rows = [{"optimizer": name, "scale": "130m", "ratio": ratio, "loss": loss, "curve": curve if ratio == 4 else None}
            for name in ("schedule_free", "adamw") for ratio, loss in ((1, 3.6), (4, 3.3))]  # fmt: skip

    def told(rows: list[dict[str, object]]) -> list[str]:
        found = analyse(from_rows(rows), draws=50).findings
        return [one.sentence for one in found if one.kind == "anytime"]

    assert told(rows) == [
        "Schedule-Free AdamW has no schedule but its warmup, so one run gives every ratio below its own. At 130M that "
        "of 4x passes 3.61 at 1x (a run of that length: 3.60) nats."
    ]
    (alone,) = told([row for row in rows if row["ratio"] == 4])
    assert alone.endswith("passes 3.61 at 1x, 3.42 at 2x nats.")
    assert told([row | {"curve": None} for row in rows]) == []


def test_a_family_that_does_not_lead_is_not_said_to() -> None:
    losses = {"muon": 3.30, "soap": 3.31, "adamw": 3.32, "lion": 3.33}
    rows = [{"optimizer": name, "scale": "130m", "ratio": ratio, "loss": loss - 0.01 * ratio}
            for ratio in (1, 2, 4) for name, loss in losses.items()]  # fmt: skip
    assert [one.kind for one in analyse(from_rows(rows), draws=50).findings] == ["family"]
    for row in rows:
        if row["optimizer"] == "lion" and row["ratio"] != 1:
            row["loss"] = 3.0
    assert analyse(from_rows(rows), draws=50).findings == ()


def race(ends: dict[str, dict[int, list[float]]], target: float = 3.28, **more: object) -> dict[str, ToTarget]:
    """Final losses by optimizer and steps, a seed each; half a million tokens to a step."""
    rows = [
        {"optimizer": name, "scale": "mine", "parameters": 85e6, "tokens": 524_288 * steps, "batch_tokens": 524_288,
         "loss": loss, "seed": seed, "seconds": steps * 0.5} | more
        for name, own in ends.items() for steps, losses in own.items() for seed, loss in enumerate(losses)
    ]  # fmt: skip
    analysis = analyse(from_rows(rows), draws=50, sigma=0.0013, targets=[target])
    return {row.optimizer: row for row in analysis.targets}


def test_a_length_is_accepted_by_the_rule_of_the_track() -> None:
    """(3.28 - mean) sqrt(n) >= 0.004: 0.002 below it takes four runs, 0.004 one, and 0.001 sixteen."""
    found = race({"four": {3000: [3.278] * 4}, "three": {3000: [3.278] * 3}, "one": {3000: [3.2759]},
                  "late": {3000: [3.29] * 9, 3500: [3.27] * 2}, "never": {9000: [3.4] * 4}})  # fmt: skip
    assert {name: (row.steps, row.accepted) for name, row in found.items()} == {
        "four": (3000, True), "three": (3000, False), "one": (3000, True), "late": (3500, True), "never": (None, False)
    }  # fmt: skip
    assert found["four"].tokens == 3000 * 524_288 and found["four"].seconds == 1500
    for row in found.values():
        assert row.low is not None
        assert row.steps is None or (row.high is not None and row.low <= row.steps <= row.high)
    # At 3000 it was 0.01 above, at 3500 0.01 below: the line between them crosses near 3250.
    assert found["late"].low == pytest.approx(3240, rel=0.02)


def test_two_methods_differ_by_the_rule_of_the_track() -> None:
    def row(steps: float, loss: float, runs: int) -> ToTarget:
        return ToTarget("a", "", "s", 3.28, steps, None, None, steps * 5e5, None, loss, runs, True)

    assert differ(row(3250, 3.278, 10), row(3375, 3.278, 10))  # 0.0056 nats of credit over 0.447
    assert not differ(row(3250, 3.278, 1), row(3300, 3.278, 1))  # 0.00225 over 1.41
    assert differ(row(3250, 3.278, 8), row(3250, 3.275, 8))  # 0.003 over 0.5: 0.006
    assert not differ(row(3250, 3.279, 4), row(3275, 3.278, 4))  # 0.001 against a credit of 0.0011


def test_a_table_may_name_its_target_and_tokens_do_without_steps() -> None:
    rows = [{"optimizer": name, "scale": "130m", "ratio": ratio, "loss": loss, "target": 3.3}
            for name, ratio, loss in (("adamw", 1, 3.5), ("adamw", 2, 3.29), ("muon", 1, 3.28))]  # fmt: skip
    found = {row.optimizer: row for row in analyse(from_rows(rows), draws=50).targets}
    assert found["muon"].tokens == 20 * 134_217_728 and found["muon"].steps is None and found["muon"].target == 3.3
    assert found["adamw"].tokens == 2 * found["muon"].tokens
    for target in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="target loss"):
            analyse(from_rows(rows), targets=[target])


def test_the_track_of_the_public_runs() -> None:
    inputs = load(public_table("track3_runs.csv"), {"batch_tokens": "524288"})
    found = {row.optimizer: row for row in analyse(inputs, draws=50, targets=[3.28]).targets}
    steps = {"adamw": 5625, "adamh": 4875, "muon (tuned, #36)": 3250, "one-sided shampoo (#35)": 3375, "muonsq": 3325}
    assert {name: found[name].steps for name in steps} == steps
    assert found["adamh"].accepted and not found["adamw"].accepted  # one run of AdamW, 0.001 under the target
    assert found["muon (lr .035 wd .025, 200 steps fewer)"].steps is None
    assert "adamw" not in found["muon (tuned, #36)"].ties


def trial(optimizer: str, study: str, seconds: float | None, task: str = "ogbg") -> TargetTrial:
    return TargetTrial(optimizer, "", task, "", study, 0.28, None if seconds is None else 3 * seconds, seconds)


def test_a_study_is_its_fastest_trial_and_an_optimizer_the_median_of_studies() -> None:
    times = {"a": [(50, 60), (43, None), (45, 72)], "b": [(None, None), (26, 31), (28, 38)], "c": [(None,)] * 3}
    trials = [trial(name, str(study), seconds) for name, studies in times.items()
              for study, own in enumerate(studies) for seconds in own]  # fmt: skip
    found = {row.optimizer: row for row in to_target((), trials, NoiseModel({}))}
    assert [found[name].seconds for name in "abc"] == [45, 28, None]  # of b's three studies one never ends
    assert (found["a"].steps, found["a"].low, found["a"].high) == (135, 129, 150)
    assert found["b"].high is None and [row.optimizer for row in to_target((), trials, NoiseModel({}))] == [
        "b",
        "a",
        "c",
    ]


@settings(deadline=None)
@given(st.lists(st.floats(min_value=1, max_value=1000), min_size=2, max_size=6))
def test_scores_lie_between_0_and_1_and_the_fastest_everywhere_has_1(times: list[float]) -> None:
    rows = to_target((), [trial(f"o{place}", "0", time) for place, time in enumerate(times)], NoiseModel({}))
    found = scores(rows)
    assert all(0 <= score <= 1 for score in found.values())
    assert found[f"o{times.index(min(times))}"] == 1
    for place, time in enumerate(times):
        assert found[f"o{place}"] == pytest.approx(max(0.0, (4 - time / min(times)) / 3))


def test_algoperfs_logs() -> None:
    analysis = analyse(load(public_table("algoperf_v06.csv")))
    found = {(row.scale, row.optimizer): row for row in analysis.targets if row.ruleset == "external_tuning"}
    assert found["ogbg", "nadamw"].seconds == pytest.approx(4576, abs=1)
    assert found["ogbg", "distributed_shampoo"].seconds == pytest.approx(2868, abs=1)
    vit = [name for (task, name), row in found.items() if task == "imagenet_vit" and row.seconds is not None]
    assert vit == ["distributed_shampoo"]
    board = scores(list(found.values()))
    assert board == {
        "distributed_shampoo": pytest.approx(0.6244, abs=0.002),
        "nadamw": pytest.approx(0.4590, abs=0.002),
    }


def timed(seconds: dict[str, list[float]]) -> Analysis:
    """Trials of one batch size that take so long, at two ratios; the losses are those of a law and a rival."""
    return analyse(
        from_rows(
            [{"optimizer": name, "scale": "130m", "ratio": ratio,
              "loss": 3 + 0.5 * (ratio * fast) ** -0.4 + 0.01 * place, "seconds": ratio * taken,
              "hp_learning_rate": 0.001 * 2**place, "hp_train_batch_size": 128}
             for name, fast in (("adamw", 1.0), ("own", 1.3)) for ratio in (1, 2, 4)
             for place, taken in enumerate(seconds[name])]
        ), draws=100, sigma=0.001,
    )  # fmt: skip


def test_seconds_go_by_the_median_of_all_trials_and_not_by_a_slow_one() -> None:
    """The winner of the baseline ran beside other work: six times slower, which is no property of the optimizer."""
    analysis = timed({"adamw": [600, 100, 100, 100, 101], "own": [120, 120, 121, 119, 120]})
    costs = {(cost.optimizer, cost.regime.ratio): cost for cost in analysis.costs}
    cost = costs["own", 2.0]
    assert cost.speedup == pytest.approx(1.3, rel=0.01) and cost.timed == 5
    assert cost.speedup_seconds == pytest.approx(cost.speedup * 100 / 120, rel=0.02)
    assert cost.speedup_seconds_low < cost.speedup_seconds < cost.speedup_seconds_high
    (warning,) = [one for one in analysis.warnings if "differ in speed" in one]
    assert "adamw at 130m/" in warning
    assert not [one for one in timed({"adamw": [100, 102], "own": [120, 121]}).warnings if "differ in speed" in one]


def test_another_batch_size_is_another_speed() -> None:
    rows = [{"optimizer": "adamw", "scale": "130m", "ratio": 1, "loss": loss, "seconds": taken, "seed": 0,
             "hp_train_batch_size": batch, "hp_learning_rate": rate}
            for batch, rate, loss, taken in ((64, 0.1, 3.4, 10), (64, 0.2, 3.5, 10), (8, 0.1, 3.6, 90),
                                             (8, 0.2, 3.7, 90), (8, 0.4, 3.8, 90))]  # fmt: skip
    analysis = analyse(from_rows(rows), draws=50)
    (pace,) = paces(analysis.winners, from_rows(rows).runs).values()
    assert pace.rate == pytest.approx(20 * 134_217_728 / 10) and pace.trials == 2 and pace.spread == 0


def headline(leaders: dict[float, list[str]], losers: list[str]) -> str:
    """The headline of regimes with these leaders, by ratio; their losses are equal."""
    names = [*dict.fromkeys(name for own in leaders.values() for name in own), *losers]
    rows = [{"optimizer": name, "scale": "130m", "ratio": ratio, "loss": 3.4 if name in own else 3.5}
            for ratio, own in leaders.items() for name in names]  # fmt: skip
    from tuneopt.analysis.document import document

    return answer(document(analyse(from_rows(rows), draws=50))).headline


def test_a_headline_never_names_some_of_many_equals() -> None:
    equals = [f"rule {letter}" for letter in "abcdefghijklmnop"]
    assert headline({1: equals}, ["last"]) == "16 of 17 optimizers tie for the lowest loss at 130M/1x"
    assert headline({1: equals}, []) == "All 16 optimizers tie for the lowest loss at 130M/1x"
    own = {float(2**place): [name] for place, name in enumerate(equals[:8])}
    assert headline(own, []) == ("No optimizer is best everywhere: 8 optimizers lead or tie in 1 of 8 regimes each")
    own = {1.0: ["x"], 2.0: ["x"], 4.0: ["a"], 8.0: ["b"], 16.0: ["c"], 32.0: ["d"]}
    assert headline(own, []) == (
        "No optimizer is best everywhere: x leads or ties in 2 of 6 regimes and 4 others in 1 each"
    )


def test_two_curves_have_no_rank_correlation() -> None:
    def curves(count: int) -> list[float | None]:
        rows = [{"optimizer": f"o{place}", "scale": "130m", "ratio": 1, "loss": 3.4 + 0.1 * place,
                 "curve": [[0.5, 4.0 - 0.1 * place], [1.0, 3.4 + 0.1 * place]]} for place in range(count)]  # fmt: skip
        (order,) = analyse(from_rows(rows), draws=50).orders
        return [tau for tau in order.tau if tau is not None]

    assert curves(2) == []
    assert (curves(3)[0], curves(3)[-1]) == (pytest.approx(-1), pytest.approx(1))


def found(rows: list[dict[str, object]], kind: str) -> list[str]:
    return [one.sentence for one in analyse(from_rows(rows), draws=50, sigma=0.0005).findings if one.kind == kind]


def two_scales(speeds: dict[tuple[str, int], float], **more: object) -> list[dict[str, object]]:
    """AdamW and Muon at two sizes; Muon's speed by scale and ratio."""
    return [
        {"optimizer": name, "scale": scale, "ratio": ratio, "loss": floor + 0.5 * (speed * ratio) ** -0.4} | more
        for (scale, ratio), fast in speeds.items()
        for floor in ({"130m": 3.0, "300m": 2.8}[scale],)
        for name, speed in (("adamw", 1.0), ("muon", fast))
    ]


def test_a_trend_that_goes_both_ways_is_said_both_ways() -> None:
    ratios = (1, 2, 4, 8)
    speeds = {("130m", ratio): 1.2 if ratio < 4 else 1.6 for ratio in ratios}
    speeds |= {("300m", ratio): 1.6 if ratio < 4 else 1.2 for ratio in ratios}
    rows = two_scales(speeds) + [
        {"optimizer": "adamw", "scale": scale, "ratio": 16, "loss": floor + 0.5 * 16**-0.4}
        for scale, floor in (("130m", 3.0), ("300m", 2.8))
    ]
    (told,) = found(rows, "trend")
    assert "falls from 130M to 300M at two of four ratios and rises at two of them by more" in told


def test_of_several_corpora_each_finding_names_its_own() -> None:
    rows = []
    for corpus, (small, large) in (("web", (1.2, 1.6)), ("code", (1.6, 1.2))):
        speeds = {(scale, ratio): speed for scale, speed in (("130m", small), ("300m", large)) for ratio in (1, 2, 4)}
        rows += two_scales(speeds, corpus=corpus)
    assert sorted(sentence.split(" from")[0] for sentence in found(rows, "trend")) == [
        "On code: The speedup of Muon falls", "On web: The speedup of Muon rises"
    ]  # fmt: skip


def test_a_family_takes_no_more_places_than_it_ran_for() -> None:
    pairs = {1: ("muon", "soap"), 2: ("muon", "kron"), 4: ("soap", "kron")}
    rows = [{"optimizer": name, "scale": "130m", "ratio": ratio, "loss": 3.5 - 0.1 * ratio - 0.01 * place}
            for ratio, pair in pairs.items() for place, name in enumerate(("adamw", *pair))]  # fmt: skip
    (told,) = found(rows, "family")
    assert told.startswith(
        "Of the three matrix optimizers (Kron, Muon and SOAP), those with a result take the first places in all three"
    )


def test_who_has_one_result_is_among_those_that_lack_some() -> None:
    ran = {"adamw": (1, 2, 4), "muon": (1, 2, 4), "soap": (1, 2), "lion": (2,)}
    rows = [{"optimizer": name, "scale": "130m", "ratio": ratio, "loss": 3.5 - 0.1 * ratio}
            for name, ratios in ran.items() for ratio in ratios]  # fmt: skip
    assert found(rows, "missing") == [
        "Not every optimizer has a result in all three regimes: SOAP in two; Lion in one."
    ]  # fmt: skip
