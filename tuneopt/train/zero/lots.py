"""Cutting the tensors of every owner into lots that step one after another, so that a step needs little memory.

While one lot is computed the next one's gradients arrive and the displacements of the one before leave. Lots of all
owners travel together, so that every rank computes all the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import zip_longest

from tuneopt.optim.base import Optimizer
from tuneopt.train.zero.owners import shapes

LOT = 2**24
"""Elements of one owner's lot, 64 MiB in fp32; a larger tensor is a lot of its own."""


def needs_all(optimizer: Optimizer) -> bool:
    """Whether a step must see the gradients of all tensors at once, because it clips something made of them (MARS)."""
    return type(optimizer).prepare is not Optimizer.prepare


def cut(optimizer: Optimizer, owners: Mapping[str, int], ranks: int) -> list[list[str]]:
    """The names of every lot, over all ranks; the same on every rank.

    Equal tensors of a group follow each other, because a matrix rule computes them together.
    """
    limit = float("inf") if needs_all(optimizer) else LOT
    mine: list[list[list[str]]] = [[] for _ in range(ranks)]
    held = [limit] * ranks
    for name, size in _in_order(optimizer):
        owner = owners[name]
        if not mine[owner] or held[owner] + size > limit:
            mine[owner].append([])
            held[owner] = 0
        mine[owner][-1].append(name)
        held[owner] += size
    return [[name for part in parts for name in part] for parts in zip_longest(*mine, fillvalue=[])]


def _in_order(optimizer: Optimizer) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for group in optimizer.param_groups:
        sides = dict(zip(group["param_names"], shapes(optimizer, group), strict=True))
        for name in sorted(sides, key=lambda name: tuple(sorted(sides[name]))):
            size = 1
            for side in sides[name]:
                size *= side
            found.append((name, size))
    return found
