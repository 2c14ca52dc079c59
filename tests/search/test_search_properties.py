"""What must hold on every surface: an end, a true certificate, and one answer whatever the order of events."""

from __future__ import annotations

import random
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st
from search_helpers import at, axis, rough, run, small_sweep, space

from tuneopt.search.descent import POLICIES, descend
from tuneopt.search.plan import Outcome
from tuneopt.search.sweep import Sweep

NAMES = ("learning_rate", "momentum", "weight_decay", "epsilon")
policies = st.sampled_from(tuple(POLICIES))


@st.composite
def planes(draw):
    """One to four coordinates, each open, bounded or closed, starting anywhere on its grid."""
    axes = []
    for name in NAMES[: draw(st.integers(1, 4))]:
        grid = (1.0, 2.0, 4.0, 8.0)[: draw(st.integers(1, 4))]
        extend = draw(st.sampled_from(("geometric", "geometric", "none")))
        high = draw(st.sampled_from((None, 10.0)))
        axes.append(axis(name, *grid, start=draw(st.sampled_from(grid)), extend=extend, high=high))
    return space(*axes)


@settings(max_examples=80, deadline=None)
@given(plane=planes(), seed=st.integers(0, 10**6), diverged=st.sampled_from((0.0, 0.3, 0.9)), policy=policies)
def test_every_descent_ends_and_its_certificate_is_true(plane, seed, diverged, policy):
    loss, tolerance = rough(seed, diverged), 0.02
    found = run(plane, loss, tolerance, policy)
    star = {change.config for change in found.star}
    assert star == {config for _, _, config in plane.star(found.incumbent)}
    finished = [value for config in star if (value := loss(config)) is not None]
    assert found.incumbent_loss == loss(found.incumbent)
    assert found.certificate.complete <= (star <= set(found.asked)), "what was not evaluated is not certified"
    if policy == "model":  # follows its posterior, past lucky losses too, and says how far it can see
        assert (found.certificate.resolution is None) == (found.incumbent_loss is None or not plane.varied)
        return
    losses = [move.loss for move in found.path]
    for move in found.path:
        least = 0.0 if policy == "joint" else tolerance  # joint may move on what all trials together tell
        assert move.loss_before is None or move.loss < move.loss_before - least
    assert losses == sorted(losses, reverse=True)
    assert star <= set(found.asked)
    if found.incumbent_loss is None:
        assert not finished and not found.certificate.complete
    else:
        assert all(value >= found.incumbent_loss - tolerance for value in finished)
        assert found.certificate.complete or found.certificate.edges


@settings(max_examples=40, deadline=None)
@given(plane=planes(), seed=st.integers(0, 10**6), policy=policies, order=st.randoms(use_true_random=False))
def test_the_order_of_outcomes_and_what_else_is_known_change_nothing(plane, seed, policy, order):
    loss = rough(seed, 0.2)
    found = run(plane, loss, 0.02, policy)
    known = [(config, loss(config)) for config in found.asked]
    unasked = [(at(plane, **{plane.axes[0].name: 77.0}), 0.0)]
    order.shuffle(known)
    assert descend(plane, dict(unasked + known), 0.02, policy) == found


def outcome(sweep: Sweep, spec) -> Outcome:
    """A surface with seed noise, divergence and trials without proof."""
    value = rough(7, 0.1)(spec.hyperparameters)
    if value is None:
        return Outcome("diverged")
    noisy = value + 0.001 * random.Random(spec.id).gauss(0, 1)
    return Outcome("unproven" if value > 3.95 else "completed", noisy, noisy + 0.1)


def finish(sweep: Sweep, pick, known=()) -> dict[str, Outcome]:
    """Drive a sweep to its end one trial at a time, each picked from the pending ones."""
    outcomes = dict(known)
    while not (state := sweep.state(outcomes)).finished:
        spec = pick(state.pending)
        assert spec.id not in outcomes
        outcomes[spec.id] = outcome(sweep, spec)
    return outcomes


@settings(max_examples=25, deadline=None)
@given(policy=policies, order=st.randoms(use_true_random=False))
def test_a_sweep_ends_the_same_whatever_the_order_in_which_its_trials_end(policy, order):
    sweep = small_sweep(policy=policy, replicates=3)
    straight = finish(sweep, lambda pending: pending[0])
    shuffled = finish(sweep, order.choice)
    assert shuffled == straight, "the same trials ran"
    assert sweep.state(shuffled) == sweep.state(straight)


@settings(max_examples=15, deadline=None)
@given(policy=policies, order=st.randoms(use_true_random=False), data=st.data())
def test_a_sweep_that_is_killed_at_any_moment_ends_as_an_undisturbed_one(policy, order, data):
    sweep = small_sweep(policy=policy, replicates=3)
    undisturbed = finish(sweep, lambda pending: pending[0])
    whole = list(finish(sweep, order.choice).items())
    left = dict(whole[: data.draw(st.integers(0, len(whole)))])
    again = Sweep.from_dict(sweep.to_dict())
    resumed = finish(again, order.choice, left)
    assert resumed == undisturbed
    assert again.state(resumed) == sweep.state(undisturbed)


class Counted(Mapping):
    """Outcomes that count how often they are asked for one, and refuse to be gone through."""

    def __init__(self, outcomes):
        self.outcomes, self.asked = outcomes, 0

    def __getitem__(self, config):
        self.asked += 1
        return self.outcomes[config]

    def __contains__(self, config):
        self.asked += 1
        return config in self.outcomes

    def __iter__(self):
        raise AssertionError("a descent went through every outcome")

    def __len__(self):
        return len(self.outcomes)


def test_a_crowded_ledger_costs_nothing():
    plane = space(*(axis(name, 1.0, 2.0, 4.0, start=2.0, extend="geometric") for name in NAMES))
    loss = rough(3)
    found = run(plane, loss, 0.02)
    alone = Counted({config: loss(config) for config in found.asked})
    crowd = Counted(alone.outcomes | {at(plane, epsilon=1000.0 + number): 3.0 for number in range(10_000)})
    assert descend(plane, alone, 0.02) == descend(plane, crowd, 0.02) == found
    assert crowd.asked == alone.asked
