"""Lion shown on parameters: every entry moves by the learning rate, with the sign of an independent momentum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.invariants.base import Invariant, Moment, Subject, Tally

MAGNITUDE = 1e-3
SIGNS = 1e-3
VISIBLE = 0.1
"""Largest rounding error of an entry, in units of the learning rate, at which it is looked at."""
CLEAR = 1e-5
"""A sign counts when the interpolated gradient is above this share of what it is made of."""


class LionInvariant(Invariant):
    """Divides out rate and decay, and looks at what is left of every entry that rounding does not hide.

    Claims: (1) its magnitude is 1, or 0 where gradient and momentum are 0. (2) Its sign is that of
    beta1 m + (1 - beta1) g, for a momentum that is followed in float64 from the raw gradients.
    """

    def __init__(self) -> None:
        super().__init__()
        self._momentum: dict[str, Tensor] = {}
        self.tallies = {
            "one_magnitude": Tally(f"|change| / learning rate is 1 beyond rounding, decay apart, within {MAGNITUDE:g}"),
            "sign": Tally(f"share of entries with another sign than the independent momentum's <= {SIGNS:g}"),
        }

    def remember(self, subject: Subject) -> Any:
        """Start the own momentum where it is not yet followed."""
        if self.missed(subject):
            start = subject.state.get("exp_avg", torch.zeros_like(subject.parameter))
            self._momentum[subject.name] = self.view(start, subject.settings).to(torch.float64, copy=True)
        return None

    def measure(self, moment: Moment) -> bool:
        """Look at magnitudes and signs."""
        settings, where = moment.settings, f"{moment.name}, step {moment.step}"
        beta1, beta2 = settings["betas"]
        momentum = self._momentum[moment.name]
        parts = beta1 * momentum, (1 - beta1) * moment.gradient
        self._momentum[moment.name] = beta2 * momentum + (1 - beta2) * moment.gradient
        target, size = parts[0] + parts[1], parts[0].abs() + parts[1].abs()
        if not bool(target.isfinite().all() & moment.change.isfinite().all()):
            self.tallies["one_magnitude"].add(float("nan"), False, where)
            return True
        if settings["lr"] == 0:
            return False
        # Decay and step are rounded one after the other, so an entry may be off by two of its own rounding errors.
        rounding = 2 * moment.noise / float(moment.before.norm() or 1.0) * moment.before.abs() / settings["lr"]
        moved = -moment.change / settings["lr"] - settings["weight_decay"] * moment.before
        clear = (rounding <= VISIBLE) & (target.abs() > CLEAR * size)
        if not bool(clear.any()):
            return False
        distance = (moved.abs() - 1).abs() - rounding
        distance = torch.where(size == 0, moved.abs() - rounding, distance)[clear | (size == 0)]
        worst = max(0.0, float(distance.max()))
        self.tallies["one_magnitude"].add(worst, worst <= MAGNITUDE, where)
        share = float((moved[clear].sign() != target[clear].sign()).double().mean())
        self.tallies["sign"].add(share, share <= SIGNS, where)
        return True
