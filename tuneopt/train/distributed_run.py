"""One trial on several ranks, from its specification to its record: in a rank, or by starting the ranks here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tuneopt.data import Corpus
from tuneopt.ledger import CurvePoint, Ledger, TrialRecord, open_ledger
from tuneopt.spec import TrialSpec
from tuneopt.train.distributed import Placement, Ranks
from tuneopt.train.distributed_launch import launch
from tuneopt.train.distributed_loop import RankTraining
from tuneopt.train.engine import Engine
from tuneopt.train.loop import Training
from tuneopt.train.run import TrialRun, checkpoint_folder, run_trial

POINT = "point "
"""What a line of rank 0 begins with that holds a curve point."""


class RankRun(TrialRun):
    """One rank's part of `TrialRun`; rank 0 alone writes to the ledger. All ranks advance together."""

    def __init__(self, spec: TrialSpec, corpus: Corpus, ledger: Ledger, placement: Placement, ranks: Ranks) -> None:
        self.placement, self.ranks = placement, ranks
        super().__init__(spec, corpus, ledger)

    def _known(self) -> TrialRecord | None:
        record = super()._known()
        return record if self.ranks.first_says(record is not None) else None

    def _start(self, engine: Engine | None) -> Training:
        kind = RankTraining
        if self.placement.zero:
            from tuneopt.train.zero.training import ZeroTraining

            kind = ZeroTraining
        folder = checkpoint_folder(self.ledger, self.spec.id)
        return kind(self.spec, self.corpus, folder, self.placement, self.ranks)

    def _describe(self, training: Training) -> TrialRecord:
        record = super()._describe(training)
        assert isinstance(training, RankTraining)
        peaks = [peak for peak in self.ranks.gather(record.peak_bytes) if peak is not None]
        held = self.ranks.gather(training.state_bytes)
        return replace(
            record,
            peak_bytes=max(peaks, default=None),
            optimizer_state_bytes=sum(held) if self.placement.zero else held[0],
            environment={**record.environment, **self.placement.facts(self.spec)},
        )

    def _keep(self, record: TrialRecord, training: Training) -> None:
        assert isinstance(training, RankTraining)
        if self.ranks.rank == 0:
            super()._keep(record, training)
        training.close()
        self.ranks.barrier()


def run_rank(
    spec: TrialSpec,
    corpus: Corpus,
    ledger: Ledger,
    placement: Placement,
    ranks: Ranks,
    on_point: Callable[[CurvePoint], Any] = lambda point: None,
) -> TrialRecord:
    """This rank's part of a trial, to its end; every rank returns the record."""
    run = RankRun(spec, corpus, ledger, placement, ranks)
    while run.record is None:
        on_point(run.advance())
    return run.record


def run_ranks(
    spec: TrialSpec,
    corpus: Corpus,
    ledger: Ledger | str,
    placement: Placement,
    on_point: Callable[[CurvePoint], Any] = lambda point: None,
) -> TrialRecord:
    """Train one trial on ranks of this machine to its end, or return the record that the ledger already holds.

    A plain placement trains in this process. Raises `InputError` for a batch that does not divide among the ranks,
    before anything starts, and `RuntimeError` with its last lines when a rank fails; running again goes on from the
    last checkpoint, whatever the number of ranks then.
    """
    opened = open_ledger(ledger) if isinstance(ledger, str) else ledger
    known = opened.get(spec.id)
    if known is not None:
        return known
    placement.micro_batch(spec)
    if not placement.distributed:
        return run_trial(spec, corpus, opened, on_point=on_point)
    job = {"spec": spec.to_dict(), "corpus": str(corpus.folder), "ledger": opened.uri, "placement": asdict(placement)}
    for line in launch([sys.executable, "-m", "tuneopt.train.zero", "--job", json.dumps(job)], placement.ranks):
        if line.startswith(POINT):
            on_point(CurvePoint(**json.loads(line.removeprefix(POINT))))
    record = opened.get(spec.id)
    if record is None:
        raise RuntimeError(f"the ranks ended, but trial {spec.id} is not in the ledger {opened.uri}")
    return record


def work(job: str, ranks: Ranks) -> TrialRecord:
    """What a rank that `run_ranks` started does; rank 0 prints curve points."""
    from tuneopt.data import open_corpus

    plain = json.loads(job)
    spec, placement = TrialSpec.from_dict(plain["spec"]), Placement(**plain["placement"])

    def tell(point: CurvePoint) -> None:
        if ranks.rank == 0:
            print(POINT + json.dumps(asdict(point)), flush=True)

    return run_rank(spec, open_corpus(Path(plain["corpus"])), open_ledger(plain["ledger"]), placement, ranks, tell)
