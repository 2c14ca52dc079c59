"""AdamW with switches on its hidden matrices: AdamH after Wen et al., arXiv 2606.16899; AdamC after Defazio, arXiv
2506.02285."""

from __future__ import annotations

from torch import Tensor

from tuneopt.optim.reference import Hyperparameters, Reference, State, adamw, entries
from tuneopt.optim.reference.switches import fallback, moved


def update(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """AdamW's u = m_hat / (sqrt(v_hat) + eps), applied as the switches say."""
    m, v = adamw.moments(g, state, h)
    m_hat, v_hat = m / (1 - h["beta1"] ** step), v / (1 - h["beta2"] ** step)
    after, more = moved(p, m_hat / (v_hat.sqrt() + h["epsilon"]), state, step, h)
    return after, {"m": m, "v": v, **more}


def update_rest(p: Tensor, g: Tensor, state: State, step: int, h: Hyperparameters) -> tuple[Tensor, State]:
    """AdamW."""
    return adamw.update(p, g, state, step, fallback(h))


RULES = {"adamw_matrix": Reference(adamw.init, update), "adamw": Reference(adamw.init, update_rest, part=entries)}
