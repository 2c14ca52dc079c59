"""Scion after Pethick et al. (arXiv 2502.07529, unconstrained, average momentum) in the form of the study; float64.

Matrices through an SVD, as in the twin of Muon; everything else by the sign of an average.
"""

import math

import numpy as np
from reference.adamw import clip
from reference.muon import orthogonalize


def scion(start, steps, *, rates, momentum, eps, weight_decay):
    """Parameters after all steps; every one of them is a matrix."""
    x = {name: value.copy() for name, value in start.items()}
    m = {name: np.zeros_like(value) for name, value in start.items()}
    for gradients, rate in zip(steps, rates, strict=True):
        for name in x:
            m[name] = momentum * m[name] + (1 - momentum) * gradients[name]
            out_features, in_features = x[name].shape
            scale = math.sqrt(max(1.0, out_features / in_features))
            x[name] = x[name] - rate * (scale * orthogonalize(m[name], eps) + weight_decay * x[name])
    return x


def signum(start, steps, *, rates, beta1, weight_decay, decays, max_grad_norm):
    """Parameters after all steps, clipped among themselves by joint norm before the average."""
    x = {name: value.copy() for name, value in start.items()}
    m = {name: np.zeros_like(value) for name, value in start.items()}
    for gradients, rate in zip(steps, rates, strict=True):
        clipped = clip(gradients, max_grad_norm)
        for name in x:
            m[name] = beta1 * m[name] + (1 - beta1) * clipped[name]
            decay = weight_decay * x[name] if decays(name) else 0.0
            x[name] = x[name] - rate * (np.sign(m[name]) + decay)
    return x
