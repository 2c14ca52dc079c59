"""From a specification to its record in a ledger: look it up, train what is missing, write, tidy.

`TrialRun` is one trial under way in one process, alone or as one of several ranks; `run_trial` takes it to its end,
`run_ranks` starts the ranks on this machine first. The record is written by the process that trained, before anybody
else hears of the result, so no driver is ever the only holder of one.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, astuple, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from tuneopt.data import Corpus, open_corpus
from tuneopt.ledger import CurvePoint, Ledger, TrialRecord, open_ledger
from tuneopt.ledger.files import RemoteFiles
from tuneopt.ledger.logs import SilentLog, TrialLog
from tuneopt.outside import adopt_all, sources_of
from tuneopt.paths import cache_folder
from tuneopt.spec import InputError, TrialSpec
from tuneopt.training.building import WarmModels
from tuneopt.training.checkpoint import CheckpointStore
from tuneopt.training.config import ParallelConfig
from tuneopt.training.launch import launch
from tuneopt.training.loop import Training
from tuneopt.training.machine import device_facts, environment, peak_memory, reset_peak_memory, speed_facts
from tuneopt.training.mirror import Mirror
from tuneopt.training.ranks import Ranks
from tuneopt.training.second_order import PASS_COST
from tuneopt.training.trial_log import log_end, log_failed, log_point, log_ready, log_start, logging_to
from tuneopt.training.weights import store_weights

POINT = "point "
"""What a line of rank 0 begins with that holds a curve point."""

TIMED_SECONDS = 2.0
"""How long `trained_throughput` trains: enough for some tens of nano steps."""


class TrialRun:
    """One trial under way for a ledger: `advance` until `record` is there.

    A trial that the ledger already holds has its record from the start and trains nothing. Of several ``ranks`` all
    advance together, and rank 0 alone writes. ``keep_weights`` keeps the final weights beside the record
    (`tuneopt.training.weights`).
    """

    def __init__(
        self,
        spec: TrialSpec,
        corpus: Corpus,
        ledger: Ledger,
        models: WarmModels | None = None,
        parallel: ParallelConfig | None = None,
        keep_weights: bool = False,
        ranks: Ranks | None = None,
    ) -> None:
        self.spec, self.corpus, self.ledger, self.keep_weights = spec, corpus, ledger, keep_weights
        self.started = _now()
        first = ranks is None or ranks.rank == 0
        self.log = TrialLog(ledger, spec.id) if first else SilentLog(ledger, spec.id)
        self.record = ledger.sound(spec.id)
        if ranks is not None and not ranks.first_says(self.record is not None):
            self.record = None  # it appeared between two looks: either all ranks train or none
        self.reused = self.record is not None
        self.training: Training | None = None
        if self.record is None:
            with logging_to(self.log):
                log_start(self.log, spec)
                reset_peak_memory()
                self.training = Training(spec, corpus, checkpoint_store(ledger, spec.id), models, parallel, ranks)
                log_ready(self.log, self.training)
        # What earlier processes spent counts in the record, and not in what this one was busy with.
        self._before = dict(self.training.resumed_seconds) if self.training else {}
        self._reported = 0

    @property
    def busy_seconds(self) -> float:
        """Seconds that this process spent inside training and evaluation of the trial."""
        if self.training is None:
            return 0.0
        return sum(self.training.seconds[name] - self._before.get(name, 0.0) for name in ("train", "eval"))

    def advance(self) -> CurvePoint:
        """Train to the next curve point; at the last one, write the record and remove the checkpoints."""
        training = self.training
        assert training is not None and self.record is None, "the trial already has its record"
        with logging_to(self.log):
            point = training.advance()
            log_point(self.log, point, training.steps)
            if training.finished:
                record = self._describe(training)
                # Weights before the record: who finds the record may ask for them.
                if self.keep_weights and record.status == "completed":
                    with training.strategy.evaluation_weights():
                        weights = _final_weights(training)
                        if training.ranks.rank == 0 and weights is not None:
                            store_weights(self.spec, self.corpus, self.ledger, weights)
                if training.ranks.rank == 0:
                    record = self._store(record)
                    if training.store:  # not before the ledger holds a record: they are all that is left of the trial
                        training.store.clear()
                training.close()
                # No rank says that the trial ended before rank 0 has stored it.
                training.ranks.barrier()
                log_end(self.log, record)
                self.record = record
        return point

    def _store(self, record: TrialRecord) -> TrialRecord:
        """The record that the ledger holds from now on: this one, or that of a worker that was faster.

        Raises `InputError`, and leaves the checkpoints, where it holds none.
        """
        if self.ledger.put(record):
            return record
        first = self.ledger.sound(record.trial)
        if first is None:
            raise InputError(
                f"the record of trial {record.trial} could not be stored in {self.ledger.uri}, where another file "
                "stands in its place and is no record; its checkpoints stay: look at the place (`tuneopt ledger "
                "verify`), then run the same command again"
            )
        return first

    def fresh_points(self) -> list[tuple[Any, ...]]:
        """The curve points since the last call, as `CurvePoint`'s fields; at first those before a resume as well."""
        curve = self.training.curve[self._reported :] if self.training else []
        self._reported += len(curve)
        return [astuple(point) for point in curve]

    def _describe(self, training: Training) -> TrialRecord:
        """The record; its memory is that of the fullest rank, its optimizer state that of all ranks together."""
        spec, ranks = self.spec, training.ranks
        # A diverged trial has no final loss: a number, however large, would enter comparisons.
        select, report = training.final_losses if training.final_losses and not training.diverged else (None, None)
        seconds = {name: training.seconds[name] for name in ("train", "eval", "startup", "checkpoint")}
        rate = training.tokens / seconds["train"] if seconds["train"] > 0 else 0.0
        # Matrix products of the budget's tokens; passes for second derivatives are counted on top, by what they cost.
        per_token = spec.regime.scale.flops_per_token(spec.regime.corpus.vocab_size)
        speed = speed_facts(rate, per_token, training.device, spec.precision, ranks.world)
        peaks = [peak for peak in ranks.gather(peak_memory(training.device)) if peak is not None]
        state = ranks.gather(sum(state_bytes(optimizer) for optimizer in training.strategy.optimizers))
        notes = []
        if training.diverged:
            notes.append(f"diverged at step {training.step} of {training.steps}")
        if training.extra_tokens:
            notes.append(f"{training.extra_tokens} tokens beside the budget went through passes for the Hessian")
        size = self.corpus.split("report").bytes_per_token
        spec = replace(spec, regime=replace(spec.regime, bytes_per_token=size))  # for losses in bits per byte
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
            epochs=training.step * spec.batch / len(training.batches.windows),
            flops=(training.tokens + PASS_COST * training.extra_tokens) * per_token,
            seconds=seconds,
            peak_bytes=max(peaks, default=None),
            checkpoint_bytes=training.store.last_bytes or None if training.store else None,
            optimizer_state_bytes=sum(state) if training.strategy.shares_state else state[0],
            proof=training.proof,
            routing=tuple(route.to_dict() for route in training.optimizer.routing),
            environment={
                **environment(training.device.type),
                **training.parallel.facts(spec),
                **speed,
                **device_facts(training.device),
            },
            started=self.started,
            ended=max(self.started, _now()),  # a clock may be put back meanwhile
            resumes=training.resumes,
            tokens_per_second=rate,
            notes=tuple(notes),
        )


def run_trial(
    spec: TrialSpec,
    corpus: Corpus,
    ledger: Ledger,
    *,
    models: WarmModels | None = None,
    parallel: ParallelConfig | None = None,
    keep_weights: bool = False,
    on_point: Callable[[CurvePoint], Any] = lambda point: None,
) -> TrialRecord:
    """Train one trial in this process to its end, or return the record that the ledger already holds."""
    with log_failed(TrialLog(ledger, spec.id)):
        run = TrialRun(spec, corpus, ledger, models, parallel, keep_weights)
        while run.record is None:
            on_point(run.advance())
    return run.record


def run_ranks(
    spec: TrialSpec,
    corpus: Corpus,
    ledger: Ledger | str,
    parallel: ParallelConfig,
    on_point: Callable[[CurvePoint], Any] = lambda point: None,
    keep_weights: bool = False,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> TrialRecord:
    """Train one trial on ranks of this machine to its end, or return the record that the ledger already holds.

    A config of one plain process trains in this one; ranks find ``variables`` in their environment. Raises
    `InputError` for a batch that does not divide among the ranks, before anything starts, and
    `tuneopt.training.launch.RankFailedError` when a rank fails; running again goes on from the last checkpoint,
    whatever the number of ranks then.
    """
    opened = open_ledger(ledger) if isinstance(ledger, str) else ledger
    known = opened.sound(spec.id)
    if known is not None:
        return known
    parallel.micro_batch(spec)  # for what it raises: here it is said once, and before processes start
    if not parallel.distributed:
        return run_trial(spec, corpus, opened, parallel=parallel, keep_weights=keep_weights, on_point=on_point)
    job = rank_job(spec.to_dict(), corpus.folder, opened.uri, parallel, keep_weights)
    with log_failed(TrialLog(opened, spec.id)):
        # Ranks are processes of their own: points come as lines of rank 0's stdout, the record by way of the ledger.
        for line in launch([sys.executable, "-m", "tuneopt.training.zero", "--job", job], parallel.ranks, variables):
            if line.startswith(POINT):
                on_point(CurvePoint(**json.loads(line.removeprefix(POINT))))
        record = opened.get(spec.id)
        if record is None:
            raise RuntimeError(f"the ranks ended, but trial {spec.id} is not in the ledger {opened.uri}")
    return record


def rank_job(
    spec: Mapping[str, Any], corpus: Path, ledger: str, parallel: ParallelConfig, keep_weights: bool = False
) -> str:
    """What a rank needs to know, as JSON for its command line; ``spec`` as `TrialSpec.to_dict` gives it."""
    plain = {"spec": spec, "corpus": str(corpus), "ledger": ledger, "parallel": asdict(parallel)}
    # Files of the user's own travel as texts: an optimizer's, a model's.
    return json.dumps({**plain, "keep_weights": keep_weights, "sources": sources_of(TrialSpec.from_dict(spec))})


def run_rank(job: str, ranks: Ranks) -> TrialRecord:
    """This rank's part of a trial (`rank_job`), to its end; rank 0 prints curve points, every rank has the record."""
    plain = json.loads(job)
    adopt_all(plain.get("sources", {}))
    spec, parallel = TrialSpec.from_dict(plain["spec"]), ParallelConfig(**plain["parallel"])
    corpus, ledger = open_corpus(Path(plain["corpus"])), open_ledger(plain["ledger"])
    run = TrialRun(spec, corpus, ledger, None, parallel, plain["keep_weights"], ranks)
    while run.record is None:
        point = run.advance()
        if ranks.rank == 0:
            print(POINT + json.dumps(asdict(point)), flush=True)
    return run.record


def _final_weights(training: Training) -> Mapping[str, Tensor] | None:
    """The whole weights of a finished trial, on rank 0; all ranks together."""
    if not training.parallel.zero:
        return training.model.state_dict()
    # No rank holds the model whole. The pieces come together in a last checkpoint, which every rank can see.
    if training.store is None:
        return None
    training.save()
    if training.ranks.rank != 0:
        return None
    # A store of its own: only the checkpoint just written will do, and no copy from anywhere else.
    newest = CheckpointStore(training.store.folder).load_newest(torch.device("cpu"))
    if newest is None or newest[0] != training.step:
        raise RuntimeError(f"the last checkpoint of trial {training.spec.id} cannot be read back")
    weights: Mapping[str, Tensor] = newest[1]["model"]
    return weights


def checkpoint_store(ledger: Ledger, trial: str) -> CheckpointStore:
    """The checkpoints of a trial: beside its ledger or, when that is remote, in this machine's cache.

    Those of a remote ledger have copies beside it, for other machines to go on from.
    """
    folder = ledger.checkpoint_dir(trial) if ledger.is_local else cache_folder() / "checkpoints" / trial
    mirror = Mirror(ledger.files, trial) if isinstance(ledger.files, RemoteFiles) else None
    return CheckpointStore(folder, mirror)


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of all tensors in the optimizer's state, each storage counted once.

    Optimizers from outside may nest containers, and views of one stack share its storage.
    """
    storages: dict[int, int] = {}

    def visit(value: Any) -> None:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()  # by its address: a stack is one storage, its matrices are views
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict):
            visit(list(value.values()))
        elif isinstance(value, list | tuple):
            for inner in value:
                visit(inner)

    visit(list(optimizer.state.values()))
    return sum(storages.values())


def trained_throughput(
    spec: TrialSpec,
    corpus: Corpus,
    models: WarmModels | None = None,
    beside: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> float:
    """Tokens per second of a few optimizer steps on this machine, without evaluation.

    With ``models`` the model compiles where ``spec`` says so, which takes half a minute once; without, it does not.
    ``beside`` surrounds the steps that are timed, such as with what else a machine will do then.
    """
    training = Training(spec if models else replace(spec, compile=False), corpus, None, models)
    # Counted by steps that ended, over the time that they took: the last one may run over `TIMED_SECONDS`.
    training.train_step()  # the first one makes state and warms caches
    with beside():
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < TIMED_SECONDS and training.step < training.steps:
            training.train_step()
            steps += 1
        return steps * spec.batch * spec.regime.scale.seq_len / (time.perf_counter() - began)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
