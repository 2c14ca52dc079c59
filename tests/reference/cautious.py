"""Cautious AdamW after Liang et al. (arXiv 2411.16085, algorithm 2), mask mean plus eps as in the study, float64."""

import numpy as np
from reference.adamw import clip


def cautious(start, steps, *, rates, beta1, beta2, eps, weight_decay, decays, max_grad_norm):
    x = {name: value.copy() for name, value in start.items()}
    m = {name: np.zeros_like(value) for name, value in start.items()}
    v = {name: np.zeros_like(value) for name, value in start.items()}
    for t, (gradients, rate) in enumerate(zip(steps, rates, strict=True), start=1):
        clipped = clip(gradients, max_grad_norm)
        for name in x:
            g = clipped[name]
            m[name] = beta1 * m[name] + (1 - beta1) * g
            v[name] = beta2 * v[name] + (1 - beta2) * g * g
            u = m[name] / (1 - beta1**t) / (np.sqrt(v[name] / (1 - beta2**t)) + eps)
            mask = np.where(u * g > 0, 1.0, 0.0)
            u = u * mask / (mask.mean() + eps)
            decay = weight_decay * x[name] if decays(name) else 0.0
            x[name] = x[name] - rate * (u + decay)
    return x
