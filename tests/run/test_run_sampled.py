"""Sampled searches as plans over a ledger: what is told, proposed, reused, cut, confirmed, and asked for again."""

from pathlib import Path

import pytest
from plan_drivers import Worker, small_sweep

from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.scale_files import find_scale
from tuneopt.search.halving import Halving
from tuneopt.search.sampled import SampledSearch
from tuneopt.search.sampled_plan import SampledPlan
from tuneopt.search.space import load_space
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, Regime, TrialSpec

GRIDS = {"learning_rate": [0.004, 0.008, 0.016, 0.032], "weight_decay": [0, 0.1, 0.2], "train_batch_size": [8, 16]}

SWEEP = small_sweep(GRIDS)


def searched(worker: Worker) -> list[str]:
    """Ids of the proposals in their order; the winner's other seeds left out."""
    return [spec.id for spec in worker.suggested if spec.seed == SWEEP.seed]


@pytest.fixture
def record(make_record):
    """A bowl with its lowest loss at 0.016, no decay; the largest rate diverges."""

    def make(spec: TrialSpec) -> TrialRecord:
        rate = spec.config["learning_rate"]
        loss = 4 + abs(rate / 0.016 - 1) + spec.config["weight_decay"] + 1e-4 * spec.seed
        return make_record(spec, None if rate == 0.032 else loss)

    return make


def plan_of(ledger: Ledger, name: str, trials: int, **more) -> SampledPlan:
    return SampledPlan.from_ledger(SampledSearch(SWEEP, name, **more), ledger, trials)


@pytest.mark.parametrize("name", ["tpe", "random"])
@pytest.mark.parametrize("slots", [1, 3])
def test_a_search_spends_its_trials_and_confirms_the_best(name: str, slots: int, tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    worker = Worker(plan_of(ledger, name, 9), ledger, record)
    worker.run(slots)
    assert len(searched(worker)) == len(set(searched(worker))) == 9
    assert worker.suggested[0].hyperparameters == SWEEP.space.start, "the declared start is proposed first"
    best = min((r for r in ledger.records() if r.spec.seed == 0 and r.select_loss), key=lambda r: r.select_loss)
    confirmed = [spec for spec in worker.suggested if spec.seed != SWEEP.seed]
    assert [(spec.hyperparameters, spec.seed) for spec in confirmed] == [(best.spec.hyperparameters, 1)]
    assert worker.plan.state.best.trial == best.trial and worker.plan.state.best.seeds == 2
    assert worker.plan.finished and worker.plan.remaining == 0


def test_the_gaussian_process_searches_too(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    worker = Worker(plan_of(ledger, "gp", 12), ledger, record)
    worker.run()
    assert len(set(searched(worker))) == 12
    assert worker.plan.state.best.spec.config["learning_rate"] == 0.016


def test_proposals_lie_on_the_lattice_and_can_run(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    worker = Worker(plan_of(ledger, "random", 15), ledger, record)
    worker.run()
    for spec in worker.suggested:
        assert spec.config["learning_rate"] in GRIDS["learning_rate"]
        assert spec.config["weight_decay"] in GRIDS["weight_decay"]
        assert SWEEP.feasible(spec.hyperparameters)


def test_a_lattice_that_is_exhausted_ends_the_search(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    worker = Worker(plan_of(ledger, "tpe", 1000), ledger, record)
    worker.run(2)
    assert len(searched(worker)) == worker.plan.search.size == 24
    state = worker.plan.state
    assert state.best.spec.config["learning_rate"] == 0.016
    on_grid = [change for change in state.descent.star if change.value in GRIDS[change.coordinate]]
    assert on_grid and all(change.status in ("completed", "diverged") for change in on_grid)
    assert not state.descent.certificate.complete, "the edges beyond the grids are unknown"


@pytest.mark.parametrize("killed", [1, 4, 8, 10])
@pytest.mark.parametrize("name", ["tpe", "random"])
def test_a_killed_search_goes_on_as_if_it_had_not_been(name: str, killed: int, tmp_path: Path, record) -> None:
    undisturbed = Worker(plan_of(Ledger(tmp_path / "whole"), name, 9), Ledger(tmp_path / "whole"), record)
    undisturbed.run()
    whole = searched(undisturbed)
    ledger = Ledger(tmp_path / "killed")
    first = Worker(plan_of(ledger, name, 9), ledger, record)
    first.run(stop_after=killed)
    held = set(ledger.ids())
    second = Worker(plan_of(ledger, name, 9), ledger, record)
    assert second.plan.others == 0, "trials of its own are no earlier trials"
    second.run()
    assert not held & {spec.id for spec in second.suggested}
    assert searched(first)[: len(held)] + searched(second) == whole, "as if it had not been killed"


def test_what_other_searches_left_is_told_and_marked_and_not_counted(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    Worker(plan_of(ledger, "random", 6), ledger, record).run()
    worker = Worker(plan_of(ledger, "tpe", 5), ledger, record)
    assert worker.plan.others == 6
    assert len(worker.plan._study.trials) >= 6
    held = set(ledger.ids())
    worker.run()
    assert len(searched(worker)) == 5 and not held & set(searched(worker))
    marks = worker.plan.search.marks(worker.plan.others)
    assert any("told 6 earlier trials" in mark for mark in marks) and any("budgets differ" in mark for mark in marks)


def test_a_trial_of_another_seed_regime_or_grid_is_not_told(tmp_path: Path, make_record) -> None:
    ledger = Ledger(tmp_path)
    space = load_space("adamw").on("nano")
    elsewhere = Sweep(space, Regime(find_scale("nano-65k"), 0.05, CorpusId("made-up", "00ff", 1024)))
    ledger.put(make_record(elsewhere.spec(space.start), 4.0))
    ledger.put(make_record(SWEEP.spec(SWEEP.space.start, 7), 4.0))
    other = Sweep(load_space("adamw").on("nano", {"beta1": 0.5}), SWEEP.regime)
    ledger.put(make_record(other.spec(other.space.start), 4.0))
    off_grid = SWEEP.space.change(SWEEP.space.start, "learning_rate", 0.0123)
    ledger.put(make_record(SWEEP.spec(off_grid), 4.0))
    assert plan_of(ledger, "tpe", 5).specs == {}


def test_a_diverged_trial_is_told_as_one_that_cannot_win(tmp_path: Path, make_record) -> None:
    from optuna.trial import TrialState

    ledger = Ledger(tmp_path)
    space = SWEEP.space
    ledger.put(make_record(SWEEP.spec(space.change(space.start, "learning_rate", 0.032)), None))
    tpe, gp = plan_of(ledger, "tpe", 5), plan_of(ledger, "gp", 5)
    (told,) = [trial for trial in tpe._study.trials if trial.state != TrialState.WAITING]
    assert told.state == TrialState.PRUNED and told.value is None
    (told,) = [trial for trial in gp._study.trials if trial.state != TrialState.WAITING]
    assert told.value == pytest.approx(6.931, abs=1e-3), "a uniform guess over 1024 tokens"
    assert tpe.state.best is None


def test_a_cut_trial_has_no_record_counts_as_spent_and_is_remembered(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    worker = Worker(plan_of(ledger, "tpe", 4, scheduler="asha"), ledger, record)
    for turn in range(4):
        spec = worker.start()
        goes_on = worker.plan.goes_on(spec, 0.2, 6.0 + turn if turn in (1, 2) else 5.0 - turn, 1.5)
        assert goes_on == (turn not in (1, 2)), "the worse at a rung are cut"
        if goes_on:
            worker.end(spec)
        else:
            del worker.live[spec.id]
    worker.keep()
    cut = {worker.suggested[turn].id for turn in (1, 2)}
    assert worker.plan.cut.keys() == cut == ledger.sweeps()[worker.plan.id]["cut"].keys()
    assert worker.plan.cut[worker.suggested[1].id] == {
        "config": ledger.sweeps()[worker.plan.id]["proposed"][1], "fraction": 0.2, "select_loss": 7.0, "seconds": 1.5
    }  # fmt: skip
    assert not cut & set(ledger.ids()) and not cut & worker.plan.outcomes.keys()
    assert worker.plan.state.best.trial not in cut
    again = SampledPlan.from_ledger(worker.plan.search, ledger, 6)
    follower = Worker(again, ledger, record)
    follower.run()
    assert len(searched(follower)) == 2 and not cut & set(searched(follower))
    assert any("asha cut 2 trials" in mark for mark in again.search.marks(cut=len(again.cut)))


def test_a_trial_without_a_record_is_given_up_and_counts_as_spent(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    worker = Worker(plan_of(ledger, "tpe", 3), ledger, record)
    lost = worker.start()
    worker.lose(lost)
    worker.run()
    assert worker.plan.gave_up == {lost.id}
    assert len(searched(worker)) == 3


def test_records_carry_the_name_of_the_search(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    worker = Worker(plan_of(ledger, "random", 2, scheduler="asha"), ledger, record)
    worker.run()
    for each in ledger.records():
        assert each.environment["search"] == "random" and each.environment["scheduler"] == "asha"
        assert each.notes == ("proposed by random", "ran under asha, which ranks on intermediate loss")
    assert ledger.verify() == []


@pytest.mark.parametrize("slots", [2, 3])
def test_what_ran_when_a_search_was_killed_is_asked_for_again_first(slots: int, tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    first = Worker(plan_of(ledger, "tpe", 9), ledger, record)
    first.run(slots, stop_after=7)
    running = list(first.live)
    assert len(running) == slots - 1, "one of them has ended since"
    second = Worker(plan_of(ledger, "tpe", 9), ledger, record)
    second.run(slots)
    assert searched(second)[: slots - 1] == running, "they go on from their checkpoints"
    assert len(set(searched(first)) | set(searched(second))) == 9


def test_asha_cuts_the_worse_at_a_rung_and_judges_each_trial_once_there() -> None:
    halving = Halving()
    assert [round(rung, 2) for rung, _ in halving.rungs] == [0.45, 0.15]
    decisions = {loss: halving.reached(str(loss), 0.15, loss) for loss in (4.0, 4.1, 4.2, 5.0, 5.1, 5.2)}
    assert decisions[4.0] and not decisions[5.2]
    assert halving.reached("5.2", 0.2, 9.0), "it was judged at this rung"
    assert halving.reached("first", 0.5, 9.0), "nobody was at the second rung before"
    assert not halving.reached("late", 0.5, 9.5) and halving.reached("early", 0.1, 99.0)


def test_asha_lets_a_diverging_trial_and_a_rerun_of_the_winner_reach_their_own_end(tmp_path: Path, record) -> None:
    plan = plan_of(Ledger(tmp_path), "tpe", 3, scheduler="asha")
    good, bad = plan.next(), plan.next()
    assert plan.goes_on(good, 0.2, 4.0, 1.0) and plan.goes_on(bad, 0.2, None, 1.0)
    assert plan.goes_on(SWEEP.spec(SWEEP.space.start, 1), 0.2, 99.0, 1.0) and not plan.cut


def test_asha_goes_on_from_the_curves_that_are_recorded(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    worker = Worker(plan_of(ledger, "random", 3, scheduler="asha"), ledger, record)
    for loss in (4.0, 4.5):
        spec = worker.start()
        worker.plan.goes_on(spec, 0.2, loss, 1.0)
        worker.end(spec) if spec.id in worker.plan.running else worker.live.clear()
    again = plan_of(ledger, "random", 3, scheduler="asha")
    assert any(losses for _, losses in again._halving.rungs)
