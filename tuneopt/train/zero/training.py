"""The training loop under ZeRO: each rank updates the tensors that it owns, and holds its shards of the rest.

One step: gradients averaged into shards (DeepSpeed) -> whole gradients at their owners -> updates there ->
back to the shards -> applied (DeepSpeed). What is between the shards happens bucket by bucket.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.bucket import total_norm
from tuneopt.train.building import BuiltModel, WarmModels, blank, fresh, repeat_kernels
from tuneopt.train.checkpoint import CheckpointStore, by_name, write_parts
from tuneopt.train.distributed_loop import RankTraining
from tuneopt.train.second_order.hessian import reduced_to_owners, whole_copy
from tuneopt.train.zero.engine import (
    Sharded,
    deepspeed_settings,
    destroy,
    follow,
    quiet_deepspeed,
    saved_values,
    scatter,
    shard,
)
from tuneopt.train.zero.owned import Owned
from tuneopt.train.zero.owners import assign, cut, loads, needs_all
from tuneopt.train.zero.shards import Exchange
from tuneopt.train.zero.witness import ShardedWitness, squares_of_limited, squares_of_shards


class ZeroTraining(RankTraining):
    """One rank's part of a trial under ZeRO stage 1, 2 or 3; the loss is that of one process up to rounding.

    ``optimizer`` holds groups, rates and routing for the whole model and never steps; ``owned`` steps.
    """

    sharded: Sharded
    owned: Owned
    exchange: Exchange

    def _prepare(self, engine: WarmModels) -> BuiltModel:
        # DeepSpeed takes the model apart, so it serves one trial; stage 3 fetches weights where compiled code
        # would have to break, so it runs as it is written.
        checkpointing = self.placement.checkpointing
        repeat_kernels(engine.device, self.placement.deterministic)
        if self.placement.zero == 3:
            warm = blank(replace(self.spec, compile=False), engine.device, checkpointing=checkpointing)
            return replace(warm, micro_batch=self.placement.micro_batch(self.spec))
        warm = fresh(self.spec, engine.device, checkpointing=checkpointing)
        if self.spec.compile:
            engine.exercise(warm, self.placement.micro_batch(self.spec), self.spec)
            warm.model.zero_grad(set_to_none=True)
        return replace(warm, micro_batch=self.placement.micro_batch(self.spec))

    def _resume(self) -> None:
        newest = self._newest()
        self._set_weights(newest[1]["model"] if newest else None)
        self.sharded = shard(self.model, self.loss, self.optimizer, self.spec, self.placement, self.ranks)
        self.loss = self.sharded.engine
        owners = assign(loads(self.optimizer), self.ranks.world)
        buckets = cut(self.optimizer, owners, self.ranks.world)
        self.exchange = Exchange(self.ranks, buckets, owners, self.sharded.shards.extents)
        home = torch.device("cpu") if self.placement.offload else self.device
        mine = [[name for name in names if owners[name] == self.ranks.rank] for names in buckets]
        self.owned = Owned(self.optimizer, mine, self.ranks, home)
        self._watch: ShardedWitness | None = None
        if newest:
            self.owned.load(by_name(newest[1], self.optimizer))
            self._go_on(*newest)
        else:
            self._watch = ShardedWitness(self.optimizer, self.owned, self.exchange, self.sharded.shards, self.ranks)
            self.witness = self._watch
        if self.placement.zero == 3:
            self.held_out = replace(self.held_out, compiled=False)
        self._share()

    def _set_weights(self, saved: dict[str, Tensor] | None) -> None:
        if self.placement.zero == 3:
            drawn = saved_values(self.model, saved) if saved else self.model.initial_values(self.spec.seed)
            on_device = ((name, value.to(self.device)) for name, value in drawn)
            scatter(self.model, on_device, deepspeed_settings(self.spec, self.placement), quiet_deepspeed(self.device))
            follow(self.optimizer, self.model)
        elif saved:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(saved[name])

    @property
    def state_bytes(self) -> int:
        """Bytes of optimizer state on this rank."""
        return self.owned.state_bytes()

    def _accumulate(self) -> Tensor:
        engine = self.sharded.engine
        for part in range(self.parts):
            window = self._own_window(part)
            loss = engine(window[:, :-1], window[:, 1:])
            engine.backward(loss)
            self._train_loss += loss.detach() / self.parts
            if part < self.parts - 1:
                engine.step()  # counts the micro-batch; weights move after the last one
        if self.placement.offload and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # gradients travel to the host behind the back of who reads them
        return window

    def _drop_gradients(self) -> None:
        """They are DeepSpeed's."""

    def _curvature(self, window: Tensor) -> dict[Tensor, Tensor]:
        model = whole_copy(self.model, self.spec) if self.placement.zero == 3 else self.model
        names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        mine = {names[parameter]: estimate for parameter, estimate in self._own_curvature(model).items()}
        estimates = reduced_to_owners(mine, self.exchange.owners, self.ranks)
        parameters = self.owned.parameters
        return {parameters[name]: estimate for name, estimate in estimates.items()}

    def _update(self, diagonal: dict[Tensor, Tensor] | None) -> None:
        watch = self._watch
        if watch:
            watch.look(self._squares_apart(), [group["lr"] for group in self.optimizer.param_groups])
        self._put_updates()
        for flat, group in zip(self.sharded.apply.param_groups, self.optimizer.param_groups, strict=True):
            flat["lr"], flat["weight_decay"] = group["lr"], group["weight_decay"]
        self.sharded.engine.step()
        if self.sharded.engine.optimizer.overflow:
            self._train_loss.fill_(math.nan)
        if watch:
            watch.compare()
            if watch.finished:
                self.proof = watch.proof().to_dict()
                self.witness = self._watch = None
        if diagonal is not None:
            self.owned.update_hessian(diagonal)

    def _put_updates(self) -> None:
        """Put updates in the place of the gradients, bucket by bucket; transfers travel while buckets are computed."""
        shards, exchange, buckets = self.sharded.shards, self.exchange, self.owned.buckets
        # Where a rule needs all gradients at once there is one bucket, and it takes the norms itself.
        self.owned.clip(None if needs_all(self.optimizer) else self._squares())
        total = torch.zeros((), device=self.owned.updates.device)
        coming, leaving = exchange.to_owners(0, shards.gradient), None
        for number, bucket in enumerate(buckets):
            coming.fill(bucket.gradients.__getitem__)
            if number + 1 < len(buckets):
                coming = exchange.to_owners(number + 1, shards.gradient)
            self.owned.compute_updates(bucket)
            total += bucket.flat.sum()
            if leaving:
                leaving.hand_out(lambda piece, values: shards.set_gradient(piece.name, values))
            leaving = exchange.to_holders(number, bucket.updates.__getitem__)
        assert leaving is not None
        leaving.hand_out(lambda piece, values: shards.set_gradient(piece.name, values))
        # DeepSpeed drops a step that is not finite, or whose norm is not, in silence; so the loss must show it.
        self._train_loss += self.ranks.sum(total.to(self.device)) * 0.0

    def _squares_apart(self) -> dict[float, float]:
        """This rank's parts of the squared joint norms, for the proof, not by the means of the step."""
        if not needs_all(self.optimizer):
            return squares_of_shards(self.optimizer, self.sharded.shards)
        self.exchange.to_owners(0, self.sharded.shards.gradient).fill(self.owned.buckets[0].gradients.__getitem__)
        return squares_of_limited(self.owned)

    def _squares(self) -> Tensor:
        """The squared norms of all gradients that are clipped together, one for each of `Owned.limits`."""
        found = torch.zeros(len(self.owned.limits), device=self.device)
        for position, limit in enumerate(self.owned.limits):
            groups = [group for group in self.optimizer.param_groups if group["max_grad_norm"] == limit]
            pieces = [piece for group in groups for piece in self.sharded.shards.gradients(group["param_names"])]
            if pieces:
                found[position] = total_norm(pieces).square()
        return self.ranks.sum(found)

    def _write(self, store: CheckpointStore) -> None:
        self.ranks.sum(self._train_loss).div_(self.ranks.world)
        write_parts(store, self.step, len(self.owned.buckets), self._part, self.ranks)

    def _part(self, number: int) -> dict[str, Any]:
        """The weights and state of a bucket; the first of all parts has what else a checkpoint needs."""
        bucket = self.owned.buckets[number]
        weights = {name: torch.empty_like(view) for name, view in bucket.updates.items()}
        self.exchange.to_owners(number, self.sharded.shards.master).fill(weights.__getitem__)
        model = {name: weights[name].view(own.shape) for name, own in bucket.parameters.items()}
        part = {"model": model, "state": self.owned.state(bucket)}
        return {**self._progress(), **part} if number == self.ranks.rank == 0 else part

    def close(self) -> None:
        """Let go of DeepSpeed's hooks and buffers; the model cannot be used afterwards."""
        destroy(self.sharded.engine)
