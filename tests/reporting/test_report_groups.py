"""Figures of a comparison on values made by hand: where marks stand, what is hollow, cut or left out."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneopt.analysis.costs import ParetoPoint
from tuneopt.analysis.fairness import Transfer, Undertuned
from tuneopt.analysis.runs import RegimeKey
from tuneopt.analysis.speedup import Speedup
from tuneopt.reporting.drawing import LONGEST, shortened
from tuneopt.reporting.figures.against import Spot, places_of
from tuneopt.reporting.figures.costs import draw_pareto, pareto_info
from tuneopt.reporting.figures.fairness import draw_transfer, draw_undertuned, transfer_infos, undertuned_info
from tuneopt.reporting.figures.savings import MOST_PANELS, draw_savings, savings_info
from tuneopt.reporting.palette import hollow
from tuneopt.reporting.panels import spread_out


def speedup(optimizer, scale, ratio, value, flags=()):
    regime = RegimeKey("", scale, ratio)
    return Speedup(optimizer, regime, 3.0, 1, value, value - 0.1, value + 0.1, 1e9, tuple(flags))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), min_size=1, max_size=12))
def test_every_place_has_its_own_spot_and_groups_stay_together(pairs):
    spots = [Spot(group, place, "soap", 1.0, None, None, "") for group, place in pairs]
    places = places_of(spots)
    assert set(places) == set(pairs)
    assert len(set(places.values())) == len(places)
    order = [group for (group, _), _ in sorted(places.items(), key=lambda item: item[1])]
    assert len([1 for one, other in pairwise(order) if one != other]) == len(set(order)) - 1


def test_a_panel_for_each_size_has_its_ratios_in_order_and_open_marks_where_nothing_was_measured():
    rows = [speedup("muon", "130m", 2.0, 1.2, ["extrapolated"]), speedup("muon", "130m", 1.0, 1.4),
            speedup("muon", "300m", 1.0, 1.3), speedup("muon", "300m", 2.0, 1.15),
            speedup("adamw", "130m", 1.0, 1.0)]  # fmt: skip
    info = savings_info(rows, ("130m", "300m"), "ratio", "adamw", 0.9)
    assert [title for title, _ in info.panels] == ["130M", "300M"]
    plain = draw_savings(info).plain()
    marks = [trace for trace in plain["data"] if trace["mode"] == "markers"]
    assert [trace["y"] for trace in marks] == [[1.4, 1.2], [1.3, 1.15]]
    assert marks[0]["marker"]["symbol"] == ["circle", hollow("circle")]
    assert plain["layout"]["xaxis"]["ticktext"] == ["1x", "2x"]
    assert "1 of 4 extrapolated" in info.title


def test_the_title_names_who_saves_tokens_everywhere_and_nobody_else():
    rows = [speedup(name, "130m", ratio, value) for name, values in {"muon": (1.4, 1.3), "lion": (1.2, 1.05)}.items()
            for ratio, value in zip((1.0, 2.0), values, strict=True)]  # fmt: skip
    title = savings_info(rows, ("130m",), "ratio", "adamw", 0.9).title
    assert title == "Muon saves tokens over AdamW at both ratios shown"
    both = [*rows, *(speedup("muon", "300m", ratio, 1.4) for ratio in (1.0, 2.0))]
    title = savings_info(both, ("130m", "300m"), "ratio", "adamw", 0.9).title
    assert title == "Muon saves tokens over AdamW at all 4 sizes and ratios shown"
    title = savings_info(rows[2:], ("130m",), "ratio", "adamw", 0.9).title
    assert title == "1 of 2 speedups over AdamW is above 1 beyond noise; the largest measured is Lion's 1.20 at 130M/1x"


def test_a_fall_with_size_is_told_only_where_intervals_part():
    def info(last):
        rows = [speedup("muon", scale, ratio, value) for ratio in (1.0, 2.0)
                for scale, value in (("130m", 1.5), ("520m", last))]  # fmt: skip
        return savings_info(rows, ("130m", "520m"), "size", "adamw", 0.9)

    assert info(1.2).title == "Muon's speedup falls from 130M to 520M at every ratio, beyond its intervals"
    assert info(1.45).title == "Muon's speedup does not change beyond its intervals from 130M to 520M"


def test_a_speedup_beyond_the_drawn_range_stands_on_its_edge_and_that_is_said():
    rows = [speedup("muon", "130m", ratio, 1.3) for ratio in (1.0, 2.0)]
    far = [speedup("muonh", "130m", ratio, 0.2, ["extrapolated"]) for ratio in (1.0, 2.0)]
    assert "edge" not in savings_info(rows, ("130m",), "ratio", "adamw", 0.9).reading
    info = savings_info([*rows, *far], ("130m",), "ratio", "adamw", 0.9)
    assert info.reading.endswith("Marks on the edge lie beyond it.")
    drawn = [y for trace in draw_savings(info).plain()["data"] if trace.get("name") == "muonh" for y in trace["y"]]
    assert drawn and all(y == pytest.approx(info.bounds()[0]) for y in drawn if y is not None)


def test_one_scale_is_no_function_of_scale():
    assert savings_info([speedup("muon", "130m", 1.0, 1.4)], ("130m",), "size", "adamw", 0.9) is None


def test_many_sizes_are_thinned_and_that_is_said():
    scales = tuple(f"{number}m" for number in range(1, 41))
    rows = [speedup("muon", scale, ratio, 1.2) for scale in scales for ratio in (1.0, 2.0)]
    info = savings_info(rows, scales, "ratio", "adamw", 0.9)
    assert len(info.panels) == MOST_PANELS
    assert f"({MOST_PANELS} of 40 panels are drawn)" in info.reading


@given(st.lists(st.floats(0, 100), max_size=30), st.floats(0.1, 12))
def test_names_at_the_ends_of_lines_keep_their_order_and_their_distance(wanted, gap):
    wanted = sorted(wanted)
    places = spread_out(wanted, gap, 0.0, 100.0)
    room = min(gap, 100 / max(len(wanted) - 1, 1))
    assert len(places) == len(wanted)
    assert all(other - one >= room - 1e-6 for one, other in pairwise(places))
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in places)
    if all(other - one >= gap for one, other in pairwise(wanted)):
        assert places == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("symbol", "outline"), [("circle", "circle-open"), ("circle-dot", "circle-open-dot")])
def test_outlines_have_plotly_s_names(symbol, outline):
    from plotly.validator_cache import ValidatorCache

    assert hollow(symbol) == outline
    known = ValidatorCache.get_validator("scatter.marker", "symbol")
    assert known.validate_coerce(outline) == outline


@given(st.text(max_size=60))
def test_a_row_label_is_its_name_or_begins_like_it(name):
    label = shortened(name)
    assert len(label) <= LONGEST
    assert label == name or (label[-1] == "\u2026" and name.startswith(label[:-1]))


def point(optimizer, seconds, loss, front):
    return ParetoPoint(optimizer, RegimeKey("", "130m", 1.0), seconds, loss, front, "t")


def test_the_front_is_a_line_through_filled_marks():
    info = pareto_info(
        [point("soap", 30.0, 3.0, True), point("adamw", 10.0, 3.2, True), point("muon", 31.0, 3.1, False)]
    )
    plain = draw_pareto(info).plain()
    line = next(trace for trace in plain["data"] if trace["mode"] == "lines")
    assert (line["x"], line["y"]) == ([10.0, 30.0, None], [3.2, 3.0, None])
    symbols = {trace["name"]: trace["marker"]["symbol"] for trace in plain["data"] if trace["mode"] == "markers"}
    assert symbols == {"AdamW": ["circle"], "Muon": ["square-open"], "SOAP": ["diamond-tall"]}
    assert pareto_info([]) is None


def under(status):
    regime = RegimeKey("", "130m", 1.0)
    return Undertuned(
        regime, "learning rate", "learning_rate = 1", False, (), status, None, None, None, None, None, None
    )


def test_under_tuned_baselines_that_were_not_run_are_left_out():
    assert undertuned_info([under("missing"), under("same")], "adamw", 0.9) is None
    info = undertuned_info([under("diverged"), under("missing")], "adamw", 0.9)
    assert [each.status for _, own in info.lanes for each in own] == ["diverged"]
    texts = draw_undertuned(info).plain()["layout"]["yaxis2"]["ticktext"]
    assert "diverged" in texts


def cell(optimizer, donor, status, regret=None):
    return Transfer(RegimeKey("", "130m", 1.0), optimizer, donor, (("learning_rate", 0.1),), (), status, None, None,
                    regret, None, None, None)  # fmt: skip


def test_a_matrix_writes_its_numbers_and_marks_what_diverged():
    cells = [cell("muon", "soap", "trial", 0.0125), cell("soap", "muon", "diverged")]
    (info,) = transfer_infos(cells, 4, lambda regime: "here")
    assert info.title.endswith("at here")
    plain = draw_transfer(info).plain()
    notes = {(note["y"], note["x"]): note["text"] for note in plain["layout"]["annotations"]}
    assert notes == {(0, 0): "0", (0, 1): "+0.0125", (1, 0): "\u00d7", (1, 1): "0"}


def test_a_matrix_needs_runs_and_not_only_equal_hyperparameters():
    assert transfer_infos([cell("muon", "soap", "same", 0.0), cell("soap", "muon", "same", 0.0)], 4, str) == []
    assert transfer_infos([cell("muon", "soap", "missing")] * 9 + [cell("soap", "muon", "trial", 0.1)], 4, str) == []
