"""What holds for every figure: texts, axes with units, data, drawings that plotly accepts, names that stay names."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneopt.analysis.targets import ToTarget
from tuneopt.reporting.blocks import Figure, csv_text
from tuneopt.reporting.compare import compare
from tuneopt.reporting.drawing import MOST_ROWS, fitting, spread
from tuneopt.reporting.figures.against import against_ratio_info, draw_against_ratio
from tuneopt.reporting.figures.costs import budgets_info, draw_budgets, draw_pareto, pareto_info
from tuneopt.reporting.figures.curves import curves_info, draw_curves, draw_training, training_info
from tuneopt.reporting.figures.fairness import draw_transfer, draw_undertuned, transfer_infos, undertuned_info
from tuneopt.reporting.figures.flips import draw_flips, flips_info
from tuneopt.reporting.figures.laws import (
    draw_exponents,
    draw_guide,
    draw_laws,
    exponents_info,
    guide_info,
    laws_info,
)
from tuneopt.reporting.figures.losses import (
    LossesInfo,
    LossLane,
    LossPoint,
    draw_losses,
    draw_seeds,
    losses_info,
    seeds_info,
)
from tuneopt.reporting.figures.races import draw_races, races_info
from tuneopt.reporting.figures.savings import draw_savings, savings_info
from tuneopt.reporting.figures.sensitivity import draw_regrets, draw_sensitivity, regrets_info, sensitivity_info
from tuneopt.reporting.figures.speedups import (
    ResidualsInfo,
    SpeedupPoint,
    SpeedupsInfo,
    draw_joint,
    draw_residuals,
    draw_speedups,
    joint_info,
    speedups_infos,
)
from tuneopt.reporting.figures.star import draw_path, draw_star, path_info, star_info
from tuneopt.reporting.panels import Panels
from tuneopt.reporting.sources import gather
from tuneopt.search.descent import FINALIST, standing_at

UNITS = (
    "nats/token",
    "tokens",
    "configurations tried",
    "ratio",
    "fraction",
    "tau",
    "seconds",
    "tuned for",
    "no unit",
    "parameters",
    "optimizer",
)
NAMES = ("star", "path", "curves", "sensitivity", "seeds", "losses", "speedups", "by-ratio", "by-size", "flips",
         "guide", "distances", "laws", "joint", "residuals", "training", "transfer", "undertuned", "regrets",
         "exponents", "pareto", "budgets", "races")  # fmt: skip


RACE = [ToTarget(name, "text", "130m", 3.2, steps, 0.9 * steps, steps, None, None, 3.19, 4, True)
        for name, steps in (("soap", 900.0), ("adamw", 1200.0))]  # fmt: skip


@pytest.fixture(scope="module")
def drawn(view, study, comparison, foreign, published):
    analysis = foreign.analysis
    rivals = [each for each in analysis.speedups if each.optimizer != "adamw"]
    transfer = transfer_infos(analysis.transfer, 1, foreign.label)[0]
    residuals = ResidualsInfo(analysis.joint[0], 0.0012)
    pairs = {
        "star": (star_info(view), draw_star),
        "path": (path_info(view), draw_path),
        "curves": (curves_info(view, 50), draw_curves),
        "sensitivity": (sensitivity_info(view), draw_sensitivity),
        "seeds": (seeds_info(view), draw_seeds),
        "losses": (losses_info(comparison), draw_losses),
        "speedups": (speedups_infos(comparison)[0], draw_speedups),
        "by-ratio": (savings_info(rivals, foreign.scales, "ratio", "adamw", 0.9), draw_savings),
        "by-size": (savings_info(rivals, foreign.scales, "size", "adamw", 0.9), draw_savings),
        "flips": (flips_info(analysis.rankings, analysis.flips, foreign.scales, "ratio", "adamw"), draw_flips),
        "guide": (guide_info(analysis.laws, analysis.winners, analysis.speedups, "adamw"), draw_guide),
        "distances": (against_ratio_info(analysis.rankings, foreign.scales), draw_against_ratio),
        "laws": (laws_info(analysis.laws, analysis.winners, analysis.speedups, "adamw"), draw_laws),
        "joint": (joint_info(analysis.joint, {}, "adamw", 0.9), draw_joint),
        "residuals": (residuals, draw_residuals),
        "training": (training_info(analysis.orders, trials=False), draw_training),
        "transfer": (transfer, draw_transfer),
        "undertuned": (undertuned_info(analysis.undertuned, "adamw", 0.9), draw_undertuned),
        "regrets": (regrets_info(analysis.stars), draw_regrets),
        "exponents": (exponents_info(published.analysis.hyper_laws, 0.9), draw_exponents),
        "pareto": (pareto_info(analysis.pareto), draw_pareto),
        "budgets": (budgets_info(study.views), draw_budgets),
        "races": (races_info(RACE), draw_races),
    }
    return {name: (info, draw(info)) for name, (info, draw) in pairs.items()}


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_title_and_short_sentences_on_how_to_read_it(drawn, name):
    info, _ = drawn[name]
    assert info.title[0].isupper()
    assert not info.title.endswith(".")
    assert info.reading.endswith(".")
    assert 1 <= len(re.findall(r"[.!?](?:\s|$)", info.reading.replace("et al.", ""))) <= 6


@pytest.mark.parametrize("name", NAMES)
def test_every_axis_has_a_title_with_its_unit_or_labels_of_its_own(drawn, name):
    layout = drawn[name][1].plain()["layout"]
    shared = " ".join(note["text"] for note in layout["annotations"] if note.get("xref") == "paper")
    if isinstance(drawn[name][1], Panels):  # panels share the titles of their axes
        assert any(unit in shared for unit in UNITS)
        return
    assert any(unit in layout["xaxis"]["title"]["text"] for unit in UNITS)
    rows = "ticktext" in layout["yaxis"] or layout["yaxis"].get("showticklabels") is False
    assert rows or any(unit in layout["yaxis"]["title"]["text"] for unit in UNITS)


@pytest.mark.parametrize("name", NAMES)
def test_plotly_knows_every_property_that_is_drawn(drawn, name):
    figure = drawn[name][1].figure()
    assert len(figure.data) == len(drawn[name][1].plain()["data"]) > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_data_is_whole_csv(drawn, name):
    info, drawing = drawn[name]
    figure = Figure.of(name, info, lambda _: drawing)
    rows = list(csv.reader(io.StringIO(figure.csv)))
    columns, data = info.data()
    assert tuple(rows[0]) == columns
    assert len(rows) == len(data) + 1 > 1
    assert all(len(row) == len(columns) for row in rows)


@pytest.mark.parametrize("name", NAMES)
def test_a_drawing_is_plain_json_that_leaves_text_colours_to_the_page(drawn, name):
    plain = drawn[name][1].plain()
    json.dumps(plain, allow_nan=False)
    assert "color" not in plain["layout"]["font"]
    assert plain["layout"]["paper_bgcolor"] == "rgba(0,0,0,0)"


def test_the_path_starts_at_the_start_and_ends_at_the_incumbent(view):
    info = path_info(view)
    assert info.tried[0].changes == ()
    assert [each.place for each in info.tried] == list(range(1, len(view.state.descent.asked) + 1))
    assert info.stands[0].kind == "start"
    assert info.stands[-1].loss == view.state.descent.incumbent_loss
    places = [stand.place for stand in info.stands]
    assert places == sorted(places)
    for earlier, later in zip(info.stands, info.stands[1:], strict=False):
        if later.kind == FINALIST:  # further seeds decide that one, so that it may gain less
            assert later is info.stands[-1] and later.loss < later.before
        else:
            assert earlier.loss - later.loss > info.tolerance
    assert [stand.kind for stand in info.stands[1:]] == ["joint", FINALIST], "both kinds of move are tried here"


def test_a_combination_that_the_finish_alone_tried_is_on_the_path(view):
    """Two values at a time, so that it is in no star that the search asked for."""
    descent, space = view.state.searched, view.sweep.space
    config = descent.incumbent
    for axis in space.varied[:2]:
        config = space.change(
            config, axis.name, next(one for one in axis.values if one != space.value(config, axis.name))
        )
    assert config not in descent.asked
    losses = dict.fromkeys(descent.asked, 3.5) | {config: 3.4}
    moved = standing_at(descent, config, space, losses, feasible=view.sweep.feasible, missing=())
    info = path_info(replace(view, state=replace(view.state, descent=moved)))
    assert info.stands[-1].kind == FINALIST and info.stands[-1].place == len(descent.asked) + 1
    assert info.tried[-1].changes == ()


def test_curves_tell_start_best_and_seeds_from_the_rest(view):
    info = curves_info(view, 10_000)
    roles = [curve.role for curve in info.curves]
    assert roles.count("best") == roles.count("start") == 1
    assert roles.count("seed") == len(view.sweep.seeds) - 1
    assert len(roles) == len(view.every)
    assert info.left_out == 0
    best = next(curve for curve in info.curves if curve.role == "best")
    assert info.bottom <= best.losses[-1] < info.top


def test_what_is_not_drawn_is_said(view):
    info = curves_info(view, 5)
    assert sum(curve.role == "other" for curve in info.curves) == 5
    assert f"{info.left_out} more trials are not drawn" in info.reading
    assert info.left_out > 0


@given(st.integers(0, 500), st.integers(0, 60))
def test_an_even_selection_keeps_to_its_limit_and_its_ends(count, limit):
    places = spread(count, limit)
    assert len(places) == min(count, limit)
    assert places == sorted(set(places))
    if limit > 1 and count:
        assert places[0] == 0
        assert places[-1] == count - 1


@given(st.lists(st.integers(1, 12), max_size=80))
def test_a_figure_of_rows_stays_readable(sizes):
    chosen = fitting(sizes)
    assert sum(sizes[place] for place in chosen) <= MOST_ROWS
    assert bool(chosen) == bool(sizes)
    if sum(sizes) <= MOST_ROWS:
        assert chosen == list(range(len(sizes)))


def test_regimes_that_a_figure_leaves_out_are_said():
    lane = LossLane("130m/1x", (LossPoint("soap", 3.0, None, 1, None),))
    assert "(1 of 9 regimes are drawn)" in LossesInfo((lane,), 9).reading
    assert "are drawn" not in LossesInfo((lane,), 1).reading


def test_sensitivity_uses_one_step_to_each_side_and_sorts_by_spread(view):
    info = sensitivity_info(view)
    assert all(2 <= len(each.values) + len(each.diverged) <= 3 for each in info.coordinates)
    spreads = [each.spread for each in info.coordinates]
    assert spreads == sorted(spreads, reverse=True)
    assert info.coordinates[0].coordinate == "learning_rate"


def test_the_confirmation_means_are_the_seeds_means(view):
    start, best = seeds_info(view).groups
    assert (start.name, best.name) == ("start", "best")
    assert best.mean == pytest.approx(view.state.best.report_loss)
    assert best.error == pytest.approx(view.state.best.report_error)
    assert start.mean > best.mean


def test_losses_follow_the_ranking_with_its_tie_groups(comparison):
    info = losses_info(comparison)
    assert [lane.label for lane in info.lanes] == ["nano-65k/1x", "nano-65k/4x"]  # at 2x there is one optimizer
    compared = [ranking for ranking in comparison.rankings.values() if len(ranking["order"]) > 1]
    for lane, ranking in zip(info.lanes, compared, strict=True):
        assert [point.optimizer for point in lane.points] == ranking["order"]
        assert [point.group for point in lane.points] == ranking["tie_groups"]
        assert all(point.error == pytest.approx(ranking["sigma"] / 3**0.5) for point in lane.points)


def test_speedups_leave_the_baseline_out_and_mark_what_is_doubtful():
    points = (
        SpeedupPoint("soap", 1.3, 1.2, 1.4, ()),
        SpeedupPoint("muon", 1.2, 1.1, None, ("extrapolated", "open above")),
        SpeedupPoint("kron", 1.1, None, None, ("interpolated",)),
    )
    drawing = draw_speedups(SpeedupsInfo("adamw", 0.9, (("130m/1x", points),), 1)).plain()
    texts = drawing["layout"]["yaxis2"]["ticktext"]
    assert "speedup [90%]" in texts
    assert "1.30 [1.20, 1.40]" in texts
    assert "1.20* [1.10, open]" in texts
    assert "1.10*" in texts
    right = drawing["layout"]["xaxis"]["range"][1]
    assert max(x for trace in drawing["data"] for x in trace["x"] if x is not None) <= right


def test_there_are_no_speedups_without_a_law(single):
    assert speedups_infos(compare(gather(single))) == []


def test_names_in_figures_cannot_become_markup():
    hostile = "<a href='javascript:alert(1)'>x</a>"
    info = LossesInfo((LossLane(hostile, (LossPoint(hostile, 3.0, None, 1, None),)),), 1)
    assert "<a" not in json.dumps(draw_losses(info).plain())


def test_csv_disarms_formulas_and_keeps_numbers():
    text = csv_text(("name", "x", "on"), [("=1+1", -2.5, True), ("@cmd", 3, False), ("a,b\n", None, "")])
    assert list(csv.reader(io.StringIO(text)))[1:] == [
        ["'=1+1", "-2.5", "true"], ["'@cmd", "3", "false"], ["a,b\n", "", ""]
    ]  # fmt: skip
