import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_samples import make_sweep, run_sweep, smooth_loss

from tuneopt.ledger import Ledger
from tuneopt.reporting.drawing import scale_edge
from tuneopt.reporting.figures.star import draw_star, star_info
from tuneopt.reporting.study import read_study


def test_every_lane_holds_the_incumbent_once_among_ascending_values(view):
    info = star_info(view)
    assert [lane.coordinate for lane in info.lanes] == [axis.name for axis in view.sweep.space.axes if not axis.pinned]
    for lane in info.lanes:
        assert sum(point.incumbent for point in lane.points) == 1
        values = [float(point.value) for point in lane.points]
        assert values == sorted(values)


def test_differences_are_to_the_incumbent(view):
    info = star_info(view)
    changes = {(change.coordinate, change.value): change for change in view.state.descent.star}
    points = [(lane.coordinate, point) for lane in info.lanes for point in lane.points if not point.incumbent]
    assert len(points) == len(changes)
    for coordinate, point in points:
        change = changes[coordinate, point.value]
        assert point.difference == pytest.approx(change.loss - view.state.descent.incumbent_loss)
        assert point.difference >= -info.tolerance


def test_the_data_has_a_row_for_every_point(view):
    info = star_info(view)
    columns, rows = info.data()
    assert len(rows) == len(view.state.descent.star) + len(info.lanes)
    assert all(len(row) == len(columns) for row in rows)


def test_diverged_and_pending_changes_stand_at_the_edge_with_their_status(tmp_path):
    ledger = Ledger(tmp_path)
    sweep = make_sweep("soap", grids={"learning_rate": [0.016, 0.128]})
    pending = sweep.space.change(sweep.space.start, "beta1", 0.8)
    run_sweep(ledger, sweep, lambda spec: smooth_loss(spec), waves=1)
    (tmp_path / "trials" / f"{sweep.trial_id(pending)}.json").unlink()
    info = star_info(read_study(ledger).views[0])
    statuses = {(lane.coordinate, point.value): point for lane in info.lanes for point in lane.points}
    assert statuses["learning_rate", 0.128].status == "diverged"
    assert statuses["learning_rate", 0.128].difference is None
    assert statuses["beta1", 0.8].status == "pending"
    drawn = draw_star(info).plain()
    texts = drawn["layout"]["yaxis2"]["ticktext"]
    assert "diverged" in texts
    assert "pending" in texts
    marks = {trace["text"][0].split(" = ")[0]: trace for trace in drawn["data"] if "text" in trace}
    rates = marks["learning_rate"]
    place = [text.split("<br>")[0] for text in rates["text"]].index("learning_rate = 0.128")
    assert rates["x"][place] == info.edge
    assert rates["marker"]["symbol"][place] == "x-thin"


def test_the_band_is_the_tolerance(view):
    info = star_info(view)
    band = next(shape for shape in draw_star(info).plain()["layout"]["shapes"] if shape.get("yref") == "paper")
    assert (band["x0"], band["x1"]) == (-info.tolerance, info.tolerance)


def test_what_lies_beyond_the_scale_is_an_arrow_with_its_number(tmp_path):
    ledger = Ledger(tmp_path)
    run_sweep(ledger, make_sweep("soap"), lambda spec: (smooth_loss(spec) or 9.0) + 3.0 * (spec.config["beta1"] == 0.8))
    info = star_info(read_study(ledger).views[0])
    assert any(point.difference > info.edge for lane in info.lanes for point in lane.points)
    drawn = draw_star(info).plain()
    right = drawn["layout"]["xaxis"]["range"][1]
    marks = [trace for trace in drawn["data"] if "text" in trace]
    assert len(marks) == len(info.lanes)
    for trace in marks:
        assert max(trace["x"]) <= right
        beyond = [symbol == "triangle-right" for symbol in trace["marker"]["symbol"]]
        assert [x == info.edge for x, over in zip(trace["x"], beyond, strict=True) if over] == [True] * sum(beyond)


@given(st.lists(st.floats(-1, 10), max_size=40), st.floats(1e-4, 0.1))
def test_the_scale_shows_tolerances_and_most_points(differences, tolerance):
    edge = scale_edge(differences, tolerance)
    worse = [difference for difference in differences if difference > 0]
    assert edge >= 6 * tolerance * 0.999 or edge >= max(worse, default=0)
    if worse:
        assert sum(difference <= edge for difference in worse) >= 0.75 * len(worse)
