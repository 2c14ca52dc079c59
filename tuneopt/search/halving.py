"""ASHA, asynchronous successive halving (Li et al., arXiv 1810.05934), over the fraction of a run.

It ranks trials on intermediate loss, which every result that it touched says. Here it is the rule alone: a plan asks it
at each curve point, on every backend.
"""

from __future__ import annotations

import math

import numpy as np

GRACE = 0.15
"""Fraction of its run before which no trial is stopped; the learning rate has then warmed up."""

REDUCTION = 3
"""One trial in this many is kept at each rung, and the next rung lies this many times further."""


class Halving:
    """The rungs, and the losses (nats per token) with which trials reached them."""

    def __init__(self, grace: float = GRACE, reduction: int = REDUCTION) -> None:
        count = int(math.log(1 / grace) / math.log(reduction) + 1)
        self.share = 100 / reduction
        self.rungs: list[tuple[float, dict[str, float]]] = [
            (grace * reduction**place, {}) for place in reversed(range(count))
        ]
        """The furthest first, so that a trial counts at the last rung that it has reached."""

    def reached(self, trial: str, fraction: float, loss: float | None) -> bool:
        """Take in that a trial has this loss at this fraction of its run; whether it may go on.

        A trial is judged once at a rung, against those that came before it. The first of a rung goes on.
        """
        for rung, losses in self.rungs:
            if fraction < rung:
                continue
            if trial in losses or loss is None:
                return True
            good = loss <= np.nanpercentile(list(losses.values()), self.share) if losses else True
            losses[trial] = loss
            return bool(good)
        return True
