"""Budgets as people think of them: a ratio, tokens, or steps; and which coordinates a budget is to tune."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tuneopt.spec import InputError, Scale, nearest, ratio_of

if TYPE_CHECKING:
    from tuneopt.search.space import LadderSpace

QUICK = ("learning_rate",)
"""What ``--quick`` tunes: the coordinate that a comparison is decided by most often."""


def budget(
    scale: Scale,
    space: LadderSpace,
    ratio: float | None = None,
    tokens: int | None = None,
    steps: int | None = None,
    default: float | None = 1.0,
) -> tuple[float | None, str]:
    """The ratio that is asked for, and the words of who asked in tokens or steps; ``default`` where nobody asks.

    Steps are those of the batch at the start of ``space``: a regime is a number of tokens, which trials with other
    batches take in other steps. Raises `InputError` where more than one is given, and for what is no budget.
    """
    given = {"--ratio": ratio, "--tokens": tokens, "--steps": steps}
    asked = [name for name, value in given.items() if value is not None]
    if len(asked) > 1:
        raise InputError(f"give {' or '.join(asked)}, not both: each is a budget")
    for name in asked:
        value = given[name]
        if value is None or not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} must be a positive number, not {value:g}")
    if tokens is not None:
        return ratio_of(scale, tokens), f"{tokens:,} tokens"
    if steps is not None:
        batch = int(space.value(space.start, "train_batch_size"))
        words = f"{steps:,} steps of {batch} sequences"
        return ratio_of(scale, steps * batch * scale.seq_len), words
    return (default if ratio is None else ratio), ""


def chosen_coordinates(coordinates: Sequence[str], quick: bool) -> tuple[str, ...]:
    """What ``--coordinates`` or ``--quick`` asks for, nothing for all; raises `InputError` for both, and for a
    coordinate that is named twice.
    """
    twice = [name for place, name in enumerate(coordinates) if name in coordinates[:place]]
    if twice:
        raise InputError(f"--coordinates names {twice[0]} twice; keep one")
    if quick and coordinates:
        raise InputError("--quick tunes the learning rate alone; leave it out, or --coordinates")
    return QUICK if quick else tuple(coordinates)


def over(space: LadderSpace, coordinates: Iterable[str], *, passing: bool = False) -> LadderSpace:
    """The space with all but these coordinates held at its start; all of it where none is named.

    Raises `InputError` for a coordinate that it lacks, unless ``passing`` passes over it, and for one that is pinned.
    """
    names = tuple(coordinates)
    if not names:
        return space
    for name in names:
        if name not in space.by_name and not passing:
            raise InputError(f"unknown coordinate {name!r} of {space.optimizer}; {nearest(name, space.by_name)}")
        if name in space.by_name and space.by_name[name].pinned:
            raise InputError(f"{name} of {space.optimizer} is pinned to one value, so it cannot be tuned; drop one")
    return space.pin({axis.name: axis.start for axis in space.varied if axis.name not in names})
