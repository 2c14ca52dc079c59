"""The colours' promises, recomputed: contrast on both pages and distance for colour-blind readers."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneopt.reporting.palette import (
    CONTEXT,
    DARK_PAGE,
    LIGHT_PAGE,
    LOOKS,
    MOST_COLOURS,
    look,
    looks,
    position,
    ranked,
)

# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
VIEWS = {
    "normal": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                            [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                              [-0.01182, 0.04294, 0.968881]]),
}  # fmt: skip


def linear(colour):
    channels = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def luminance(colour):
    return float(linear(colour) @ [0.2126, 0.7152, 0.0722])


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def oklab(rgb):
    to_lms = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                       [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
    to_lab = np.array([[0.2104542553, 0.793617785, -0.0040720468], [1.9779984951, -2.428592205, 0.4505937099],
                       [0.0259040371, 0.7827717662, -0.808675766]])  # fmt: skip
    return to_lab @ np.cbrt(to_lms @ np.clip(rgb, 0, 1))


@pytest.mark.parametrize("name", LOOKS)
def test_every_colour_reads_on_both_pages(name):
    assert contrast(look(name).colour, LIGHT_PAGE) >= 3
    assert contrast(look(name).colour, DARK_PAGE) >= 3


@pytest.mark.parametrize("view", VIEWS)
def test_no_two_optimizers_look_alike_to_any_reader(view):
    seen = {name: oklab(VIEWS[view] @ linear(known.colour)) for name, known in LOOKS.items()}
    nearest = min(np.linalg.norm(seen[one] - seen[other]) for one, other in combinations(seen, 2))
    assert nearest >= 0.068


def test_markers_differ_too():
    assert len({known.symbol for known in LOOKS.values()}) == len(LOOKS) == 11


def test_an_unknown_optimizer_keeps_one_look():
    assert look("my_own") == look("my_own")
    assert look("my_own").colour in {known.colour for known in LOOKS.values()}
    assert look("my_own").symbol not in {known.symbol for known in LOOKS.values()}


def test_unknown_optimizers_stand_behind_the_known_ones():
    assert sorted(["zeta", "soap", "alpha", "adamw"], key=position) == ["adamw", "soap", "alpha", "zeta"]


@given(st.lists(st.sampled_from([*LOOKS, *(f"own_{number}" for number in range(40))]), unique=True, max_size=50))
def test_no_two_coloured_optimizers_of_a_page_share_a_colour(names):
    given_ = looks(names, "adamw")
    assert set(given_) == {*names, "adamw"}
    shown = [own.colour for name, own in given_.items() if own.colour != CONTEXT]
    assert len(shown) == len(set(shown)) <= MOST_COLOURS + 1
    assert given_["adamw"].colour == LOOKS["adamw"].colour


def test_of_many_the_matrix_optimizers_and_the_best_unknown_ones_have_a_colour():
    names = ["own_1", "muon", *LOOKS, "own_2"]
    given_ = looks(names, "adamw")
    assert {name for name, own in given_.items() if own.colour != CONTEXT} == {
        "adamw", "muon", "scion", "kron", "soap", "own_1", "own_2"
    }  # fmt: skip


def test_few_optimizers_all_have_their_own_colour():
    given_ = looks(["lion", "mars", "adamw"], "adamw")
    assert given_["lion"] == LOOKS["lion"] and given_["mars"] == LOOKS["mars"]


def test_the_looks_of_a_page_end_with_it():
    with ranked(["own_1", "own_2"], "adamw"):
        inside = look("own_1"), look("own_2")
    assert inside[0].colour != inside[1].colour
    assert look("soap") == LOOKS["soap"]


def test_another_baseline_has_the_baseline_s_ink_and_adamw_a_colour():
    given_ = looks(["adamw", "muon"], "muon")
    assert given_["muon"].colour == LOOKS["adamw"].colour != given_["adamw"].colour
