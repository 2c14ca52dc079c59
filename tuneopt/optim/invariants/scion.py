"""Scion shown on parameters: orthogonalized averages in matrices, one magnitude everywhere else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.hyperparameters import Settings
from tuneopt.optim.invariants.base import Invariant, Moment, Subject, Tally, visible
from tuneopt.optim.invariants.orthogonal import MuonInvariant

MAGNITUDE = 1e-2
DISAGREE = 1e-3
CLEAR = 1e-6
"""Entries of the average below this share of its root mean square may have lost their sign to fp32 rounding."""


class ScionInvariant(MuonInvariant):
    """Muon's claims about Scion's average, which is orthogonalized as it is."""

    def lookahead(self, momentum: Tensor, gradient: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        """The new average, twice."""
        momentum = settings["momentum"] * momentum + (1 - settings["momentum"]) * gradient
        return momentum, momentum

    def epsilon(self, settings: Settings) -> float:
        """What is added to the Frobenius norm."""
        return float(settings["scion_epsilon"])


class SignumInvariant(Invariant):
    """Divides out rate and decay, and looks at the entries of what is left, u, beside an average kept in float64.

    Claims: (1) ``magnitude``: the average of | |u| - 1 |, rounding of the parameter taken off, is near 0. A rule that
    weighs entries by anything but their sign has another spread. (2) ``sign``: the share of entries that do not point
    along the sign of the average is next to nothing. Entries whose average is 0 or lost in rounding are left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self._momentum: dict[str, Tensor] = {}
        self.tallies["magnitude"] = Tally(f"mean distance of entries from one magnitude, the rate, <= {MAGNITUDE:g}")
        self.tallies["sign"] = Tally(f"share of entries against the sign of their average <= {DISAGREE:g}")

    def remember(self, subject: Subject) -> Any:
        """Start the own average where it is not yet followed."""
        if self.missed(subject):
            start = subject.state.get("momentum_buffer", torch.zeros_like(subject.parameter))
            self._momentum[subject.name] = self.view(start, subject.settings).to(torch.float64, copy=True)
        return None

    def measure(self, moment: Moment) -> bool:
        """Compare each entry with the rate and with the sign of the average."""
        settings, where = moment.settings, f"{moment.name}, step {moment.step}"
        decay = settings["beta1"]
        average = decay * self._momentum[moment.name] + (1 - decay) * moment.gradient
        self._momentum[moment.name] = average
        if settings["lr"] == 0:
            return False
        if not bool(average.isfinite().all() & moment.change.isfinite().all()):
            self.tallies["magnitude"].add(float("nan"), False, where)
            return True
        clear = average.abs() > CLEAR * average.square().mean().sqrt()
        if not bool(clear.any()) or not visible(average.sign(), moment.noise, settings["lr"]):
            return False
        entries = (-moment.change / settings["lr"] - settings["weight_decay"] * moment.before)[clear]
        size = float(moment.before.norm())
        precision = moment.noise / size if size > 0 else 0.0
        rounding = precision * moment.before[clear].abs() / settings["lr"]
        distance = float(((entries.abs() - 1).abs() - rounding).clamp(min=0).mean())
        self.tallies["magnitude"].add(distance, distance <= MAGNITUDE, where)
        against = float((entries * average[clear] <= 0).double().mean())
        self.tallies["sign"].add(against, against <= DISAGREE, where)
        return True
