"""The part of an optimizer that one rank runs: whole tensors, their state, and the steps that they take.

A step is *update* then *apply*. The owner of a tensor lets its optimizer step from zero without weight decay,
which leaves -lr u, the rate times the direction, by the very kernels of an unsharded step. The update travels
to whoever holds the weights, in the place of the gradient, and they apply p <- p - lr wd p - lr u, elementwise.
Where an update depends on the weights (hyperball, cautious decay) these come to the owner before, and what leaves is
the whole difference, decay included.

**Who owns what.** An owner rank keeps the whole state of its tensors and computes their updates: rules of the matrix
family, Adam-mini's blocks and joint norms need whole tensors. Ranks are to hold equal state and to do equal work at
once; each tensor, the heaviest first, goes to the rank whose larger load of the two grows least.

**When.** An owner's tensors step bucket by bucket, so that a step needs little memory: while one bucket is computed the
next one's gradients arrive and the updates of the one before leave. Buckets of all owners travel together, so that
every rank computes all the time, and share one buffer for gradients and one for updates.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from tuneopt.errors import InputError
from tuneopt.optim.base import Optimizer
from tuneopt.optim.bucket import Batch, logical, state_elements, total_norm
from tuneopt.optim.rule import MatrixRule, Rule
from tuneopt.optim.switches import decay_of_step, needs_weights
from tuneopt.training.checkpoint import by_position
from tuneopt.training.memory import OWNER_BUCKET
from tuneopt.training.ranks import Ranks
from tuneopt.training.zero.shards import Piece


def shapes(optimizer: Optimizer) -> dict[str, torch.Size]:
    """The shapes of all parameters when they were routed, by name; by now they may be sharded."""
    return {route.parameter: torch.Size(route.shape) for route in optimizer.routing}


def loads(optimizer: Optimizer) -> dict[str, tuple[int, int]]:
    """(elements of state, rough multiplications of a step) of every parameter, by name."""
    rules: dict[str, Rule] = {rule.name: rule for rule in optimizer.rules}
    whole = shapes(optimizer)
    return {
        name: _load(rules[group["rule"]], torch.empty(whole[name], device="meta"), group)
        for group in optimizer.param_groups
        for name in group["param_names"]
    }


def _load(rule: Rule, tensor: torch.Tensor, group: dict[str, Any]) -> tuple[int, int]:
    """The load of one parameter; a matrix (m, n) with m <= n costs about m^2 n, as Newton-Schulz and bases do."""
    work = tensor.numel()
    if isinstance(rule, MatrixRule):
        work = sum(matrix.numel() * (1 + min(matrix.shape)) for matrix in logical(tensor, group))
    return state_elements(rule, tensor, group), work


def assign(loads: Mapping[str, tuple[int, int]], ranks: int) -> dict[str, int]:
    """The owner of each parameter, by name; the same on every rank."""
    totals = [max(1, sum(load[kind] for load in loads.values())) for kind in (0, 1)]
    shares = {name: (load[0] / totals[0], load[1] / totals[1]) for name, load in loads.items()}
    held = [(0.0, 0.0)] * ranks
    owners: dict[str, int] = {}
    for name in sorted(shares, key=lambda name: (-max(shares[name]), name)):
        state, work = shares[name]

        def grown(rank: int, state: float = state, work: float = work) -> tuple[float, float]:
            return max(held[rank][0] + state, held[rank][1] + work), held[rank][0] + held[rank][1]

        best = min(range(ranks), key=grown)
        held[best] = (held[best][0] + state, held[best][1] + work)
        owners[name] = best
    return {name: owners[name] for name in loads}


def needs_all(optimizer: Optimizer) -> bool:
    """Whether a step must see the gradients of all tensors at once, because it clips something made of them (MARS)."""
    return type(optimizer).prepare is not Optimizer.prepare


def cut(optimizer: Optimizer, owners: Mapping[str, int], ranks: int) -> list[list[str]]:
    """The names of every bucket, over all ranks; the same on every rank.

    Equal tensors of a group follow each other, because a matrix rule computes them together.
    """
    limit = float("inf") if needs_all(optimizer) else OWNER_BUCKET
    buckets: list[list[list[str]]] = [[] for _ in range(ranks)]
    filled = [limit] * ranks
    whole = shapes(optimizer)
    for group in optimizer.param_groups:
        for name in sorted(group["param_names"], key=lambda name: tuple(sorted(whole[name]))):
            owner, size = owners[name], whole[name].numel()
            if not buckets[owner] or filled[owner] + size > limit:
                buckets[owner].append([])
                filled[owner] = 0
            buckets[owner][-1].append(name)
            filled[owner] += size
    # Bucket i of all owners is one exchange; an owner with fewer has nothing in the last ones.
    return [[name for part in parts for name in part] for parts in zip_longest(*buckets, fillvalue=[])]


class OwnerBucket:
    """Tensors of one owner that step together, with an optimizer of their own that keeps their state."""

    def __init__(
        self,
        whole: Optimizer,
        sizes: Mapping[str, torch.Size],
        flat: Tensor,
        gradients: Tensor,
        weights: Tensor | None = None,
    ) -> None:
        self.flat = flat[: sum(size.numel() for size in sizes.values())]
        self.updates: dict[str, Tensor] = {}
        """Updates after `Owned.compute_updates`, flat, by name; a view of what all buckets share."""
        self.gradients: dict[str, Tensor] = {}
        """Where whole averaged gradients are to be put before, likewise."""
        self.weights: dict[str, Tensor] = {}
        """Where the weights are to be put before, of those tensors whose update depends on them; likewise."""
        self.parameters: dict[str, nn.Parameter] = {}
        own = {name for group in whole.param_groups if needs_weights(group) for name in group["param_names"]}
        position = 0
        for name, size in sizes.items():
            end = position + size.numel()
            self.updates[name], self.gradients[name] = flat[position:end], gradients[position:end]
            self.parameters[name] = nn.Parameter(self.updates[name].view(size))
            if weights is not None and name in own:
                self.weights[name] = weights[position:end]
            position = end
        self.optimizer = part(whole, self.parameters)
        for group in self.optimizer.param_groups:
            group["weight_decay"] = group["weight_decay"] if needs_weights(group) else 0.0

    def take_weights(self, piece: Piece, values: Tensor) -> None:
        """Put a piece of the weights that arrived where it is needed; others are passed over."""
        if piece.name in self.weights:
            piece.within(self.weights.__getitem__).copy_(values)

    @torch.no_grad()
    def evaluated(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What is evaluated in the place of these flat weights; the same tensors for those that have not stepped."""
        for name, weight in weights.items():
            self.updates[name].copy_(weight)
        others = self.optimizer.evaluated()
        return {
            name: others[own].reshape(-1) if (own := self.parameters[name]) in others else weight
            for name, weight in weights.items()
        }

    def show_gradients(self, shown: bool) -> None:
        """Let the parameters have their gradients, or take them away."""
        for name, parameter in self.parameters.items():
            parameter.grad = self.gradients[name].view(parameter.shape) if shown else None


class Owned:
    """The tensors of an optimizer that this rank owns, bucket by bucket.

    ``whole`` is the optimizer as it was built for the whole model: its groups say what belongs where, and at which
    rate; it holds no state. Everything lives on ``device``.
    """

    def __init__(self, whole: Optimizer, buckets: Sequence[Sequence[str]], ranks: Ranks, device: torch.device) -> None:
        if inspect.unwrap(type(whole).step) is not inspect.unwrap(Optimizer.step):
            raise InputError(
                f"{type(whole).__name__} takes its steps by itself and cannot be sharded; give it update rules "
                "(tuneopt.optim.Rule) or train it without ZeRO"
            )
        self._whole, self._ranks = whole, ranks
        every = shapes(whole)
        sizes = [{name: every[name] for name in names} for names in buckets]
        largest = max((sum(size.numel() for size in bucket.values()) for bucket in sizes), default=0)
        self.updates = torch.zeros(largest, device=device)
        """What all buckets share, and others may use between steps; `gradients` as well."""
        self.gradients = torch.zeros(largest, device=device)
        self.needs_weights = any(needs_weights(group) for group in whole.param_groups)
        weights = torch.zeros(largest, device=device) if self.needs_weights else None
        self.buckets = [OwnerBucket(whole, bucket, self.updates, self.gradients, weights) for bucket in sizes]
        self.limits = sorted({float(group["max_grad_norm"]) for group in whole.param_groups} - {0.0})
        """The norms that gradients are clipped to."""
        self._divisors: dict[float, Tensor] | None = None
        for bucket in self.buckets:
            bucket.optimizer.clip_divisors = self._clip_divisors  # type: ignore[method-assign]
            bucket.optimizer.settle = lambda: None  # type: ignore[method-assign]  # `settle` does it for all of them

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Stand-ins for the owned tensors: their shapes, and keys of their state; their values are updates."""
        return {name: parameter for bucket in self.buckets for name, parameter in bucket.parameters.items()}

    @torch.no_grad()
    def compute_updates(self, bucket: OwnerBucket) -> None:
        """Leave the update of every tensor of ``bucket`` in its ``updates``, from gradients and weights put before.

        Unless `clip` has been told this step's norms, all ranks must call this together: clipping then takes the norm
        over the buckets of all of them.
        """
        bucket.flat.zero_()
        for name, weight in bucket.weights.items():
            bucket.updates[name].copy_(weight)
        bucket.show_gradients(True)
        for group, rates in zip(bucket.optimizer.param_groups, self._whole.param_groups, strict=True):
            group["lr"] = rates["lr"]
        bucket.optimizer.step()
        bucket.show_gradients(False)
        for name, weight in bucket.weights.items():
            bucket.updates[name].sub_(weight)

    def clip(self, shards: Mapping[float, list[Tensor]] | None) -> None:
        """Take the joint norms of this step's gradients from their shards, by limit; None to measure them in the step.

        All ranks together.
        """
        self._divisors = None if shards is None else self._joint_divisors(shards)

    def settle(self) -> None:
        """After the last bucket: what rules sum over all parameters (Prodigy), over all buckets and ranks together."""
        joint = self._whole.joint_sums()  # of no state, so zeros: a rank that owns nothing takes part
        if joint is None:
            return
        parts = [part for bucket in self.buckets if (part := bucket.optimizer.joint_sums()) is not None]
        total = torch.stack([joint.to(self.updates.device), *parts]).sum(dim=0)
        sums = self._ranks.sum(total.to(self._ranks.device)).to(self.updates.device)
        for bucket in self.buckets:
            bucket.optimizer.take_sums(sums)

    def state(self, bucket: OwnerBucket) -> dict[str, dict[str, Any]]:
        """State of the tensors of a bucket, by name."""
        held = bucket.optimizer.state
        return {name: dict(held[p]) for name, p in bucket.parameters.items() if held.get(p)}

    def load(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Take over state by name; entries of tensors that others own are left alone."""
        for bucket in self.buckets:
            bucket.optimizer.load_state_dict(by_position({"state": state}, bucket.optimizer))

    def _clip_divisors(self, batches: list[Batch]) -> list[Tensor | None]:
        """As `tuneopt.optim.bucket.norm_divisors`, by norms over all ranks."""
        limits = [float(batch.settings["max_grad_norm"]) for batch in batches]
        divisors = self._divisors
        if divisors is None:
            gradients: dict[float, list[Tensor]] = {}
            for batch, limit in zip(batches, limits, strict=True):
                gradients.setdefault(limit, []).extend(batch.gradients)
            divisors = self._joint_divisors(gradients)
        return [divisors[limit] if limit > 0 else None for limit in limits]

    def _joint_divisors(self, parts: Mapping[float, list[Tensor]]) -> dict[float, Tensor]:
        """What clipping divides by, for each limit, from this rank's parts of what is clipped to it."""
        squares = torch.zeros(len(self.limits), device=self._ranks.device)
        for position, limit in enumerate(self.limits):
            if parts.get(limit):
                squares[position] = total_norm(parts[limit]).square()
        norms = self._ranks.sum(squares).sqrt().to(self.updates.device)
        return {limit: (norm / limit).clamp(min=1.0) for limit, norm in zip(self.limits, norms, strict=True)}


def decay_of_holders(group: Mapping[str, Any]) -> float:
    """The weight decay that those who hold the weights apply in this step; 0 where the owner has done so."""
    return 0.0 if needs_weights(group) else decay_of_step(group)


def part(whole: Optimizer, parameters: Mapping[str, nn.Parameter]) -> Optimizer:
    """A copy of an optimizer over stand-ins for some of its parameters, without state; every group is kept."""
    part = copy.copy(whole)
    part.state = type(whole.state)(dict)
    part.param_groups, part._frozen = [], []
    for group in whole.param_groups:
        names = [name for name in group["param_names"] if name in parameters]
        part.param_groups.append({**group, "params": [parameters[name] for name in names], "param_names": names})
    part.__setstate__({})
    return part
