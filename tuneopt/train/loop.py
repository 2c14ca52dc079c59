"""The training loop of one trial, resumable to the bit.

A `Training` advances from one curve point to the next. Whatever its future depends on is in its checkpoint, so a
trial that was killed and resumed on the same machine ends with the same loss, bit for bit.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tuneopt.data import Corpus, SampleOrder
from tuneopt.ledger import CurvePoint, finite
from tuneopt.optim import create
from tuneopt.optim.factory import implementation
from tuneopt.optim.proof import Witness
from tuneopt.spec import InputError, TrialSpec
from tuneopt.train.building import BuiltModel, WarmModels
from tuneopt.train.checkpoint import CheckpointStore, by_position
from tuneopt.train.config import ParallelConfig
from tuneopt.train.evaluate import HeldOut
from tuneopt.train.fitting import pass_sizes, reserved_bytes
from tuneopt.train.model import Llama
from tuneopt.train.prefetch import Part, Prefetch, gathering
from tuneopt.train.schedule import Schedule
from tuneopt.train.second_order.hessian import hessian_diagonal

LOOP_HYPERPARAMETERS = ("train_batch_size", "warmup", "decay", "lr_schedule", "min_lr_ratio")
"""What the loop itself takes from a configuration; the rest goes to the optimizer."""

PATIENCE = 5
"""Curve points in a row whose loss lies above the untrained model's before a trial counts as diverged."""


class Training:
    """One trial under way. Call `advance` until `finished`; then read `curve`, `final_losses` and `diverged`."""

    def __init__(
        self,
        spec: TrialSpec,
        corpus: Corpus,
        checkpoints: Path | CheckpointStore | None,
        engine: WarmModels | None = None,
        placement: ParallelConfig | None = None,
    ) -> None:
        if corpus.id.fingerprint != spec.regime.corpus.fingerprint:
            raise InputError(f"corpus {corpus.id} is not the one the trial names, {spec.regime.corpus}")
        self.spec = spec
        self.placement = placement or ParallelConfig()
        self.store = CheckpointStore(checkpoints) if isinstance(checkpoints, Path) else checkpoints
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.data_seconds = 0.0
        """Seconds of this process's training that went into waiting for batches."""
        with self._clock("startup"):
            warm = self._prepare(engine or WarmModels())
            self.model, self.loss, self.device = warm.model, warm.loss, warm.device
            self.micro_batch = warm.micro_batch or self.placement.micro_batch(spec)
            self.parts = spec.batch // self.placement.ranks // self.micro_batch
            chosen = self.placement.sequences is not None or self.device.type == "cuda"
            self.held_out = HeldOut.of(corpus, spec, self.device, self.micro_batch if chosen else None)
            self.placement = replace(self.placement, sequences=self.micro_batch)
            self.schedule = Schedule.of(spec.config, spec.steps)
            own = {name: value for name, value in spec.config.items() if name not in LOOP_HYPERPARAMETERS}
            facts = {fact: getattr(spec.regime.scale, fact) for fact in implementation(spec.optimizer).model_facts}
            self.optimizer = create(spec.optimizer, self.model, **{**facts, **own})
            self.windows = corpus.split("train").windows(spec.regime.scale.seq_len)
            self.order = SampleOrder(len(self.windows), spec.seed)
            self.witness: Witness | None = Witness(self.optimizer)
            self.proof: dict[str, Any] | None = None
            self.step = 0
            self.resumes = 0
            self.resumed_seconds: dict[str, float] = {}
            self.curve: list[CurvePoint] = []
            self.final_losses: tuple[float, float] | None = None
            self.diverged = False
            self._train_loss = torch.zeros((), dtype=torch.float64, device=self.device)
            self._batches: Prefetch | None = None
            self._resume()
        self._saved_at = time.perf_counter()
        if not self.curve:
            self._measure()

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return self.spec.steps

    @property
    def finished(self) -> bool:
        """Whether the run reached the end of its budget or diverged."""
        return self.diverged or self.step >= self.steps

    @property
    def tokens(self) -> int:
        """Tokens trained on so far."""
        return self.step * self.spec.batch * self.spec.regime.scale.seq_len

    @property
    def extra_tokens(self) -> int:
        """Tokens, beside `tokens`, that went through passes for the Hessian; each pass takes one micro-batch."""
        interval = self.optimizer.hessian_interval
        passes = self.step // interval if interval else 0
        return passes * self._curvature_sequences * self.spec.regime.scale.seq_len

    @property
    def _curvature_sequences(self) -> int:
        """Sequences of an estimate: the specification's micro-batch, however many a pass takes here."""
        return min(self.spec.micro_batch, self.spec.batch)

    def advance(self) -> CurvePoint:
        """Train to the next curve point and measure there."""
        # After the last point, not after the last step: a checkpoint can lie at a curve point that is not measured yet.
        last = self.curve[-1].step
        target = next(point for point in curve_steps(self.steps, self.spec.evaluation.points) if point > last)
        while self.step < target:
            with self._clock("train"):
                self.train_step()
            self._checkpoint_when_due()
        return self._measure()

    def train_step(self) -> None:
        """One optimizer step at the schedule's rate, over as many micro-batches as the batch holds."""
        rate = self.schedule(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * rate
        window = self._accumulate()
        interval, diagonal = self.optimizer.hessian_interval, None
        if interval and (self.step + 1) % interval == 0:
            # At the weights that the gradient was taken at, on the last of its micro-batches.
            diagonal = self._curvature(window)
        self._update(diagonal)
        self.step += 1
        if self._batches is not None and self.step >= self.steps:
            self._batches.close()

    def _prepare(self, engine: WarmModels) -> BuiltModel:
        """The freshly initialised model and its loss, tried with as many sequences as a pass is to take."""
        sizes = pass_sizes(self.spec, self.placement, engine.device, lambda: self._least(engine.available_bytes()))

        def reserved(size: int) -> int:
            # One size was chosen and has to do; among several, the largest beside which the rest of a step has room.
            return reserved_bytes(self.spec, self.placement, size) if len(sizes) > 1 else 0

        return engine.prepare(
            self.spec,
            sizes,
            checkpointing=self.placement.checkpointing,
            deterministic=self.placement.deterministic,
            reserved=reserved,
            agree=self._agree,
        )

    def _agree(self, fits: bool) -> bool:
        """Whether all who train this trial say so."""
        return fits

    def _least(self, count: int) -> int:
        """The least count of all who train this trial."""
        return count

    def _window(self, first: int, count: int) -> Tensor:
        """Samples ``first`` to ``first + count - 1`` of the run, (count, T + 1) int64."""
        gather = gathering(self.windows, self.order, self.device)
        return gather(first, count).to(self.device, non_blocking=True)

    @property
    def _trained_here(self) -> Part:
        """What is trained here of every batch."""
        return Part(self.spec.batch, 0, self.parts, self.micro_batch)

    def _own_window(self, part: int) -> Tensor:
        """Micro-batch number ``part`` of the next step, of those that are trained here, gathered ahead."""
        began = time.perf_counter()
        if self._batches is None or self._batches.next != self._trained_here.of(self.step)[part]:
            # Nothing here refers to this training: one that is dropped frees its memory at once.
            to_come = self._trained_here.from_step(self.step, self.steps)
            gather = gathering(self.windows, self.order, self.device)
            self._batches = Prefetch(gather, itertools.islice(to_come, part, None))
        window = self._batches.take().to(self.device, non_blocking=True)
        self.data_seconds += time.perf_counter() - began
        return window

    def _accumulate(self) -> Tensor:
        """Leave the mean gradient of the next batch in the parameters; returns its last micro-batch."""
        self._drop_gradients()
        for part in range(self.parts):
            window = self._own_window(part)
            loss = self.loss(window[:, :-1], window[:, 1:]) / self.parts
            loss.backward()  # type: ignore[no-untyped-call]
            self._train_loss += loss.detach()
        return window

    def _drop_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def _curvature(self, window: Tensor) -> dict[Tensor, Tensor]:
        """An estimate of the Hessian's diagonal on the last of the specification's micro-batches, by parameter."""
        size = self._curvature_sequences
        if len(window) != size:
            window = self._window((self.step + 1) * self.spec.batch - size, size)
        return self._estimate(self.model, window)

    def _estimate(self, model: Llama, window: Tensor) -> dict[Tensor, Tensor]:
        """The estimate on ``window``, in passes of at most a micro-batch: products with one probe add up."""
        total: dict[Tensor, Tensor] = {}
        for part in torch.split(window, self.micro_batch):
            own = hessian_diagonal(model, part[:, :-1], part[:, 1:], self.spec.seed, self.step)
            if len(part) == len(window):
                return own
            for parameter, estimate in own.items():
                weighted = estimate * (len(part) / len(window))
                total[parameter] = total[parameter] + weighted if parameter in total else weighted
        return total

    def _update(self, diagonal: dict[Tensor, Tensor] | None) -> None:
        """Move the parameters by the gradients that they hold, under the eyes of the witness."""
        if self.witness:
            self.witness.before_step()
        self.optimizer.step()
        if self.witness:
            self.witness.after_step()
            if self.witness.complete:
                self.proof = self.witness.proof().to_dict()
                self.witness = None
        if diagonal is not None:
            self.optimizer.update_hessian(diagonal)

    def _measure(self) -> CurvePoint:
        """Evaluate, append a curve point, and judge divergence."""
        with self._clock("eval"):
            self._drop_gradients()  # a pass of the evaluation needs their room
            # No model.eval(): the model behaves the same in both modes, and switching would compile it once more.
            select, report = self.held_out.losses(self.loss, final=False)
            train = float(self._train_loss) / (self.step - self.curve[-1].step) if self.curve else select
            self._train_loss.zero_()
            first = self.optimizer.param_groups[0]
            rate = float(first.get("initial_lr", first["lr"])) * self.schedule(max(0, self.step - 1))
            elapsed = sum(self.seconds.values())
            point = CurvePoint(self.step, self.tokens, rate, finite(train), finite(select), finite(report), elapsed)
            self.curve.append(point)
            at_end = self.step >= self.steps
            self.diverged = stays_above_start([earlier.select_loss for earlier in self.curve], at_end=at_end)
            self.diverged |= None in (point.train_loss, point.select_loss, point.report_loss)
            if at_end and not self.diverged:
                self.final_losses = self.held_out.losses(self.loss, final=True)
                self.diverged = not all(math.isfinite(value) for value in self.final_losses)
            if at_end and self.witness is not None:
                self.proof, self.witness = self.witness.proof().to_dict(), None
        return point

    def _checkpoint_when_due(self) -> None:
        """Write a checkpoint when enough time went by, but none before the proof is taken: a resume takes it anew."""
        if self.store is None or self.witness is not None or self.step >= self.steps:
            return
        if self._due(self.store.pause):
            self.save()

    def _due(self, pause: float) -> bool:
        return time.perf_counter() - self._saved_at >= pause

    def save(self) -> None:
        """Write a checkpoint now (nothing where the trial has no checkpoint folder)."""
        if self.store is None:
            return
        with self._clock("checkpoint"):
            self._write(self.store)
        self._saved_at = time.perf_counter()

    def _write(self, store: CheckpointStore) -> None:
        model, optimizer = self.model.state_dict(), self.optimizer.state_dict()
        store.save(self.step, {**self._progress(), "model": model, "optimizer": optimizer})

    def _progress(self) -> dict[str, Any]:
        """What a checkpoint holds beside weights and optimizer state."""
        return {
            "trial": self.spec.id,
            "train_loss": self._train_loss,
            "curve": [astuple(point) for point in self.curve],
            "proof": self.proof,
            "seconds": dict(self.seconds),
            "resumes": self.resumes,
        }

    def _newest(self) -> tuple[int, dict[str, Any]] | None:
        """The newest checkpoint of this very trial."""
        # On the host: what is loaded into model and optimizer is copied, and a device may not hold both.
        newest = self.store.load_newest(torch.device("cpu")) if self.store else None
        return newest if newest and newest[1]["trial"] == self.spec.id else None

    def _resume(self) -> None:
        newest = self._newest()
        if newest is None:
            return
        _, state = newest
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(by_position(state, self.optimizer))
        self._go_on(*newest)

    def _go_on(self, step: int, state: dict[str, Any]) -> None:
        """Take over what `_progress` gave."""
        self.step = step
        self._train_loss = state["train_loss"].to(self.device)
        self.curve = [CurvePoint(*row) for row in state["curve"]]
        self.proof, self.witness = state["proof"], None
        self.resumes = state["resumes"] + 1
        for name, value in state["seconds"].items():
            self.seconds[name] += value
        self.resumed_seconds = dict(state["seconds"])

    @contextmanager
    def _clock(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - began


def curve_steps(steps: int, points: int) -> list[int]:
    """The steps after which the loss is measured: ``points`` of them, evenly spaced, the last at the end."""
    return sorted({max(1, round(steps * number / points)) for number in range(1, points + 1)})


def stays_above_start(losses: Sequence[float | None], *, at_end: bool) -> bool:
    """Whether a run counts as diverged: its last `PATIENCE` losses, or at the end its last, all exceed ``losses[0]``.

    The untrained model's loss is ``losses[0]``; a run that never gets below it learns nothing.
    """
    needed = 1 if at_end else PATIENCE
    first, recent = losses[0], losses[1:][-needed:]
    return len(recent) == needed and all(loss is None or first is None or loss > first for loss in recent)
