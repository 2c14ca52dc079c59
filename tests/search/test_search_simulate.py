"""The simulator: slots and a fake clock around the real sweep, and the published stars as surfaces."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from search_helpers import bowl, published, rough, small_sweep

from tuneopt.run.simulated import simulate
from tuneopt.search.plan import Outcome
from tuneopt.search.space import load_space
from tuneopt.search.study.surfaces import AdditiveSurrogate
from tuneopt.search.sweep import Sweep
from tuneopt.spec import SCALES, CorpusId, InputError, Regime

BOWL = bowl(learning_rate=0.04, momentum=0.95)
TABLE = {
    "incumbent": {"learning_rate": 0.02, "momentum": 0.95},
    "incumbent_loss": 3.5,
    "changes": [
        ["learning_rate", 0.04, 3.4],
        ["learning_rate", 0.01, 7.5],
        ["momentum", 0.98, None],
        ["momentum", 0.9, 3.6],
    ],
}


def on_bowl(spec):
    return BOWL(spec.hyperparameters)


def test_one_slot_runs_trials_one_after_another():
    done = simulate(small_sweep(), on_bowl)
    assert (done.trials, done.clock.seconds, done.clock.utilisation) == (14, 14.0, 1.0)
    assert [run.ended for run in done.clock.runs] == [float(second) for second in range(1, 15)]
    assert done.waves == 3


def test_enough_slots_run_a_wave_in_the_time_of_one_trial():
    done = simulate(small_sweep(), on_bowl, slots=64)
    assert (done.trials, done.clock.seconds) == (14, 3.0)
    assert done.clock.utilisation == pytest.approx(14 / (3 * 64))


def test_slots_and_durations_change_the_clock_and_nothing_else():
    def uneven(spec):
        return 1 + int(spec.id, 16) % 7

    alone = simulate(small_sweep(), on_bowl)
    for slots in (2, 3, 5):
        many = simulate(small_sweep(), on_bowl, slots=slots, duration=uneven)
        assert many.state == alone.state
        assert many.outcomes == alone.outcomes
        assert many.clock.seconds < sum(uneven(run.spec) for run in alone.clock.runs)
        busy = sorted((run.slot, run.started, run.ended) for run in many.clock.runs)
        assert all(a[2] <= b[1] for a, b in pairwise(busy) if a[0] == b[0]), "a slot runs one at a time"


def test_what_is_known_does_not_run_again():
    first = simulate(small_sweep(), on_bowl)
    again = simulate(small_sweep(), on_bowl, known=first.outcomes)
    assert (again.trials, again.clock.seconds, again.clock.utilisation) == (0, 0.0, 1.0)
    assert again.state == first.state


def test_crashed_trials_are_given_up_and_block_nothing():
    sweep = small_sweep()
    lost = sweep.trial_id(sweep.space.change(sweep.space.start, "learning_rate", 0.04))
    done = simulate(sweep, on_bowl, slots=3, crashes=lambda spec: spec.id == lost)
    assert done.gave_up == {lost}
    assert lost not in done.outcomes
    assert done.state.finished and not done.state.descent.certificate.complete
    everything = simulate(small_sweep(), on_bowl, crashes=lambda spec: True)
    assert (everything.state.finished, everything.state.best) == (True, None)
    assert everything.trials == len(everything.gave_up)


def test_outcomes_losses_and_divergence_are_understood():
    done = simulate(small_sweep(), lambda spec: None)
    assert {outcome.status for outcome in done.outcomes.values()} == {"diverged"}
    unproven = simulate(small_sweep(), lambda spec: Outcome("unproven", 1.0, 1.0))
    assert unproven.state.best is None
    assert unproven.state.progress.unproven == unproven.trials
    with pytest.raises(InputError, match="at least one slot"):
        simulate(small_sweep(), on_bowl, slots=0)


def test_a_rough_surface_with_divergence_ends_for_every_policy():
    for policy in ("joint", "single", "cyclic"):
        done = simulate(small_sweep(policy=policy), lambda spec: rough(5, 0.3)(spec.hyperparameters), slots=4)
        assert done.state.finished


def test_a_surrogate_adds_what_each_value_changes():
    surface = AdditiveSurrogate.from_star(TABLE)
    assert surface.true_loss({"learning_rate": 0.04, "momentum": 0.9}) == pytest.approx(3.5)
    assert surface.true_loss({"learning_rate": 0.02, "momentum": 0.95}) == 3.5
    assert surface.regret({"learning_rate": 0.02, "momentum": 0.95}) == pytest.approx(0.1)
    assert surface.regret({"learning_rate": 0.04, "momentum": 0.95}) == pytest.approx(0)
    for lost in ({"learning_rate": 0.01, "momentum": 0.95}, {"learning_rate": 0.02, "momentum": 0.98}):
        assert surface.true_loss(lost) is None
        assert surface.regret(lost) is None
    assert surface.true_loss({"learning_rate": 0.08, "momentum": 0.95}) is None, "nothing is known there"


def test_seed_noise_belongs_to_the_trial():
    sweep = small_sweep(replicates=41)
    surface = AdditiveSurrogate.from_star(TABLE, noise=0.01)
    losses = [surface.loss(sweep.spec(sweep.space.start, seed)) for seed in sweep.seeds]
    assert losses == [surface.loss(sweep.spec(sweep.space.start, seed)) for seed in sweep.seeds]
    assert len(set(losses)) == len(losses)
    assert 0.005 < math.sqrt(sum((loss - 3.5) ** 2 for loss in losses) / len(losses)) < 0.02
    assert surface.loss(sweep.spec(sweep.space.change(sweep.space.start, "learning_rate", 0.01))) is None


def from_paper_start(star, policy="joint"):
    """A sweep on the surrogate of one published star, from the start that the study used there."""
    space = load_space(star["optimizer"])
    varied = {name for name, _, _ in star["changes"]}
    held = {each.name: star["incumbent"][each.name] for each in space.coordinates if each.name not in varied}
    start = published("grids.json")[star["optimizer"]]["start"][f"{star['scale']}/{star['ratio']}"]
    ladder = space.on("paper", held).begin_at({name: start[name] for name in varied})
    surface = AdditiveSurrogate.from_star(star)
    regime = Regime(SCALES[star["scale"]], star["ratio"], CorpusId("c4", "00000000", 128256))
    done = simulate(Sweep(ladder, regime, replicates=1, policy=policy), surface.loss, slots=64)
    return surface, done


SUMMED = {("muon", "130m", 8), ("muon", "520m", 1)}
"""Stars with changes that each win by less than the tolerance and together by more: the certificate allows for them.

`joint` tries such changes together and is not caught by them."""


@pytest.mark.parametrize(
    "policy", ["joint", *(pytest.param(policy, marks=pytest.mark.slow) for policy in ("single", "cyclic"))]
)
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_from_the_published_starts_the_regret_stays_below_the_tolerance(name, policy):
    stars = [star for star in published("stars.json") if star["optimizer"] == name]
    assert len(stars) == 12
    for star in stars:
        surface, done = from_paper_start(star, policy)
        best = dict(done.state.best.spec.hyperparameters)
        regret = surface.regret(best)
        assert done.state.descent.certificate.complete
        if policy == "joint" or (name, star["scale"], star["ratio"]) not in SUMMED:
            assert regret < 0.003
            continue
        # The search ends there; the finish, which asks a model of all trials, comes nearer and never further.
        searched = dict(done.state.searched.incumbent)
        assert regret <= surface.regret(searched) + 1e-9
        best, regret = searched, surface.regret(searched)
        left = [
            effect[best[coordinate]] - min(each for each in effect.values() if each is not None)
            for coordinate, effect in surface.effects.items()
        ]
        assert regret == pytest.approx(sum(left), abs=1e-9)
        assert max(left) < 0.003 < regret
