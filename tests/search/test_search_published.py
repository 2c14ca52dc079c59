"""The figures typed into the search spaces against the published tables, and the shape that describes a space."""

from __future__ import annotations

import json

import pytest
from search_helpers import published

from tuneopt.search.space import load_space
from tuneopt.spec import SCALES

NAMES = ("adamw", "nadamw", "mars", "cautious", "lion", "adam_mini", "sophia", "muon", "scion", "kron", "soap")

REGIMES = {"sophia": 6}
"""Published tuned points, twelve where nothing is said."""


@pytest.mark.parametrize("name", NAMES)
def test_the_paper_ladder_holds_the_published_grid_and_start(name):
    table = published("grids.json")[name]
    space = load_space(name)
    assert {each.name: list(each.grids["paper"]) for each in space.coordinates} == table["grid"]
    start = dict(space.on("paper").start)
    assert start | table["start"]["130m/1"] == start


@pytest.mark.parametrize("name", NAMES)
def test_the_tuned_points_are_the_published_ones(name):
    rows = {(row["scale"], row["ratio"]): row for row in published("results.json") if row["optimizer"] == name}
    points = {(point.scale, point.ratio): point for point in load_space(name).published}
    assert set(points) == set(rows) and len(load_space(name).published) == len(rows) == REGIMES.get(name, 12)
    for key, row in rows.items():
        assert points[key].loss == round(row["loss"], 4)
        assert dict(points[key].config) | row["config"] == dict(points[key].config)


@pytest.mark.parametrize("name", NAMES)
def test_every_tuned_point_is_a_complete_configuration_of_the_paper_ladder(name):
    space = load_space(name)
    ladder = space.on("paper")
    for point in space.published:
        assert set(point.config) == {key for key, _ in ladder.start} - set(space.options)
        assert SCALES[point.scale].ladder == "paper"
        for axis in ladder.axes:
            axis.read(point.config[axis.name])


@pytest.mark.parametrize("name", NAMES)
def test_a_nano_star_is_small_and_starts_inside_or_on_an_extended_edge(name):
    ladder = load_space(name).on("nano")
    assert 12 <= len(ladder.star(ladder.start)) <= 20
    assert all(axis.edge(axis.start) in ("", "extended") for axis in ladder.axes)
    assert 0 <= dict(ladder.start)["warmup"] < 1, "nano warmups are fractions of the steps"


@pytest.mark.parametrize("name", NAMES)
def test_a_space_is_described_as_plain_data(name):
    space = load_space(name)
    plain = json.loads(json.dumps(space.describe(), allow_nan=False))
    assert plain["optimizer"] == name
    assert "arXiv 2509.02046" in plain["source"]
    for row, coordinate in zip(plain["coordinates"], space.coordinates, strict=True):
        assert {"name", "kind", "unit", "meaning", "grid", "start", "bounds"} <= set(row)
        assert set(row["grid"]) == set(row["start"]) == set(row["bounds"]) == {"paper", "nano"}
        assert row["unit"] and row["meaning"]
        for ladder, (low, high) in row["bounds"].items():
            if coordinate.kind != "categorical":
                assert low <= min(row["grid"][ladder]) and max(row["grid"][ladder]) <= high
            assert coordinate.bounds(ladder) == (low, high)
    assert plain["published"][0] == {
        "scale": "130m",
        "ratio": 1,
        "loss": space.published[0].loss,
        "config": dict(space.published[0].config),
    }
