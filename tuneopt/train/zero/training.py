"""The training loop under ZeRO: each rank updates the tensors that it owns, and holds its shards of the rest.

One step: gradients averaged into shards (DeepSpeed) -> whole gradients at their owners -> displacements there ->
back to the shards -> applied (DeepSpeed).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tuneopt.train.checkpoint import CheckpointStore, by_name
from tuneopt.train.distributed_loop import RankTraining
from tuneopt.train.engine import Engine, Warm, fresh
from tuneopt.train.zero.checkpoint import write_part
from tuneopt.train.zero.engine import Sharded, shard
from tuneopt.train.zero.exchange import Exchange
from tuneopt.train.zero.hessian import reduced_to_owners, whole_copy
from tuneopt.train.zero.owned import Owned
from tuneopt.train.zero.owners import assign, loads
from tuneopt.train.zero.witness import ShardedWitness


class ZeroTraining(RankTraining):
    """One rank's part of a trial under ZeRO stage 1, 2 or 3; the loss is that of one process up to rounding.

    ``optimizer`` holds groups, rates and routing for the whole model and never steps; ``owned`` steps.
    """

    sharded: Sharded
    owned: Owned
    exchange: Exchange

    def _prepare(self, engine: Engine) -> Warm:
        # DeepSpeed takes the model apart, so it serves one trial; stage 3 fetches weights where compiled code
        # would have to break, so it runs as it is written.
        spec = replace(self.spec, compile=self.spec.compile and self.placement.zero < 3)
        return fresh(spec, engine.device)

    def _resume(self) -> None:
        newest = self._newest()
        if newest:
            with torch.no_grad():
                for name, parameter in self.model.named_parameters():
                    parameter.copy_(newest[1]["model"][name])
        sizes = {name: p.numel() for name, p in self.model.named_parameters() if p.requires_grad}
        self.sharded = shard(self.model, self.loss, self.optimizer, self.spec, self.placement, self.ranks)
        self.loss = self.sharded.engine
        owners = assign(loads(self.optimizer), self.ranks.world)
        self.exchange = Exchange(self.ranks, sizes, owners, self.sharded.shards.extents)
        home = torch.device("cpu") if self.placement.offload else self.device
        self.owned = Owned(self.optimizer, self.exchange.owned, self.ranks, home)
        self._watch: tuple[ShardedWitness, dict[str, Tensor], dict[str, Tensor]] | None = None
        if newest:
            self.owned.load(by_name(newest[1], self.optimizer))
            self._go_on(*newest)
        else:
            weights, gradients = self._buffers(), self._buffers()
            witness = ShardedWitness(self.owned.watched(weights, gradients), self.ranks)
            self.witness, self._watch = witness, (witness, weights, gradients)
        if self.placement.zero == 3:
            self.held_out = replace(self.held_out, compiled=False)
        self._share()

    @property
    def state_bytes(self) -> int:
        """Bytes of optimizer state on this rank."""
        return self.owned.optimizer.state_bytes()

    def _buffers(self) -> dict[str, Tensor]:
        """A flat tensor for each that this rank owns."""
        return {name: torch.empty_like(view) for name, view in self.owned.views.items()}

    def _accumulate(self) -> Tensor:
        engine = self.sharded.engine
        for part in range(self.parts):
            window = self._own_window(part)
            loss = engine(window[:, :-1], window[:, 1:])
            engine.backward(loss)
            self._train_loss += loss.detach() / self.parts
            if part < self.parts - 1:
                engine.step()  # counts the micro-batch; weights move after the last one
        return window

    def _curvature(self, window: Tensor) -> dict[Tensor, Tensor]:
        model = whole_copy(self.model, self.spec) if self.placement.zero == 3 else self.model
        names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
        mine = {names[parameter]: estimate for parameter, estimate in self._own_curvature(model).items()}
        estimates = reduced_to_owners(mine, self.exchange.owners, self.ranks)
        return {self.owned.parameters[name]: estimate for name, estimate in estimates.items()}

    def _update(self, diagonal: dict[Tensor, Tensor] | None) -> None:
        shards = self.sharded.shards
        witness, weights, gradients = self._watch or (None, {}, self._buffers())
        self.exchange.to_owners(shards.gradient, gradients.__getitem__)
        if witness:
            self.exchange.to_owners(shards.master, weights.__getitem__)
            witness.before_step([group["lr"] for group in self.optimizer.param_groups])
        self.owned.displace(gradients)
        # DeepSpeed drops a step that is not finite, or whose norm is not, in silence; so the loss must show it.
        self._train_loss += self.ranks.sum(self.owned.flat.sum().to(self.device)) * 0.0
        self.exchange.to_holders(self.owned.views.__getitem__, shards.set_gradient)
        for flat, group in zip(self.sharded.apply.param_groups, self.optimizer.param_groups, strict=True):
            flat["lr"], flat["weight_decay"] = group["lr"], group["weight_decay"]
        self.sharded.engine.step()
        if self.sharded.engine.optimizer.overflow:
            self._train_loss.fill_(math.nan)
        if witness:
            self.exchange.to_owners(shards.master, weights.__getitem__)
            self.owned.show_state(witness.watched)
            witness.after_step()
            if witness.finished:
                self.proof = witness.proof().to_dict()
                self.witness = self._watch = None
        if diagonal is not None:
            self.owned.optimizer.update_hessian(diagonal)

    def _write(self, store: CheckpointStore) -> None:
        self.ranks.sum(self._train_loss).div_(self.ranks.world)
        weights = self._buffers()
        self.exchange.to_owners(self.sharded.shards.master, weights.__getitem__)
        model = {name: weights[name].view(own.shape) for name, own in self.owned.parameters.items()}
        part: dict[str, Any] = {"model": model, "state": self.owned.state()}
        write_part(store, self.step, {**self._progress(), **part} if self.ranks.rank == 0 else part, self.ranks)

    def close(self) -> None:
        """Let go of DeepSpeed's hooks and buffers; the model cannot be used afterwards."""
        self.sharded.engine.destroy()
