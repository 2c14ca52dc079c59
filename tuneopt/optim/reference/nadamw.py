"""NAdamW after Dozat 2016 (ICLR workshop, algorithm 8) with a constant momentum, and decoupled decay.

The look-ahead is taken literally: the first moment that the next step would have if it brought a zero gradient, plus
what the present gradient is worth, each over its own bias correction.
"""

from __future__ import annotations

from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, State, entries
from tuneopt.optim.reference.adamw import init, moments


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """p <- p - lr ((beta1 m / (1 - beta1^(t+1)) + (1 - beta1) g / (1 - beta1^t)) / (sqrt(v_hat) + eps) + wd p).

    With ``bias_correction`` "same" the first of the two corrections counts t as well.
    """
    m, v = moments(g, state, h)
    ahead = step + 1 if h["bias_correction"] == "next" else step
    next_m_hat = h["beta1"] * m / (1 - h["beta1"] ** ahead)
    g_hat = (1 - h["beta1"]) * g / (1 - h["beta1"] ** step)
    v_hat = v / (1 - h["beta2"] ** step)
    direction = (next_m_hat + g_hat) / (v_hat.sqrt() + h["epsilon"])
    return p - h["learning_rate"] * (direction + h["weight_decay"] * p), {"m": m, "v": v}


RULES = {"nadamw": Reference(init, update, part=entries)}
