"""Sophia after Liu et al. (arXiv 2305.14342, algorithm 3) in the order and with the corrections of the study; float64.

``diagonal(t)`` gives the estimate of the Hessian's diagonal that is made at the end of step t.
"""

import numpy as np
from reference.adamw import clip


def sophia(start, steps, *, rates, beta1, beta2, gamma, eps, weight_decay, decays, max_grad_norm, interval, diagonal):
    """Parameters after all steps."""
    x = {name: value.copy() for name, value in start.items()}
    m = {name: np.zeros_like(value) for name, value in start.items()}
    h = {name: np.zeros_like(value) for name, value in start.items()}
    for t, (gradients, rate) in enumerate(zip(steps, rates, strict=True), start=1):
        clipped = clip(gradients, max_grad_norm)
        for name in x:
            m[name] = beta1 * m[name] + (1 - beta1) * clipped[name]
            newton = (m[name] / (1 - beta1**t)) / np.maximum(gamma * h[name], eps)
            bounded = np.minimum(np.maximum(newton, -1.0), 1.0)
            decay = weight_decay * x[name] if decays(name) else 0.0
            x[name] = x[name] - rate * (bounded + decay)
        if t % interval == 0:
            estimate = diagonal(t)
            h = {name: beta2 * h[name] + (1 - beta2) * estimate[name] for name in h}
    return x
