"""The training loop on several ranks that each hold the whole model: torch's DDP, with the loss of one process."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tuneopt.data import Corpus
from tuneopt.ledger import CurvePoint
from tuneopt.spec import InputError, TrialSpec
from tuneopt.train.building import LossFunction, WarmModels
from tuneopt.train.checkpoint import CheckpointStore
from tuneopt.train.config import ParallelConfig
from tuneopt.train.evaluate import SharedHeldOut
from tuneopt.train.fitting import available_bytes, pass_sizes
from tuneopt.train.loop import Training
from tuneopt.train.prefetch import Part
from tuneopt.train.ranks import Ranks


class RankTraining(Training):
    """One rank's part of a trial: a W-th of each batch and of each evaluation, and the decisions of rank 0.

    All ranks call the same methods in the same order.
    """

    def __init__(
        self,
        spec: TrialSpec,
        corpus: Corpus,
        checkpoints: Path | CheckpointStore | None,
        placement: ParallelConfig,
        ranks: Ranks,
    ) -> None:
        if placement.ranks != ranks.world:
            raise InputError(f"the trial is placed on {placement.ranks} ranks, and {ranks.world} came; start as many")
        placement.micro_batch(spec)  # says so where the batch does not divide
        self.ranks = ranks
        if placement.zero:
            sizes = pass_sizes(spec, placement, ranks.device, lambda: ranks.least(available_bytes(ranks.device)))
            placement = replace(placement, sequences=sizes[0])  # nothing can be tried first
        super().__init__(spec, corpus, checkpoints, WarmModels(ranks.device), placement)

    @property
    def state_bytes(self) -> int:
        """Bytes of optimizer state on this rank."""
        return self.optimizer.state_bytes()

    def step_loss(self) -> float:
        """Take one step and give its loss over all ranks, in nats per token; for checks, between curve points."""
        self._train_loss.zero_()
        self.train_step()
        return float(self.ranks.sum(self._train_loss.clone())) / self.ranks.world

    def close(self) -> None:
        """Let go of what the model was wrapped in; nothing can be trained afterwards."""

    def _agree(self, fits: bool) -> bool:
        return self.ranks.all(fits)

    def _least(self, count: int) -> int:
        return self.ranks.least(count)

    def _resume(self) -> None:
        super()._resume()
        self._share()
        self._ddp = DistributedDataParallel(
            _Loss(self.model, self.loss),
            device_ids=[self.device] if self.device.type == "cuda" else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,  # else it always holds a second copy of all gradients
        )

    def _share(self) -> None:
        """Evaluate together from here on."""
        self.held_out: Any = SharedHeldOut(self.held_out, self.ranks)

    @property
    def _trained_here(self) -> Part:
        return replace(super()._trained_here, first=self.ranks.rank * self.parts * self.micro_batch)

    def _accumulate(self) -> Tensor:
        self._drop_gradients()
        for part in range(self.parts):
            last = part == self.parts - 1
            with nullcontext() if last else self._ddp.no_sync():
                window = self._own_window(part)
                loss = self._ddp(window[:, :-1], window[:, 1:]) / self.parts
                loss.backward()
                self._train_loss += loss.detach()
        return window

    def _curvature(self, window: Tensor) -> dict[Tensor, Tensor]:
        diagonal = self._own_curvature(self.model)
        for estimate in diagonal.values():
            self.ranks.sum(estimate)
        return diagonal

    def _own_curvature(self, model: Any) -> dict[Tensor, Tensor]:
        """This rank's summand of the estimate that one process takes on the last of its micro-batches."""
        size, world = self._curvature_sequences, self.ranks.world
        first = (self.step + 1) * self.spec.batch - size
        # Where that micro-batch does not divide, rank 0 takes all of it.
        own = size // world if size % world == 0 else size
        taken = first + self.ranks.rank * own if size % world == 0 else first
        weight = 1 / world if size % world == 0 else float(self.ranks.rank == 0)
        window = self._window(taken, own)
        return {parameter: estimate * weight for parameter, estimate in self._estimate(model, window).items()}

    def _measure(self) -> CurvePoint:
        self.ranks.sum(self._train_loss).div_(self.ranks.world)
        return super()._measure()

    def _due(self, pause: float) -> bool:
        return self.ranks.first_says(super()._due(pause))

    def _write(self, store: CheckpointStore) -> None:
        # Each rank's train loss is its own part: the checkpoint keeps the mean, and every rank goes on from it.
        self.ranks.sum(self._train_loss).div_(self.ranks.world)
        if self.ranks.rank == 0:
            super()._write(store)
        self.ranks.barrier()


class _Loss(nn.Module):
    """A model whose forward pass is its loss, because DDP averages gradients of nothing else."""

    def __init__(self, model: nn.Module, loss: LossFunction) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return self._loss(tokens, targets)
