"""Which rank owns the state of which tensor, and in which buckets an owner's tensors step.

An owner rank keeps the whole state of its tensors and computes their updates: rules of the matrix family, Adam-mini's
blocks and joint norms need whole tensors. Ranks are to hold equal state and to do equal work at once; each tensor, the
heaviest first, goes to the rank whose larger load of the two grows least.

An owner's tensors step bucket by bucket, so that a step needs little memory: while one bucket is computed the next
one's gradients arrive and the updates of the one before leave. Buckets of all owners travel together, so that every
rank computes all the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

import torch

from tuneopt.optim.base import Optimizer
from tuneopt.optim.bucket import logical, state_elements
from tuneopt.optim.rule import MatrixRule, Rule
from tuneopt.training.memory import OWNER_BUCKET


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
