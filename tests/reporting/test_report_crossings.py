"""Loss curves that cross: which crossings are told, where they lie, and which regimes are drawn."""

import json

import pytest

from tuneopt.reporting.compare import compare
from tuneopt.reporting.figures.crossings import RING, crossings_info, decay_start, draw_crossings
from tuneopt.reporting.figures.flips import MOST_LINES, draw_flips, flips_info
from tuneopt.reporting.sources import gather


def info_of(comparison):
    analysis = comparison.analysis
    return crossings_info(analysis.winners, analysis.rankings, analysis.inputs.runs, analysis.flips)


@pytest.fixture
def made(tmp_path):
    """A comparison of a table whose curves are straight lines, from (start, end) losses by optimizer."""

    def make(ends, sigma=0.001, **more):
        rows = [
            {"optimizer": name, "scale": "nano-65k", "ratio": 1, "loss": end, "sigma": sigma,
             "curve": [[x / 10, start + (end - start) * x / 10] for x in range(1, 11)], **more}
            for name, (start, end) in ends.items()
        ]  # fmt: skip
        path = tmp_path / "table.json"
        path.write_text(json.dumps(rows))
        return compare(gather(results=path))

    return make


def test_two_straight_curves_cross_where_they_meet(made):
    info = info_of(made({"adamw": (3.4, 3.2), "soap": (3.5, 3.1)}))
    (panel,) = info.panels
    assert panel.winner == "soap"
    (crossing,) = panel.crossings
    assert crossing.pair == ("adamw", "soap")
    assert crossing.fraction == pytest.approx(0.5)
    assert crossing.nats == pytest.approx(0.0, abs=1e-9)
    assert crossing.sure
    assert info.title == "The final winner was behind during training in the one regime, by more than noise"
    drawn = draw_crossings(info).plain()["data"]
    rings = [trace for trace in drawn if RING in (trace.get("marker", {}).get("symbol") or ())]
    assert [trace["x"][0] for trace in rings] == pytest.approx([0.5])


def test_a_crossing_within_noise_is_drawn_but_claims_nothing(made):
    info = info_of(made({"adamw": (3.4, 3.2), "soap": (3.5, 3.1)}, sigma=0.5))
    assert [one.sure for one in info.panels[0].crossings] == [False]
    assert info.title == "No final winner was behind during training by more than noise"


def test_curves_that_never_cross_have_no_rings(made):
    info = info_of(made({"adamw": (3.6, 3.3), "soap": (3.5, 3.1)}))
    assert info.panels[0].crossings == ()
    assert info.behind == 0


def test_there_is_no_figure_without_two_curves(made, published):
    assert info_of(made({"soap": (3.5, 3.1)})) is None
    assert info_of(published) is None


@pytest.mark.parametrize(
    ("config", "start"),
    [
        ((("decay", 0.2), ("lr_schedule", "linear")), 0.8),
        ((("lr_schedule", "cosine"), ("warmup", 0.1)), 0.55),
        ((("learning_rate", 0.1),), None),
    ],
)
def test_the_decay_of_the_learning_rate_is_read_from_its_schedule(foreign, config, start):
    from dataclasses import replace

    winner = replace(foreign.analysis.winners[0], config=config)
    assert decay_start(winner) == (None if start is None else pytest.approx(start))


def test_a_bump_chart_has_the_orders_the_ties_and_bold_flips_of_the_analysis(published):
    analysis = published.analysis
    info = flips_info(analysis.rankings, analysis.flips, published.scales, "ratio", "adamw")
    sure = [flip for flip in analysis.flips if flip.kind == "ratio" and flip.significant]
    assert f"{len(sure)} flips beyond noise" in info.title
    for line in info.lines:
        for _, ranking in line.stops:
            assert ranking in analysis.rankings
    plain = draw_flips(info).plain()
    bars = [shape for shape in plain["layout"]["shapes"] if shape["type"] == "rect"]
    groups = sum(len([g for g in set(ranking.groups) if ranking.groups.count(g) > 1])
                 for line in info.lines for _, ranking in line.stops)  # fmt: skip
    assert len(bars) == groups
    bold = [trace for trace in plain["data"] if trace["mode"] == "lines" and trace["line"]["width"] > 4 and trace["x"]]
    assert len(bold) == len({(flip.regime.scale, name) for flip in sure for name in flip.pair})


def test_regimes_that_share_no_two_optimizers_have_no_bump_chart(tmp_path):
    rows = [{"optimizer": name, "scale": "130m", "ratio": ratio, "loss": 3.0 + place / 100, "sigma": 0.001}
            for place, (name, ratio) in enumerate([("a", 1), ("b", 1), ("c", 2), ("d", 2)])]  # fmt: skip
    path = tmp_path / "r.json"
    path.write_text(json.dumps(rows))
    found = compare(gather(results=path)).analysis
    assert flips_info(found.rankings, found.flips, ("130m",), "ratio", "adamw") is None


def test_of_48_optimizers_those_that_matter_are_drawn_and_that_is_said(tmp_path):
    rows = [{"optimizer": f"own_{number}", "scale": "130m", "ratio": ratio, "sigma": 0.0001,
             "loss": 3.0 + (number if ratio == 1 or number else 60) / 100}
            for number in range(48) for ratio in (1, 2)]  # fmt: skip
    path = tmp_path / "r.json"
    path.write_text(json.dumps(rows))
    found = compare(gather(results=path))
    info = flips_info(found.analysis.rankings, found.analysis.flips, found.scales, "ratio", "own_1")
    assert f"The {MOST_LINES} of 48 optimizers" in info.reading
    names = {trace["name"] for trace in draw_flips(info).plain()["data"] if trace.get("name")}
    assert len(names) == MOST_LINES and "own_0" in names


def test_four_panels_of_rankings_share_a_row_and_every_line_is_named_once_where_it_ends(tmp_path):
    scales = ("130m", "300m", "520m", "1.2b")
    rows = [{"optimizer": name, "scale": scale, "ratio": ratio, "loss": 3.0 + place / 100, "sigma": 0.001}
            for scale in scales for ratio in (1, 2, 4) for place, name in enumerate(["muon", "adamw", "sophia"])
            if not (name == "sophia" and scale == "300m" and ratio == 4)]  # fmt: skip
    path = tmp_path / "r.json"
    path.write_text(json.dumps(rows))
    found = compare(gather(results=path))

    def layout(count):
        kept = [one for one in found.analysis.rankings if one.regime.scale in scales[:count]]
        return draw_flips(flips_info(kept, (), scales, "ratio", "adamw")).plain()["layout"]

    def named(drawn):
        return sorted((note["yref"], note["text"].strip("</b>"), note["x"]) for note in drawn["annotations"]
                      if note["text"].strip("</b>") in {"Muon", "AdamW", "Sophia"})  # fmt: skip

    four = layout(4)
    assert len({tuple(four[f"yaxis{key}"]["domain"]) for key in ("", "2", "3", "4")}) == 1
    names, axes = ("Muon", "AdamW", "Sophia"), ("y", "y2", "y3", "y4")
    ends = {("y2", "Sophia"): 1}
    assert named(four) == sorted((axis, name, ends.get((axis, name), 2)) for axis in axes for name in names)
    assert len(named(layout(3))) == 3 * 2 * 3 - 1  # both ends, but one ends early
