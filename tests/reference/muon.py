"""Muon after Jordan et al. (2024) with the study's momentum sum and scale; one matrix at a time, float64.

The quintic acts on singular values, so here it is applied to them, through an SVD: no matrix iteration at all.
"""

import math

import numpy as np


def quintic(s):
    return 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5


def orthogonalize(matrix, eps, steps=5):
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    s = s / (math.sqrt(float((matrix**2).sum())) + eps)
    for _ in range(steps):
        s = quintic(s)
    return u @ np.diag(s) @ vt


def muon(start, steps, *, rates, momentum, eps, weight_decay):
    x = {name: value.copy() for name, value in start.items()}
    buffers = {name: np.zeros_like(value) for name, value in start.items()}
    for gradients, rate in zip(steps, rates, strict=True):
        for name in x:
            buffers[name] = momentum * buffers[name] + gradients[name]
            nesterov = momentum * buffers[name] + gradients[name]
            out_features, in_features = x[name].shape
            scale = math.sqrt(max(1.0, out_features / in_features))
            x[name] = x[name] - rate * (scale * orthogonalize(nesterov, eps) + weight_decay * x[name])
    return x
