"""What the joint policy explores, believes and tries; the model behind it; the surfaces it is measured on."""

from __future__ import annotations

import itertools
import random

import pytest
from search_helpers import at, axis, run, space

from tuneopt.search.descent import descend
from tuneopt.search.joint import Effects

NAMES = ("beta1", "beta2", "epsilon", "learning_rate", "momentum", "weight_decay")
GRID = (1.0, 2.0, 4.0, 8.0)


def cube(start=8.0, names=NAMES):
    return space(*(axis(name, *GRID, start=start) for name in names))


def additive(step=0.02, noise=0.0):
    """Every step away from 2 costs ``step`` nats in each coordinate."""

    def loss(config):
        away = sum(abs(GRID.index(value) - 1) for name, value in config if name in NAMES)
        return 3 + step * away + noise * random.Random(repr(config)).gauss(0, 1)

    return loss


def test_around_the_start_only_neighbours_are_tried():
    first = descend(cube(), {}, 0.003).pending
    assert set(first) == {cube().start, *(at(cube(), **{name: 4.0}) for name in NAMES)}


def test_a_jump_and_one_star_take_far_fewer_trials_than_two_stars():
    found = run(cube(), additive(), 0.003)
    assert found.incumbent == at(cube(), **dict.fromkeys(NAMES, 2.0))
    assert found.certificate.complete
    assert len(found.asked) < 2 * len(found.star)
    assert len(run(cube(), additive(), 0.003, "single").asked) > 2 * len(found.asked)


def test_gains_below_the_tolerance_that_add_up_are_taken_together():
    loss = additive(step=0.002)
    start = cube(start=4.0)
    assert run(start, loss, 0.003, "single").incumbent == start.start
    found = run(start, loss, 0.003)
    assert loss(found.incumbent) < loss(start.start) - 0.009
    assert [move.kind for move in found.path] == ["joint"]


def test_flat_coordinates_stay_where_they_are():
    found = run(cube(), lambda config: 3.0, 0.003)
    assert (found.incumbent, found.path, found.waves) == (cube().start, (), 2)
    assert len(found.asked) == len(found.star) + 1, "one star, no trial more"


def test_a_combination_that_the_coordinates_spoil_does_not_win():
    names = ("learning_rate", "weight_decay")

    def loss(config):
        moved = [dict(config)[name] != 8.0 for name in names]
        return 4.0 if all(moved) else 3.0 - 0.1 * sum(moved)

    found = run(cube(names=names), loss, 0.003)
    assert [move.kind for move in found.path] == ["single"]
    assert loss(found.incumbent) == 2.9


def test_a_diverged_neighbourhood_is_left_by_spread_out_trials():
    """Two values of the start diverge whatever the others are: no single change mends that."""
    base = additive()

    def loss(config):
        values = dict(config)
        return None if 8.0 in (values["learning_rate"], values["momentum"]) else base(config)

    assert run(cube(), loss, 0.003, "single").incumbent_loss is None
    found = run(cube(), loss, 0.003)
    assert found.incumbent == at(cube(), **dict.fromkeys(NAMES, 2.0))
    assert found.certificate.complete


@pytest.mark.parametrize("seed", range(5))
def test_noise_rarely_costs_more_than_the_tolerance(seed):
    names = NAMES[:5]
    plane = cube(start=8.0, names=names)
    order = random.Random(seed)
    steps = {name: order.choice((0.001, 0.004, 0.03)) for name in names}

    def true(config):
        return 3 + sum(steps[name] * abs(GRID.index(value) - 1) for name, value in config if name in names)

    def loss(config):
        return true(config) + 0.0012 * random.Random(f"{seed}{config}").gauss(0, 1)

    found = run(plane, loss, 0.003)
    assert found.certificate.complete
    assert true(found.incumbent) - 3 < 0.006


def test_the_model_averages_over_stars_and_recovers_an_additive_surface():
    plane = cube(names=NAMES[:3])
    configs = [at(plane, **dict(zip(NAMES, values, strict=False))) for values in itertools.product(GRID[1:3], repeat=3)]
    noisy = {config: additive(noise=0.0012)(config) for config in configs}
    model = Effects(plane, noisy, [configs[0]], 0.003)
    for name in NAMES[:3]:
        assert model.of(name, 4.0) - model.of(name, 2.0) == pytest.approx(0.02, abs=0.0025)
    gains = model.gains(configs[-1], 0.001)
    assert {(name, value) for _, name, value in gains} == {(name, 2.0) for name in NAMES[:3]}
    assert gains == sorted(gains, key=lambda gain: -gain[0])


def test_a_lucky_trial_is_not_believed_and_a_missed_one_is():
    plane = cube(names=NAMES[:3])
    configs = [at(plane, **dict(zip(NAMES, values, strict=False))) for values in itertools.product(GRID, repeat=3)]
    losses = {config: additive()(config) for config in configs}
    lucky = configs[21]
    model = Effects(plane, losses | {lucky: losses[lucky] - 0.002}, [lucky], 0.003)
    assert model.believed(lucky, losses[lucky] - 0.002) == pytest.approx(losses[lucky], abs=5e-4)
    assert model.believed(lucky, losses[lucky] + 1.0) == losses[lucky] + 1.0
