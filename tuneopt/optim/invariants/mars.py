"""MARS shown on parameters: AdamW on gradients that are corrected by their change since the step before."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.hyperparameters import Settings
from tuneopt.optim.invariants.base import Moment, Subject
from tuneopt.optim.invariants.variant import VariantInvariant, adam_ratio, averaged

PREVIOUS = "previous_gradient"


class MARSInvariant(VariantInvariant):
    """Keeps the raw gradient of the step before by itself, and moments of raw and of corrected gradients.

    AdamW here means the moments of the raw gradients, under the same clip. Only the norm that is clipped to rests on
    the optimizer's own previous gradients, because it is taken over all parameters and few are watched.
    """

    trait = "correction"
    described = "the correction"

    def __init__(self) -> None:
        super().__init__()
        self._previous: dict[str, Tensor] = {}
        self._plain: dict[str, tuple[Tensor, Tensor]] = {}

    def limited(self, parameter: Tensor, settings: Settings, state: dict[str, Any]) -> Tensor:
        """The corrected gradient."""
        assert parameter.grad is not None
        gradient = parameter.grad.double()
        before = state[PREVIOUS].double() if PREVIOUS in state else torch.zeros_like(gradient)
        return gradient + strength(settings) * (gradient - before)

    def remember(self, subject: Subject) -> Any:
        """What clipping divides by; starts the own averages where they are not yet followed."""
        started = self.missed(subject)
        super().remember(subject)
        if started:
            before = subject.state.get(PREVIOUS, torch.zeros_like(subject.parameter))
            self._previous[subject.name] = self.view(before, subject.settings).to(torch.float64, copy=True)
            self._plain[subject.name] = self._moments[subject.name]
        return subject.divisor

    def ratios(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """With and without the correction."""
        settings, name, divisor = moment.settings, moment.name, moment.memory
        before = self._previous[name] / divisor
        self._previous[name] = moment.gradient * divisor
        corrected = moment.gradient + strength(settings) * (moment.gradient - before)
        first, second = self.averaged(name, corrected, settings)
        self._plain[name] = averaged(*self._plain[name], moment.gradient, *settings["betas"])
        plain = adam_ratio(*self._plain[name], settings, moment.step)
        return adam_ratio(first, second, settings, moment.step), plain

    def has_trait(self, settings: Settings) -> bool:
        """The correction is there when its strength is not 0."""
        return strength(settings) > 0


def strength(settings: Settings) -> float:
    """What the change of the gradient is multiplied by: gamma beta1 / (1 - beta1)."""
    beta1 = settings["betas"][0]
    return float(settings["gamma"] * beta1 / (1 - beta1))
