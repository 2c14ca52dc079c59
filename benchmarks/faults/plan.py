"""The schedule of faults: which kind, on what kind of cluster, at which moment; a pure function of the seed."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import dataclass

from faults.world import ERRORS

WORLD = (*ERRORS, "wrong clock")
"""Kinds that need the library of `faults.world`."""

FILES = ("truncate checkpoint", "truncate shard", "truncate ledger file")
INLINE = ("kill driver", "end driver", *FILES, *WORLD)
LOCAL = (
    "kill worker", "kill driver", "kill raylet", "kill Ray while it starts", "end driver", *FILES,
    "pause worker", "pause driver", "pause raylet", *WORLD,
)  # fmt: skip
NODES = ("remove node", "kill node's raylet", "kill worker", "kill driver", "pause node's raylet")
DISK = ("fill disk",)

PLACES = {"this machine": LOCAL, "one process": INLINE, "three nodes": NODES, "small disk": DISK}
"""Where the command runs -> what can happen there; in one process it trains itself, without Ray."""


@dataclass(frozen=True)
class Fault:
    """One fault: ``delay`` seconds after training was seen, ``seed`` for the choices that depend on what is there."""

    number: int
    kind: str
    place: str
    delay: float
    seed: int


def schedule(
    count: int, seed: int, places: tuple[str, ...] = tuple(PLACES), without: Collection[str] = ()
) -> list[Fault]:
    """``count`` faults, every kind about equally often; those of one place come in groups, several to a sweep."""
    source = random.Random(seed)
    kinds = [(place, kind) for place in places for kind in PLACES[place] if kind not in without]
    chosen = [kinds[number % len(kinds)] for number in range(count)]
    groups: list[list[tuple[str, str]]] = []
    for place in places:
        mine = [pair for pair in chosen if pair[0] == place]
        source.shuffle(mine)
        groups += [mine[at : at + 8] for at in range(0, len(mine), 8)]
    source.shuffle(groups)
    ordered = [pair for group in groups for pair in group]
    return [
        Fault(number, kind, place, source.uniform(0.1, 2.5), source.randrange(2**32))
        for number, (place, kind) in enumerate(ordered)
    ]
