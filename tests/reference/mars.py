"""MARS-AdamW after Yuan et al. (arXiv 2411.10438, algorithm 2 in its approximate form), joint clip, float64."""

import numpy as np
from reference.adamw import joint_norm


def mars(start, steps, *, rates, beta1, beta2, eps, weight_decay, decays, gamma, max_grad_norm):
    """Parameters after all steps. The clip adds 1e-6 to the norm, as the study's code does."""
    x = {name: value.copy() for name, value in start.items()}
    m = {name: np.zeros_like(value) for name, value in start.items()}
    v = {name: np.zeros_like(value) for name, value in start.items()}
    last = {name: np.zeros_like(value) for name, value in start.items()}
    for t, (gradients, rate) in enumerate(zip(steps, rates, strict=True), start=1):
        c = {}
        for name, g in gradients.items():
            c[name] = g + gamma * (beta1 / (1 - beta1)) * (g - last[name])
            last[name] = g
        shrink = min(1.0, max_grad_norm / (joint_norm(c) + 1e-6)) if max_grad_norm else 1.0
        for name in x:
            g = c[name] * shrink
            m[name] = beta1 * m[name] + (1 - beta1) * g
            v[name] = beta2 * v[name] + (1 - beta2) * g * g
            m_hat = m[name] / (1 - beta1**t)
            v_hat = v[name] / (1 - beta2**t)
            decay = weight_decay * x[name] if decays(name) else 0.0
            x[name] = x[name] - rate * (m_hat / (np.sqrt(v_hat) + eps) + decay)
    return x
