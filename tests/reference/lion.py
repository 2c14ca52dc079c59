"""Lion after Chen et al. (arXiv 2302.06675, algorithm 2), float64."""

import numpy as np
from reference.adamw import clip


def lion(start, steps, *, rates, beta1, beta2, weight_decay, decays, max_grad_norm):
    x = {name: value.copy() for name, value in start.items()}
    m = {name: np.zeros_like(value) for name, value in start.items()}
    for gradients, rate in zip(steps, rates, strict=True):
        clipped = clip(gradients, max_grad_norm)
        for name in x:
            g = clipped[name]
            update = np.sign(beta1 * m[name] + (1 - beta1) * g)
            m[name] = beta2 * m[name] + (1 - beta2) * g
            decay = weight_decay * x[name] if decays(name) else 0.0
            x[name] = x[name] - rate * (update + decay)
    return x
