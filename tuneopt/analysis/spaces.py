"""What the declared search spaces say about a configuration, for optimizers that have one."""

from __future__ import annotations

from functools import lru_cache

from tuneopt.search.axis import Axis, is_number
from tuneopt.search.space import load_space, space_names
from tuneopt.spec import SCALES, Scale, Value


def on_ladder(scale: str, parameters: int | None) -> Scale | None:
    """The built-in scale of this name and size; None for another model that has the name by its rounded size."""
    known = SCALES.get(scale)
    return known if known is not None and known.parameters == parameters else None


@lru_cache(maxsize=256)
def axes(optimizer: str, scale: str) -> dict[str, Axis] | None:
    """The axes of an optimizer on the ladder of ``scale``, by coordinate; None without a declared space.

    Cached, because every row of a table asks for them.
    """
    known = SCALES.get(scale)
    if known is None or optimizer not in space_names():
        return None
    space = load_space(optimizer)
    return dict(space.on(known.ladder).by_name) if known.ladder in space.ladders else None


def searched(optimizer: str, scale: str, config: dict[str, Value]) -> tuple[str, ...]:
    """The names in ``config`` that tuning varies: the space's coordinates, or every number where there is no space."""
    known = axes(optimizer, scale)
    return tuple(name for name, value in config.items() if (is_number(value) if known is None else name in known))
