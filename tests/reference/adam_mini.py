"""Adam-mini after Zhang et al. (arXiv 2406.16793, algorithm 1) with the study's blocks, one at a time, float64."""

import numpy as np
from reference.adamw import clip


def blocks_of(name, shape, heads):
    """Row ranges that share a second moment; None for vectors, where every entry has its own."""
    if len(shape) < 2:
        return None
    size = shape[0] // heads if ".q_proj" in name or ".k_proj" in name else 1
    return [slice(first, first + size) for first in range(0, shape[0], size)]


def adam_mini(start, steps, *, rates, beta1, beta2, eps, weight_decay, decays, heads, max_grad_norm, clip_all=False):
    """Parameters after all steps. The joint norm is that of the vectors, or of everything with ``clip_all``."""
    x = {name: value.copy() for name, value in start.items()}
    m = {name: np.zeros_like(value) for name, value in start.items()}
    v = {name: np.zeros_like(value) for name, value in start.items()}
    for t, (gradients, rate) in enumerate(zip(steps, rates, strict=True), start=1):
        limited = {name: g for name, g in gradients.items() if clip_all or g.ndim == 1}
        clipped = {**gradients, **clip(limited, max_grad_norm)}
        for name in x:
            g = clipped[name]
            m[name] = beta1 * m[name] + (1 - beta1) * g
            square = g * g
            for rows in blocks_of(name, g.shape, heads) or []:
                square[rows] = square[rows].mean()
            v[name] = beta2 * v[name] + (1 - beta2) * square
            m_hat = m[name] / (1 - beta1**t)
            v_hat = v[name] / (1 - beta2**t)
            decay = weight_decay * x[name] if decays(name) else 0.0
            x[name] = x[name] - rate * (m_hat / (np.sqrt(v_hat) + eps) + decay)
    return x
