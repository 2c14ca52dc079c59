"""The shape of an invariant: snapshots around a step, measurements, and their summary as checks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.hyperparameters import Settings

SAMPLE = 65_536
"""Elements of one large tensor that are looked at."""

MEASURED_STEPS = 3
"""Steps with a learning rate above 0 in which an invariant is measured."""


@dataclass(frozen=True, slots=True)
class Check:
    """One measured claim. ``measured`` is the worst value seen, None when nothing could be measured."""

    name: str
    passed: bool
    measured: float | None
    expected: str
    detail: str


@dataclass(slots=True)
class Subject:
    """One watched parameter at one step."""

    name: str
    parameter: Tensor
    settings: Settings
    state: dict[str, Any]
    divisor: float = 1.0
    """What clipping divides the gradient by, computed apart from the optimizer."""


@dataclass(slots=True)
class Moment:
    """What happened to a parameter in one step, in float64 and in the layout of `Invariant.view`."""

    name: str
    step: int
    """Number of this step for the parameter, from 1."""
    settings: Settings
    """The group's settings at the step."""
    gradient: Tensor
    """After clipping."""
    before: Tensor
    change: Tensor
    memory: Any
    """What `Invariant.remember` returned before the step."""
    state: dict[str, Any]
    """The optimizer's state after the step."""
    noise: float
    """Norm of the rounding error that storing the parameter can add to ``change``."""


@dataclass(slots=True)
class Tally:
    """Measurements of one claim, kept as their worst."""

    expected: str
    smallest_is_worst: bool = False
    count: int = 0
    worst: float | None = None
    where: str = ""
    failed: int = 0

    def add(self, value: float, passed: bool, where: str) -> None:
        """Take in one measurement; a value that is not finite counts as failed."""
        self.count += 1
        finite = math.isfinite(value)
        self.failed += not (passed and finite)
        worse = self.worst is None or (value < self.worst if self.smallest_is_worst else value > self.worst)
        if finite and worse:
            self.worst, self.where = value, where

    def check(self, name: str) -> Check:
        """The summary; a claim that was never measured has not been shown."""
        detail = f"{self.count} measurements, {self.failed} failed; worst at {self.where}"
        detail = detail if self.count else "not measured"
        return Check(name, self.count > 0 and self.failed == 0, self.worst, self.expected, detail)


@dataclass(slots=True)
class Pending:
    """Snapshots taken before a step."""

    before: Tensor
    gradient: Tensor
    settings: Settings
    memory: Any = field(default=None)


class Invariant(ABC):
    """Measures one rule on the parameters of one group.

    Subclasses fill ``tallies`` in `measure`. `view` chooses what of a tensor is looked at; the default is an evenly
    spaced sample of its elements.
    """

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = {}
        self.measured_steps: set[int] = set()
        self._pending: dict[str, Pending] = {}
        self._seen: dict[str, int] = {}

    def view(self, tensor: Tensor, settings: Settings) -> Tensor:
        """The part of a parameter-shaped tensor that is measured."""
        return tensor.reshape(-1)[:: max(1, tensor.numel() // SAMPLE)]

    def cost(self, parameter: Tensor) -> int:
        """Rough work of one measurement, to limit how many parameters are watched."""
        return min(parameter.numel(), SAMPLE)

    def limited(self, parameter: Tensor, settings: Settings, state: dict[str, Any]) -> Tensor:
        """What clipping takes the norm of, for a parameter with a gradient; ``state`` is from before the step."""
        assert parameter.grad is not None
        return parameter.grad

    def remember(self, subject: Subject) -> Any:
        """Copies of state that `measure` needs from before the step."""
        return None

    @abstractmethod
    def measure(self, moment: Moment) -> bool:
        """Measure one step of one parameter; False when rounding hid the update, so that it does not count."""

    def done(self, settings: Settings) -> bool:
        """Whether nothing more is wanted of this group."""
        return len(self.measured_steps) >= MEASURED_STEPS

    def wants(self, subject: Subject) -> bool:
        """Whether the next step of this parameter is to be measured."""
        return not self.done(subject.settings)

    def missed(self, subject: Subject) -> bool:
        """Whether own averages must start from the optimizer's: always at first, and after a step that went unseen."""
        return self._seen.get(subject.name) != int(subject.state.get("step", 0))

    def before(self, subject: Subject) -> None:
        """Take the snapshots for one step."""
        assert subject.parameter.grad is not None
        gradient = self.view(subject.parameter.grad, subject.settings).to(torch.float64, copy=True)
        self._pending[subject.name] = Pending(
            self.view(subject.parameter.detach(), subject.settings).to(torch.float64, copy=True),
            gradient / subject.divisor,
            {key: value for key, value in subject.settings.items() if key != "params"},
            self.remember(subject),
        )

    def after(self, subject: Subject) -> None:
        """Compare, when `before` was called for the parameter."""
        pending = self._pending.pop(subject.name, None)
        if pending is None or not subject.state:
            return
        change = self.view(subject.parameter.detach(), subject.settings).to(torch.float64) - pending.before
        noise = torch.finfo(subject.parameter.dtype).eps * float(pending.before.norm())
        step = self._seen[subject.name] = int(subject.state["step"])
        moment = Moment(
            subject.name,
            step,
            pending.settings,
            pending.gradient,
            pending.before,
            change,
            pending.memory,
            subject.state,
            noise,
        )
        if self.measure(moment) and pending.settings["lr"] > 0:
            self.measured_steps.add(step)

    def checks(self, rule: str) -> tuple[Check, ...]:
        """The claims about this rule, by name."""
        return tuple(tally.check(f"{rule}.{name}") for name, tally in self.tallies.items())


def visible(expected: Tensor, noise: float, lr: float) -> bool:
    """Whether an update of norm lr ||expected|| stands well above the rounding noise of its parameter."""
    return lr > 0 and noise <= 0.1 * lr * float(expected.norm())


def relative(error: Tensor, reference: Tensor) -> float:
    """||error|| / ||reference||, 0 for two zeros."""
    size, scale = float(error.norm()), float(reference.norm())
    return size / scale if scale > 0 else (0.0 if size == 0 else math.inf)


def excess(error: Tensor, reference: Tensor, noise: float) -> float:
    """`relative` error with the rounding noise of the parameter taken off, at least 0."""
    distance = relative(error, reference)
    return max(0.0, distance - noise / float(reference.norm())) if math.isfinite(distance) else distance
