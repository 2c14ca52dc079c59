"""The training loop of one trial: build, restore, then step, measure and save until the end. Read it top to bottom.

What differs between one process, DDP and ZeRO is in the strategy that the loop holds (`tuneopt.training.parallel`): how
a model is made ready, how gradients accumulate, how the optimizer steps, what a checkpoint holds. Whatever the future
of a run depends on is in its checkpoint, so a trial that was killed and resumed on the same machine ends with the same
loss, bit for bit. Randomness comes from the trial's seeds alone: initial weights and Sophia's probes from ``seed``, the
order of samples from ``data_seed``, which is the same number unless the trial says otherwise.

Letters: B sequences of a micro-batch, T tokens of a sequence.
"""

from __future__ import annotations

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

from tuneopt.data import Corpus
from tuneopt.errors import InputError
from tuneopt.ledger import CurvePoint, finite
from tuneopt.optim.proof import UpdateCheck
from tuneopt.spec import TrialSpec
from tuneopt.training.batches import HeldOut, TrainBatches
from tuneopt.training.building import WarmModels, build_optimizer
from tuneopt.training.checkpoint import CheckpointStore
from tuneopt.training.config import ParallelConfig
from tuneopt.training.parallel import strategy_for
from tuneopt.training.ranks import Ranks
from tuneopt.training.schedule import LearningRateSchedule
from tuneopt.training.second_order import rank_share, sequences_of_estimate

PATIENCE = 5
"""Curve points in a row whose loss lies above the untrained model's before a trial counts as diverged."""


class Training:
    """One trial under way. Call `advance` until `finished`; then read `curve`, `final_losses` and `diverged`.

    ``ranks`` says which part of the trial is this process's; without it the process is alone. All ranks call the same
    methods in the same order. Raises `InputError` for a corpus that is not the trial's, a batch that does not divide
    among the ranks, and another number of ranks than ``parallel`` says.
    """

    def __init__(
        self,
        spec: TrialSpec,
        corpus: Corpus,
        checkpoints: Path | CheckpointStore | None,
        models: WarmModels | None = None,
        parallel: ParallelConfig | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        if corpus.id.fingerprint != spec.regime.corpus.fingerprint:
            raise InputError(f"corpus {corpus.id} is not the one the trial names, {spec.regime.corpus}")
        self.spec = spec
        self.store = CheckpointStore(checkpoints) if isinstance(checkpoints, Path) else checkpoints
        self.seconds: defaultdict[str, float] = defaultdict(float)
        parallel = parallel or ParallelConfig()
        with self._clock("startup"):
            # Build. Weights are those of the seed, whatever the model was used for before.
            models = models or WarmModels(ranks.device if ranks else None)
            self.device = models.device
            self.ranks = ranks or Ranks(0, 1, self.device)
            self.strategy = strategy_for(spec, parallel, self.ranks)
            built = self.strategy.prepare(models)
            self.model, self.micro_batch = built.model, built.micro_batch
            self.optimizer = build_optimizer(spec, self.model)
            self.peak_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
            self.schedule = LearningRateSchedule.of(spec.config, spec.steps)

            # Data. A rank trains its part of every batch; evaluation is on fixed windows, the same for every trial.
            self.passes = spec.batch // self.ranks.world // self.micro_batch
            self.batches = TrainBatches(corpus, spec, self.ranks, self.micro_batch)
            # On a CPU that was told nothing, evaluation takes the specification's own micro-batch, as every release
            # did: it orders the sum, and the bits of a loss are not to depend on how the batch divided.
            fitted = parallel.sequences is not None or parallel.zero > 0 or self.device.type == "cuda"
            size = self.micro_batch if fitted else spec.micro_batch
            self.held_out = HeldOut.of(corpus, spec, self.ranks, size, compiled=built.compiled)
            self.parallel = replace(parallel, sequences=self.micro_batch)

            # Progress, from the beginning.
            self.step = 0
            self.resumes = 0
            self.resumed_seconds: dict[str, float] = {}
            self.curve: list[CurvePoint] = []
            self.final_losses: tuple[float, float] | None = None
            self.diverged = False
            self.proof: dict[str, Any] | None = None
            self.update_check: UpdateCheck | None = None
            self._train_loss = torch.zeros((), dtype=torch.float64, device=self.device)

            # Restore. The strategy loads in any case: it hands the model to DDP or DeepSpeed with these weights.
            saved = self._newest_checkpoint()
            self.strategy.load(self.optimizer, saved)
            if saved is None:
                self.update_check = self.strategy.update_check()
            else:
                self._go_on(saved)
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
        """Tokens, beyond `tokens`, that went through passes for the Hessian."""
        interval = self.optimizer.hessian_interval
        estimates = self.step // interval if interval else 0
        return estimates * sequences_of_estimate(self.spec) * self.spec.regime.scale.seq_len

    def advance(self) -> CurvePoint:
        """Train to the next curve point and measure there."""
        # After the last point, not after the last step: a checkpoint can lie at a curve point that is not measured yet.
        last = self.curve[-1].step
        target = next(point for point in curve_steps(self.steps, self.spec.evaluation.points) if point > last)
        while self.step < target:
            with self._clock("train"):
                self.train_step()
            # No checkpoint before the proof is taken, because a resumed run could not take it any more; none at the
            # end, where the record follows.
            if self.store is None or self.update_check is not None or self.step >= self.steps:
                continue
            # Rank 0 decides: clocks differ, and ranks write together.
            if self.ranks.first_says(time.perf_counter() - self._saved_at >= self.store.pause):
                self.save()
        return self._measure()

    def train_step(self) -> None:
        """One optimizer step at the schedule's rate, over as many micro-batches as the batch holds."""
        # 1. Learning rates. Each group has a peak of its own, and the schedule a multiple for all of them. Step s takes
        #    the schedule at s, so a run with warmup spends its first step at rate zero, as the study does.
        multiple = self.schedule(self.step)
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * multiple

        # 2. Forward and backward, one micro-batch after another; gradients add up to the mean over the whole batch.
        #    The loss stays on the device: reading it here would stop the CPU from running ahead of a GPU.
        self.strategy.drop_gradients()
        for number in range(self.passes):
            window = self.batches.take(self.step, number)  # (B, T + 1) int64
            self._train_loss += self.strategy.accumulate(window, number, self.passes)

        # 3. For Sophia, an estimate of the Hessian's diagonal, before the step: at the weights of the gradient.
        diagonal: dict[Tensor, Tensor] | None = None
        interval = self.optimizer.hessian_interval
        if interval and (self.step + 1) % interval == 0:
            first, count, weight = rank_share(self.spec, self.step, self.ranks)
            diagonal = self.strategy.hessian(self.batches.window(first, count), weight, self.step)

        # 4. Optimizer step; the update check records it.
        if self.update_check:
            self.update_check.before_step()
        self._train_loss += self.strategy.step()
        if self.update_check:
            self.update_check.after_step()
            if self.update_check.complete:
                self._take_proof()

        # 5. The estimate counts from the next step on (Liu et al., algorithm 3), so the optimizer gets it last.
        if diagonal is not None:
            for optimizer in self.strategy.optimizers:
                optimizer.update_hessian(diagonal)
            if self.update_check:
                self.update_check.see_hessian(diagonal)
        self.step += 1
        if self.step >= self.steps:
            self.batches.close()

    def step_loss(self) -> float:
        """Take one step and give its loss over all ranks, in nats per token; for checks, between curve points."""
        self._train_loss.zero_()
        self.train_step()
        return float(self.ranks.sum(self._train_loss.clone())) / self.ranks.world

    def save(self) -> None:
        """Write a checkpoint now (nothing where the trial has no checkpoint folder)."""
        if self.store is None:
            return
        if self.update_check is not None:
            # What was shown so far: a resumed run cannot follow the averages from their start any more.
            self.proof = self.update_check.proof().to_dict()
        with self._clock("checkpoint"):
            self._share_train_loss()
            progress = {
                "trial": self.spec.id,
                "train_loss": self._train_loss,
                "curve": [astuple(point) for point in self.curve],
                "proof": self.proof,
                "seconds": dict(self.seconds),
                "resumes": self.resumes,
            }
            self.strategy.save(self.store, self.step, progress)
        self._saved_at = time.perf_counter()

    def close(self) -> None:
        """Let go of what the model was wrapped in; nothing can be trained afterwards."""
        self.strategy.close()

    def _measure(self) -> CurvePoint:
        """Evaluate, append a curve point, and judge divergence."""
        with self._clock("eval"):
            self._share_train_loss()
            self.strategy.drop_gradients()  # a pass of the evaluation needs their room
            # No model.eval(): the model behaves the same in both modes, and switching would compile it once more.
            select, report = self.evaluate(final=False)
            train = float(self._train_loss) / (self.step - self.curve[-1].step) if self.curve else select
            self._train_loss.zero_()
            # The rate of the step that was taken last.
            rate = self.peak_rates[0] * self.schedule(max(0, self.step - 1))
            elapsed = sum(self.seconds.values())
            point = CurvePoint(self.step, self.tokens, rate, finite(train), finite(select), finite(report), elapsed)
            self.curve.append(point)
            at_end = self.step >= self.steps
            # Not by one bad point: losses spike and recover. What is no number does not recover, and counts at once.
            self.diverged = stays_above_start([earlier.select_loss for earlier in self.curve], at_end=at_end)
            self.diverged |= None in (point.train_loss, point.select_loss, point.report_loss)
            if at_end and not self.diverged:
                self.final_losses = self.evaluate(final=True)
                self.diverged = not all(math.isfinite(value) for value in self.final_losses)
            if at_end and self.update_check is not None:
                self._take_proof()  # of a run so short that the check saw less than it wanted
        return point

    def evaluate(self, *, final: bool) -> tuple[float, float]:
        """(select, report) loss at the weights that the optimizer evaluates; training goes on as if it had not been."""
        with self.strategy.evaluation_weights():
            return self.held_out.losses(self.strategy.loss, final=final)

    def _take_proof(self) -> None:
        assert self.update_check is not None
        self.proof, self.update_check = self.update_check.proof().to_dict(), None

    def _share_train_loss(self) -> None:
        """Replace each rank's own part of the train loss by the mean over all, which every rank goes on from."""
        self.ranks.sum(self._train_loss).div_(self.ranks.world)

    def _newest_checkpoint(self) -> dict[str, Any] | None:
        """The newest checkpoint of this very trial, with its ``step``."""
        # On the host: what is loaded into model and optimizer is copied, and a device may not hold both.
        newest = self.store.load_newest(torch.device("cpu")) if self.store else None
        if newest is None or newest[1]["trial"] != self.spec.id:  # a folder that was copied or renamed by hand
            return None
        return {**newest[1], "step": newest[0]}

    def _go_on(self, saved: dict[str, Any]) -> None:
        """Take over the progress that `save` wrote."""
        self.step = saved["step"]
        self._train_loss = saved["train_loss"].to(self.device)
        self.curve = [CurvePoint(*row) for row in saved["curve"]]
        self.proof = saved["proof"]
        self.resumes = saved["resumes"] + 1
        for name, value in saved["seconds"].items():
            self.seconds[name] += value
        self.resumed_seconds = dict(saved["seconds"])

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

    The untrained model's loss is ``losses[0]``; a run that never gets below it learns nothing. A single point above it
    is no divergence: a warmup that overshoots comes back.
    """
    needed = 1 if at_end else PATIENCE
    first, recent = losses[0], losses[1:][-needed:]
    return len(recent) == needed and all(loss is None or first is None or loss > first for loss in recent)
