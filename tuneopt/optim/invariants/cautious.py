"""Cautious AdamW shown on parameters: nothing moves against its gradient, and the rest moves by a rescaled step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.hyperparameters import Settings
from tuneopt.optim.invariants.base import Moment, Subject, Tally, excess
from tuneopt.optim.invariants.variant import VariantInvariant, adam_ratio

ZERO = 1e-3
CLEAR = 1e-4
"""An update counts as opposed to its gradient when its size is above this share of a typical one."""


class CautiousInvariant(VariantInvariant):
    """Masks an AdamW step computed apart from the optimizer.

    ``opposed``: where that step clearly points against the gradient, the parameter moved by decay alone. The share of
    entries that are kept is counted over the whole tensor, from its gradient and the optimizer's first moment.
    """

    trait = "mask"
    described = "mask and rescaling"

    def __init__(self) -> None:
        super().__init__()
        self.tallies["opposed"] = Tally(f"share of the update that opposes the gradient, beyond rounding, <= {ZERO:g}")
        self._opposed = torch.zeros(0, dtype=torch.bool)

    def remember(self, subject: Subject) -> Any:
        """The signs of the whole gradient."""
        super().remember(subject)
        assert subject.parameter.grad is not None
        return subject.parameter.grad.sign().to(torch.int8)

    def ratios(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """With mask and rescaling, and without."""
        settings = moment.settings
        plain = adam_ratio(*self.averaged(moment.name, moment.gradient, settings), settings, moment.step)
        product = plain.sign() * moment.gradient.sign()
        kept = float((moment.state["exp_avg"].sign() * moment.memory > 0).double().mean())
        clear = plain.abs() > CLEAR * plain.square().mean().sqrt()
        self._opposed = (product < 0) & clear
        return plain * (product > 0) / (kept + settings["eps"]), plain

    def look(self, moment: Moment, update: Tensor, where: str) -> None:
        """What opposed entries did beyond decaying."""
        if bool(self._opposed.any()):
            decay = moment.settings["lr"] * moment.settings["weight_decay"] * moment.before
            moved = torch.where(self._opposed, moment.change + decay, 0.0)
            share = excess(moved, moment.settings["lr"] * update, moment.noise)
            self.tallies["opposed"].add(share, share <= ZERO, where)

    def has_trait(self, settings: Settings) -> bool:
        """Always, though a first step alone, where no entry is opposed, cannot show it."""
        return True
