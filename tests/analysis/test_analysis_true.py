"""Statements that must be true on anybody's table: each test is a small table of a kind about which one was false."""

import math
import re
from pathlib import Path

import pytest
from analysis_samples import public_table

from tuneopt.analysis.comparison import one_place_statement
from tuneopt.analysis.document import document
from tuneopt.analysis.inputs import from_rows, load
from tuneopt.analysis.speedup import above_one
from tuneopt.analysis.study import Analysis, analyse


def law(tokens_ratio: float) -> float:
    return 3.0 + 0.5 * tokens_ratio**-0.4


def rated(losses: dict[tuple[float, float], float]) -> Analysis:
    """AdamW's losses by ratio and learning rate."""
    return analyse(
        from_rows(
            [{"optimizer": "adamw", "scale": "mine", "parameters": 1e8, "ratio": ratio, "loss": loss,
              "hp_learning_rate": rate} for (ratio, rate), loss in losses.items()]
        ), draws=50, sigma=0.001,
    )  # fmt: skip


def tuned_at(*ratios: float) -> dict[tuple[float, float], float]:
    return {(ratio, 0.004): law(ratio) for ratio in ratios}


def test_a_manufactured_speedup_is_stated_only_where_the_baseline_was_trained() -> None:
    """At 4x, losses of the tuned baseline at 2x and at 0.5x: the first is measured, the second was never trained."""
    analysis = rated(tuned_at(1, 2, 4) | {(4, 0.002): law(2), (4, 0.001): law(0.5), (1, 0.001): law(0.5)})
    rows = {(row.regime.ratio, row.what): row for row in analysis.undertuned if row.status == "trial"}
    assert rows[4, "learning_rate = 0.002"].manufactured == pytest.approx(2, rel=1e-3)
    beyond = rows[4, "learning_rate = 0.001"]
    assert beyond.manufactured is None and beyond.low is None and beyond.at_least == pytest.approx(4)
    least = rows[1, "learning_rate = 0.001"]
    assert least.manufactured is None and least.at_least is None  # nothing at all was measured below 1x


@pytest.mark.parametrize("ratios", [(1, 2), (1, 2, 4)])
def test_a_run_far_above_the_others_is_broken_and_manufactures_nothing(ratios: tuple[float, ...]) -> None:
    analysis = rated(tuned_at(*ratios) | {(1, 0.1): 6.9, (1, 0.002): law(1) + 0.01})
    (broken,) = [row for row in analysis.undertuned if row.what == "learning_rate = 0.1"]
    assert (broken.status, broken.manufactured, broken.at_least) == ("broken", None, None)
    assert broken.loss == 6.9
    assert all(row.manufactured is None or row.manufactured < 100 for row in analysis.undertuned)


def test_among_many_runs_the_rest_says_what_is_far() -> None:
    rates = [0.0005 * 2**step for step in range(10)]
    losses = tuned_at(1, 2, 4) | {
        (4, rate): law(4) + 0.004 * place for place, rate in enumerate(rates) if rate != 0.004
    }
    analysis = rated(losses | {(4, 0.7): law(4) + 0.6})
    status = {row.what: row.status for row in analysis.undertuned if row.regime.ratio == 4}
    assert status["learning_rate = 0.7"] == "broken" and status["learning_rate = 0.256"] == "trial"


def test_seeds_are_no_configurations() -> None:
    rows = [
        {"optimizer": name, "scale": "130m", "ratio": 1, "loss": 3.4 + 0.001 * seed, "seed": seed}
        for name, seeds in (("adamw", 1), ("muon", 30))
        for seed in range(seeds)
    ]
    budgets = {one.optimizer: (one.configurations, one.trials) for one in analyse(from_rows(rows), draws=50).budgets}
    assert budgets == {"adamw": (1, 1), "muon": (1, 30)}


def coordinate(rows: dict[float, dict[float, float]]) -> tuple[bool | None, int]:
    """Whether the learning rate scales, and how many values were tried; losses by ratio and rate."""
    table = [{"optimizer": "a", "scale": "mine", "parameters": 1e8, "ratio": ratio, "seed": 0, "loss": loss,
              "hp_learning_rate": rate, "hp_beta": beta}
             for ratio, own in rows.items() for rate, loss in own.items() for beta in (0.9, 0.95)
             if beta == 0.9 or loss == min(own.values())]  # fmt: skip
    table = [row | {"loss": row["loss"] + (row["hp_beta"] == 0.95)} for row in table]
    analysis = analyse(from_rows(table), draws=50)
    (one,) = [one for one in analysis.coordinates if one.coordinate == "learning_rate"]
    return one.scales, one.tried


def test_a_coordinate_that_was_run_with_one_value_says_nothing_of_scaling() -> None:
    assert coordinate({1: {0.1: 3.4}, 2: {0.1: 3.3}}) == (None, 1)
    assert coordinate({1: {0.1: 3.4, 0.2: 3.5}, 2: {0.1: 3.3}}) == (None, 2)  # at 2x it was compared with nothing
    assert coordinate({1: {0.1: 3.4, 0.2: 3.5}, 2: {0.1: 3.3, 0.2: 3.4}}) == (False, 2)
    assert coordinate({1: {0.1: 3.4, 0.2: 3.5}, 2: {0.1: 3.3, 0.2: 3.2}}) == (True, 2)


def test_the_step_laws_runs_manufacture_nothing_beyond_what_was_measured() -> None:
    analysis = analyse(load(public_table("steplaw_dense.csv")), draws=50)
    budgets: dict[str, list[float]] = {}
    for winner in analysis.winners:
        budgets.setdefault(winner.regime.scale, []).append(winner.tokens)
    for row in analysis.undertuned:
        if row.manufactured is not None:
            own = budgets[row.regime.scale]
            assert row.manufactured <= max(own) / min(own)
    assert not [edge for edge in analysis.edges if edge.coordinate == "learning_rate"]
    # AdamW compared with itself is as fast as itself, whatever the law.
    assert all(0.95 < speed.speedup < 1.05 for speed in analysis.speedups)


def test_the_speedrun_of_one_ratio_has_a_frontier_and_four_flips() -> None:
    analysis = analyse(load(public_table("marin_speedrun_llama.csv")), draws=200)
    assert {ranking.regime.label.split()[-1] for ranking in analysis.rankings} == {
        "130m/0.84x", "300m/1x", "520m/0.84x", "1.2b/0.84x"
    }  # fmt: skip
    gaps = {statement.regime.scale: gain.nats for statement in analysis.statements
            for gain in statement.gains if gain.optimizer == "muon"}  # fmt: skip
    assert gaps == {"130m": pytest.approx(0.053, abs=5e-4), "300m": pytest.approx(0.0245, abs=5e-4),
                    "520m": pytest.approx(0.0265, abs=5e-4), "1.2b": pytest.approx(0.0241, abs=5e-4)}  # fmt: skip
    sure = [flip for flip in analysis.flips if flip.significant]
    assert len(sure) == 4 and {flip.kind for flip in sure} == {"scale"}
    (front,) = analysis.frontiers
    assert front.measure == "flops" and len(front.law.winners) == 4
    muon = {speed.regime.scale: speed.speedup for speed in front.speedups if speed.optimizer == "muon"}
    assert all(value > 1.1 for value in muon.values())
    own = [speed.speedup for speed in front.speedups if speed.optimizer == "adamw"]
    assert own == pytest.approx([1] * 4, abs=0.02)


def test_no_statement_names_a_paper_that_the_table_is_not_from(tmp_path: Path) -> None:
    from tuneopt.reporting.compare import compare
    from tuneopt.reporting.page import build_page
    from tuneopt.reporting.sources import gather

    path = tmp_path / "mine.csv"
    rows = [f"{name},mine,1e8,{ratio},{law(ratio * fast):.5f},0.001" for name, fast in (("adamw", 1.0), ("own", 1.3))
            for ratio in (1, 2, 4)]  # fmt: skip
    path.write_text("optimizer,scale,parameters,ratio,loss,sigma\n" + "\n".join(rows))
    material = gather(results=path)
    page = build_page(material, compare(material))
    words = " ".join([page.answer.headline, *page.sentences, *(line for part in page.chapters for line in part.lead)])
    assert not re.search(r"Wen et al|published", words)


def races(speeds: dict[str, float], ratios: tuple[float, ...], worse: dict[tuple[str, float], float]) -> Analysis:
    """Optimizers at one scale that are ``speeds`` times as fast as the law, with nats added to some runs."""
    rows = [
        {"optimizer": name, "scale": "mine", "parameters": 1e8, "ratio": ratio,
         "loss": law(ratio * speed) + worse.get((name, ratio), 0.0)}
        for name, speed in speeds.items() for ratio in ratios
    ]  # fmt: skip
    return analyse(from_rows(rows), draws=50, sigma=0.001)


@pytest.mark.parametrize("added", [2.2, 0.7])
def test_over_a_baseline_that_does_not_fall_no_speedup_is_stated(added: float) -> None:
    """One broken or badly tuned run of the baseline: differences in nats stay, and its rise is named."""
    analysis = races({"adamw": 1.0, "muon": 1.3}, (1, 2, 4), {("adamw", 4): added})
    assert analysis.speedups == ()
    (stated,) = analysis.statements
    assert "nats under adamw" in stated.sentence
    assert not re.search(r"speedup|at least|extrapolated|would settle", stated.sentence)
    rise = law(4) + added - law(2)
    named = f"from 2x to 4x it rises by {rise:.3g} nats"
    assert any(named in one and "no speedups at scale mine" in one for one in analysis.warnings)
    assert not any("lower bound" in one or "extrapolate" in one for one in analysis.warnings)
    assert any("a broken run" in one for one in analysis.warnings) == (added > 1)


def test_over_a_baseline_with_a_broken_first_run_no_speedup_is_stated() -> None:
    """Its loss still falls, but a law through 7 nats at 1x says that a rival with lower losses is slower."""
    analysis = races({"adamw": 1.0, "muon": 1.3}, (1, 2, 4, 8), {("adamw", 1): 3.6, ("muon", 2): 5.8})
    assert analysis.speedups == ()
    (stated,) = analysis.statements
    assert "nats under adamw" in stated.sentence and "speedup" not in stated.sentence
    assert any("no speedups at scale mine" in one and "reaches at mine/1x" in one for one in analysis.warnings)


def test_a_broken_run_changes_no_order() -> None:
    losses = {("adamw", 1): 3.6, ("muon", 2): 5.8}
    analysis = races({"adamw": 1.0, "muon": 1.3, "lion": 0.9}, (1, 2, 4, 8), losses)
    assert not analysis.flips and not any("joint fit" in one for one in analysis.warnings)
    assert races({"adamw": 1.0, "muon": 1.3, "lion": 0.9}, (1, 2, 4, 8), {("muon", 2): 0.1}).flips


def test_one_loss_of_another_kind_makes_nobody_else_a_broken_run() -> None:
    """A rival in bits is two nats below everybody: it is named, and the others are compared as before."""
    speeds, ratios = {"adamw": 1.0, "muon": 1.3, "bits": 1.0}, (1, 2, 4)
    analysis = races(speeds, ratios, {("bits", ratio): -2.4 for ratio in ratios})
    muon = [one for one in analysis.speedups if one.optimizer == "muon"]
    assert [one.speedup for one in muon] == pytest.approx([1.3] * 3, rel=0.03) and analysis.joint


def test_a_baseline_on_an_edge_of_what_was_tried_is_named_first() -> None:
    """Two learning rates of AdamW, the larger always better, beside five of its rival."""

    def told(rates: tuple[float, ...]) -> list[str]:
        rows = [{"optimizer": name, "scale": "130m", "ratio": ratio, "hp_learning_rate": rate,
                 "loss": law(ratio * speed) + 0.02 * abs(math.log2(rate / 0.004))}
                for name, speed, own in (("adamw", 1.0, rates), ("muon", 1.3, (0.001, 0.002, 0.004, 0.008, 0.016)))
                for ratio in (1, 2, 4) for rate in own]  # fmt: skip
        return [one for one in analyse(from_rows(rows), draws=50).warnings if "on an edge" in one]

    (edge,) = told((0.001, 0.002))
    assert edge.startswith("the best learning_rate of adamw is on an edge of what was tried in 3 of 3 regimes")
    assert not told((0.002, 0.004, 0.008)) and not told((0.004,))


def test_a_frontier_leaves_a_broken_run_out() -> None:
    rows = [
        {"optimizer": name, "scale": f"s{size:g}", "parameters": size, "ratio": 1,
         "loss": 2 + (size * speed / 1e8) ** -0.3 + (4 if (name, size) == ("adamw", 1e8) else 0)}
        for name, speed in (("adamw", 1.0), ("muon", 1.3)) for size in (1e8, 2e8, 4e8, 8e8)
    ]  # fmt: skip
    (front,) = analyse(from_rows(rows), draws=50, sigma=0.001).frontiers
    assert [one.regime.scale for one in front.law.winners] == ["s2e+08", "s4e+08", "s8e+08"]


def test_a_frontier_that_a_size_of_the_baseline_contradicts_is_doubted() -> None:
    def doubts(added: float) -> list[str]:
        rows = [
            {"optimizer": name, "scale": f"s{size:g}", "parameters": size, "ratio": 1,
             "loss": 2 + (size * speed / 1e8) ** -0.3 + (added if (name, size) == ("adamw", 4e8) else 0)}
            for name, speed in (("adamw", 1.0), ("muon", 1.3)) for size in (1e8, 2e8, 4e8, 8e8)
        ]  # fmt: skip
        return [one for one in analyse(from_rows(rows), draws=50, sigma=0.001).warnings if "over its sizes: " in one]

    assert doubts(0.0) == []
    (told,) = doubts(0.5)
    assert "at s4e+08/1x" in told


def test_replicates_that_all_end_alike_are_replicates_and_show_no_noise() -> None:
    """Losses with two digits, copies of one run, or a seed that changes nothing: told apart from a single seed."""
    for scale, told in (("mine", "and no sigma is given"), ("130m", "assume sigma = 0.0012")):
        rows = [
            {"optimizer": name, "scale": scale, "parameters": 1e8, "ratio": ratio, "seed": seed,
             "loss": round(law(ratio * speed), 2)}
            for name, speed in (("adamw", 1.0), ("muon", 1.3)) for ratio in (1, 2, 4) for seed in range(3)
        ]  # fmt: skip
        for kept, lead in ((rows, "all seeds of a configuration end at exactly the same loss"),
                           ([row for row in rows if row["seed"] == 0], "no seed replicates")):  # fmt: skip
            (noise,) = [one for one in analyse(from_rows(kept), draws=50).warnings if told in one]
            assert noise.startswith(lead)


def test_noise_is_assumed_where_no_seeds_were_run_and_only_there() -> None:
    rows = [
        {"optimizer": name, "scale": "130m", "corpus": corpus, "ratio": ratio, "seed": seed,
         "loss": law(ratio * speed) + 0.001 * seed}
        for name, speed in (("adamw", 1.0), ("muon", 1.3)) for ratio in (1, 2)
        for corpus, seeds in (("seeded", 3), ("single", 1)) for seed in range(seeds)
    ]  # fmt: skip
    (told,) = [one for one in analyse(from_rows(rows), draws=50).warnings if "assume sigma" in one]
    assert told.startswith("no seed replicates at single 130m/1x and single 130m/2x: intervals and tie groups assume")


def test_where_noise_is_unknown_no_sentence_goes_on_about_speedups_that_it_has_not_named() -> None:
    rows = [{"optimizer": name, "scale": "mine", "parameters": 1e8, "ratio": ratio, "loss": law(ratio * speed)}
            for name, speed in (("adamw", 1.0), ("muon", 1.3)) for ratio in (1, 2, 4)]  # fmt: skip
    (stated,) = analyse(from_rows(rows), draws=50).statements
    assert stated.sentence.endswith("so no best optimizer can be named.")


def test_optimizers_that_met_in_few_budgets_are_told_of_races() -> None:
    rows = [{"optimizer": f"own{place}", "scale": "mine", "parameters": 1e8, "ratio": 1 + 0.2 * (place // 2),
             "loss": law(1 + place)} for place in range(8)]  # fmt: skip
    (told,) = [one for one in analyse(from_rows(rows), draws=50).warnings if "--target" in one]
    assert told.startswith("the 8 optimizers at scale mine have results with 4 budgets, at most 2 of them")
    assert not [one for one in analyse(from_rows(rows), draws=50, targets=[3.2]).warnings if "--target" in one]
    assert not [
        one for one in races({"adamw": 1.0, "muon": 1.3, "lion": 0.9}, (1, 2), {}).warnings if "--target" in one
    ]


def test_rounded_values_of_a_grid_are_the_values_themselves() -> None:
    """Of one grid of rates some regimes print three digits: no rate was left out there."""
    rates = (0.001953, 0.003906, 0.007812)
    rows = [
        {"optimizer": "own", "scale": "mine", "parameters": 1e8, "ratio": ratio, "hp_beta1": beta,
         "loss": law(ratio) + 0.05 * abs(place - 1) + 0.1 * (beta < 0.98),
         "hp_learning_rate": float(f"{rate:.3g}") if ratio == 2 else rate}
        for ratio in (1, 2) for place, rate in enumerate(rates) for beta in (0.95, 0.995, 0.9949)
    ]  # fmt: skip
    analysis = analyse(from_rows(rows), draws=50)
    (rate,) = [one for one in analysis.coordinates if one.coordinate == "learning_rate"]
    assert (rate.scales, rate.tried, {value for _, value in rate.tuned}) == (False, 3, {0.003906})
    assert {dict(run.config)["beta1"] for run in analysis.inputs.runs} == {0.95, 0.995, 0.9949}


def test_words_of_a_setting_are_one_however_they_are_spelt() -> None:
    """Seeds of one configuration are no two, of which the luckier would stand, because somebody wrote Cosine."""
    spelt = ("cosine", "Cosine", "COSINE")
    rows = [{"optimizer": name, "scale": "mine", "parameters": 1e8, "ratio": ratio, "seed": seed,
             "hp_lr_schedule": spelt[seed], "hp_betas": ("[0.9, 0.95]", "[0.9,0.95]", "[0.9, 0.95]")[seed],
             "loss": law(ratio) + 0.01 * seed - 0.1 * (name == "muon")}
            for ratio in (1, 2, 4) for name in ("adamw", "muon") for seed in range(3)]  # fmt: skip
    analysis = analyse(from_rows(rows), draws=50)
    assert {dict(run.config)["lr_schedule"] for run in analysis.inputs.runs} == {"cosine"}
    assert {dict(run.config)["betas"] for run in analysis.inputs.runs} == {"[0.9, 0.95]"}
    assert {one.runs for one in analysis.winners} == {3}


def test_seeds_of_one_configuration_are_no_trials_of_a_tuning() -> None:
    curve = [[place / 10, 4 - place / 10] for place in range(1, 11)]
    rows = [{"optimizer": "muon", "scale": "130m", "ratio": 1, "seed": seed, "loss": 3 + 0.001 * seed, "curve": curve}
            for seed in range(6)]  # fmt: skip
    assert not analyse(from_rows(rows), draws=50).orders
    rows = [row | {"hp_learning_rate": 0.001 * (1 + row["seed"])} for row in rows]
    (order,) = analyse(from_rows(rows), draws=50).orders
    assert (order.among, order.curves) == ("muon", 6)


def test_studies_that_overlap_do_not_tell_optimizers_apart() -> None:
    def ties(**seconds: tuple[float | None, ...]) -> dict[str, tuple[str, ...]]:
        rows = [{"optimizer": name, "workload": "wmt", "study": study, "target": 30, "target_seconds": time}
                for name, times in seconds.items() for study, time in enumerate(times)]  # fmt: skip
        return {row.optimizer: row.ties for row in analyse(from_rows(rows), draws=50).targets}

    assert ties(a=(1, 2, 3), b=(4, 5, 6)) == {"a": (), "b": ()}
    assert ties(a=(1, 2, 3), b=(3, 5, 6)) == {"a": ("b",), "b": ("a",)}
    assert ties(a=(1, 2, None), b=(3, 4, 5)) == {"a": ("b",), "b": ("a",)}
    assert ties(a=(1, 2), b=(4, 5)) == {"a": ("b",), "b": ("a",)}  # two studies each say too little
    assert ties(a=(1, 2, 3), b=(None, None, 9)) == {"a": (), "b": ()}


def test_a_trend_among_equals_is_that_of_the_lowest_losses() -> None:
    rows = [{"optimizer": name, "scale": scale, "ratio": ratio, "loss": floor + 0.5 * (speed * ratio) ** -0.4}
            for name, speed in (("adamw", 1.0), ("alpha", 1.3), ("zeta", 1.301))
            for scale, floor in (("130m", 3.0), ("300m", 2.8)) for ratio in (1, 2, 4)]  # fmt: skip
    (trend,) = [one for one in analyse(from_rows(rows), draws=50, sigma=0.001).findings if one.kind == "trend"]
    assert trend.optimizers == ("zeta",)


def test_one_place_without_a_law_compares_losses_only() -> None:
    rows = [{"optimizer": name, "scale": "130m", "ratio": 1, "seed": seed, "loss": law(speed) + 0.001 * seed}
            for name, speed in (("adamw", 1.0), ("muon", 1.3), ("lion", 0.9)) for seed in range(3)]  # fmt: skip
    document_ = document(analyse(from_rows(rows), draws=50))
    assert one_place_statement(document_) == ""
    assert "nats under adamw" in document_["statements"][0]["sentence"]


@pytest.mark.parametrize(("count", "slower"), [(16, 0), (48, 0), (16, 3)])
def test_many_equals_are_counted_and_not_listed(count: int, slower: int) -> None:
    speeds = {"adamw": 1.0} | {f"own{place}": 1.0 for place in range(1, count)}
    speeds |= {f"slow{place}": 0.5 for place in range(slower)}
    analysis = races(speeds, (1, 2, 4), {})
    (stated,) = analysis.statements
    assert len(stated.leaders) == count and "own1" not in stated.sentence
    assert (
        f"none of the {count} optimizers can" if not slower else f"{count} of {count + slower} optimizers share"
    ) in (stated.sentence)


def test_a_trend_is_that_of_an_optimizer_that_leads() -> None:
    """Equals, and optimizers that are alone in their regimes, have no trend worth a finding."""
    scales = {"130m": 1.34e8, "300m": 3.02e8}

    def found(speeds: dict[str, float], shift: float) -> list[str]:
        rows = [
            {"optimizer": name, "scale": scale, "ratio": ratio * (1 + shift * place),
             "loss": 2.5 + (scales[scale] / 1e8) ** -0.3 + 0.5 * (speed * ratio * (1 + shift * place)) ** -0.4}
            for place, (name, speed) in enumerate(speeds.items()) for scale in scales for ratio in (1, 2, 4)
        ]  # fmt: skip
        analysis = analyse(from_rows(rows), draws=50, sigma=0.001)
        return [one.sentence for one in analysis.findings if one.kind == "trend"]

    assert found({"adamw": 1.0, "muon": 1.3}, 0.0) and not found({"adamw": 1.0, "muon": 1.0}, 0.0)
    assert not found({"adamw": 1.0, "lion": 0.9, "muon": 1.2}, 0.03)


def test_optimizers_with_other_budgets_are_not_called_missing() -> None:
    rows = [
        {"optimizer": name, "scale": "mine", "parameters": 1e8, "ratio": ratio * more,
         "loss": law(ratio * more * speed)}
        for name, speed, more in (("adamw", 1.0, 1.0), ("muon", 1.2, 1.03)) for ratio in (1, 2, 4)
    ]  # fmt: skip
    (stated,) = analyse(from_rows(rows), draws=50, sigma=0.001).statements
    assert "nothing to compare" not in stated.sentence and "losses are not compared; speedups are" in stated.sentence


def test_one_speedup_is_no_speedups() -> None:
    analysis = races({"adamw": 1.0, "muon": 1.3}, (1, 2, 4), {})
    (beyond,) = [one for one in analysis.warnings if "extrapolate" in one]
    assert beyond.startswith("1 speedup extrapolates") and "; a run of adamw" in beyond and beyond.endswith("settle it")


def test_a_lower_bound_of_one_is_no_equality() -> None:
    """As long as the baseline's longest run, and far below all: it saves, and nobody knows how much."""
    rows = [{"optimizer": "adamw", "scale": "130m", "ratio": ratio, "loss": law(ratio)} for ratio in (1, 2, 4, 8)]
    rows += [{"optimizer": name, "scale": "130m", "ratio": 8, "loss": 2.9 + place / 50}
             for place, name in enumerate(("muon", "soap"))]  # fmt: skip
    analysis = analyse(from_rows(rows), draws=200, sigma=0.001)
    (muon,) = [one for one in analysis.speedups if one.optimizer == "muon"]
    assert muon.low == muon.speedup == 1 and above_one(muon.low, muon.flags)
    sentence = one_place_statement(document(analysis))
    assert "Muon ends below what AdamW is known to reach, so it saves at least 1.00x [1.00, open]" in sentence
    assert "cannot be told" not in sentence  # neither from AdamW nor from each other: 0.02 nats at a noise of 0.001


def test_of_a_full_grid_all_shared_seeds_choose() -> None:
    """One lucky seed of a poor configuration must not stand for an optimizer, whatever the seeds are called."""
    grid = {("muon", 0.01): (3.300, 3.360, 3.360), ("muon", 0.003): (3.315, 3.312, 3.313),
            ("adamw", 0.003): (3.320, 3.322, 3.321)}  # fmt: skip
    for order in ((0, 1, 2), (2, 1, 0)):
        rows = [{"optimizer": name, "scale": "130m", "ratio": 1, "hp_lr": rate, "seed": seed, "loss": losses[place]}
                for (name, rate), losses in grid.items() for place, seed in enumerate(order)]  # fmt: skip
        analysis = analyse(from_rows(rows), draws=50, sigma=0.002)
        (muon,) = [one for one in analysis.winners if one.optimizer == "muon"]
        assert dict(muon.config)["learning_rate"] == 0.003 and muon.runs == 3
        assert "muon is the best of 2 optimizers" in analysis.statements[0].sentence


def found(rows: list[dict[str, object]], kind: str) -> list[str]:
    return [one.sentence for one in analyse(from_rows(rows), draws=50, sigma=0.0005).findings if one.kind == kind]


def ended(losses: dict[tuple[str, int], list[float | None]], **more: object) -> list[dict[str, object]]:
    """Losses by optimizer and ratio, a seed each; None diverged."""
    return [{"optimizer": name, "parameters": 124_000_000, "ratio": ratio, "seed": seed, "loss": loss} | more
            for (name, ratio), own in losses.items() for seed, loss in enumerate(own)]  # fmt: skip


def told_of(rows: list[dict[str, object]], words: str) -> list[str]:
    return [one for one in analyse(from_rows(rows), draws=50, sigma=0.001).warnings if words in one]


def test_seeds_that_diverged_are_named_beside_the_mean_of_the_others() -> None:
    losses: dict[tuple[str, int], list[float | None]] = {("adamw", ratio): [law(ratio)] * 3 for ratio in (1, 2)}
    losses |= {("muon", 1): [law(1.5), None, None], ("muon", 2): [law(3), None]}
    assert told_of(ended(losses), "diverged") == [
        "3 of 5 runs with the configuration that stands for muon at 124m/1x and 124m/2x diverged, and its losses there "
        "leave them out"
    ]


def test_budgets_that_differ_under_one_ratio_are_named() -> None:
    rows = ended({("adamw", 1): [law(1)]}, tokens=2.48e9) + ended({("muon", 1): [law(1.03)]}, tokens=2.5767e9)
    (told,) = told_of(rows, "more tokens")
    assert told.startswith("the optimizers at 124m/1x have one ratio by name, and budgets that differ by up to 3.9%")
    assert not told_of(ended({("adamw", 1): [law(1)], ("muon", 1): [law(1.03)]}, tokens=2.48e9), "more tokens")


def test_flops_in_two_units_make_no_speedup() -> None:
    rows = [{"optimizer": name, "parameters": size * 1e6, "tokens": size * 2e7, "loss": 2 + 0.9 * size**-0.2 * gain,
             "flops": 6 * size * 1e6 * size * 2e7 / unit}
            for name, unit, gain in (("adamw", 1e15, 1.0), ("muon", 1, 0.97))
            for size in (50, 100, 200, 400)]  # fmt: skip
    analysis = analyse(from_rows(rows), draws=50, sigma=0.001)
    (front,) = analysis.frontiers
    assert front.measure == "6ND" and all(0.5 < one.speedup < 2 for one in front.speedups)
    assert any("the FLOPs of adamw are 1e-15 times 6 N D" in one for one in analysis.warnings)
