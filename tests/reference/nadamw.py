"""NAdamW after Dozat (2016, algorithm 8) with constant mu and decoupled decay, float64.

The look-ahead is taken literally: the first moment that the next step would have if it brought a zero gradient, plus
what the present gradient is worth, each over its own bias correction.
"""

import numpy as np
from reference.adamw import clip


def nadamw(start, steps, *, rates, beta1, beta2, eps, weight_decay, decays, max_grad_norm, same_step=False):
    """Parameters after all steps; ``same_step`` corrects the looked-ahead moment by t instead of t + 1."""
    x = {name: value.copy() for name, value in start.items()}
    m = {name: np.zeros_like(value) for name, value in start.items()}
    v = {name: np.zeros_like(value) for name, value in start.items()}
    for t, (gradients, rate) in enumerate(zip(steps, rates, strict=True), start=1):
        clipped = clip(gradients, max_grad_norm)
        for name in x:
            g = clipped[name]
            m[name] = beta1 * m[name] + (1 - beta1) * g
            v[name] = beta2 * v[name] + (1 - beta2) * g * g
            next_m = beta1 * m[name] + (1 - beta1) * 0.0
            next_m_hat = next_m / (1 - beta1 ** (t if same_step else t + 1))
            g_hat = (1 - beta1) * g / (1 - beta1**t)
            v_hat = v[name] / (1 - beta2**t)
            decay = weight_decay * x[name] if decays(name) else 0.0
            x[name] = x[name] - rate * ((next_m_hat + g_hat) / (np.sqrt(v_hat) + eps) + decay)
    return x
