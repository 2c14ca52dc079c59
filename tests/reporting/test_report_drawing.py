"""The drawing tools, and what each drawer makes of hand-made data."""

import pytest

from tuneopt.analysis.sensitivity import Sensitivity
from tuneopt.reporting.drawing import Drawing, height, lay_out
from tuneopt.reporting.figures.curves import Curve, CurvesInfo, draw_curves
from tuneopt.reporting.figures.losses import SeedGroup, SeedsInfo, draw_seeds
from tuneopt.reporting.figures.sensitivity import SensitivityInfo, draw_sensitivity
from tuneopt.reporting.figures.speedups import SpeedupPoint, SpeedupsInfo, draw_speedups
from tuneopt.reporting.figures.star import PathInfo, Stand, Tried, draw_path
from tuneopt.reporting.html import bundle
from tuneopt.reporting.palette import BAD, look

LANES = [("learning_rate", ["0.008", "0.016"]), ("beta1", ["0.9"])]


def test_a_canvas_is_transparent_and_names_its_axes():
    layout = Drawing(300, "training tokens", "select loss (nats/token)", legend=True).plain()["layout"]
    assert layout["height"] == 300
    assert layout["plot_bgcolor"] == layout["paper_bgcolor"] == "rgba(0,0,0,0)"
    assert layout["xaxis"]["title"]["text"] == "training tokens"
    assert layout["yaxis"]["title"]["text"] == "select loss (nats/token)"
    assert layout["xaxis"]["automargin"]
    assert layout["yaxis"]["automargin"]
    assert layout["showlegend"]
    assert "yaxis2" not in layout


def test_bands_rules_and_stripes_lie_under_the_data():
    drawing = Drawing(100, "x")
    drawing.band(-1, 1)
    drawing.rule(0)
    drawing.stripe(2, 3)
    band, rule, stripe = drawing.plain()["layout"]["shapes"]
    assert (band["x0"], band["x1"], band["yref"]) == (-1, 1, "paper")
    assert (rule["type"], rule["x0"], rule["x1"]) == ("line", 0, 0)
    assert (stripe["y0"], stripe["y1"], stripe["xref"]) == (2, 3, "paper")
    assert {shape["layer"] for shape in (band, rule, stripe)} == {"below"}


def test_plotly_refuses_what_it_does_not_know():
    drawing = Drawing(100, "x")
    drawing.scatter(x=[1], y=[1], colour="red")
    with pytest.raises(ValueError, match="colour"):
        drawing.figure()


def test_rows_follow_their_headings_downwards():
    drawing = Drawing(height(LANES), "x")
    assert lay_out(drawing, LANES) == [[1, 2], [4]]
    layout = drawing.plain()["layout"]
    assert layout["yaxis"]["tickvals"] == [1, 2, 4]
    assert layout["yaxis"]["ticktext"] == ["0.008", "0.016", "0.9"]
    assert layout["yaxis"]["range"][0] > 4 > 0 > layout["yaxis"]["range"][1]
    assert [(note["text"], note["y"]) for note in layout["annotations"]] == [
        ("<b>learning_rate</b>", 0), ("<b>beta1</b>", 3)
    ]  # fmt: skip


def test_numbers_beside_rows_are_labels_of_a_second_axis():
    drawing = Drawing(height(LANES), "x")
    lay_out(drawing, LANES, [["+0.1", "best"], ["<b>"]], "loss")
    axis = drawing.plain()["layout"]["yaxis2"]
    assert dict(zip(axis["tickvals"], axis["ticktext"], strict=True)) == {
        0: "loss", 1: "+0.1", 2: "best", 3: "loss", 4: "&lt;b&gt;"
    }  # fmt: skip
    assert (axis["side"], axis["overlaying"], axis["matches"]) == ("right", "y", "y")
    assert any(trace.get("yaxis") == "y2" for trace in drawing.plain()["data"])
    drawing.figure()


def test_a_drawing_is_as_high_as_its_rows():
    assert height(LANES * 4) - height(LANES * 3) == 5 * 19
    assert height([]) > 0


def curve(role, losses, trial="t"):
    return Curve(trial, role, f"label of {role}", tuple(100 * (i + 1) for i in range(len(losses))), tuple(losses))


@pytest.fixture
def curves():
    found = (
        curve("other", [4.0, 3.5], "a"),
        curve("other", [4.1, 3.6], "b"),
        curve("diverged", [4.5], "c"),
        curve("start", [4.0, 3.4]),
        curve("seed", [4.0, 3.3]),
        curve("best", [3.9, 3.2]),
    )
    return CurvesInfo("soap", found, 0, 200, 60.0, 3.2, 3.9)


def test_faint_curves_are_one_line_with_gaps_and_ends_that_answer(curves):
    data = {(trace.get("name"), trace["mode"]): trace for trace in draw_curves(curves).plain()["data"]}
    lines = data["other trials", "lines"]
    assert lines["x"] == [100, 200, None, 100, 200, None]
    assert lines["hoverinfo"] == "skip"
    ends = next(trace for trace in draw_curves(curves).plain()["data"] if trace.get("text") == ["label of other"] * 2)
    assert (ends["x"], ends["y"]) == ([200, 200], [3.5, 3.6])
    assert not ends["showlegend"]


def test_the_best_curve_lies_on_top_in_the_optimizers_colour(curves):
    last = draw_curves(curves).plain()["data"][-1]
    assert last["name"] == "best configuration"
    assert last["line"]["color"] == look("soap").colour
    assert last["line"]["width"] == max(
        trace["line"]["width"] for trace in draw_curves(curves).plain()["data"] if trace["mode"] == "lines"
    )


def test_epochs_are_marked_where_they_end(curves):
    rules = [shape["x0"] for shape in draw_curves(curves).plain()["layout"]["shapes"]]
    assert rules == [60, 120, 180]
    many = CurvesInfo("soap", curves.curves, 0, 200, 2.0, 3.2, 3.9)
    assert draw_curves(many).plain()["layout"]["shapes"] == []


def tried(place, loss, status="completed"):
    return Tried(place, f"trial{place}", status, loss, (("beta1", 0.9, 0.95),))


def test_the_path_shows_what_is_off_the_scale_at_its_edge():
    info = PathInfo(
        "soap",
        0.003,
        (tried(1, 3.5), tried(2, 3.49), tried(3, 3.48), tried(4, 3.47), tried(5, 9.0), tried(6, None, "diverged"),
         tried(7, None, "pending")),
        (Stand(1, 1, "start", 3.5, None, ()), Stand(4, 2, "single", 3.47, 3.5, (("beta1", 0.9, 0.95),))),
    )  # fmt: skip
    drawing = draw_path(info).plain()
    named = {trace.get("name"): trace for trace in drawing["data"]}
    top = drawing["layout"]["yaxis"]["range"][1]
    assert named["configuration"]["x"] == [1, 2, 3, 4]
    assert named["above the scale"]["x"] == [5]
    assert named["above the scale"]["y"][0] < top < 9
    assert named["diverged"]["marker"]["color"] == BAD
    assert 7 not in [x for trace in drawing["data"] if trace["mode"] == "markers" for x in trace["x"]]
    numbers = next(trace for trace in drawing["data"] if trace["mode"] == "markers+text")
    assert numbers["text"] == ["0", "1"]
    assert named["incumbent"]["line"]["shape"] == "hv"


def test_a_diverged_start_keeps_the_numbers_of_later_moves():
    stands = (Stand(1, 1, "start", None, None, ()), Stand(2, 1, "single", 3.4, None, (("beta1", 0.9, 0.95),)))
    drawing = draw_path(PathInfo("soap", 0.003, (tried(1, None, "diverged"), tried(2, 3.4)), stands)).plain()
    numbers = next(trace for trace in drawing["data"] if trace["mode"] == "markers+text")
    assert numbers["text"] == ["1"]


def test_a_path_without_any_loss_is_still_a_figure():
    info = PathInfo("soap", 0.003, (tried(1, None, "pending"),), (Stand(1, 1, "start", None, None, ()),))
    draw_path(info).figure()


def test_seeds_stand_in_a_row_with_mean_and_error():
    groups = (SeedGroup("start", (0, 1), (3.5, 3.6), ("a", "b")), SeedGroup("best", (0,), (3.4,), ("c",)))
    assert groups[0].mean == pytest.approx(3.55)
    assert groups[0].error == pytest.approx(0.05)
    assert groups[1].error is None
    drawing = draw_seeds(SeedsInfo("soap", groups)).plain()
    words = [note["text"] for note in drawing["layout"]["annotations"]]
    assert words[0].endswith("2 seeds")
    assert words[1].endswith("1 seed")
    low, high = drawing["layout"]["xaxis"]["range"]
    assert low < 3.4 < 3.6 < high


def test_sensitivity_names_what_diverged_and_clips_what_is_far():
    found = tuple(
        Sensitivity(name, 0.9, (0.8, 0.9), (3.0 + worse, 3.0), (0.99,) if worse > 1 else (), (0.9,), worse, worse)
        for name, worse in (("a", 2.0), ("b", 0.01), ("c", 0.008), ("d", 0.002))
    )
    drawing = draw_sensitivity(SensitivityInfo("soap", 3.0, 0.003, found)).plain()
    words = [note["text"] for note in drawing["layout"]["annotations"]]
    assert "diverged at 0.99" in words[0]
    assert "off the scale" in words[0]
    assert "+2.0000" in words[0]
    right = drawing["layout"]["xaxis"]["range"][1]
    assert right < 1
    assert max(x for trace in drawing["data"] for x in trace["x"] if x is not None) <= right


def test_a_bar_within_the_tolerance_is_grey():
    found = (Sensitivity("a", 0.9, (0.8, 0.9), (3.002, 3.0), (), (0.9,), 0.002, 0.002),)
    bar = draw_sensitivity(SensitivityInfo("soap", 3.0, 0.003, found)).plain()["data"][0]
    assert bar["line"]["color"] != look("soap").colour


def test_an_interval_that_is_open_above_ends_in_an_arrow_at_the_edge():
    points = (SpeedupPoint("soap", 1.5, 1.2, None, ("open above",)), SpeedupPoint("muon", 1.1, 1.0, 1.2, ()))
    drawing = draw_speedups(SpeedupsInfo("adamw", 0.9, (("1x", points),), 1)).plain()
    right = drawing["layout"]["xaxis"]["range"][1]
    bars = [trace for trace in drawing["data"] if trace["mode"] == "lines+markers"]
    assert bars[0]["x"] == [1.2, right, None]
    assert bars[0]["marker"]["symbol"][1] == "triangle-right"
    assert bars[1]["marker"]["symbol"][1] == "line-ns"


@pytest.mark.parametrize("flag", ["interpolated", "extrapolated", "lower bound"])
def test_open_marks_are_not_measured(flag):
    points = (SpeedupPoint("soap", 1.5, None, None, (flag,)), SpeedupPoint("soap", 1.4, None, None, ()))
    drawing = draw_speedups(SpeedupsInfo("adamw", 0.9, (("1x", points),), 1)).plain()
    marks = [trace for trace in drawing["data"] if "hovertemplate" in trace]
    assert marks[0]["marker"]["symbol"] == [look("soap").symbol + "-open", look("soap").symbol]


def test_no_figures_make_an_empty_bundle_and_the_same_ones_the_same():
    assert bundle([]) == bundle([])
    assert len(bundle([])) < 60
