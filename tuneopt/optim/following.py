"""What an update check follows of all parameters together: the number of `tuneopt.optim.reference.Joint`.

Such a number is a sum over every entry of the model, so the check keeps its state for every entry while it lasts: for
Prodigy the first weights and a sum of gradients, 8 bytes a parameter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.reference import Joint, Reference, State

LARGE = 2**22
"""Elements above which a state is kept in fp32, not in float64."""

CHANGES = 3
"""How often the number must have changed before enough of it was seen."""


class JointFollower:
    """Follows the number of one optimizer; ``references`` are its rules, of which one may have such a number."""

    def __init__(self, references: Mapping[str, Reference]) -> None:
        found = [reference.joint for reference in references.values() if reference.joint]
        self._joint: Joint | None = found[0] if found else None
        self._carried: State | None = None
        self._states: dict[str, State] = {}
        self._changes = 0

    @property
    def seen(self) -> bool:
        """Whether it changed often enough to be shown, or there is none."""
        return self._joint is None or self._changes >= CHANGES

    def number(self, h: Mapping[str, Any]) -> dict[str, float]:
        """The number of this step, as ``joint``; nothing where the optimizer has none."""
        if self._joint is None:
            return {}
        self._carried = self._joint.init(h) if self._carried is None else self._carried
        return {"joint": float(self._carried["joint"])}

    def advance(
        self, pieces: Iterable[tuple[str, Tensor, Tensor]], h: Mapping[str, Any], summed: Callable[[float], float]
    ) -> None:
        """Take the step that the optimizer is about to take, from (name, parameter, gradient) of every piece here.

        Gradients are divided by ``h["clip"]``; ``summed`` adds a number up over all ranks.
        """
        if self._joint is None or self._carried is None:
            return
        totals = [0.0] * self._joint.count
        for name, parameter, gradient in pieces:
            state = {key: value.double() for key, value in self._states.get(name, {}).items()}
            p, g = parameter.detach().double(), gradient.detach().double() / h["clip"]
            state, terms = self._joint.terms(p, g, state, h)
            self._states[name] = {key: _kept(value) for key, value in state.items()}
            totals = [total + term for total, term in zip(totals, terms, strict=True)]
        before = self._carried["joint"]
        self._carried = self._joint.value(self._carried, [summed(total) for total in totals], h)
        self._changes += self._carried["joint"] != before


def _kept(value: Tensor) -> Tensor:
    return value.to(torch.float32 if value.numel() > LARGE else torch.float64, copy=True)
