"""The part of an optimizer that one rank runs: whole tensors, their state, and the steps that they take.

A step is *displacement* then *apply*. The owner of a tensor lets its optimizer step from zero without weight decay,
which leaves -lr u, the rate times the direction, by the very kernels of an unsharded step. The displacement travels
to whoever holds the weights, in the place of the gradient, and they apply p <- p - lr wd p - lr u, elementwise.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tuneopt.optim.base import Optimizer
from tuneopt.optim.clip import total_norm
from tuneopt.optim.pool import Batch
from tuneopt.spec import InputError
from tuneopt.train.distributed import Ranks
from tuneopt.train.zero.owners import shapes


class Owned:
    """The tensors of an optimizer that this rank owns.

    ``whole`` is the optimizer as it was built for the whole model: its groups say what belongs where, and at which
    rate; it holds no state. Everything lives on ``device``.
    """

    def __init__(self, whole: Optimizer, owned: Iterable[str], ranks: Ranks, device: torch.device) -> None:
        if inspect.unwrap(type(whole).step) is not inspect.unwrap(Optimizer.step):
            raise InputError(
                f"{type(whole).__name__} takes its steps by itself and cannot be sharded; give it update rules "
                "(tuneopt.optim.Rule) or train it without ZeRO"
            )
        self._whole, self._ranks = whole, ranks
        wanted = set(owned)
        sizes = [
            (name, torch.Size(shape))
            for group in whole.param_groups
            for name, shape in zip(group["param_names"], shapes(whole, group), strict=True)
            if name in wanted
        ]
        self.flat = torch.zeros(sum(size.numel() for _, size in sizes), device=device)
        self.views: dict[str, Tensor] = {}
        self.parameters: dict[str, nn.Parameter] = {}
        position = 0
        for name, size in sizes:
            self.views[name] = self.flat[position : position + size.numel()]
            self.parameters[name] = nn.Parameter(self.views[name].view(size))
            position += size.numel()
        self.optimizer = _part(whole, self.parameters)
        for group in self.optimizer.param_groups:
            group["weight_decay"] = 0.0
        self.optimizer.clip_divisors = self._joint_divisors  # type: ignore[method-assign]
        self._limits = sorted({float(group["max_grad_norm"]) for group in whole.param_groups} - {0.0})

    @torch.no_grad()
    def displace(self, gradients: Mapping[str, Tensor]) -> None:
        """Leave every owned tensor's displacement in ``views``, from its whole averaged gradient (flat, by name).

        All ranks must call this together, whether or not they own anything: clipping needs the norm over all of them.
        """
        self.flat.zero_()
        for name, parameter in self.parameters.items():
            parameter.grad = gradients[name].view(parameter.shape)
        for group, rates in zip(self.optimizer.param_groups, self._whole.param_groups, strict=True):
            group["lr"] = rates["lr"]
        self.optimizer.step()
        for parameter in self.parameters.values():
            parameter.grad = None

    def state(self) -> dict[str, dict[str, Any]]:
        """State of the owned tensors, by name."""
        held = self.optimizer.state
        return {name: dict(held[p]) for name, p in self.parameters.items() if held.get(p)}

    def load(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over state by name; entries of tensors that others own are left alone."""
        names = [name for group in self.optimizer.param_groups for name in group["param_names"]]
        positions = {position: dict(state[name]) for position, name in enumerate(names) if name in state}
        self.optimizer.load_state_dict(
            {"state": positions, "param_groups": self.optimizer.state_dict()["param_groups"]}
        )

    def watched(self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> Optimizer:
        """An optimizer to look at, never to step: real weights and gradients (flat), real settings, no state yet."""
        parameters = {name: nn.Parameter(weights[name].view(own.shape)) for name, own in self.parameters.items()}
        seen = _part(self._whole, parameters)
        for name, parameter in parameters.items():
            parameter.grad = gradients[name].view(parameter.shape)
        return seen

    def show_state(self, seen: Optimizer) -> None:
        """Let what `watched` gave see the state, which is there from the first step on."""
        for group in seen.param_groups:
            for name, parameter in zip(group["param_names"], group["params"], strict=True):
                seen.state[parameter] = self.optimizer.state[self.parameters[name]]

    def _joint_divisors(self, batches: list[Batch]) -> list[Tensor | None]:
        """As `tuneopt.optim.clip.norm_divisors`, over the batches of all ranks."""
        limits = [float(batch.settings["max_grad_norm"]) for batch in batches]
        squares = torch.zeros(len(self._limits), device=self._ranks.device)
        for position, limit in enumerate(self._limits):
            mine = [g for batch, own in zip(batches, limits, strict=True) if own == limit for g in batch.gradients]
            if mine:
                squares[position] = total_norm(mine).square()
        norms = self._ranks.sum(squares).sqrt().to(self.flat.device)
        divisors = {limit: (norm / limit).clamp(min=1.0) for limit, norm in zip(self._limits, norms, strict=True)}
        return [divisors[limit] if limit > 0 else None for limit in limits]


def _part(whole: Optimizer, parameters: Mapping[str, nn.Parameter]) -> Optimizer:
    """A copy of an optimizer over stand-ins for some of its parameters, without state; every group is kept."""
    part = copy.copy(whole)
    part.state = type(whole.state)(dict)
    part.param_groups = []
    for group in whole.param_groups:
        names = [name for name in group["param_names"] if name in parameters]
        part.param_groups.append({**group, "params": [parameters[name] for name in names], "param_names": names})
    part.__setstate__({})
    return part
