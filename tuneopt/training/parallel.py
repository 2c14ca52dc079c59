"""Parallel strategies: how one process, torch's DDP and ZeRO make a model ready, accumulate, step, save and load.

The loop holds one of them and is the same for all. `SingleProcess` is the plain case and the one to read first.
`DataParallel` lets every rank hold the whole model and averages gradients. `Zero` (`tuneopt.training.zero.strategy`)
shards what ranks hold. The loss is the same for all three, up to the order of floating-point sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tuneopt.errors import InputError
from tuneopt.optim.base import Optimizer
from tuneopt.optim.proof import UpdateCheck
from tuneopt.spec import TrialSpec
from tuneopt.training.building import BuiltModel, LossFunction, LossModule, WarmModels
from tuneopt.training.checkpoint import CheckpointStore, by_position, write_parts
from tuneopt.training.config import ParallelConfig
from tuneopt.training.dealing import Dealt, DealtUpdateCheck, is_dealt
from tuneopt.training.fitting import pass_sizes, reserved_bytes
from tuneopt.training.ranks import Ranks
from tuneopt.training.second_order import estimate
from tuneopt.training.zero.strategy import Zero


class ParallelStrategy(Protocol):
    """What the loop asks of a strategy, in this order: prepare, load, then accumulate and step; save between steps."""

    @property
    def shares_state(self) -> bool:
        """Whether the optimizer state of each tensor is on one rank alone."""

    def prepare(self, models: WarmModels) -> BuiltModel:
        """The model with the weights of its seed, its loss, and the micro-batch size that fits on every rank."""

    def load(self, optimizer: Optimizer, saved: dict[str, Any] | None) -> None:
        """Take over weights and optimizer state of a checkpoint, if there is one, and make everything ready to step."""

    @property
    def loss(self) -> LossFunction:
        """The loss to evaluate with, once loaded."""

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        """The optimizers that hold state on this rank and step."""

    def drop_gradients(self) -> None:
        """Let go of the gradients of the step before."""

    def accumulate(self, window: Tensor, number: int, passes: int) -> Tensor:
        """Forward and backward of pass ``number`` over (B, T + 1) tokens; its loss over ``passes``, detached."""

    def hessian(self, window: Tensor, weight: float, step: int) -> dict[Tensor, Tensor]:
        """An estimate of the Hessian's diagonal, by the parameters of `optimizers`; ``weight`` is this rank's share."""

    def update_check(self) -> UpdateCheck:
        """The update check of this trial; all ranks use it together."""

    def step(self) -> Tensor | float:
        """Optimizer step; 0, or NaN where the update was not finite and was left out."""

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """While it lasts, the model has the weights that the optimizer evaluates; then those of training, bit for bit.

        All ranks together; nothing may be trained meanwhile, and what `save` writes is not to go on from.
        """

    def save(self, store: CheckpointStore, step: int, progress: dict[str, Any]) -> None:
        """Write a checkpoint of weights, optimizer state and the loop's own ``progress``; all ranks together."""

    def close(self) -> None:
        """Let go of hooks and buffers around the model; nothing can be trained afterwards."""


def strategy_for(spec: TrialSpec, parallel: ParallelConfig, ranks: Ranks) -> ParallelStrategy:
    """The strategy that ``parallel`` asks for; raises `InputError` where it does not fit the ranks or the batch."""
    if parallel.ranks != ranks.world:
        raise InputError(f"the trial is placed on {parallel.ranks} ranks, and {ranks.world} came; start as many")
    parallel.micro_batch(spec)  # says so where the batch does not divide
    parallel.check_model(spec.regime.scale)
    if parallel.zero:
        return Zero(spec, parallel, ranks)
    return DataParallel(spec, parallel, ranks) if ranks.world > 1 else SingleProcess(spec, parallel, ranks)


class SingleProcess:
    """Training in this process alone."""

    built: BuiltModel
    loss: LossFunction
    optimizer: Optimizer
    shares_state = False

    def __init__(self, spec: TrialSpec, parallel: ParallelConfig, ranks: Ranks) -> None:
        self.spec, self.parallel, self.ranks = spec, parallel, ranks

    def prepare(self, models: WarmModels) -> BuiltModel:
        """The warm model of the shape, tried with as many sequences as a pass is to take."""
        sizes = pass_sizes(
            self.spec, self.parallel, models.device, lambda: self.ranks.least(models.available_bytes())
        )  # the least of all ranks: they must try the same sizes

        def reserved(size: int) -> int:
            # One size was chosen and has to do; among several, the largest that leaves room for the rest of a step.
            return reserved_bytes(self.spec, self.parallel, size) if len(sizes) > 1 else 0

        self.built = models.prepare(
            self.spec,
            sizes,
            checkpointing=self.parallel.checkpointing,
            deterministic=self.parallel.deterministic,
            reserved=reserved,
            agree=self.ranks.all,
        )
        self.loss = self.built.loss
        return self.built

    def load(self, optimizer: Optimizer, saved: dict[str, Any] | None) -> None:
        """Copy weights and state into place."""
        self.optimizer = optimizer
        if saved is not None:
            self.built.model.load_state_dict(saved["model"])
            optimizer.load_state_dict(by_position(saved, optimizer))

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        """The trial's own."""
        return [self.optimizer]

    def drop_gradients(self) -> None:
        """None, not zeros: backward then writes where it would add, and their memory is free in between."""
        self.optimizer.zero_grad(set_to_none=True)

    def accumulate(self, window: Tensor, number: int, passes: int) -> Tensor:
        """The loss is divided before the backward pass, so that gradients of passes add up to their mean."""
        loss = self.loss(window[:, :-1], window[:, 1:]) / passes
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def hessian(self, window: Tensor, weight: float, step: int) -> dict[Tensor, Tensor]:
        """On the plain model, outside compiled code and DDP's hooks."""
        return estimate(self.built.decoder, window, weight, self.built.micro_batch, self.spec.seed, step)

    def update_check(self) -> UpdateCheck:
        """It compares parameters and gradients where they are."""
        return UpdateCheck.of_trial(self.spec, self.optimizer, self.built.model)

    def step(self) -> float:
        """The optimizer moves the parameters by the gradients that they hold."""
        self.optimizer.step()
        return 0.0

    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """Copied in and out; most optimizers evaluate what they train, and nothing is copied.

        What trains is put aside meanwhile, in the room that gradients have while it trains.
        """
        trained = {}
        with torch.no_grad():
            for parameter, weights in self.optimizer.evaluated().items():
                trained[parameter] = parameter.detach().clone()
                parameter.copy_(weights)
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, weights in trained.items():
                    parameter.copy_(weights)

    def save(self, store: CheckpointStore, step: int, progress: dict[str, Any]) -> None:
        """One file."""
        state = {"model": self.built.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        store.save(step, {**progress, **state})

    def close(self) -> None:
        """Nothing is wrapped."""


class DataParallel:
    """Every rank holds the whole model; torch's DDP averages gradients, overlapped with backward.

    Every rank steps the whole model, too, unless the optimizer works on whole matrices: these are dealt out.
    """

    dealt: Dealt | None = None

    def __init__(self, spec: TrialSpec, parallel: ParallelConfig, ranks: Ranks) -> None:
        self.ranks = ranks
        self.shares_state = is_dealt(spec.optimizer)  # then a checkpoint has parts, and state bytes add up over ranks
        self.replica = SingleProcess(spec, parallel, ranks)
        # A replica of one process does everything but communicate.
        self.prepare = self.replica.prepare
        self.drop_gradients = self.replica.drop_gradients
        self.evaluation_weights = self.replica.evaluation_weights
        self.close = self.replica.close

    @property
    def loss(self) -> LossFunction:
        """The replica's own: an evaluation needs no averaging of gradients."""
        return self.replica.loss

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        """The replica's, equal on all ranks, because equal gradients move equal weights; or the part of this rank."""
        return [self.dealt.mine] if self.dealt else self.replica.optimizers

    def load(self, optimizer: Optimizer, saved: dict[str, Any] | None) -> None:
        """Load, then wrap: DDP broadcasts the weights that it finds."""
        if self.shares_state:
            self.replica.optimizer, self.dealt = optimizer, Dealt(optimizer, self.ranks)
            self.evaluation_weights = self.dealt.evaluation_weights
            if saved is not None:
                self.replica.built.model.load_state_dict(saved["model"])
                self.dealt.load(saved)
        else:
            self.replica.load(optimizer, saved)
        device = self.ranks.device
        self.ddp = DistributedDataParallel(
            LossModule(self.replica.built),
            device_ids=[device] if device.type == "cuda" else None,
            broadcast_buffers=False,  # rotary tables are the same everywhere
            gradient_as_bucket_view=True,  # else it always holds a second copy of all gradients
        )

    def accumulate(self, window: Tensor, number: int, passes: int) -> Tensor:
        """All-reduce in the last pass alone: sums over passes first, over ranks once."""
        with nullcontext() if number == passes - 1 else self.ddp.no_sync():
            loss = self.ddp(window[:, :-1], window[:, 1:]) / passes
            loss.backward()
        return loss.detach()  # type: ignore[no-any-return]

    def hessian(self, window: Tensor, weight: float, step: int) -> dict[Tensor, Tensor]:
        """The sum of all ranks' shares, on every rank."""
        diagonal = self.replica.hessian(window, weight, step)
        for share in diagonal.values():
            self.ranks.sum(share)
        return diagonal

    def update_check(self) -> UpdateCheck:
        """It compares parameters and gradients where they are, on every rank."""
        if self.dealt is None:
            return self.replica.update_check()
        check = DealtUpdateCheck.of_trial(self.replica.spec, self.dealt.whole, self.replica.built.model)
        check.dealt = self.dealt
        return check

    def step(self) -> float:
        """Every rank moves all parameters, or its own and then hands them out."""
        if self.dealt is None:
            return self.replica.step()
        self.dealt.step()
        return 0.0

    def save(self, store: CheckpointStore, step: int, progress: dict[str, Any]) -> None:
        """Rank 0 writes for all; the others wait, so that none trains on with a checkpoint half written.

        State that is dealt out is written by its owner, in a file of its own.
        """
        if self.dealt is not None:
            own: dict[str, Any] = {"model": {}, "state": self.dealt.state()}
            whole = {**progress, **own, "model": self.replica.built.model.state_dict()}
            write_parts(store, step, 1, lambda number: whole if self.ranks.rank == 0 else own, self.ranks)
            return
        if self.ranks.rank == 0:
            self.replica.save(store, step, progress)
        self.ranks.barrier()
