"""How the parity tests run an optimizer on the fixed problem and measure its distance from a twin."""

import numpy as np
import torch
from reference import problem

LR, WD = 0.01, 0.2
RATES = [LR * problem.schedule(step) for step in range(problem.STEPS)]


def as_parameters(dtype=torch.float32):
    return {name: torch.nn.Parameter(torch.tensor(value, dtype=dtype)) for name, value in problem.start().items()}


def train(parameters, optimizer, after=lambda step: None):
    """All steps of the problem; ``after`` is called with the number, from 1, of each step that was done."""
    for step, gradients in enumerate(problem.gradients()):
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * problem.schedule(step)
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(gradients[name], dtype=parameter.dtype)
        optimizer.step()
        after(step + 1)
    return {name: parameter.detach().double().numpy() for name, parameter in parameters.items()}


def error(ours, theirs):
    """Worst relative error of the displacement since the start, over parameters of the twin."""
    start = problem.start()
    pairs = ((ours[name] - value, value - start[name]) for name, value in theirs.items())
    return max(np.linalg.norm(distance) / np.linalg.norm(way) for distance, way in pairs)


def only(condition, tree):
    return {name: value for name, value in tree.items() if condition(name)}
