"""The ZeRO strategy: each rank updates the tensors that it owns, and holds its shards of the rest.

One step: gradients averaged into shards (DeepSpeed) -> whole gradients at their owners -> updates there -> back to the
shards, in the place of the gradients -> applied (DeepSpeed). What is between the shards happens bucket by bucket. The
optimizer that the loop holds has groups, rates and routing for the whole model and never steps; its copies at the
owners do (`tuneopt.training.zero.owned`).

The update check follows each watched parameter where its state is, on the weights that really moved. Before and after a
step the owner of a watched parameter gathers its gradient and its master weights from the shards, one parameter after
another, in the buffers that its buckets share. What was measured is put together from all ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from tuneopt.optim.base import Optimizer
from tuneopt.optim.proof import UpdateCheck, trial_arguments
from tuneopt.spec import TrialSpec
from tuneopt.training.building import BuiltModel, LossFunction, WarmModels, blank, fresh, repeat_kernels
from tuneopt.training.checkpoint import CheckpointStore, by_name, write_parts
from tuneopt.training.config import ParallelConfig
from tuneopt.training.fitting import pass_sizes
from tuneopt.training.ranks import Ranks
from tuneopt.training.second_order import estimate, reduced_to_owners, whole_copy
from tuneopt.training.zero.engine import (
    Apply,
    deepspeed_settings,
    destroy,
    follow,
    install,
    quiet_deepspeed,
    saved_values,
    scatter,
    shard,
)
from tuneopt.training.zero.owned import Owned, assign, cut, decay_of_holders, loads, needs_all
from tuneopt.training.zero.shards import Exchange, Shards


class Zero:
    """One rank's part of a trial under ZeRO stage 1, 2 or 3."""

    built: BuiltModel
    optimizer: Optimizer
    engine: Any  # DeepSpeed's
    apply: Apply
    shards: Shards
    exchange: Exchange
    owned: Owned
    shares_state = True

    def __init__(self, spec: TrialSpec, parallel: ParallelConfig, ranks: Ranks) -> None:
        self.spec, self.parallel, self.ranks = spec, parallel, ranks
        self._evaluated: dict[str, Tensor] = {}
        """Flat tensors of this owner while they are evaluated in the place of those that are trained."""

    def prepare(self, models: WarmModels) -> BuiltModel:
        """A model of its own, because DeepSpeed takes it apart; at stage 3 without weights yet.

        Nothing can be tried before DeepSpeed has the model, so the size of a pass is what the model of memory allows.
        """
        sizes = pass_sizes(self.spec, self.parallel, models.device, lambda: self.ranks.least(models.available_bytes()))
        self.parallel = replace(self.parallel, sequences=sizes[0])
        repeat_kernels(models.device, self.parallel.deterministic)
        checkpointing = self.parallel.checkpointing
        if self.parallel.zero == 3:
            # Hooks fetch weights where compiled code would have to break, so stage 3 runs as it is written.
            self.built = blank(replace(self.spec, compile=False), models.device, checkpointing=checkpointing)
        else:
            self.built = fresh(self.spec, models.device, checkpointing=checkpointing)
            if self.spec.compile:
                models.exercise(self.built, self.parallel.micro_batch(self.spec), self.spec)
                self.built.model.zero_grad(set_to_none=True)
        self.built = replace(self.built, micro_batch=self.parallel.micro_batch(self.spec))
        return self.built

    def load(self, optimizer: Optimizer, saved: dict[str, Any] | None) -> None:
        """Weights first, because DeepSpeed makes its master copy of what it finds; then state, at its owners."""
        self.optimizer = optimizer
        self._set_weights(saved["model"] if saved else None)
        self.engine, self.apply, self.shards = shard(self.built, optimizer, self.spec, self.parallel, self.ranks)
        # Both follow from shapes, rules and the number of ranks, so every rank finds the same without a message. A
        # checkpoint holds whole tensors by name: it is read whoever owned them when it was written.
        owners = assign(loads(optimizer), self.ranks.world)
        buckets = cut(optimizer, owners, self.ranks.world)
        self.exchange = Exchange(self.ranks, buckets, owners, self.shards.extents)
        # Under offload master weights and gradients lie on the host, so the owners' part is computed there, too.
        home = torch.device("cpu") if self.parallel.offload else self.built.device
        mine = [[name for name in names if owners[name] == self.ranks.rank] for names in buckets]
        self.owned = Owned(optimizer, mine, self.ranks, home)
        if saved:
            self.owned.load(by_name(saved, optimizer))

    def _set_weights(self, saved: dict[str, Tensor] | None) -> None:
        """Give the model those of a checkpoint or, at stage 3, draw them from the seed, one tensor at a time."""
        model = self.built.decoder
        if self.parallel.zero == 3:
            values = saved_values(model, saved) if saved else model.initial_values(self.spec.seed)
            on_device = ((name, value.to(self.built.device)) for name, value in values)
            scatter(model, on_device, deepspeed_settings(self.spec, self.parallel), quiet_deepspeed(self.built.device))
            follow(self.optimizer, model)
        elif saved:
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(saved[name])

    @property
    def loss(self) -> LossFunction:
        """DeepSpeed's engine: at stage 3 the model cannot be called without it, for hooks fetch the weights."""
        return self.engine  # type: ignore[no-any-return]

    @property
    def optimizers(self) -> Sequence[Optimizer]:
        """Those of the buckets that are owned here."""
        return [bucket.optimizer for bucket in self.owned.buckets]

    def drop_gradients(self) -> None:
        """Nothing: DeepSpeed owns the gradients and frees them itself."""

    def accumulate(self, window: Tensor, number: int, passes: int) -> Tensor:
        """The engine divides by the number of passes itself, and averages over ranks."""
        engine, device = self.engine, self.built.device
        loss: Tensor = engine(window[:, :-1], window[:, 1:])
        engine.backward(loss)
        if number < passes - 1:
            engine.step()  # counts the micro-batch; weights move after the last one
        elif self.parallel.offload and device.type == "cuda":
            torch.cuda.synchronize(device)  # gradients travel to the host behind the back of who reads them
        return loss.detach() / passes

    def hessian(self, window: Tensor, weight: float, step: int) -> dict[Tensor, Tensor]:
        """Every rank takes its share on a whole model; the sum goes to each tensor's owner alone."""
        model = whole_copy(self.built.decoder, self.spec) if self.parallel.zero == 3 else self.built.decoder
        shares = estimate(model, window, weight, self.built.micro_batch, self.spec.seed, step)
        named = {name: shares[parameter] for name, parameter in model.named_parameters() if parameter in shares}
        estimates = reduced_to_owners(named, self.exchange.owners, self.ranks)
        parameters = self.owned.parameters
        return {parameters[name]: value for name, value in estimates.items()}

    def update_check(self) -> ShardedUpdateCheck:
        """It follows parameters at their owners, on the weights that really move: the shards."""
        model, owned, exchange = self.built.model, self.owned, self.exchange
        return ShardedUpdateCheck(self.spec, self.optimizer, model, owned, exchange, self.shards, self.ranks)

    def step(self) -> Tensor:
        """Put updates in the place of the gradients, bucket by bucket; then DeepSpeed applies them to its shards."""
        shards, exchange, buckets = self.shards, self.exchange, self.owned.buckets
        # Norms that clip are taken over all shards first, before any gradient is replaced. Where a rule clips something
        # else (MARS) there is one bucket, and it takes the norms itself.
        self.owned.clip(None if needs_all(self.optimizer) else self._shards_by_limit())
        # Three things go on at once: bucket n is computed, gradients of n + 1 arrive, updates of n - 1 leave. An update
        # takes the place of a gradient only after that has been sent to its owner: buckets are disjoint, and `leaving`
        # is two behind `arriving`.
        total = torch.zeros((), device=self.owned.updates.device)
        arriving, leaving = exchange.to_owners(0, shards.gradient), None
        for number, bucket in enumerate(buckets):
            arriving.fill(bucket.gradients.__getitem__)
            if number + 1 < len(buckets):
                arriving = exchange.to_owners(number + 1, shards.gradient)  # travels while this one is computed
            if self.owned.needs_weights:
                exchange.to_owners(number, shards.master).hand_out(bucket.take_weights)
            self.owned.compute_updates(bucket)
            total += bucket.flat.sum()  # NaN or infinite where any update is; times 0 it is NaN, and else 0
            if leaving:
                leaving.hand_out(lambda piece, values: shards.set_gradient(piece.name, values))
            leaving = exchange.to_holders(number, bucket.updates.__getitem__)
        assert leaving is not None
        leaving.hand_out(lambda piece, values: shards.set_gradient(piece.name, values))
        self.owned.settle()
        # `Apply` has no schedule of its own: it decays by the rates of this step.
        for flat, group in zip(self.apply.param_groups, self.optimizer.param_groups, strict=True):
            flat["lr"], flat["weight_decay"] = group["lr"], decay_of_holders(group)
        self.engine.step()
        # DeepSpeed drops a step that is not finite, or whose norm is not, in silence; so the loss must show it.
        missing = self.ranks.sum(total.to(self.built.device)) * 0.0
        return missing.fill_(math.nan) if self.engine.optimizer.overflow else missing

    def _shards_by_limit(self) -> dict[float, list[Tensor]]:
        """This rank's shards of the gradients that are clipped together, by the norm that they are clipped to."""
        shards: dict[float, list[Tensor]] = {}
        for group in self.optimizer.param_groups:
            if limit := float(group["max_grad_norm"]):
                shards.setdefault(limit, []).extend(self.shards.gradients(group["param_names"]))
        return shards

    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """Owners make them from the weights that they gather, and put these back afterwards."""
        if not self.optimizer.evaluates_others:
            yield
            return
        trained: dict[str, Tensor] = {}
        for number, bucket in enumerate(self.owned.buckets):
            weights = {name: torch.empty_like(update) for name, update in bucket.updates.items()}
            self.exchange.to_owners(number, self.shards.master).fill(weights.__getitem__)
            trained |= weights  # kept as they are: to make them back from the others would round
            self._evaluated |= bucket.evaluated(weights)
        install(self.built.model, self._evaluated, self.exchange.owners, self.parallel.zero, self.ranks)
        try:
            yield
        finally:
            install(self.built.model, trained, self.exchange.owners, self.parallel.zero, self.ranks)
            self._evaluated = {}

    def save(self, store: CheckpointStore, step: int, progress: dict[str, Any]) -> None:
        """A file for each bucket: weights and state of its tensors, whole, for any number of ranks to read."""

        def part(number: int) -> dict[str, Any]:
            bucket = self.owned.buckets[number]
            weights = {name: torch.empty_like(update) for name, update in bucket.updates.items()}
            if self._evaluated:  # the final weights of a trial are saved while they stand in the model
                weights = {name: self._evaluated[name] for name in weights}
            else:
                self.exchange.to_owners(number, self.shards.master).fill(weights.__getitem__)
            model = {name: weights[name].view(own.shape) for name, own in bucket.parameters.items()}
            state = {"model": model, "state": self.owned.state(bucket)}
            # The first of all parts has what else a checkpoint needs.
            return {**progress, **state} if number == self.ranks.rank == 0 else state

        write_parts(store, step, len(self.owned.buckets), part, self.ranks)

    def close(self) -> None:
        """Let go of DeepSpeed's hooks and buffers."""
        destroy(self.engine)


class ShardedUpdateCheck(UpdateCheck):
    """An update check on each rank; all ranks must call its methods together.

    `before_step` leaves other gradients in the buckets than were there.
    """

    def __init__(
        self,
        spec: TrialSpec,
        whole: Optimizer,
        model: nn.Module,
        owned: Owned,
        exchange: Exchange,
        shards: Shards,
        ranks: Ranks,
    ) -> None:
        self._owned, self._shards, self._ranks = owned, shards, ranks
        super().__init__(whole, **trial_arguments(spec, type(whole), model))
        # One tensor for each message, in one order on all ranks: they gather together, whoever owns the tensor.
        self._names = list(dict.fromkeys(follower.watch.name for follower in self._followers))
        self._exchange = Exchange(ranks, [[name] for name in self._names], exchange.owners, shards.extents)

    # Overrides `UpdateCheck`: the stand-ins of the parameters that this rank owns.
    def _named(self, model: nn.Module | None) -> dict[str, Tensor]:
        return dict(self._owned.parameters)

    def _value(self, name: str) -> Tensor | None:
        return self._gathered(name, self._owned.updates, self._shards.master)

    def _gradient(self, name: str) -> Tensor | None:
        return self._gathered(name, self._owned.gradients, self._shards.gradient)

    def _gathered(self, name: str, buffer: Tensor, piece: Any) -> Tensor | None:
        """The whole tensor on its owner, in ``buffer`` until that is used again; None elsewhere."""
        own = self._parameters.get(name)
        self._exchange.to_owners(self._names.index(name), piece).fill(lambda _: buffer)  # no piece comes to non-owners
        return None if own is None else buffer[: own.numel()].view(own.shape)

    def _state(self, name: str) -> Mapping[str, Any]:
        bucket = next(bucket for bucket in self._owned.buckets if name in bucket.parameters)
        state: Mapping[str, Any] = bucket.optimizer.state.get(bucket.parameters[name], {})
        return state

    def _pieces(self) -> Iterator[tuple[str, Tensor]]:
        # Of the tensors that have a part on this rank.
        return ((name, self._shards.gradient(name)) for name in self._routes if self._shards.extents[name][1])

    def _weighed_pieces(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        return ((name, self._shards.master(name), gradient) for name, gradient in self._pieces())

    def _summed(self, square: float) -> float:
        return float(sum(self._ranks.gather(square)))

    def _all_say(self, done: bool) -> bool:
        return self._ranks.all(done)

    def _seen(self, follower: Any) -> bool:
        # What others own is theirs to judge; `_all_say` then waits for the last of them.
        return follower.watch.name not in self._parameters or super()._seen(follower)

    def _share(self) -> None:
        """Take over from each rank what it measured."""
        mine = [
            follower.measured() if follower.watch.name in self._parameters else None for follower in self._followers
        ]
        for found in self._ranks.gather(mine):
            for follower, measured in zip(self._followers, found, strict=True):
                for key, value in (measured or {}).items():
                    setattr(follower, key, value)
