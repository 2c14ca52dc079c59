"""Whole-tensor updates under plain data parallelism: each tensor steps on one rank, which then hands the weights out.

Every rank holds all weights and all averaged gradients, so any of them could take the whole step, and with elementwise
rules all do: that costs passes over memory and no messages. Orthogonalizing each matrix on every rank, or refreshing
its bases, would cost a tenth to a whole step of computing instead. So tensors are dealt out to owner ranks as under
ZeRO (`tuneopt.training.zero.owned`), state lives at its owner alone, and owners broadcast what they moved.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tuneopt.optim.base import Optimizer
from tuneopt.optim.bucket import Batch, total_norm
from tuneopt.optim.info import entry_of
from tuneopt.optim.proof import UpdateCheck
from tuneopt.training.checkpoint import by_name, by_position
from tuneopt.training.memory import BUCKET
from tuneopt.training.ranks import Ranks
from tuneopt.training.zero.owned import assign, loads, part


def is_dealt(optimizer: str) -> bool:
    """Whether ranks deal the tensors of an optimizer out: the built-in ones that work on whole matrices.

    One from outside may keep its state as it likes, and its update check looks at the state on every rank.
    """
    return entry_of(optimizer).family == "matrix"


class Dealt:
    """An optimizer of which every rank runs the part over the tensors that it owns; all ranks step together.

    ``whole`` says what belongs where, and at which rate; it never steps and holds no state.
    """

    def __init__(self, whole: Optimizer, ranks: Ranks) -> None:
        self.whole, self._ranks = whole, ranks
        self._named: dict[str, nn.Parameter] = {
            name: parameter
            for group in whole.param_groups
            for name, parameter in zip(group["param_names"], group["params"], strict=True)
        }
        owners = assign(loads(whole), ranks.world)
        self.owned = [[name for name in self._named if owners[name] == rank] for rank in range(ranks.world)]
        """The names of the tensors of each rank."""
        self.mine = part(whole, {name: self._named[name] for name in self.owned[ranks.rank]})
        self.mine.clip_divisors = self._clip_divisors  # type: ignore[method-assign]

    def step(self) -> None:
        """Move the owned tensors, then take over what the other ranks moved."""
        for group, rates in zip(self.mine.param_groups, self.whole.param_groups, strict=True):
            group["lr"] = rates["lr"]
        self.mine.step()
        self._hand_out()

    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """Owners make them, and hand them out; every rank puts aside what trains. All ranks together."""
        evaluates = self.whole.evaluates_others
        trained = [(p, p.detach().clone()) for p in self._named.values()] if evaluates else []
        if evaluates:
            with torch.no_grad():
                for parameter, weights in self.mine.evaluated().items():
                    parameter.copy_(weights)
            self._hand_out()
        try:
            yield
        finally:
            with torch.no_grad():
                for parameter, weights in trained:
                    parameter.copy_(weights)

    def load(self, saved: dict[str, Any]) -> None:
        """Take over the state of the owned tensors from a checkpoint of any kind."""
        self.mine.load_state_dict(by_position({"state": by_name(saved, self.whole)}, self.mine))

    def state(self) -> dict[str, dict[str, Any]]:
        """State of the owned tensors, by name."""
        held = self.mine.state
        return {name: dict(held[self._named[name]]) for name in self.owned[self._ranks.rank]}

    def state_of(self, name: str) -> dict[str, Any]:
        """State of one tensor, from its owner, on every rank; all ranks ask together."""
        held = self.mine.state.get(self._named[name], {}) if name in self.owned[self._ranks.rank] else {}
        own = {key: value.cpu() if isinstance(value, Tensor) else value for key, value in held.items()}
        return next((state for state in self._ranks.gather(own) if state), {})

    @torch.no_grad()
    def _hand_out(self) -> None:
        """Broadcast weights from their owners, `BUCKET` elements at a time: a message of every owner is under way."""
        queues = [self._messages(names) for names in self.owned]
        while any(queues):
            sent = []
            for owner, queue in enumerate(queues):
                if queue:
                    tensors = queue.pop(0)
                    # A large tensor is alone in its message, and travels without a copy.
                    alone = len(tensors) == 1 and tensors[0].is_contiguous()
                    message = tensors[0].view(-1) if alone else torch.cat([tensor.reshape(-1) for tensor in tensors])
                    sent.append((dist.broadcast(message, owner, async_op=True), owner, tensors, message))
            for work, owner, tensors, message in sent:
                work.wait()
                if owner != self._ranks.rank and message.data_ptr() != tensors[0].data_ptr():
                    pieces = torch.split(message, [tensor.numel() for tensor in tensors])
                    torch._foreach_copy_(
                        tensors, [piece.view_as(own) for piece, own in zip(pieces, tensors, strict=True)]
                    )

    def _messages(self, names: list[str]) -> list[list[Tensor]]:
        """The tensors of an owner, those of one message together; all ranks cut them alike."""
        messages: list[list[Tensor]] = []
        filled = BUCKET
        for name in names:
            tensor = self._named[name]
            if filled + tensor.numel() > BUCKET or not messages:
                messages.append([])
                filled = 0
            messages[-1].append(tensor)
            filled += tensor.numel()
        return messages

    def _clip_divisors(self, batches: list[Batch]) -> list[Tensor | None]:
        """As `tuneopt.optim.bucket.norm_divisors`, by the norms of all gradients: every rank has them."""
        divisors = dict(self._divisors({float(batch.settings["max_grad_norm"]) for batch in batches}))
        return [
            divisors[limit].to(batch.gradients[0].device, batch.bucket.dtype) if limit > 0 else None
            for batch in batches
            for limit in [float(batch.settings["max_grad_norm"])]
        ]

    def _divisors(self, limits: set[float]) -> Iterator[tuple[float, Tensor]]:
        for limit in limits - {0.0}:
            clipped = [group for group in self.whole.param_groups if float(group["max_grad_norm"]) == limit]
            gradients = [p.grad for group in clipped for p in group["params"] if p.grad is not None]
            yield limit, (total_norm(gradients) / limit).clamp_(min=1.0)


class DealtUpdateCheck(UpdateCheck):
    """An update check on each rank, all of which follow the same tensors; the state of one is asked of its owner.

    All ranks must call its methods together.
    """

    dealt: Dealt

    # Overrides `UpdateCheck`, whose optimizer holds no state here.
    def _state(self, name: str) -> Mapping[str, Any]:
        return self.dealt.state_of(name)
