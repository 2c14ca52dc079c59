"""Sophia shown on parameters: its steps are clipped Newton-like steps, and its Hessian is refreshed on schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.hyperparameters import Settings
from tuneopt.optim.invariants.base import Check, Invariant, Moment, Subject, Tally, excess, visible

TOLERANCE = 1e-3
BOUND = 1.001
WAIT = 16
"""Largest hessian_interval for which a refresh is waited for."""


class SophiaInvariant(Invariant):
    """Follows the momentum in float64 and reads the Hessian's average from before each step.

    Claims: (1) ``bounded``: no entry moves by more than the learning rate, decay and rounding taken off. (2)
    ``update``: the change equals clip(m_hat / max(gamma h, eps), -1, 1), so h really scales it. (3) ``refresh``: h is
    0 until ``hessian_interval`` steps are over, then changes after every so many steps and at no other time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._momentum: dict[str, Tensor] = {}
        self._hessian: dict[str, Tensor] = {}
        self._due_seen = False
        self._far = False
        self.tallies = {
            "bounded": Tally(f"largest entry of the update over the rate, beyond rounding, <= {BOUND:g}"),
            "update": Tally(f"distance to an independent clipped step, relative and beyond rounding, <= {TOLERANCE:g}"),
            "refresh": Tally("the Hessian changes when due and only then (1 = wrong)"),
        }

    def done(self, settings: Settings) -> bool:
        """After the usual steps, and one refresh where that is near."""
        return super().done(settings) and (self._due_seen or settings["hessian_interval"] > WAIT)

    def remember(self, subject: Subject) -> Any:
        """The Hessian's average before the step; starts the own momentum where it is not yet followed."""
        zeros = torch.zeros_like(subject.parameter)
        if self.missed(subject):
            start = subject.state.get("exp_avg", zeros)
            self._momentum[subject.name] = self.view(start, subject.settings).to(torch.float64, copy=True)
            self._hessian.pop(subject.name, None)
        return self.view(subject.state.get("hessian", zeros), subject.settings).to(torch.float64, copy=True)

    def measure(self, moment: Moment) -> bool:
        """Look at the schedule, then predict the change and compare."""
        settings, where = moment.settings, f"{moment.name}, step {moment.step}"
        self._schedule(moment, where)
        beta1, hessian = settings["betas"][0], moment.memory
        momentum = beta1 * self._momentum[moment.name] + (1 - beta1) * moment.gradient
        self._momentum[moment.name] = momentum
        if settings["lr"] == 0:
            return False
        if not bool(momentum.isfinite().all() & hessian.isfinite().all() & moment.change.isfinite().all()):
            self.tallies["update"].add(float("nan"), False, where)
            return True
        step = momentum / (1 - beta1**moment.step) / (settings["gamma"] * hessian).clamp(min=settings["eps"])
        update = step.clamp(-1, 1) + settings["weight_decay"] * moment.before
        if not visible(update, moment.noise, settings["lr"]):
            return False
        distance = excess(moment.change + settings["lr"] * update, settings["lr"] * update, moment.noise)
        self.tallies["update"].add(distance, distance <= TOLERANCE, where)
        size = float(moment.before.norm())
        rounding = (moment.noise / size if size > 0 else 0.0) * moment.before.abs()
        entries = (moment.change + settings["lr"] * settings["weight_decay"] * moment.before).abs() - rounding
        largest = float(entries.max()) / settings["lr"]
        self.tallies["bounded"].add(largest, largest <= BOUND, where)
        return True

    def checks(self, rule: str) -> tuple[Check, ...]:
        """The claims; a refresh that is too far away to wait for is left out."""
        absent = {"refresh"} if self._far and not self._due_seen else set()
        return tuple(tally.check(f"{rule}.{name}") for name, tally in self.tallies.items() if name not in absent)

    def _schedule(self, moment: Moment, where: str) -> None:
        """Compare the average before this step with the one after the step before."""
        interval, finished = moment.settings["hessian_interval"], moment.step - 1
        self._far = interval > WAIT
        last = self._hessian.get(moment.name)
        self._hessian[moment.name] = self.view(moment.state["hessian"], moment.settings).to(torch.float64, copy=True)
        due = finished > 0 and finished % interval == 0
        wrong = finished < interval and bool(moment.memory.any())
        if last is not None:
            wrong |= bool((last != moment.memory).any()) is not due
            self._due_seen |= due
        self.tallies["refresh"].add(float(wrong), not wrong, where)
