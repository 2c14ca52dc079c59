"""Sampled searches as Ray Tune drives them, without Ray: what is told, proposed, reused, cut and confirmed."""

import json
from pathlib import Path

import pytest

from tuneopt.cluster.halving import Halving
from tuneopt.cluster.proposed import MarkedLedger
from tuneopt.cluster.sampling import SampledSearcher
from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.search.sampled import SampledSearch
from tuneopt.search.space import load_space
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, Regime, TrialSpec, find_scale

GRIDS = {"learning_rate": [0.004, 0.008, 0.016, 0.032], "weight_decay": [0, 0.1, 0.2], "train_batch_size": [8, 16]}
HELD = ("beta1", "beta2", "epsilon", "max_grad_norm", "warmup")


def sweep(replicates: int = 2) -> Sweep:
    declared = load_space("adamw").on("nano")
    held = {name: declared.value(declared.start, name) for name in HELD}
    regime = Regime(find_scale("nano-65k"), 0.02, CorpusId("made-up", "00ff", 1024))
    return Sweep(load_space("adamw").on("nano", held, GRIDS), regime, replicates=replicates)


class Worker:
    """Ends trials as Tune and a worker would."""

    def __init__(self, searcher: SampledSearcher, ledger: Ledger, record) -> None:
        self.searcher, self.record = searcher, record
        marks = {"search": searcher.search.search, "scheduler": searcher.search.scheduler}
        self.ledger = MarkedLedger(ledger.uri, {**marks, "search_id": searcher.search.id})
        self.suggested: list[tuple[TrialSpec, bool]] = []
        self.live: dict[str, TrialSpec] = {}

    def start(self) -> str | None:
        name = f"tune-{len(self.suggested)}"
        config = self.searcher.suggest(name)
        if config is None or config == SampledSearcher.FINISHED:
            return config
        spec = TrialSpec.from_dict(json.loads(config["spec"]))
        assert json.loads(config["search"])["search"] == self.searcher.search.search
        self.suggested.append((spec, config["confirming"]))
        self.live[name] = spec
        return name

    def end(self, name: str) -> None:
        record = self.record(self.live.pop(name))
        self.ledger.put(record)
        self.searcher.on_trial_complete(name, {"status": record.status, "done": True})

    def cut(self, name: str, loss: float = 6.0) -> None:
        spec = self.live.pop(name)
        result = {"trial": spec.id, "fraction": 0.2, "select_loss": loss, "busy_seconds": 1.5, "done": True}
        self.searcher.on_trial_complete(name, result)

    def run(self, slots: int = 1, stop_after: int = 10**6) -> None:
        while len(self.suggested) < stop_after:
            while len(self.live) < slots:
                name = self.start()
                if name is None or name == SampledSearcher.FINISHED:
                    break
            if not self.live:
                assert self.searcher.suggest("last") == SampledSearcher.FINISHED
                return
            self.end(next(iter(self.live)))

    @property
    def searched(self) -> list[str]:
        return [spec.id for spec, confirming in self.suggested if not confirming]


@pytest.fixture
def record(make_record):
    """A bowl with its lowest loss at 0.016, no decay; the largest rate diverges."""

    def make(spec: TrialSpec) -> TrialRecord:
        rate = spec.config["learning_rate"]
        loss = 4 + abs(rate / 0.016 - 1) + spec.config["weight_decay"] + 1e-4 * spec.seed
        return make_record(spec, None if rate == 0.032 else loss)

    return make


def searcher(ledger: Ledger, name: str, trials: int, **more) -> SampledSearcher:
    return SampledSearcher(SampledSearch(sweep(), name, **more), ledger, "made-up", trials)


@pytest.mark.parametrize("name", ["tpe", "random"])
@pytest.mark.parametrize("slots", [1, 3])
def test_a_search_spends_its_trials_and_confirms_the_best(name: str, slots: int, tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    worker = Worker(searcher(ledger, name, 9), ledger, record)
    worker.run(slots)
    assert len(worker.searched) == len(set(worker.searched)) == 9
    assert worker.suggested[0][0].hyperparameters == sweep().space.start, "the declared start is proposed first"
    best = min((r for r in ledger.records() if r.spec.seed == 0 and r.select_loss), key=lambda r: r.select_loss)
    confirmed = [spec for spec, confirming in worker.suggested if confirming]
    assert [(spec.hyperparameters, spec.seed) for spec in confirmed] == [(best.spec.hyperparameters, 1)]
    assert worker.searcher.state.best.trial == best.trial and worker.searcher.state.best.seeds == 2
    assert worker.searcher.spent


def test_the_gaussian_process_searches_too(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    worker = Worker(searcher(ledger, "gp", 12), ledger, record)
    worker.run()
    assert len(set(worker.searched)) == 12
    assert worker.searcher.state.best.spec.config["learning_rate"] == 0.016


def test_proposals_lie_on_the_lattice_and_can_run(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    worker = Worker(searcher(ledger, "random", 15), ledger, record)
    worker.run()
    for spec, _ in worker.suggested:
        assert spec.config["learning_rate"] in GRIDS["learning_rate"]
        assert spec.config["weight_decay"] in GRIDS["weight_decay"]
        assert sweep().feasible(spec.hyperparameters)


def test_a_lattice_that_is_exhausted_ends_the_search(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    worker = Worker(searcher(ledger, "tpe", 1000), ledger, record)
    worker.run(2)
    assert len(worker.searched) == worker.searcher.search.size == 24
    state = worker.searcher.state
    assert state.best.spec.config["learning_rate"] == 0.016
    on_grid = [change for change in state.descent.star if change.value in GRIDS[change.coordinate]]
    assert on_grid and all(change.status in ("completed", "diverged") for change in on_grid)
    assert not state.descent.certificate.complete, "the edges beyond the grids are unknown"


@pytest.mark.parametrize("killed", [1, 4, 8, 10])
def test_a_killed_search_goes_on_and_runs_nothing_twice(killed: int, tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    first = Worker(searcher(ledger, "tpe", 9), ledger, record)
    first.run(stop_after=killed)
    held = set(ledger.ids())
    second = Worker(searcher(ledger, "tpe", 9), ledger, record)
    assert second.searcher.told == 0, "trials of its own are no earlier trials"
    second.run()
    assert not held & {spec.id for spec, _ in second.suggested}
    assert len(held & {s.id for s, c in first.suggested if not c}) + len(second.searched) == 9


def test_what_other_searches_left_is_told_and_marked_and_not_counted(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    Worker(searcher(ledger, "random", 6), ledger, record).run()
    worker = Worker(searcher(ledger, "tpe", 5), ledger, record)
    assert worker.searcher.told == 6
    assert len(worker.searcher.inner._ot_study.trials) >= 6
    held = set(ledger.ids())
    worker.run()
    assert len(worker.searched) == 5 and not held & set(worker.searched)
    marks = worker.searcher.search.marks(worker.searcher.told)
    assert any("told 6 earlier trials" in mark for mark in marks) and any("budgets differ" in mark for mark in marks)


def test_a_trial_of_another_seed_regime_or_grid_is_not_told(tmp_path: Path, make_record) -> None:
    ledger = Ledger(tmp_path)
    space = load_space("adamw").on("nano")
    elsewhere = Sweep(space, Regime(find_scale("nano-65k"), 0.05, CorpusId("made-up", "00ff", 1024)))
    ledger.put(make_record(elsewhere.spec(space.start), 4.0))
    ledger.put(make_record(sweep().spec(sweep().space.start, 7), 4.0))
    other = Sweep(load_space("adamw").on("nano", {"beta1": 0.5}), sweep().regime)
    ledger.put(make_record(other.spec(other.space.start), 4.0))
    off_grid = sweep().space.change(sweep().space.start, "learning_rate", 0.0123)
    ledger.put(make_record(sweep().spec(off_grid), 4.0))
    assert searcher(ledger, "tpe", 5).specs == {}


def test_a_diverged_trial_is_told_as_one_that_cannot_win(tmp_path: Path, make_record) -> None:
    from optuna.trial import TrialState

    ledger = Ledger(tmp_path)
    space = sweep().space
    ledger.put(make_record(sweep().spec(space.change(space.start, "learning_rate", 0.032)), None))
    tpe, gp = searcher(ledger, "tpe", 5), searcher(ledger, "gp", 5)
    (told,) = [trial for trial in tpe.inner._ot_study.trials if trial.state != TrialState.WAITING]
    assert told.state == TrialState.PRUNED and told.value is None
    (told,) = [trial for trial in gp.inner._ot_study.trials if trial.state != TrialState.WAITING]
    assert told.value == pytest.approx(6.931, abs=1e-3), "a uniform guess over 1024 tokens"
    assert tpe.state.best is None


def test_a_cut_trial_has_no_record_counts_as_spent_and_is_remembered(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    worker = Worker(searcher(ledger, "tpe", 4, scheduler="asha"), ledger, record)
    kept: list[dict] = []
    worker.searcher.on_cut = lambda: kept.append(dict(worker.searcher.cut))
    for turn in range(4):
        name = worker.start()
        (worker.cut if turn in (1, 2) else worker.end)(name)
    cut = {worker.suggested[turn][0].id for turn in (1, 2)}
    assert worker.searcher.cut.keys() == cut == kept[-1].keys()
    assert not cut & set(ledger.ids()) and not cut & worker.searcher.outcomes.keys()
    assert worker.searcher.state.best.trial not in cut
    again = SampledSearcher(worker.searcher.search, ledger, "made-up", 6, kept[-1])
    follower = Worker(again, ledger, record)
    follower.run()
    assert len(follower.searched) == 2 and not cut & set(follower.searched)
    assert any("asha cut 2 trials" in mark for mark in again.search.marks(cut=len(again.cut)))


def test_a_trial_without_a_record_is_given_up_and_counts_as_spent(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    worker = Worker(searcher(ledger, "tpe", 3), ledger, record)
    lost = worker.start()
    lost_id = worker.live.pop(lost).id
    worker.searcher.on_trial_complete(lost, None, error=True)
    worker.run()
    assert worker.searcher.failed == {lost_id}
    assert len(worker.searched) == 3


def test_records_carry_the_name_of_the_search(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    worker = Worker(searcher(ledger, "random", 2, scheduler="asha"), ledger, record)
    worker.run()
    for each in ledger.records():
        assert each.environment["search"] == "random" and each.environment["scheduler"] == "asha"
        assert each.notes == ("proposed by random", "ran under asha, which ranks on intermediate loss")
    assert ledger.verify() == []


class Trial:
    def __init__(self, name: str, confirming: bool = False) -> None:
        self.trial_id, self.config = name, {"confirming": confirming}


def result(fraction: float, loss: float | None, done: bool = False) -> dict:
    return {"fraction": fraction, "select_loss": loss, "done": done}


def test_asha_cuts_the_worse_at_a_rung_and_never_a_confirmation() -> None:
    halving = Halving(0.15, 3)
    decisions = {}
    for place, loss in enumerate([4.0, 4.1, 4.2, 5.0, 5.1, 5.2]):
        trial = Trial(str(place))
        halving.on_trial_add(None, trial)
        decisions[loss] = halving.on_trial_result(None, trial, result(0.15, loss))
    assert decisions[4.0] == "CONTINUE" and decisions[5.2] == "STOP"
    spared = Trial("winner", confirming=True)
    halving.on_trial_add(None, spared)
    assert halving.on_trial_result(None, spared, result(0.5, 9.0)) == "CONTINUE"
    halving.on_trial_complete(None, spared, result(1.0, 9.0, True))


def test_asha_lets_a_diverging_trial_reach_its_own_end() -> None:
    halving = Halving(0.15, 3)
    trial = Trial("lost")
    halving.on_trial_add(None, trial)
    assert halving.on_trial_result(None, trial, result(0.2, None)) == "CONTINUE"
    assert halving.on_trial_result(None, trial, result(1.0, None, True)) == "CONTINUE"
    halving.on_trial_complete(None, trial, result(1.0, None, True))
