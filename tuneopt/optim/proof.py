"""Proof that the named optimizer ran: each rule's invariant, measured on the real change of real parameters."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from tuneopt.optim.base import Optimizer
from tuneopt.optim.invariants.base import Check, Invariant, Subject
from tuneopt.spec import InputError

__all__ = ["Check", "Proof", "Witness"]

WATCHED = 8
"""Parameters per group that are watched, spread evenly."""

BUDGET = 2**31
"""Limit on the summed `Invariant.cost` of a group, so that large models cost little too."""

PATIENCE = 200
"""Observed steps with a learning rate above 0 after which a witness stops waiting."""


@dataclass(frozen=True, slots=True)
class Proof:
    """All checks of one trial; it passes when every one does."""

    passed: bool
    checks: tuple[Check, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; numbers are finite or null."""
        return {"passed": self.passed, "checks": [asdict(check) for check in self.checks]}


class Witness:
    """Watches the first steps of an optimizer from outside, without changing them.

    Call `before_step` and `after_step` around every ``optimizer.step()``; both return at once when enough has been
    seen (three steps with a learning rate above 0, and for SOAP one refresh of its bases). Gradients must be in place
    before `before_step`. Build it before the first step, so that it follows the moments from their start; built
    later, it starts from the optimizer's state.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise InputError(f"{type(optimizer).__name__} has no invariants; derive it from tuneopt.optim.Optimizer")
        self._optimizer = optimizer
        rules = {rule.name: rule for rule in optimizer.rules}
        self._watches = [
            _Watch(index, group["rule"], rules[group["rule"]].invariant(), _select(group, rules))
            for index, group in enumerate(optimizer.param_groups)
            if group["params"]
        ]
        self._steps = 0

    @property
    def complete(self) -> bool:
        """Whether nothing more will be measured."""
        groups = self._optimizer.param_groups
        return self._steps >= PATIENCE or all(watch.invariant.done(groups[watch.group]) for watch in self._watches)

    def before_step(self) -> None:
        """Take the snapshots that the next step is measured against."""
        if self.complete:
            return
        divisors = self._divisors()
        for watch in self._watches:
            for subject in watch.subjects(self._optimizer):
                if watch.invariant.wants(subject):
                    limit = subject.settings["max_grad_norm"]
                    subject.divisor = divisors.get(limit, 1.0)
                    watch.invariant.before(subject)

    def after_step(self) -> None:
        """Measure the step that was just taken."""
        if self.complete:
            return
        self._steps += any(group["lr"] > 0 for group in self._optimizer.param_groups)
        for watch in self._watches:
            for subject in watch.subjects(self._optimizer):
                watch.invariant.after(subject)

    def proof(self) -> Proof:
        """What has been shown so far; a rule that could not be measured is not shown."""
        main = self._optimizer.main.name
        count = sum(len(group["params"]) for group in self._optimizer.param_groups if group["rule"] == main)
        detail = "parameters under the optimizer's own rule"
        checks = [Check(f"{main}.parameters", count > 0, float(count), ">= 1", detail)]
        for watch in self._watches:
            checks.extend(watch.invariant.checks(f"{watch.rule}[{watch.group}]"))
        return Proof(all(check.passed for check in checks), tuple(checks))

    def _divisors(self) -> dict[float, float]:
        """What clipping divides by, for each limit."""
        return {limit: max(1.0, square**0.5 / limit) for limit, square in self._squares().items()}

    def _squares(self) -> dict[float, float]:
        """The squared norm of everything that is clipped to a limit."""
        squares: dict[float, float] = {}
        invariants = {watch.rule: watch.invariant for watch in self._watches}
        for group in self._optimizer.param_groups:
            limit = group["max_grad_norm"]
            for parameter in group["params"]:
                if limit > 0 and parameter.grad is not None:
                    state = self._optimizer.state.get(parameter, {})
                    clipped = invariants[group["rule"]].limited(parameter, group, state)
                    norm = float(torch.linalg.vector_norm(clipped, dtype=torch.float64))
                    squares[limit] = squares.get(limit, 0.0) + norm**2
        return squares


@dataclass(slots=True)
class _Watch:
    """One group, its invariant and the positions of the parameters that are looked at."""

    group: int
    rule: str
    invariant: Invariant
    positions: list[int]

    def subjects(self, optimizer: Optimizer) -> list[Subject]:
        group = optimizer.param_groups[self.group]
        found = ((group["param_names"][i], group["params"][i]) for i in self.positions)
        return [
            Subject(name, parameter, group, optimizer.state.get(parameter, {}))
            for name, parameter in found
            if parameter.grad is not None
        ]


def _select(group: dict[str, Any], rules: dict[str, Any]) -> list[int]:
    """Positions spread evenly over the group, as many as the budget allows and always one."""
    count = len(group["params"])
    wanted = min(WATCHED, count)
    spread = [index * count // wanted for index in range(wanted)]
    invariant = rules[group["rule"]].invariant()
    chosen: list[int] = []
    spent = 0
    for position in spread:
        spent += invariant.cost(group["params"][position])
        if not chosen or spent <= BUDGET:
            chosen.append(position)
    return chosen
