"""From a specification to its record in a ledger: look it up, train what is missing, write, tidy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from tuneopt.data import Corpus
from tuneopt.data.cache import cache_folder
from tuneopt.ledger import CurvePoint, Ledger, TrialRecord
from tuneopt.ledger.files import RemoteFiles
from tuneopt.ledger.logs import TrialLog
from tuneopt.spec import TrialSpec
from tuneopt.train.building import WarmModels
from tuneopt.train.checkpoint import CheckpointStore
from tuneopt.train.config import ParallelConfig
from tuneopt.train.loop import Training
from tuneopt.train.machine import environment, peak_memory, reset_peak_memory, speed_facts
from tuneopt.train.mirror import Mirror
from tuneopt.train.second_order.hessian import PASS_COST
from tuneopt.train.trial_log import log_end, log_failed, log_point, log_ready, log_start, logging_to
from tuneopt.train.weights import store_weights


class TrialRun:
    """One trial under way for a ledger: `advance` until `record` is there.

    A trial that the ledger already holds has its record from the start and trains nothing. The record is written by
    `advance` itself, in the process that trained, before anybody else hears of the result.
    """

    def __init__(
        self,
        spec: TrialSpec,
        corpus: Corpus,
        ledger: Ledger,
        engine: WarmModels | None = None,
        placement: ParallelConfig | None = None,
        keep_weights: bool = False,
    ) -> None:
        self.spec = spec
        self.keep_weights = keep_weights
        self.placement = placement or ParallelConfig()
        self.ledger = ledger
        self.started = _now()
        self.corpus = corpus
        self.record = self._known()
        self.reused = self.record is not None
        self.training: Training | None = None
        self.log = self._open_log()
        if self.record is None:
            with logging_to(self.log):
                log_start(self.log, spec)
                reset_peak_memory()
                self.training = self._start(engine)
                log_ready(self.log, self.training)
        self._before = dict(self.training.resumed_seconds) if self.training else {}
        self._told = 0

    @property
    def busy_seconds(self) -> float:
        """Seconds that this process spent inside training and evaluation of the trial."""
        if self.training is None:
            return 0.0
        return sum(self.training.seconds[name] - self._before.get(name, 0.0) for name in ("train", "eval"))

    def advance(self) -> CurvePoint:
        """Train to the next curve point; at the last one, write the record and remove the checkpoints."""
        assert self.training is not None and self.record is None, "the trial already has its record"
        with logging_to(self.log):
            point = self.training.advance()
            log_point(self.log, point, self.training.steps)
            if self.training.finished:
                record = self._describe(self.training)
                if self.keep_weights and record.status == "completed":
                    self._keep_weights(self.training)
                self._keep(record, self.training)
                log_end(self.log, record)
                self.record = record
        return point

    def fresh_points(self) -> list[tuple[Any, ...]]:
        """The curve points since the last call, as `CurvePoint`'s fields; at first those before a resume as well."""
        curve = self.training.curve[self._told :] if self.training else []
        self._told += len(curve)
        return [astuple(point) for point in curve]

    def _open_log(self) -> TrialLog:
        return TrialLog(self.ledger, self.spec.id)

    def _known(self) -> TrialRecord | None:
        return self.ledger.sound(self.spec.id)

    def _start(self, engine: WarmModels | None) -> Training:
        return Training(self.spec, self.corpus, checkpoint_store(self.ledger, self.spec.id), engine, self.placement)

    def _keep_weights(self, training: Training) -> None:
        store_weights(self.spec, self.corpus, self.ledger, training.model.state_dict())

    def _keep(self, record: TrialRecord, training: Training) -> None:
        self.ledger.put(record)
        if training.store:
            training.store.clear()

    def _describe(self, training: Training) -> TrialRecord:
        spec = self.spec
        select, report = training.final_losses if training.final_losses and not training.diverged else (None, None)
        seconds = {name: training.seconds[name] for name in ("train", "eval", "startup", "checkpoint")}
        return TrialRecord(
            trial=spec.id,
            status="diverged" if training.diverged else "completed",
            spec=spec,
            select_loss=select,
            report_loss=report,
            initial_loss=training.curve[0].select_loss if training.curve else None,
            curve=tuple(training.curve),
            tokens=training.tokens,
            steps=training.step,
            epochs=training.step * spec.batch / len(training.windows),
            flops=(training.tokens + PASS_COST * training.extra_tokens)
            * spec.regime.scale.flops_per_token(spec.regime.corpus.vocab_size),
            seconds=seconds,
            peak_bytes=peak_memory(training.device),
            checkpoint_bytes=training.store.last_bytes or None if training.store else None,
            optimizer_state_bytes=state_bytes(training.optimizer),
            proof=training.proof,
            routing=tuple(route.to_dict() for route in training.optimizer.routing),
            environment={**environment(), **training.placement.facts(spec), **_speed(training)},
            started=self.started,
            ended=_now(),
            resumes=training.resumes,
            tokens_per_second=training.tokens / seconds["train"] if seconds["train"] > 0 else 0.0,
            notes=notes(training),
        )


def _speed(training: Training) -> dict[str, str]:
    """The MFU of the steps, evaluation not counted, and the peak that it assumes."""
    spec, seconds = training.spec, training.seconds["train"]
    return speed_facts(
        training.tokens / seconds if seconds > 0 else 0.0,
        spec.regime.scale.flops_per_token(spec.regime.corpus.vocab_size),
        training.device,
        spec.precision,
        training.placement.ranks,
    )


def notes(training: Training) -> tuple[str, ...]:
    """What a reader of the record should know beside its figures."""
    lines = []
    if training.diverged:
        lines.append(f"diverged at step {training.step} of {training.steps}")
    if training.extra_tokens:
        lines.append(f"{training.extra_tokens} tokens beside the budget went through passes for the Hessian")
    return tuple(lines)


def run_trial(
    spec: TrialSpec,
    corpus: Corpus,
    ledger: Ledger,
    *,
    engine: WarmModels | None = None,
    placement: ParallelConfig | None = None,
    keep_weights: bool = False,
    on_point: Callable[[CurvePoint], Any] = lambda point: None,
) -> TrialRecord:
    """Train one trial in this process to its end, or return the record that the ledger already holds.

    ``keep_weights`` keeps its final weights beside the record (`tuneopt.train.weights`).
    """
    with log_failed(TrialLog(ledger, spec.id)):
        run = TrialRun(spec, corpus, ledger, engine, placement, keep_weights)
        while run.record is None:
            on_point(run.advance())
    return run.record


def checkpoint_folder(ledger: Ledger, trial: str) -> Path:
    """Where a trial keeps its checkpoints: beside its ledger, or in this machine's cache when the ledger is remote."""
    return ledger.checkpoint_dir(trial) if ledger.is_local else cache_folder() / "checkpoints" / trial


def checkpoint_store(ledger: Ledger, trial: str) -> CheckpointStore:
    """The checkpoints of a trial; those of a remote ledger have copies beside it, for other machines to go on from."""
    mirror = None
    if isinstance(ledger.files, RemoteFiles):
        mirror = Mirror(ledger.files, trial)
    return CheckpointStore(checkpoint_folder(ledger, trial), mirror)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors in the optimizer's state, each storage counted once."""
    storages: dict[int, int] = {}

    def visit(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict):
            for inner in value.values():
                visit(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                visit(inner)

    visit(list(optimizer.state.values()))
    return sum(storages.values())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
