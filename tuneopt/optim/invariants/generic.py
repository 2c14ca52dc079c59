"""What every optimizer does, for classes that declare no rule: parameters move, and nothing becomes infinite."""

from __future__ import annotations

import torch
from torch import Tensor

from tuneopt.optim.invariants.base import Check, Invariant, Moment, Subject

GENERIC = "a generic proof: the class declares no rule, so this cannot show which rule ran"


class GenericInvariant(Invariant):
    """Looks at the parameter, the gradient and the state from outside.

    Claims: (1) every watched parameter that had a gradient moved. (2) Parameters and state stay finite. (3) All watched
    parameters have state, or none has (a rule without memory). (4) A step at learning rate 0, such as the first one of
    a warmup, moves nothing; claimed where there was such a step.
    """

    def __init__(self) -> None:
        super().__init__()
        self._moved: dict[str, float] = {}
        self._infinite: dict[str, int] = {}
        self._bytes: dict[str, float] = {}
        self._at_rest: list[float] = []

    def after(self, subject: Subject) -> None:
        """Compare; other than a declared rule, the state need not count steps."""
        pending = self._pending.pop(subject.name, None)
        if pending is None:
            return
        after = self.view(subject.parameter.detach(), subject.settings).to(torch.float64)
        self._seen[subject.name] = self._seen.get(subject.name, 0) + 1
        moment = Moment(
            subject.name,
            self._seen[subject.name],
            pending.settings,
            pending.gradient,
            pending.before,
            after - pending.before,
            None,
            subject.state,
            0.0,
        )
        if self.measure(moment):
            self.measured_steps.add(moment.step)

    def measure(self, moment: Moment) -> bool:
        """Take in one step; one without a learning rate or a gradient shows nothing."""
        held = [value for value in moment.state.values() if isinstance(value, Tensor)]
        size = sum(tensor.numel() * tensor.element_size() for tensor in held)
        after = moment.before + moment.change
        bad = sum(int((~tensor.isfinite()).sum()) for tensor in (after, *(t for t in held if t.is_floating_point())))
        self._infinite[moment.name] = self._infinite.get(moment.name, 0) + bad
        self._bytes[moment.name] = float(size)
        distance = float(moment.change.abs().max())
        if moment.settings["lr"] == 0:
            self._at_rest.append(distance)
        if moment.settings["lr"] == 0 or not bool(moment.gradient.any()):
            return False
        self._moved[moment.name] = max(self._moved.get(moment.name, 0.0), distance)
        return True

    def checks(self, rule: str) -> tuple[Check, ...]:
        """The claims, with what they are worth."""
        seen, smallest = len(self._moved), min(self._moved.values(), default=0.0)
        moved = sum(distance > 0 for distance in self._moved.values())
        bad, holders = sum(self._infinite.values()), sum(size > 0 for size in self._bytes.values())
        watched = f"{seen} watched parameters; {GENERIC}"
        still = "generic: largest change of an entry at learning rate 0 is 0"
        rest = f"{len(self._at_rest)} measurements; {GENERIC}"
        worst = max(self._at_rest, default=0.0)
        scaled = (Check(f"{rule}.rate", worst == 0, worst, still, rest),) if self._at_rest else ()
        return (
            *scaled,
            Check(
                f"{rule}.moved",
                0 < seen == moved,
                smallest,
                "generic: smallest of the largest changes of an entry is above 0",
                watched,
            ),
            Check(f"{rule}.finite", seen > 0 and bad == 0, float(bad), "generic: no NaN or infinity", watched),
            Check(
                f"{rule}.state",
                seen > 0 and holders in (0, len(self._bytes)),
                float(holders),
                "generic: state for every watched parameter, or for none",
                f"{sum(self._bytes.values()):.0f} bytes of state for {watched}",
            ),
        )
