"""A sweep in its regime: first wave, noise, tolerance, confirmation, identity."""

from __future__ import annotations

import json
import math
import statistics

import pytest
from scipy.stats import t
from search_helpers import NANO, axis, bowl, small_sweep, space, without

from tuneopt.search.evidence import Evidence
from tuneopt.search.noise import Cell, NoiseRegime, Replicate, SpreadModel
from tuneopt.search.plan import Outcome
from tuneopt.search.space import load_space
from tuneopt.search.sweep import Sweep, micro_batch
from tuneopt.spec import SCALES, CorpusId, Evaluation, InputError, Regime, TrialSpec

BOWL = bowl(learning_rate=0.04, momentum=0.95)


def told(sweep: Sweep, specs, offsets=(), report=0.1) -> dict[str, Outcome]:
    """Outcomes on a bowl, shifted by seed."""
    by_seed = dict(enumerate(offsets))
    return {
        spec.id: Outcome("completed", loss := BOWL(spec.hyperparameters) + by_seed.get(spec.seed, 0.0), loss + report)
        for spec in specs
    }


def finish(sweep: Sweep, offsets=()) -> dict[str, Outcome]:
    outcomes: dict[str, Outcome] = {}
    while not (state := sweep.state(outcomes)).finished:
        outcomes |= told(sweep, state.pending, offsets)
    return outcomes


def test_the_first_wave_is_the_start_its_replicates_and_the_star():
    sweep = small_sweep(seed=5)
    state = sweep.state({})
    start = sweep.space.start
    assert [(spec.hyperparameters, spec.seed) for spec in state.pending][:4] == [(start, seed) for seed in (5, 6, 7, 8)]
    assert len(state.pending) == 4 + 4
    assert {spec.seed for spec in state.pending if spec.hyperparameters != start} == {5}
    assert (state.finished, state.sigma, state.tolerance, state.best) == (False, None, 0.003, None)
    assert state.needed == state.pending


def test_noise_over_seeds_sets_the_tolerance():
    sweep = small_sweep()
    offsets = (0.0, 0.01, -0.01, 0.02)
    state = sweep.state(told(sweep, sweep.state({}).pending, offsets))
    cell = Cell("adamw", NoiseRegime(65536.0, 1.0))
    known = SpreadModel(Replicate(cell, "start", seed, loss) for seed, loss in enumerate(offsets)).spread(*cell)
    assert state.sigma == pytest.approx(known.sigma)
    assert (state.spread.freedom, state.spread.replicates) == (known.freedom, 3)
    assert state.tolerance == pytest.approx(t.ppf(0.95, known.freedom) * math.sqrt(2) * known.sigma)
    assert state.descent.certificate.tolerance == state.tolerance
    floor = small_sweep(tolerance_floor=0.5)
    quiet = floor.state(told(floor, floor.state({}).pending, (0.0, 1e-5)))
    assert quiet.tolerance == 0.5, "the floor holds where the noise is small"


def test_nothing_is_decided_while_a_replicate_is_out():
    sweep = small_sweep()
    outcomes = told(sweep, sweep.state({}).pending)
    late = sweep.trial_id(sweep.space.start, 3)
    state = sweep.state(without(outcomes, late))
    assert [spec.id for spec in state.pending] == [late]
    assert (state.descent.path, state.sigma) == ((), None)
    given_up = sweep.state(without(outcomes, late), gave_up={late})
    assert len(given_up.descent.path) == 1
    assert given_up.sigma is not None


def test_without_two_completed_seeds_the_noise_is_the_priors():
    sweep = small_sweep(replicates=3)
    first = sweep.state({}).pending
    outcomes = told(sweep, first)
    for spec in first:
        if spec.seed:
            outcomes[spec.id] = Outcome("diverged")
    law = SpreadModel([]).spread("adamw", NoiseRegime(65536.0, 1.0))
    assert (sweep.state(outcomes).spread, law.replicates) == (law, 0)
    alone = small_sweep(replicates=1)
    assert {spec.seed for spec in alone.state({}).pending} == {0}
    assert alone.state(told(alone, alone.state({}).pending)).spread == law


def test_the_winner_is_rerun_with_the_other_seeds_and_reported_over_all_of_them():
    sweep = small_sweep()
    offsets = (0.0, 0.001, 0.002, 0.003)
    outcomes = finish(sweep, offsets)
    state = sweep.state(outcomes)
    best = state.best
    assert dict(best.spec.hyperparameters)["learning_rate"] == 0.04
    assert (best.trial, best.spec.seed, best.seeds) == (best.spec.id, 0, 4)
    assert best.select_loss == outcomes[best.trial].select_loss
    assert best.report_loss == pytest.approx(best.select_loss + 0.1 + statistics.fmean(offsets))
    assert best.report_error == pytest.approx(statistics.stdev(offsets) / 2)
    assert {spec.seed for spec in state.needed if spec.hyperparameters == best.spec.hyperparameters} == {0, 1, 2, 3}
    assert len(outcomes) == 8 + 3 + 3, "the first wave, three new in the second star, three confirmations"
    assert state.descent.certificate.complete


def test_a_start_that_wins_needs_no_further_trial():
    sweep = small_sweep()
    flat = {spec.id: Outcome("completed", 3.0, 3.1) for spec in sweep.state({}).pending}
    state = sweep.state(flat)
    assert (state.finished, state.best.seeds, state.best.report_error) == (True, 4, 0.0)
    assert state.progress.waves == 1


def test_confirmations_that_fail_do_not_block():
    sweep = small_sweep()
    outcomes = finish(sweep)
    best = sweep.state(outcomes).best
    bad, lost = (sweep.trial_id(best.spec.hyperparameters, seed) for seed in (1, 2))
    state = sweep.state(without(outcomes, lost) | {bad: Outcome("diverged")}, gave_up={lost})
    assert (state.finished, state.best.seeds, state.certificate.complete) == (True, 2, True)
    assert state.certificate.state == "certified"


@pytest.mark.parametrize("status", ["diverged", "unproven"])
def test_what_cannot_be_compared_never_wins_and_never_blocks(status):
    sweep = small_sweep()
    first = sweep.state({}).pending
    outcomes = told(sweep, first)
    winner = sweep.trial_id(sweep.space.change(sweep.space.start, "learning_rate", 0.04))
    outcomes[winner] = Outcome(status, 0.0, 0.0)
    state = sweep.state(outcomes)
    assert state.descent.path == ()
    assert [change.status for change in state.descent.star if change.value == 0.04] == [status]
    assert (state.finished, state.progress.diverged + state.progress.unproven) == (True, 1)


def test_an_outcome_without_a_finite_loss_never_wins():
    assert Outcome("completed", math.nan, math.inf).loss is None
    assert Outcome("completed", math.nan, math.inf).reported is None
    with pytest.raises(InputError, match="did you mean 'diverged'"):
        Outcome("diverge")


def test_a_star_that_lacks_a_trial_finishes_without_a_certificate():
    sweep = small_sweep()
    flat = {spec.id: Outcome("completed", 3.0, 3.1) for spec in sweep.state({}).pending}
    lost = sweep.trial_id(sweep.space.change(sweep.space.start, "momentum", 0.9))
    state = sweep.state(without(flat, lost), gave_up={lost})
    assert (state.finished, state.descent.certificate.complete, state.progress.missing) == (True, False, 1)


def test_a_sweep_in_which_everything_diverges_ends():
    sweep = small_sweep()
    outcomes: dict[str, Outcome] = {}
    while (state := sweep.state(outcomes)).pending:
        outcomes |= {spec.id: Outcome("diverged") for spec in state.pending}
    assert (state.finished, state.best, state.descent.certificate.complete) == (True, None, False)
    assert state.progress.diverged == state.progress.needed == len(outcomes)


def test_progress_counts_and_its_estimate_reaches_what_is_pending():
    sweep = small_sweep()
    outcomes: dict[str, Outcome] = {}
    estimates, state = [], sweep.state(outcomes)
    assert state.progress.remaining > len(state.pending), "a sweep rarely ends with its first wave"
    while not state.finished:
        outcomes |= told(sweep, state.pending)
        state = sweep.state(outcomes)
        estimates.append(state.progress.remaining)
        assert state.progress.remaining >= len(state.pending)
        assert (state.progress.done, state.progress.needed) == (len(outcomes), len(state.needed))
    assert estimates[-1] == 0
    assert state.progress.best_loss == min(outcome.select_loss for outcome in outcomes.values())
    assert state.progress.waves == 3, "two stars and the confirmation"


def test_the_start_is_launched_first_and_then_the_longest():
    plane = space(axis("train_batch_size", 8, 16, 32, start=16, whole=True), axis("learning_rate", 0.1, 0.2, start=0.1))
    batches = [spec.batch for spec in Sweep(plane, NANO, replicates=2).state({}).pending]
    assert batches == [16, 8, 16, 16, 32]


def test_changes_that_cannot_run_in_the_regime_are_not_asked_for():
    paper = load_space("adamw").on("paper")
    regime = Regime(SCALES["130m"], 1, CorpusId("c4", "00000000", 128256))
    star = Sweep(paper, regime, replicates=1, policy="single").state({}).pending
    assert {spec.batch for spec in star} == {64, 128, 256}, "2000 steps of warmup leave no run at 512"
    assert all(spec.config["warmup"] < spec.steps for spec in star)
    with pytest.raises(InputError, match="warmup of 2000 steps does not end within the 512 steps"):
        Sweep(paper, Regime(SCALES["130m"], 0.1, regime.corpus))
    with pytest.raises(InputError, match="train_batch_size 8 does not fit"):
        Sweep(load_space("adamw").on("nano"), Regime(SCALES["nano-65k"], 0.0005, NANO.corpus))


def test_micro_batches_divide_the_batch_and_fit_the_ladder():
    nano, paper = SCALES["nano-65k"], SCALES["1.2b"]
    assert [micro_batch(batch, nano) for batch in (1, 4, 16, 17, 24, 32, 48, 100)] == [1, 4, 16, 1, 12, 16, 16, 10]
    assert micro_batch(256, paper) == 1


def test_settings_reach_every_trial():
    sweep = small_sweep(precision="bf16", compile=True, evaluation=Evaluation(points=5), seed=3)
    spec = sweep.spec(sweep.space.start)
    assert (spec.precision, spec.compile, spec.evaluation.points, spec.seed) == ("bf16", True, 5, 3)
    assert (spec.optimizer, spec.regime, spec.micro_batch) == ("adamw", NANO, 16)
    assert sweep.spec(sweep.space.start, 9).seed == 9
    assert sweep.trial_id(sweep.space.start) == spec.id


def test_a_sweep_survives_json_and_keeps_its_id():
    sweep = small_sweep(policy="cyclic", replicates=2)
    sweep.state({})
    again = Sweep.from_dict(json.loads(json.dumps(sweep.to_dict())))
    assert (again, again.id, hash(again)) == (sweep, sweep.id, hash(sweep))
    assert again.state({}) == sweep.state({})
    assert len({small_sweep(seed=seed).id for seed in range(3)} | {small_sweep(policy="single").id, sweep.id}) == 5


def test_a_renamed_corpus_leaves_the_sweep_the_same():
    sweep = small_sweep(replicates=3)
    renamed = Sweep(sweep.space, Regime(NANO.scale, 1, CorpusId("elsewhere", "00000000", 512)))
    other = Sweep(sweep.space, Regime(NANO.scale, 1, CorpusId("embedded", "11111111", 512)))
    assert renamed.id == sweep.id != other.id


def test_ids_are_the_same_on_every_machine():
    # Every field is spelled out, so that a new default changes no id here: only a new way to hash can.
    sweep = small_sweep(replicates=3, evaluation=Evaluation(points=20, curve_sequences=64, final_sequences=512))
    assert sweep.id == "f8338003fb04b338"
    assert sweep.trial_id(sweep.space.start) == "a36bd4b1d1ecae22"
    spec = TrialSpec.from_dict(json.loads(json.dumps(sweep.spec(sweep.space.start).to_dict())))
    assert spec.id == "a36bd4b1d1ecae22"


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"policy": "jiont"}, "did you mean 'joint'"),
        ({"replicates": 0}, "default is 3"),
        ({"tolerance_floor": -1.0}, r"try 0\.003"),
        ({"tolerance_floor": math.nan}, r"try 0\.003"),
    ],
)
def test_settings_out_of_range_are_refused(settings, hint):
    with pytest.raises(InputError, match=hint):
        small_sweep(**settings)


def test_a_space_of_another_ladder_and_junk_are_refused():
    with pytest.raises(InputError, match="nano-65k is not on the ladder 'paper'"):
        Sweep(load_space("adamw").on("paper"), NANO)
    plain = small_sweep().to_dict()
    for junk in (
        {},
        without(plain, "regime"),
        plain | {"wings": 2},
        plain | {"space": {"axes": 3}},
        plain | {"regime": 1},
    ):
        with pytest.raises(InputError, match="not a"):
            Sweep.from_dict(junk)


def test_one_bar_holds_for_all_optimizers_that_are_judged_together():
    """Who has no replicates is judged by the same bar as who has: the largest of all."""
    regime = small_sweep().regime
    cell = Cell("adamw", NoiseRegime(float(regime.scale.parameters), float(regime.ratio)))
    noisy = tuple(Replicate(cell, "one", seed, loss) for seed, loss in enumerate((5.0, 5.4, 5.9, 5.1)))
    bars = {}
    for names in ((), ("adamw", "muon", "soap")):
        for name in ("adamw", "muon", "soap"):
            plane = load_space(name).on("nano")
            sweep = Sweep(plane, Regime(SCALES["nano-65k"], regime.ratio, regime.corpus), replicates=1)
            start = {sweep.trial_id(plane.start): Outcome("completed", 5.0, 5.0)}
            bars[names, name] = sweep.state(start, evidence=Evidence(noisy, (), names)).tolerance
    assert len({bars[("adamw", "muon", "soap"), name] for name in ("adamw", "muon", "soap")}) == 1
    assert all(bars[("adamw", "muon", "soap"), name] >= bars[(), name] for name in ("adamw", "muon", "soap"))


def test_fewer_replicates_never_look_stricter_on_a_quiet_or_a_usual_sample():
    """A bar by one seed rests on the law alone, and is wider than one by three seeds that agree with it."""
    bars = []
    for replicates in (1, 2, 3, 5):
        sweep = small_sweep(replicates=replicates)
        sigma = SpreadModel(()).law.at(sweep.regime.scale.parameters)
        usual = (0.0, 1.4 * sigma, 0.7 * sigma, -0.6 * sigma, 0.5 * sigma)
        first = told(sweep, sweep.state({}).pending, usual)
        bars.append(sweep.state(first).tolerance)
    assert bars == sorted(bars, reverse=True), bars
