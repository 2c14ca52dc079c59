"""Learning-rate schedules of the study: linear warmup, then cosine, or constant and a linear decay.

Source: Wen et al., arXiv 2509.02046, section on experimental setup. Steps count from 0, and as in the study the rate
of step s is the schedule's value at s, so a run with warmup spends its first step at rate zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tuneopt.constants import SCHEDULES
from tuneopt.spec import InputError, Value, nearest


def warmup_steps(warmup: float, steps: int) -> int:
    """Warmup in steps: a value below 1 is a fraction of all ``steps``, a whole number from 1 up counts steps.

    Raises `InputError` for a negative value or a fraction above one step that is not whole.
    """
    if warmup < 0 or (warmup >= 1 and float(warmup) != int(warmup)):
        raise InputError(f"warmup must be a fraction below 1 or a whole number of steps, not {warmup:g}")
    return round(warmup * steps) if warmup < 1 else int(warmup)


@dataclass(frozen=True, slots=True)
class LearningRateSchedule:
    """The learning rate as a multiple of its peak, for each of ``steps`` steps.

    ``cosine``: after warmup, from 1 to ``min_lr_ratio`` along half a cosine. ``linear``: after warmup, constant at 1,
    then falling linearly to ``min_lr_ratio`` over the last ``decay`` fraction of the steps.
    """

    steps: int
    kind: str
    warmup: int
    min_lr_ratio: float = 0.0
    decay: float = 1.0

    @classmethod
    def of(cls, config: Mapping[str, Value], steps: int) -> LearningRateSchedule:
        """The schedule that a configuration names; raises `InputError` for an unknown one or impossible numbers."""
        kind = str(config.get("lr_schedule", "cosine"))
        if kind not in SCHEDULES:
            raise InputError(f"unknown lr_schedule {kind!r}; {nearest(kind, SCHEDULES)}")
        decay = float(config.get("decay", 1.0))
        floor = float(config.get("min_lr_ratio", 0.0))
        if not 0 <= decay <= 1 or not 0 <= floor <= 1:
            raise InputError(f"decay ({decay:g}) and min_lr_ratio ({floor:g}) are fractions; keep them within 0 and 1")
        return cls(steps, kind, warmup_steps(float(config.get("warmup", 0)), steps), floor, decay)

    def __call__(self, step: int) -> float:
        """The multiplier of the peak learning rate at ``step``, between 0 and 1."""
        if step < self.warmup:
            return step / self.warmup
        if self.kind == "cosine":
            progress = (step - self.warmup) / max(1, self.steps - self.warmup)
            fall = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        else:
            decaying = min(int(self.decay * self.steps), self.steps - self.warmup)
            fall = min(1.0, (self.steps - step) / decaying) if decaying > 0 else 1.0
        return self.min_lr_ratio + (1 - self.min_lr_ratio) * fall
