"""Statements that must be true on anybody's table: each test is a small table of a kind about which one was false."""

import re
from pathlib import Path

import pytest
from analysis_samples import public_table

from tuneopt.analysis.inputs import from_rows, load
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
