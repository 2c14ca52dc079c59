"""The searcher as Ray Tune drives it, without Ray: what it suggests, reuses, gives up, and when it ends."""

import json
from pathlib import Path

import pytest

from tuneopt.cluster.searcher import SweepSearcher
from tuneopt.ledger import Ledger
from tuneopt.search.space import load_space
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, InputError, Regime, TrialSpec, find_scale

GRIDS = {"learning_rate": [0.004, 0.008, 0.016], "weight_decay": [0, 0.1], "train_batch_size": [8]}
HELD = ("beta1", "beta2", "epsilon", "max_grad_norm", "warmup")


def sweep(**changes) -> Sweep:
    space = load_space("adamw").on("nano", grids=GRIDS, overrides={name: load_space("adamw").on("nano").value(
        load_space("adamw").on("nano").start, name) for name in HELD})  # fmt: skip
    return Sweep(
        space, Regime(find_scale("nano-65k"), 0.02, CorpusId("made-up", "00ff", 1024)), replicates=2, **changes
    )


class Worker:
    """Ends trials as a worker would: it writes the record, then Tune tells the searcher."""

    def __init__(self, searcher: SweepSearcher, ledger: Ledger, loss) -> None:
        self.searcher, self.ledger, self.loss = searcher, ledger, loss
        self.suggested: list[TrialSpec] = []
        self.live: dict[str, TrialSpec] = {}

    def start(self) -> str | None:
        """Ask for a trial as Tune does; its Tune id, None for "later", or FINISHED."""
        name = f"tune-{len(self.suggested)}"
        config = self.searcher.suggest(name)
        if config is None or config == SweepSearcher.FINISHED:
            return config
        spec = TrialSpec.from_dict(json.loads(config["spec"]))
        assert config["ledger"] == self.ledger.uri
        self.suggested.append(spec)
        self.live[name] = spec
        return name

    def end(self, name: str) -> None:
        self.ledger.put(self.loss(self.live.pop(name)))
        self.searcher.on_trial_complete(name, {"done": True})

    def run(self, slots: int = 1) -> None:
        while True:
            while len(self.live) < slots:
                name = self.start()
                if name is None or name == SweepSearcher.FINISHED:
                    break
            if not self.live:
                assert self.searcher.suggest("last") == SweepSearcher.FINISHED
                return
            self.end(next(iter(self.live)))


@pytest.fixture
def record(make_record):
    """A bowl with its lowest loss at twice the starting rate."""

    def make(spec: TrialSpec):
        distance = abs(spec.config["learning_rate"] / 0.016 - 1) + spec.config["weight_decay"]
        return make_record(spec, 4 + distance + 1e-4 * spec.seed)

    return make


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_a_sweep_runs_to_its_certificate_and_asks_for_nothing_twice(slots: int, tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    searcher = SweepSearcher(sweep(), ledger, "made-up")
    worker = Worker(searcher, ledger, record)
    worker.run(slots)
    assert searcher.state.finished and searcher.state.descent.certificate.complete
    assert searcher.state.best.spec.config["learning_rate"] == 0.016
    ids = [spec.id for spec in worker.suggested]
    assert len(ids) == len(set(ids)) == len(ledger.ids())
    assert not searcher.reused


def test_what_the_ledger_holds_is_reused(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    Worker(SweepSearcher(sweep(), ledger, "made-up"), ledger, record).run()
    again = SweepSearcher(sweep(), ledger, "made-up")
    assert again.state.finished
    assert again.suggest("tune-0") == SweepSearcher.FINISHED
    assert again.reused == set(ledger.ids())


def test_the_same_answer_from_any_moment(tmp_path: Path, record) -> None:
    whole = Ledger(tmp_path / "whole")
    first = SweepSearcher(sweep(), whole, "made-up")
    Worker(first, whole, record).run()
    for kept in range(0, len(whole.ids()), 3):
        ledger = Ledger(tmp_path / str(kept))
        for trial in whole.ids()[:kept]:
            ledger.put(whole.get(trial))
        searcher = SweepSearcher(sweep(), ledger, "made-up")
        Worker(searcher, ledger, record).run(2)
        assert searcher.state.best == first.state.best
        assert searcher.state.descent.path == first.state.descent.path


def test_a_trial_without_a_record_is_given_up_and_the_certificate_says_so(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    searcher = SweepSearcher(sweep(), ledger, "made-up")
    worker = Worker(searcher, ledger, record)
    broken = None
    while (name := worker.start()) not in (None, SweepSearcher.FINISHED):
        spec = worker.live[name]
        if broken is None and spec.config["weight_decay"] == 0:
            broken = spec.id
        if spec.id == broken or (broken and spec.config["weight_decay"] == 0):
            worker.live.pop(name)
            searcher.on_trial_complete(name, error=True)
        else:
            worker.end(name)
    assert searcher.state.finished
    assert broken in searcher.failed
    assert not searcher.state.descent.certificate.complete


def test_idle_slots_look_ahead_and_full_ones_do_not(tmp_path: Path, record) -> None:
    ledger = Ledger(tmp_path)
    searcher = SweepSearcher(sweep(), ledger, "made-up")
    worker = Worker(searcher, ledger, record)
    wave = len(searcher.state.pending)
    names = [worker.start() for _ in range(wave)]
    assert worker.start() is None, "before the start has ended there is nothing to guess"
    for name in names[:-1]:
        worker.end(name)
    ahead = worker.start()
    assert ahead is not None and worker.live[ahead].id not in {spec.id for spec in searcher.state.pending}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1", "127.0.0.1:99999", "nonsense"])
def test_no_cluster_at_the_address_is_bad_input_at_once(address: str) -> None:
    from tuneopt.cluster.session import connect

    with pytest.raises(InputError, match="no Ray cluster"), connect(address):
        pass
