"""The finish of a sweep: its certificate is true, seeds go where they decide, and nothing depends on order."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest
from search_helpers import NANO, at, axis, bowl, small_sweep, space

from tuneopt.run.simulated import simulate
from tuneopt.search.belief import SEEN, Belief, default_resolution, resolution
from tuneopt.search.evidence import Evidence, in_reach, read_replicates, replicate
from tuneopt.search.noise import Cell, NoiseRegime, Replicate, Spread, SpreadModel
from tuneopt.search.plan import Outcome
from tuneopt.search.standing import Task, stand
from tuneopt.search.sweep import Sweep
from tuneopt.spec import InputError

GRID = (1.0, 2.0, 4.0, 8.0)
NAMES = ("beta1", "beta2", "learning_rate", "weight_decay")
SIGMA = 0.025
KNOWN = Spread(SIGMA, 30.0, 30, SIGMA, 3.0)


def plane(start=4.0, names=NAMES):
    return space(*(axis(name, *GRID, start=start) for name in names))


def world(seed, sigma=SIGMA, steps=(0.0025, 0.005, 0.02, 0.1)):
    """The true loss, and what a run of a trial shows: effects five times, and noise, as at nano-65k."""
    order = random.Random(seed)
    drawn = {name: (order.choice(steps), order.randrange(4)) for name in NAMES}

    def true(config):
        away = [(cost, GRID.index(dict(config)[name]) - best) for name, (cost, best) in drawn.items()]
        return 4 + math.fsum(cost * steps**2 for cost, steps in away)

    return true, lambda spec: true(spec.hyperparameters) + sigma * random.Random(f"{seed}{spec.id}").gauss(0, 1)


def ended(seed, **settings):
    true, show = world(seed, settings.pop("sigma", SIGMA))
    sweep = Sweep(plane(), NANO, **settings)
    return true, sweep, simulate(sweep, show, slots=8)


def missed(true, sweep, incumbent):
    """By how much the best single change is in truth better."""
    return true(incumbent) - min(true(config) for _, _, config in sweep.space.star(incumbent))


@pytest.mark.parametrize("policy", ["joint", "model"])
def test_what_a_certificate_claims_is_true_in_95_of_100(policy):
    """At 5% each, 3 or more false ones of 12 have a chance of 2%."""
    false = 0
    for seed in range(12):
        true, sweep, done = ended(seed, policy=policy, resolution=0.05)
        certificate = done.state.certificate
        assert certificate.confidence == 0.95 and certificate.asked == 0.05
        assert (certificate.state == "certified") <= (certificate.resolution <= 0.05)
        false += missed(true, sweep, done.state.descent.incumbent) > certificate.resolution
    assert false <= 2


def test_seeds_are_spent_until_the_asked_resolution_and_nowhere_else():
    _, sweep, coarse = ended(3, resolution=0.1)
    _, finer, fine = ended(3, resolution=0.03)
    assert coarse.state.certificate.state == fine.state.certificate.state == "certified"
    assert fine.state.certificate.resolution <= 0.03 < coarse.trials and fine.trials > coarse.trials
    assert coarse.state.searched == fine.state.searched, "the search before is the same"
    shared = {spec.id for spec in coarse.state.needed}
    first = [spec.id for spec in fine.state.needed[: len(sweep.state({}).pending)]]
    assert set(first) <= shared, "and so are its first trials"
    # Where a change is worse by many times the noise, a further seed would tell nothing.
    star = {change.config: change.loss for change in fine.state.searched.star}
    best = fine.state.searched.incumbent_loss
    before = {(config, 0) for config in fine.state.searched.asked}
    before |= {(config, seed) for config in (finer.space.start, fine.state.searched.incumbent) for seed in finer.seeds}
    seeds = [spec for spec in fine.state.needed if (spec.hyperparameters, spec.seed) not in before]
    assert len(seeds) > 5
    assert all(star.get(spec.hyperparameters, best) < best + 8 * SIGMA for spec in seeds)


def test_without_a_budget_for_it_the_certificate_is_blind_and_says_what_would_mend_it():
    _, sweep, done = ended(1, sigma=0.2)  # eight times the law's noise: what the scale usually affords is out of reach
    certificate = done.state.certificate
    assert (certificate.state, certificate.complete, certificate.asked) == ("blind", True, 0.05)
    assert certificate.resolution > 0.05
    assert certificate.seeds_needed is None or certificate.seeds_needed > 50
    extra = [spec for spec in done.state.needed if spec.seed >= sweep.replicates]
    assert len(extra) <= len(done.state.searched.asked), "nobody asked for more seeds than the search took trials"


def test_a_resolution_coarser_than_most_effects_sees_nothing():
    """Whoever asks for a nat gets no green word for it."""
    flat = simulate(Sweep(plane(), NANO, resolution=2.0), lambda spec: 4.0 + SIGMA * random.Random(spec.id).gauss(0, 1))
    loud = flat.state.certificate
    apart = [abs(change.loss - flat.state.searched.incumbent_loss) for change in flat.state.searched.star]
    assert loud.state == ("blind" if loud.resolution > np.quantile(apart, 1 - SEEN) else "certified")


def test_fewer_replicates_never_look_stricter():
    """Over many regimes; a single one can be lucky. The seeds that the noise lacks have to be made up for."""
    alone, three = [], []
    for seed in range(8):
        _, _, one = ended(seed, replicates=1, resolution=10.0)
        _, _, more = ended(seed, replicates=3, resolution=10.0)
        alone.append(one.state.certificate)
        three.append(more.state.certificate)
    for name in ("tolerance", "resolution"):
        means = [np.mean([math.log(getattr(one, name)) for one in these]) for these in (alone, three)]
        assert means[0] >= means[1]


@pytest.mark.parametrize("seed", range(8))
def test_one_replicate_never_claims_a_finer_resolution_than_three_from_the_same_losses(seed):
    """The same estimate of sigma, known by the prior alone, by three seeds besides, and for certain."""
    true, _ = world(seed)
    ground, order = plane(), random.Random(seed)
    configs = [ground.start, *(config for _, _, config in ground.star(ground.start))]
    trials = {config: {0: true(config) + SIGMA * order.gauss(0, 1)} for config in configs}
    best = min(trials, key=lambda config: trials[config][0])
    regime = NoiseRegime(65536.0, 1.0)
    alone = SpreadModel(()).spread("adamw", regime)
    three = [Replicate(Cell("adamw", regime), "start", run, alone.sigma * run) for run in (-1, 0, 1)]
    more = SpreadModel(three).spread("adamw", regime)
    assert alone.sigma == pytest.approx(more.sigma) and alone.freedom + 2 == more.freedom
    claims = [
        resolution(ground, trials, best, spread).nats
        for spread in (alone, replace(more, sigma=alone.sigma), replace(alone, freedom=math.inf))
    ]
    assert claims == sorted(claims, reverse=True) and claims[0] > 1.1 * claims[2]


def test_a_lucky_run_of_the_incumbent_is_no_evidence_that_nothing_is_better():
    """It lies further below what all other trials say than noise explains: only other seeds may say that it is so."""
    ground = plane()
    configs = [ground.start, *(config for _, _, config in ground.star(ground.start))]
    trials = {config: {0: 4.0 + 0.001 * number} for number, config in enumerate(configs)}
    trials[ground.start] = {0: 4.0 - 5 * SIGMA}
    lucky = resolution(ground, trials, ground.start, KNOWN)
    assert lucky.nats > SIGMA
    confirmed = trials | {ground.start: dict.fromkeys(range(8), 4.0 - 5 * SIGMA)}
    assert resolution(ground, confirmed, ground.start, KNOWN).nats < lucky.nats / 2


@pytest.mark.parametrize("seed", range(3))
def test_a_finish_ends_the_same_in_any_order_and_after_any_kill(seed):
    _, show = world(seed)
    sweep = Sweep(plane(), NANO, resolution=0.04)
    straight = simulate(sweep, show)
    order, outcomes = random.Random(seed), {}
    again = Sweep.from_dict(sweep.to_dict())
    while not (state := again.state(outcomes)).finished:
        spec = order.choice(state.pending)
        outcomes[spec.id] = Outcome("completed", loss := show(spec), loss)
        if order.random() < 0.05:
            again = Sweep.from_dict(sweep.to_dict())  # forgets all that it remembered
    assert outcomes == straight.outcomes
    assert again.state(outcomes) == straight.state


def test_a_better_finalist_becomes_the_incumbent_and_its_star_is_completed():
    """Seed 0 of a neighbour is unlucky: the search passes it over, and further seeds tell."""
    plain = small_sweep(replicates=3, resolution=0.01)
    better = at(plain.space, momentum=0.98)
    far = bowl(learning_rate=0.02, momentum=0.95)

    def show(spec):
        away = 0.0 if spec.hyperparameters == better else 0.2 * far(spec.hyperparameters)
        base = 3.9 if spec.hyperparameters == better else 4.0 + away
        unlucky = 0.09 * (spec.hyperparameters == better and spec.seed == 0)
        return base + unlucky + 0.01 * random.Random(spec.id).gauss(0, 1)

    done = simulate(plain, show)
    assert done.state.searched.incumbent == plain.space.start
    assert done.state.descent.incumbent == better
    assert [move.kind for move in done.state.descent.path] == ["finalist"]
    assert done.state.certificate.complete and done.state.certificate.state == "certified"
    assert done.state.best.spec.hyperparameters == better and done.state.best.seeds >= 3
    assert done.state.best.select_mean < done.state.best.select_loss, "a mean is a mean, the first run is one run"


def test_a_run_that_diverges_or_is_lost_in_the_finish_blocks_nothing():
    _, show = world(4)
    sweep = Sweep(plane(), NANO, resolution=0.04)
    whole = simulate(sweep, show)
    seeds = [spec.id for spec in whole.state.needed if spec.seed >= 3]
    assert len(seeds) > 1
    lost = simulate(sweep, show, crashes=lambda spec: spec.id == seeds[0])
    assert lost.state.finished and lost.gave_up == {seeds[0]}
    gone = simulate(Sweep(plane(), NANO, resolution=0.04), lambda spec: None if spec.id == seeds[1] else show(spec))
    assert gone.state.finished and gone.state.certificate.resolution is not None
    nothing = simulate(Sweep(plane(), NANO, resolution=0.02), show, crashes=lambda spec: spec.seed >= 1)
    assert nothing.state.finished and nothing.state.certificate.state == "blind"
    assert nothing.state.spread.replicates == 0 and len(nothing.gave_up) < 20, "what never comes back is not asked on"


def test_the_bound_falls_with_runs_and_needed_says_how_many():
    true, _ = world(5)
    ground = plane()
    order = random.Random(1)
    trials = {
        config: {0: true(config) + SIGMA * order.gauss(0, 1)}
        for config in [ground.start, *(config for _, _, config in ground.star(ground.start))]
    }
    best = min(trials, key=true)
    belief = Belief(ground, trials, best, KNOWN)
    needed = belief.needed(0.6 * belief.bound)
    assert belief.needed(belief.bound) == 0 and belief.needed(1e-9) is None
    assert needed is not None and 0 < needed < belief.needed(0.5 * belief.bound)
    assert set(belief.allocate(6)) <= {best, *(config for _, _, config in ground.star(best))}
    told = {config: dict(seeds) for config, seeds in trials.items()}
    for config in belief.allocate(needed):
        told.setdefault(config, {})[100 + len(told.get(config, {}))] = true(config) + SIGMA * order.gauss(0, 1)
    assert Belief(ground, told, best, KNOWN).bound < belief.bound
    assert resolution(ground, trials, best, KNOWN) == belief.resolution
    assert (belief.resolution.changes, belief.resolution.tried) == (12, 3 if best != ground.start else 12)


def test_what_a_scale_is_asked_by_default():
    assert default_resolution(65536) == 0.05
    assert default_resolution(SCALE_130M) == default_resolution(1.2e9) == 0.003
    assert replace(small_sweep(), resolution=0.05).id != small_sweep().id == replace(small_sweep(), resolution=None).id
    assert (small_sweep().question, small_sweep(resolution=0.01).question) == (0.05, 0.01)
    for wrong in (0, -1, math.nan, math.inf, "fine"):
        with pytest.raises(InputError, match="resolution"):
            small_sweep(resolution=wrong)


SCALE_130M = 134e6


def told(sweep, specs, offsets):
    return {spec.id: Outcome("completed", 3.0 + offsets[spec.seed], 3.0) for spec in specs}


def test_other_replicates_in_reach_are_evidence_and_one_bar_holds_for_all():
    sweep = small_sweep(replicates=3)
    other = Sweep(replace(sweep.space, optimizer="soap"), sweep.regime, replicates=3)
    peers = tuple(other.spec(other.space.start, seed) for seed in other.seeds)
    first = sweep.state({}, evidence=Evidence(peers=peers))
    assert {spec.id for spec in peers} <= {spec.id for spec in first.pending}
    assert not {spec.id for spec in peers} & {spec.id for spec in first.needed}, "their budget is their own"
    quiet = told(sweep, sweep.state({}).pending, (0.0, 0.001, 0.002))
    assert sweep.state(quiet, evidence=Evidence(peers=peers)).spread is None, "nothing is decided before they are in"
    loud = told(other, peers, (0.0, 0.1, 0.2))
    mine = sweep.state(quiet | loud, evidence=Evidence(peers=peers))
    bars = [
        mine.tolerance,
        other.state(
            quiet | loud | told(other, other.state({}).pending, (0.0, 0.1, 0.2)),
            evidence=Evidence(peers=tuple(sweep.spec(sweep.space.start, seed) for seed in sweep.seeds)),
        ).tolerance,
    ]
    assert bars[0] == pytest.approx(bars[1]) and bars[0] > sweep.state(quiet).tolerance
    lost = sweep.state(quiet, gave_up={spec.id for spec in peers}, evidence=Evidence(peers=peers))
    assert lost.tolerance == sweep.state(quiet).tolerance


def test_evidence_survives_json_and_leaves_out_what_has_one_seed_or_another_corpus():
    sweep = small_sweep()
    start = sweep.space.start
    elsewhere = replace(sweep, regime=replace(NANO, corpus=replace(NANO.corpus, fingerprint="11111111")))
    trials = [(sweep.spec(start, seed), 3.0 + seed) for seed in (0, 1)]
    trials += [(sweep.spec(at(sweep.space, momentum=0.9)), 3.0)]
    trials += [(elsewhere.spec(start, seed), 3.0) for seed in (0, 1)]
    found = in_reach(reversed(trials), NANO.corpus)
    assert found == tuple(replicate(*trial) for trial in trials[:2])
    assert read_replicates(Evidence(found).to_dict()) == found
    assert SpreadModel(found).measured[Cell("adamw", NoiseRegime(65536.0, 1.0))] == (0.5, 1)
    for junk in (3, [[1, 2]], [["adamw", 1, 1, "x", 0, "3"]]):
        with pytest.raises(InputError):
            read_replicates(junk)


@pytest.mark.parametrize("quota", [12, 15, 20, 25, 33, 45])
def test_a_quota_is_spent_in_the_order_of_asking_whatever_a_later_wave_sorts_first(quota):
    """Batches make runs of unequal length, by which a wave is sorted: nothing that was taken gives its place away."""
    names = {"learning_rate": GRID, "weight_decay": GRID, "train_batch_size": (8, 16, 32)}
    ground = space(*(axis(name, *grid, start=grid[1]) for name, grid in names.items()))
    sweep = Sweep(ground, NANO, replicates=1, policy="model")
    task, outcomes, taken = Task(sweep, "tuning", quota), {}, ()

    def show(spec):
        away = (math.log2(float(spec.config[name]) / 8) for name in names)
        return 4 + math.fsum(0.004 * one**2 for one in away) + SIGMA * random.Random(spec.id).gauss(0, 1)

    states = []
    whole = sweep.state
    object.__setattr__(sweep, "state", lambda *given: states.append(given) or whole(*given))
    while not (standing := stand(task, outcomes)).finished:
        assert standing.pending and len(standing.trials) <= quota
        assert standing.trials[: len(taken)] == taken
        taken = standing.trials
        for spec in standing.pending:
            outcomes[spec.id] = Outcome("completed", loss := show(spec), loss)
        assert len(states) <= quota + 4, "each look takes in what it had not seen, or ends"
        states.clear()
    assert set(standing.trials) == set(outcomes) and len(outcomes) <= quota
    assert stand(task, outcomes).trials == standing.trials


@pytest.mark.slow
@pytest.mark.parametrize("replicates", [1, 3])
def test_flat_coordinates_with_a_jump_are_not_claimed_to_be_flat(replicates):
    """One value of each is better by up to two standard deviations; at 5% each, 6 or more of 40 have one of 1.4%."""
    false = 0
    for seed in range(40):
        order = random.Random(f"jump {seed}")
        best = {name: (order.choice(GRID), order.uniform(0.2, 2.0) * SIGMA) for name in NAMES}

        def true(config, best=best):
            return 4 + math.fsum(gain for name, (value, gain) in best.items() if dict(config)[name] != value)

        def show(spec, true=true, seed=seed):
            return true(spec.hyperparameters) + SIGMA * random.Random(f"{seed}{spec.id}").gauss(0, 1)

        done = simulate(Sweep(plane(), NANO, replicates=replicates), show, slots=8)
        nats = done.state.certificate.resolution
        false += missed(true, Sweep(plane(), NANO), done.state.descent.incumbent) > nats
    assert false <= 5
