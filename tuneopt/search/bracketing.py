"""Which runs of the baseline would put every rival's loss between two of the baseline's own.

A speedup is D_eff / D, and D_eff is where the baseline's loss over its budgets meets a rival's. Inside the budgets
that the baseline was trained with it is interpolated between two runs. Beyond them it is a guess about a law, and one
further run of the baseline settles it (docs/analysis.md). How far out that run has to be is itself a guess, so it is
asked for a doubling or two at a time: where it falls short, the next answer goes on from there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

USUAL_EXPONENT = 0.4
"""Exponent B of L(D) = alpha D^-B + beta by which losses beyond the longest run are guessed. Loss laws of language
models have 0.3 to 0.5 (Hoffmann et al., arXiv 2203.15556; Wen et al., arXiv 2509.02046)."""

DOUBLINGS = 2
"""Doublings of the budget that are asked for at once: further out the guess is worth less than what it costs."""


def bracketing_ratios(
    baseline: Mapping[float, float], rivals: Iterable[float], margin: float = 0.0
) -> tuple[float, ...]:
    """The data-to-model ratios at which the baseline has still to run at one scale; none where all is bracketed.

    ``baseline`` holds its tuned losses (nats) by ratio, ``rivals`` the losses of the others at the scale, whatever
    their ratio. The longest run must end ``margin`` nats or more under every rival's loss, the shortest as far above.
    Ratios are the shortest halved and the longest doubled, the cheapest first. One ratio alone is always doubled, for
    it shows no slope. Nothing is asked for without a baseline, without rivals, or where the baseline does not improve
    from its second longest run to its longest: more of the same would not bracket anything.
    """
    losses = list(rivals)
    if not baseline or not losses:
        return ()
    ratios = sorted(baseline)
    if len(ratios) == 1:
        return (2 * ratios[0],)
    ends = []
    for edge, inner, goal, way in (
        (ratios[0], ratios[1], max(losses) + margin, -1),
        (ratios[-1], ratios[-2], min(losses) - margin, 1),
    ):
        reached = baseline[edge]
        # Nats that one unit of log D brings at the edge: the mean over the last two runs, moved from their middle.
        apart = abs(math.log(edge / inner))
        mean = way * (baseline[inner] - reached) / apart
        slope = mean * math.exp(-way * USUAL_EXPONENT * apart / 2)
        if way * (reached - goal) <= 0 or slope <= 0:
            continue
        doublings = 0
        while doublings < DOUBLINGS and way * (guess(reached, slope, way * doublings) - goal) > 0:
            doublings += 1
        ends.append(edge * 2.0 ** (way * doublings))
    return tuple(ends)


def guess(loss: float, slope: float, doublings: float) -> float:
    """The loss (nats) so many doublings of the budget from a run that ended at ``loss``, negative for halvings.

    ``slope`` is what one unit of log D brings there; it changes as in a power law of `USUAL_EXPONENT`.
    """
    exponent = USUAL_EXPONENT
    return loss + slope * math.expm1(-exponent * doublings * math.log(2)) / exponent
