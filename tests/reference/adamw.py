"""AdamW after Loshchilov and Hutter (arXiv 1711.05101, algorithm 2), one scalar formula at a time, float64."""

import math

import numpy as np


def joint_norm(gradients):
    total = 0.0
    for gradient in gradients.values():
        total += float((gradient**2).sum())
    return math.sqrt(total)


def clip(gradients, limit):
    """All gradients times limit / norm where their joint norm exceeds the limit; 0 switches it off."""
    norm = joint_norm(gradients)
    if limit == 0 or norm <= limit:
        return dict(gradients)
    return {name: gradient * (limit / norm) for name, gradient in gradients.items()}


def adamw(start, steps, *, rates, beta1, beta2, eps, weight_decay, decays, max_grad_norm):
    """Parameters after all steps. ``rates`` gives the learning rate of each step, ``decays`` says who decays."""
    x = {name: value.copy() for name, value in start.items()}
    m = {name: np.zeros_like(value) for name, value in start.items()}
    v = {name: np.zeros_like(value) for name, value in start.items()}
    for t, (gradients, rate) in enumerate(zip(steps, rates, strict=True), start=1):
        clipped = clip(gradients, max_grad_norm)
        for name in x:
            g = clipped[name]
            m[name] = beta1 * m[name] + (1 - beta1) * g
            v[name] = beta2 * v[name] + (1 - beta2) * g * g
            m_hat = m[name] / (1 - beta1**t)
            v_hat = v[name] / (1 - beta2**t)
            decay = weight_decay * x[name] if decays(name) else 0.0
            x[name] = x[name] - rate * (m_hat / (np.sqrt(v_hat) + eps) + decay)
    return x
