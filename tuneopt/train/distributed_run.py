"""One trial on several ranks, from its specification to its record: in a rank, or by starting the ranks here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from tuneopt.data import Corpus
from tuneopt.ledger import CurvePoint, Ledger, TrialRecord, open_ledger
from tuneopt.ledger.logs import SilentLog, TrialLog
from tuneopt.spec import TrialSpec
from tuneopt.train.building import WarmModels
from tuneopt.train.checkpoint import CheckpointStore
from tuneopt.train.config import ParallelConfig
from tuneopt.train.distributed_loop import RankTraining
from tuneopt.train.launch import launch
from tuneopt.train.loop import Training
from tuneopt.train.ranks import Ranks
from tuneopt.train.run import TrialRun, checkpoint_store, run_trial
from tuneopt.train.trial_log import log_failed
from tuneopt.train.weights import store_weights

POINT = "point "
"""What a line of rank 0 begins with that holds a curve point."""


class RankRun(TrialRun):
    """One rank's part of `TrialRun`; rank 0 alone writes to the ledger. All ranks advance together."""

    def __init__(
        self,
        spec: TrialSpec,
        corpus: Corpus,
        ledger: Ledger,
        placement: ParallelConfig,
        ranks: Ranks,
        keep_weights: bool = False,
    ) -> None:
        self.ranks = ranks
        super().__init__(spec, corpus, ledger, placement=placement, keep_weights=keep_weights)

    def _open_log(self) -> TrialLog:
        return super()._open_log() if self.ranks.rank == 0 else SilentLog(self.ledger, self.spec.id)

    def _known(self) -> TrialRecord | None:
        record = super()._known()
        return record if self.ranks.first_says(record is not None) else None

    def _start(self, engine: WarmModels | None) -> Training:
        kind = RankTraining
        if self.placement.zero:
            from tuneopt.train.zero.training import ZeroTraining

            kind = ZeroTraining
        store = checkpoint_store(self.ledger, self.spec.id)
        return kind(self.spec, self.corpus, store, self.placement, self.ranks)

    def _describe(self, training: Training) -> TrialRecord:
        record = super()._describe(training)
        assert isinstance(training, RankTraining)
        peaks = [peak for peak in self.ranks.gather(record.peak_bytes) if peak is not None]
        held = self.ranks.gather(training.state_bytes)
        return replace(
            record,
            peak_bytes=max(peaks, default=None),
            optimizer_state_bytes=sum(held) if self.placement.zero else held[0],
            environment={**self.placement.facts(self.spec), **record.environment},
        )

    def _keep_weights(self, training: Training) -> None:
        if self.placement.zero:
            if training.store is None:
                return
            training.save()
            if self.ranks.rank == 0:
                newest = CheckpointStore(training.store.folder).load_newest(torch.device("cpu"))
                if newest is None or newest[0] != training.step:
                    raise RuntimeError(f"the last checkpoint of trial {training.spec.id} cannot be read back")
                store_weights(self.spec, self.corpus, self.ledger, newest[1]["model"])
        elif self.ranks.rank == 0:
            super()._keep_weights(training)

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
    placement: ParallelConfig,
    ranks: Ranks,
    on_point: Callable[[CurvePoint], Any] = lambda point: None,
    keep_weights: bool = False,
) -> TrialRecord:
    """This rank's part of a trial, to its end; every rank returns the record."""
    run = RankRun(spec, corpus, ledger, placement, ranks, keep_weights)
    while run.record is None:
        on_point(run.advance())
    return run.record


def run_ranks(
    spec: TrialSpec,
    corpus: Corpus,
    ledger: Ledger | str,
    placement: ParallelConfig,
    on_point: Callable[[CurvePoint], Any] = lambda point: None,
    keep_weights: bool = False,
) -> TrialRecord:
    """Train one trial on ranks of this machine to its end, or return the record that the ledger already holds.

    A plain placement trains in this process. Raises `InputError` for a batch that does not divide among the ranks,
    before anything starts, and `tuneopt.train.launch.RankFailedError` when a rank fails; running again goes on from the
    last checkpoint, whatever the number of ranks then.
    """
    opened = open_ledger(ledger) if isinstance(ledger, str) else ledger
    known = opened.sound(spec.id)
    if known is not None:
        return known
    placement.micro_batch(spec)
    if not placement.distributed:
        return run_trial(spec, corpus, opened, placement=placement, keep_weights=keep_weights, on_point=on_point)
    job = {
        "spec": spec.to_dict(),
        "corpus": str(corpus.folder),
        "ledger": opened.uri,
        "placement": asdict(placement),
        "keep_weights": keep_weights,
    }
    with log_failed(TrialLog(opened, spec.id)):
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
    spec, placement = TrialSpec.from_dict(plain["spec"]), ParallelConfig(**plain["placement"])
    corpus, ledger = open_corpus(Path(plain["corpus"])), open_ledger(plain["ledger"])

    def tell(point: CurvePoint) -> None:
        if ranks.rank == 0:
            print(POINT + json.dumps(asdict(point)), flush=True)

    return run_rank(spec, corpus, ledger, placement, ranks, tell, plain.get("keep_weights", False))
