"""Pictures of figures: ticks and numbers as plotly writes them, lines cut at their plot, texts inside, sound SVG."""

import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneopt.reporting.axes import axis, nice, number_text, thinned
from tuneopt.reporting.blocks import figures_of
from tuneopt.reporting.chapters import flips, sensitivity, speedup
from tuneopt.reporting.drawing import Drawing, Mark
from tuneopt.reporting.palette import _MORE, LOOKS, bare, hollow, outline
from tuneopt.reporting.panels import NARROW, WIDE
from tuneopt.reporting.picture import picture
from tuneopt.reporting.scene import Box, Scene, Sign, Stroke, Words, clipped, runs
from tuneopt.reporting.svg import svg
from tuneopt.reporting.text import plain

finite = st.integers(-(10**6), 10**6).map(lambda thousandths: thousandths / 1000)


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (1.25, ".2~f", "1.25"), (1.5, ".2~f", "1.5"), (1.0, ".2~f", "1"), (-0.02, "+.4~g", "\u22120.02"),
        (0.02, "+.4~g", "+0.02"), (0.0, "+.4~g", "0"), (5e9, "~s", "5G"), (1.5e6, "~s", "1.5M"), (0.25, ".0%", "25%"),
        (12.0, "d", "12"), (3.29999999, ".4~f", "3.3"), (0.1 + 0.2, "", "0.3"), (1.0, ".1f", "1.0"),
        (655360.0, ".3s", "655k"),
    ],
)  # fmt: skip
def test_numbers_are_written_as_d3_writes_them(value, form, text):
    assert number_text(value, form) == text


@given(finite, st.floats(1e-6, 1e3), st.integers(2, 12))
def test_ticks_are_round_even_and_inside(low, span, most):
    places = nice(low, low + span, most)
    assert all(low - 1e-6 * span <= place <= low + span + 1e-6 * span for place in places)
    assert len(places) <= most + 1
    steps = [after - before for before, after in pairwise(places)]
    assert all(math.isclose(step, steps[0], rel_tol=1e-6, abs_tol=1e-9) for step in steps)


@given(st.lists(st.tuples(finite, finite), min_size=2, max_size=12))
def test_a_cut_line_lies_inside_and_keeps_what_was_inside(points):
    pieces = clipped(points, -100, -50, 100, 50)
    for piece in pieces:
        assert all(-100.001 <= x <= 100.001 and -50.001 <= y <= 50.001 for x, y in piece)
    for (x0, y0), (x1, y1) in pairwise(points):
        if all(-99 <= x <= 99 and -49 <= y <= 49 for x, y in ((x0, y0), (x1, y1))):
            assert any((x0, y0) in piece and (x1, y1) in piece for piece in pieces)


@pytest.mark.parametrize("kind", ["linear", "log"])
def test_many_values_lie_where_each_of_them_does(kind):
    own = axis({"type": kind}, [0.5, 3.0], 100)
    values = [0.7, 3, 0, -1.5, 1e-9]

    assert own.all([*values, None]) == [*map(own.at, values), None]


def test_a_logarithmic_axis_puts_equal_factors_at_equal_distances():
    own = axis({"type": "log", "range": [9, 11]}, [], 100)
    assert [text for _, text in own.ticks][:1] == ["1000000000"] or own.ticks
    assert own.at(1e10) - own.at(1e9) == pytest.approx(own.at(1e11) - own.at(1e10))


@given(st.lists(st.floats(0, 500), max_size=20), st.floats(1, 80))
def test_texts_that_are_left_of_an_axis_do_not_touch(places, width):
    ordered = sorted(places)
    kept = thinned([""] * len(ordered), ordered, width)
    assert all(ordered[two] - ordered[one] >= width for one, two in pairwise(kept))
    assert bool(kept) == bool(ordered)


@pytest.mark.parametrize("symbol", [*(own.symbol for own in LOOKS.values()), *_MORE, "x-thin", "line-ns",
                                    "triangle-right", "circle-open-dot"])  # fmt: skip
def test_every_mark_of_the_palette_can_be_drawn_filled_and_open(symbol):
    for own in (symbol, hollow(symbol)):
        assert outline(own) or bare(own) == "circle"


@pytest.fixture(scope="module")
def figures(published, foreign):
    parts = [speedup.chapter(published), speedup.details(published), flips.chapter(published), flips.chapter(foreign),
             sensitivity.chapter(published)]  # fmt: skip
    return [figure for part in parts for figure in figures_of(part.blocks)]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_every_text_and_mark_lies_inside_its_picture(figures, width):
    for figure in figures:
        scene = picture(figure.at(width), width)
        for part in scene.parts:
            if isinstance(part, Words) and not part.angle:
                left = part.x - {"start": 0, "middle": part.width / 2, "end": part.width}[part.anchor]
                # Widths are guessed on the safe side, so a few pixels more are no fault.
                assert left >= -6 and left + part.width <= width + 24, (figure.key, part.text)
                assert 0 <= part.y <= scene.height, (figure.key, part.text)
            if isinstance(part, Sign):
                assert -1 <= part.x <= width + 1 and -1 <= part.y <= scene.height + 1, (figure.key, part)
            if isinstance(part, Stroke):
                assert all(math.isfinite(x) and math.isfinite(y) for x, y in part.points)
            if isinstance(part, Box):
                assert part.width > 0 and part.height > 0


def test_every_point_of_a_drawing_has_its_mark_and_its_words(figures):
    for figure in figures:
        texts = [text for trace in figure.plot["data"] for text in trace.get("text", ()) if "hovertemplate" in trace]
        hovers = [part.hover for part in picture(figure.plot, WIDE).parts if isinstance(part, Sign) and part.hover]
        assert len(hovers) >= 0.7 * len(texts), figure.key  # what lies beyond a scale is cut


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=40))
def test_any_name_is_text_in_a_picture(name):
    drawing = Drawing(200, "x", "y", legend=True)
    drawing.marks([Mark(0, 0, name), Mark(1, 1, name)], "#123456", name=plain(name), legendgroup=name)
    drawing.note(plain(name), x=0, y=0)
    text = svg(picture(drawing.plain(), 400), "wide", name, alone=True)
    root = ET.fromstring(text)
    tags = {element.tag.split("}")[1] for element in root.iter()}
    assert tags <= {"svg", "g", "rect", "path", "circle", "text", "tspan", "title"}
    if "<" not in name and "&" not in name and "\n" not in name:
        assert any(element.text == name or name in "".join(element.itertext()) for element in root.iter())


def test_labels_keep_their_bold_parts_and_their_lines():
    assert runs("<b>start</b>  3.2") == ((("start", True), ("  3.2", False)),)
    assert runs("one<br>&lt;b&gt;two") == ((("one", False),), (("<b>two", False),))


def test_an_unknown_kind_of_trace_is_an_error():
    drawing = Drawing(200, "x", "y")
    drawing.traces.append({"type": "pie"})
    with pytest.raises(ValueError, match="pie"):
        picture(drawing.plain(), 400)


def test_ticks_are_never_rounded_to_unequal_distances():
    own = axis({"range": [3.2715, 3.289], "tickformat": ".3~f", "nticks": 7}, [], 300, up=True)
    assert [float(text) for _, text in own.ticks] == pytest.approx([value for value, _ in own.ticks], abs=1e-12)
    assert "3.2725" in [text for _, text in own.ticks]
    plain = axis({"range": [3.0, 4.0], "tickformat": ".3~f", "nticks": 5}, [], 300, up=True)
    assert [text for _, text in plain.ticks] == ["3", "3.2", "3.4", "3.6", "3.8", "4"]
    quarters = axis({"range": [0.9, 2.3], "tickformat": ".1f", "nticks": 6}, [], 300, up=True)
    assert [text for _, text in quarters.ticks] == ["1.00", "1.25", "1.50", "1.75", "2.00", "2.25"]


def test_the_last_bits_of_a_place_do_not_show():
    """Machines sum in different orders: a place at a half of a tenth must not be rounded by the last bit."""
    places = [111.85 + error for error in (-3e-14, 0.0, 3e-14)]
    scenes = [Scene(200, 200, [Words(10, place - 0.35 * 11, (("SOAP", False),), 11)]) for place in places]
    assert len({svg(scene, "wide") for scene in scenes}) == 1
