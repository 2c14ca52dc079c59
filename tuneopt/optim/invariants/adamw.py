"""AdamW shown on parameters: the change equals an AdamW step computed apart from the optimizer, in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.invariants.base import Invariant, Moment, Subject, Tally, excess, visible

TOLERANCE = 1e-3


class AdamWInvariant(Invariant):
    """Keeps its own two moments from the raw gradients and predicts every change of the parameters.

    Only when the optimizer had already stepped (a resumed run) do the moments start from the optimizer's state.
    """

    def __init__(self) -> None:
        super().__init__()
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        self.tallies["update"] = Tally(
            f"distance to an independent AdamW update, relative and beyond rounding, <= {TOLERANCE:g}"
        )

    def remember(self, subject: Subject) -> Any:
        """Start the own moments where they are not yet followed."""
        if self.missed(subject):
            zeros = torch.zeros_like(subject.parameter)
            first, second = (subject.state.get(key, zeros) for key in ("exp_avg", "exp_avg_sq"))
            self._moments[subject.name] = (
                self.view(first, subject.settings).to(torch.float64, copy=True),
                self.view(second, subject.settings).to(torch.float64, copy=True),
            )
        return None

    def measure(self, moment: Moment) -> bool:
        """Predict the change and compare."""
        settings, step = moment.settings, moment.step
        beta1, beta2 = settings["betas"]
        first, second = self._moments[moment.name]
        first = beta1 * first + (1 - beta1) * moment.gradient
        second = beta2 * second + (1 - beta2) * moment.gradient**2
        self._moments[moment.name] = (first, second)
        ratio = first / (1 - beta1**step) / ((second / (1 - beta2**step)).sqrt() + settings["eps"])
        update = ratio + settings["weight_decay"] * moment.before
        if not visible(update, moment.noise, settings["lr"]) and bool(update.isfinite().all()):
            return False
        expected = -settings["lr"] * update
        error = excess(moment.change - expected, expected, moment.noise)
        self.tallies["update"].add(error, error <= TOLERANCE, f"{moment.name}, step {step}")
        return True
