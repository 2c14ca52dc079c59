"""Values beyond a grid's edge, ends that are no edges, and how a user's value is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_helpers import axis

from tuneopt.search.axis import MAX_EXTENSIONS, Axis
from tuneopt.spec import InputError


def test_a_star_line_holds_the_grid_and_one_value_beyond_the_edge_it_stands_on():
    rate = axis("learning_rate", 0.004, 0.008, 0.016, start=0.008, extend="geometric")
    assert rate.line(0.008) == (0.004, 0.016)
    assert rate.line(0.016) == (0.004, 0.008, 0.032)
    assert rate.line(0.032) == (0.004, 0.008, 0.016, 0.064)
    assert rate.line(0.004) == (0.002, 0.008, 0.016)
    assert rate.line(0.002) == (0.001, 0.004, 0.008, 0.016)


def test_an_extension_repeats_the_ratio_of_its_own_end():
    uneven = axis("muon_to_adam_lr", 0.1, 0.2, 0.3, start=0.2, extend="geometric")
    assert uneven.above[:2] == (0.45, 0.675)
    assert uneven.below[:2] == (0.05, 0.025)


def test_betas_are_extended_in_one_minus_beta():
    beta = axis("beta2", 0.9, 0.95, 0.98, start=0.95, extend="complement")
    assert beta.above[0] == 0.992  # 1 - 0.02 * 0.02 / 0.05
    assert beta.below[0] == 0.8  # 1 - 0.1 * 0.1 / 0.05
    assert all(0.98 < value < 1 for value in beta.above)


def test_whole_numbers_stay_whole_and_stop_where_rounding_repeats_them():
    every = axis("precondition_frequency", 2, 5, start=5, extend="geometric", low=1, whole=True)
    assert every.below == (1,)
    assert all(isinstance(value, int) for value in every.above)
    assert every.edge(1) == ""
    assert axis("x", 1, 2, start=1, extend="geometric", whole=True).below == ()


def test_an_extension_stops_on_the_bound_itself():
    decay = axis("decay", 0.6, 0.8, start=0.8, extend="geometric", high=1.0)
    assert decay.above == (1,)
    assert decay.line(0.8) == (0.6, 1)
    assert decay.line(1) == (0.6, 0.8)
    assert (decay.edge(0.8), decay.edge(1)) == ("extended", "")


def test_off_is_an_end_and_no_edge():
    clip = axis("max_grad_norm", 0, 1.0, 2.0, start=1.0, extend="geometric", low=0, off=0)
    assert clip.below == ()
    assert clip.edge(0) == ""
    assert clip.line(2) == (0, 1, 4)
    assert axis("interval", 5, 10, start=5, extend="geometric", off=10).above == (), "off may lie at the upper end too"
    assert axis("weight_decay", 0, 0.1, start=0, extend="geometric", off=0).above[0] == 0.2, "beside zero: doubled"


def test_extensions_are_limited_and_the_limit_is_told_from_a_bound():
    rate = axis("learning_rate", 1.0, 2.0, start=1.0, extend="geometric")
    assert len(rate.above) == len(rate.below) == MAX_EXTENSIONS
    assert rate.edge(rate.above[-1]) == "limit"
    assert rate.edge(rate.above[-2]) == "extended"
    assert rate.line(rate.above[-1]) == (1, 2, *rate.above[:-1])
    assert axis("x", 1.0, 2.0, start=1.0).edge(2) == "closed"


def test_the_start_joins_the_grid_and_a_single_value_is_held():
    assert axis("block_size", 128, 256, start=512).values == (128, 256, 512)
    held = axis("epsilon", 1e-8, start=1e-8, extend="geometric")
    assert (held.pinned, held.line(1e-8), held.edge(1e-8), held.above, held.below) == (True, (), "", (), ())


def test_words_keep_their_declared_order_and_have_no_edges():
    words = Axis.of("norm", ("spectral", "frobenius"), "spectral")
    assert words.values == ("spectral", "frobenius")
    assert words.line("frobenius") == ("spectral",)
    assert words.edge("spectral") == ""


def test_values_are_read_from_text_and_checked():
    batch = axis("train_batch_size", 8, 16, start=16, low=4, high=64, whole=True)
    assert batch.read("32") == 32
    assert batch.read(8.0) == 8
    for wrong, hint in (
        (("fast"), "train_batch_size=16"),
        ("12.5", "whole"),
        (128, "between 4 and 64"),
        (True, "number"),
    ):
        with pytest.raises(InputError, match=hint):
            batch.read(wrong)
    for wrong in ("nan", "inf", "1e999", float("nan")):
        with pytest.raises(InputError, match="learning_rate must be a finite number"):
            axis("learning_rate", 0.1, start=0.1).read(wrong)


def test_words_and_switches_are_read_from_text():
    assert Axis.of("flat", (True, False), True).read("FALSE") is False
    with pytest.raises(InputError, match="did you mean 'spectral'"):
        Axis.of("norm", ("spectral", "frobenius"), "spectral").read("spectrl")


def test_another_grid_starts_at_the_old_start_or_at_the_nearest_value():
    rate = axis("learning_rate", 0.004, 0.008, start=0.008, extend="geometric")
    assert rate.regrid((0.1, "0.008")).start == 0.008
    assert rate.regrid((1e-5, 0.03)).start == 0.03, "nearest as a factor"
    assert axis("beta2", 0.9, 0.95, start=0.95, extend="complement").regrid((0.8, 0.98)).start == 0.98
    assert Axis.of("norm", ("a", "b"), "a").regrid(("b",)).start == "b"
    with pytest.raises(InputError, match="grid of learning_rate is empty"):
        rate.regrid(())


@given(
    grid=st.lists(st.floats(1e-4, 0.99), min_size=2, max_size=4, unique_by=lambda value: f"{value:.3g}"),
    extend=st.sampled_from(("geometric", "complement", "none")),
    whole=st.booleans(),
    bounds=st.sampled_from(((None, None), (0, 1), (1e-5, 0.999))),
)
def test_whatever_the_grid_its_chains_are_monotone_and_within_bounds(grid, extend, whole, bounds):
    grid = [float(f"{value:.3g}") for value in grid]
    if whole:
        grid = sorted({int(value * 1000) + 1 for value in grid})
        bounds = (None, None)
        if extend == "complement" or len(grid) < 2:
            return
    low, high = bounds
    any_axis = axis("x", *grid, start=grid[0], extend=extend, low=low, high=high, whole=whole)
    chain = [*reversed(any_axis.below), *any_axis.values, *any_axis.above]
    assert chain == sorted(set(chain))
    assert len(any_axis.above) <= MAX_EXTENSIONS and len(any_axis.below) <= MAX_EXTENSIONS
    assert all((low is None or low <= value) and (high is None or value <= high) for value in chain)
    for value in chain:
        line = any_axis.line(value)
        assert value not in line and list(line) == sorted(line)
        further = any_axis.extension(value)
        assert (further in line) if any_axis.edge(value) == "extended" else True
        assert set(any_axis.values) - {value} <= set(line)
