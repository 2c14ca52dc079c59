"""What each policy asks for, moves to, and certifies."""

from __future__ import annotations

import math

import pytest
from search_helpers import at, axis, bowl, run, space

from tuneopt.search.descent import descend
from tuneopt.spec import InputError

PLANE = space(axis("learning_rate", 1.0, 2.0, 4.0, start=2.0), axis("weight_decay", 1.0, 2.0, 4.0, start=2.0))


def table(**losses: float | None):
    """A loss by (learning rate, weight decay) digits, such as x24; what is not named is 9."""
    return lambda config: losses.get(f"x{dict(config)['learning_rate']}{dict(config)['weight_decay']}", 9.0)


def test_the_first_wave_is_the_start_and_its_star():
    found = descend(PLANE, {}, 0.25)
    star = [
        at(PLANE, learning_rate=1),
        at(PLANE, learning_rate=4),
        at(PLANE, weight_decay=1),
        at(PLANE, weight_decay=4),
    ]
    assert list(found.pending) == [PLANE.start, *star]
    assert [change.status for change in found.star] == ["pending"] * 4
    assert (found.waves, found.incumbent_loss, found.certificate.complete) == (1, None, False)


def test_only_what_is_missing_stays_pending():
    found = descend(PLANE, {PLANE.start: 3.0, at(PLANE, weight_decay=1): 3.5}, 0.25)
    assert len(found.pending) == 3
    assert found.incumbent_loss == 3.0
    assert [change.status for change in found.star] == ["pending", "pending", "completed", "pending"]


def test_joint_takes_every_improved_coordinate_at_once():
    found = run(PLANE, table(x22=4.0, x42=3.5, x24=3.5, x44=3.0))
    assert found.incumbent == at(PLANE, learning_rate=4, weight_decay=4)
    (move,) = found.path
    assert (move.kind, move.loss_before, move.loss, move.wave) == ("joint", 4.0, 3.0, 2)
    assert move.changes == (("learning_rate", 2, 4), ("weight_decay", 2, 4))
    assert (found.waves, len(found.asked)) == (3, 8), "4 + 1 star, the joint trial, and two of its star are new"
    assert found.certificate.complete


def test_a_joint_trial_that_loses_leaves_the_best_single_change():
    found = run(PLANE, table(x22=4.0, x42=3.5, x24=3.4, x44=3.45))
    assert found.path[0].kind == "single"
    assert found.path[0].config == at(PLANE, weight_decay=4)


@pytest.mark.parametrize("loss", [None, math.nan, math.inf])
def test_a_joint_trial_that_diverges_leaves_the_best_single_change(loss):
    found = run(PLANE, table(x22=4.0, x42=3.5, x24=3.4, x44=loss))
    assert [move.kind for move in found.path] == ["single"]
    assert found.certificate.complete


def test_one_improved_coordinate_needs_no_joint_trial():
    found = run(PLANE, table(x22=4.0, x42=3.0))
    assert [move.kind for move in found.path] == ["single"]
    assert found.waves == 2


def test_a_joint_configuration_that_cannot_run_gives_up_what_gained_least():
    cube = space(*(axis(name, 1.0, 2.0, start=1.0) for name in ("learning_rate", "momentum", "weight_decay")))
    gains = {"learning_rate": 0.5, "momentum": 1.0, "weight_decay": 2.0}

    def loss(config):
        return 9 - sum(gain for name, gain in gains.items() if dict(config)[name] == 2)

    def at_most(doubled):
        return lambda config: sum(dict(config)[name] == 2 for name in gains) <= doubled

    two = run(cube, loss, feasible=at_most(2))
    assert two.path[0].config == at(cube, momentum=2, weight_decay=2)
    assert all(at_most(2)(config) for config in two.asked)
    one = run(cube, loss, feasible=at_most(1))
    assert [move.kind for move in one.path] == ["single"]
    assert one.incumbent == at(cube, weight_decay=2)


def test_an_improvement_of_exactly_the_tolerance_does_not_move():
    assert run(PLANE, table(x22=4.0, x42=3.75), tolerance=0.25).path == ()
    assert len(run(PLANE, table(x22=4.0, x42=3.7499), tolerance=0.25).path) == 1


def test_equal_losses_are_broken_by_declared_order():
    flat = table(x22=4.0, x12=3.0, x42=3.0, x21=3.0, x24=3.0)
    found = run(PLANE, flat, policy="single")
    assert found.path[0].config == at(PLANE, learning_rate=1)


def test_single_moves_one_coordinate_per_wave():
    found = run(PLANE, table(x22=4.0, x42=3.5, x24=3.4, x44=3.0), policy="single")
    assert [move.changes[0][0] for move in found.path] == ["weight_decay", "learning_rate"]
    assert found.incumbent == at(PLANE, learning_rate=4, weight_decay=4)


def test_cyclic_searches_a_coordinate_at_a_time_and_ends_with_a_whole_star():
    loss = table(x22=4.0, x42=3.5, x24=3.4, x44=3.0)
    first = descend(PLANE, {}, 0.25, "cyclic")
    assert [dict(config)["weight_decay"] for config in first.pending] == [2, 2, 2]
    found = run(PLANE, loss, policy="cyclic")
    assert found.incumbent == at(PLANE, learning_rate=4, weight_decay=4)
    assert found.waves == 3, "a line looked at again costs no wave"
    assert found.certificate.complete
    assert all(change.status == "completed" for change in found.star)


@pytest.mark.parametrize("policy", ["joint", "single", "cyclic"])
def test_a_start_that_diverged_gives_way_to_anything_that_finished(policy):
    found = run(PLANE, table(x22=None, x42=8.0, x12=None, x21=None, x24=None), policy=policy)
    assert found.path[0].config == at(PLANE, learning_rate=4)
    assert found.path[0].loss_before is None
    assert found.incumbent_loss == 8.0


@pytest.mark.parametrize("policy", ["joint", "single", "cyclic", "model"])
def test_without_any_finished_trial_there_is_no_certificate(policy):
    found = run(PLANE, lambda config: None, policy=policy)
    assert (found.incumbent, found.incumbent_loss, found.certificate.complete) == (PLANE.start, None, False)
    assert {change.status for change in found.star} == {"diverged"}


@pytest.mark.parametrize("bad", [None, math.nan, -math.inf])
def test_divergence_in_the_star_never_wins_and_never_blocks(bad):
    found = run(PLANE, table(x22=4.0, x42=bad, x21=3.0))
    assert found.incumbent == at(PLANE, weight_decay=1)
    assert found.certificate.complete


def test_a_trial_that_was_given_up_leaves_the_certificate_incomplete():
    lost = at(PLANE, learning_rate=4)
    losses = {PLANE.start: 3.0} | {
        at(PLANE, **{name: v}): 4.0 for name in ("learning_rate", "weight_decay") for v in (1, 4)
    }
    del losses[lost]
    assert descend(PLANE, losses, 0.25).pending == (lost,)
    found = descend(PLANE, losses, 0.25, missing={lost})
    assert (found.pending, found.certificate.complete, found.certificate.missing) == ((), False, 1)
    assert descend(PLANE, losses | {lost: 4.0}, 0.25, missing={lost}).certificate.complete, (
        "an outcome counts after all"
    )


def test_an_edge_is_extended_until_the_optimum_is_inside():
    line = space(axis("learning_rate", 1.0, 2.0, start=1.0, extend="geometric"))
    found = run(line, bowl(learning_rate=16.0), tolerance=0.01)
    assert dict(found.incumbent)["learning_rate"] == 16
    assert {change.value for change in found.star} == {1, 2, 4, 8, 32}
    assert (found.certificate.complete, found.certificate.edges) == (True, ())


def test_a_loss_that_falls_for_ever_ends_without_a_certificate():
    line = space(axis("learning_rate", 1.0, 2.0, start=1.0, extend="geometric"))
    found = run(line, lambda config: -float(dict(config)["learning_rate"]))
    assert dict(found.incumbent)["learning_rate"] == 2**9
    assert (found.certificate.complete, found.certificate.edges) == (False, ("learning_rate",))


def test_a_bound_is_a_certified_end():
    line = space(axis("decay", 0.25, 0.5, start=0.25, extend="geometric", high=0.9))
    found = run(line, lambda config: -float(dict(config)["decay"]), tolerance=0.01)
    assert dict(found.incumbent)["decay"] == 0.9
    assert (found.certificate.complete, found.certificate.edges) == (True, ())


def test_an_edge_that_may_not_be_extended_is_certified_and_flagged():
    found = run(PLANE, bowl(learning_rate=8.0, weight_decay=2.0))
    assert (found.certificate.complete, found.certificate.edges) == (True, ("learning_rate",))


def test_an_extension_that_cannot_run_is_certified_and_flagged():
    line = space(axis("train_batch_size", 1, 2, start=1, extend="geometric", whole=True, low=1))
    found = run(
        line,
        lambda config: -float(dict(config)["train_batch_size"]),
        feasible=lambda c: dict(c)["train_batch_size"] < 5,
    )
    assert dict(found.incumbent)["train_batch_size"] == 4
    assert (found.certificate.complete, found.certificate.edges) == (True, ("train_batch_size",))


def test_nothing_is_decided_before_the_noise_is_known():
    losses = dict.fromkeys(descend(PLANE, {}, 0.25).pending, 3.0) | {at(PLANE, weight_decay=4): 1.0}
    held = descend(PLANE, losses, 0.25, decide=False)
    assert (held.path, held.pending, held.certificate.complete) == ((), (), False)
    assert len(descend(PLANE, losses, 0.25).path) == 1


def test_a_space_without_anything_to_vary_is_certified_by_its_start():
    for policy in ("joint", "single", "cyclic", "model"):
        found = run(space(axis("learning_rate", 1.0, start=1.0)), lambda config: 3.0, policy=policy)
        assert (len(found.asked), found.certificate.complete, found.waves) == (1, True, 1)


def test_bad_settings_are_refused_in_one_sentence():
    with pytest.raises(InputError, match="did you mean 'joint'"):
        descend(PLANE, {}, 0.25, "jiont")
    for wrong in (-0.1, math.nan):
        with pytest.raises(InputError, match=r"try 0\.003"):
            descend(PLANE, {}, wrong)
