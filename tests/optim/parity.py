"""How the parity tests run an optimizer on the fixed problem, and its float64 reference or a peer beside it."""

import importlib
import importlib.machinery
import sys
import types
from pathlib import Path

import numpy as np
import problem
import pytest
import torch

from tuneopt.optim.reference import references, rule_of
from tuneopt.optim.watching import kind_of

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


def follow(
    name_of_optimizer,
    *,
    start=None,
    stream=None,
    rates=RATES,
    decays=problem.decays,
    diagonal=None,
    trace=None,
    **hyperparameters,
):
    """Parameters after all steps of the optimizer's reference, in float64.

    ``hyperparameters`` are in the words of the search spaces. ``diagonal(t)`` gives the estimate of the Hessian's
    diagonal after step t; ``trace(t, states)`` sees the states of all parameters after each step.
    """
    start, stream = start or problem.start(), stream or problem.gradients()
    x = {name: torch.tensor(value) for name, value in start.items()}
    every = references(name_of_optimizer)
    rules = {name: every[rule_of(name_of_optimizer, name, kind_of(name, v.shape))] for name, v in x.items()}
    common = {"weight_decay": WD, "max_grad_norm": 0.0, **hyperparameters}
    state, joint = {}, JointNumber(next((rule.joint for rule in rules.values() if rule.joint), None))
    for t, (gradients, rate) in enumerate(zip(stream, rates, strict=True), start=1):
        h = {
            name: {
                **common,
                "learning_rate": rate,
                "schedule": rate / LR,
                "weight_decay": common["weight_decay"] if decays(name) else 0.0,
                "decays": decays(name),
                "name": name,
                "piece": 0,
            }
            for name in x
        }
        if t == 1:
            state = {name: rule.init(tuple(x[name].shape), h[name]) for name, rule in rules.items()}
        g = {name: torch.tensor(gradients[name]) for name in x}
        for name, rule in rules.items():
            if rule.prepare:
                g[name], state[name] = rule.prepare(g[name], state[name], h[name])
        clipped = [name for name, rule in rules.items() if rule.clipped(h[name])]
        limit = common["max_grad_norm"]
        norm = sum(float((g[name] ** 2).sum()) for name in clipped) ** 0.5
        divisor = max(1.0, norm / limit) if limit else 1.0
        g = {name: g[name] / divisor if name in clipped else g[name] for name in rules}
        joint.before(h)
        before = dict(x)
        for name, rule in rules.items():
            x[name], state[name] = rule.update(x[name], g[name], state[name], t, h[name])
        joint.after(before, g, h)
        if diagonal and t % common["hessian_interval"] == 0:
            estimates = diagonal(t)
            state = {n: r.hessian(torch.tensor(estimates[n]), state[n], h[n]) for n, r in rules.items()}
        if trace:
            trace(t, state)
    return {name: value.numpy() for name, value in x.items()}


class JointNumber:
    """The number that all parameters share, of references that have one."""

    def __init__(self, joint):
        self.joint, self.carried, self.states = joint, None, {}

    def before(self, h):
        if self.joint:
            self.carried = self.carried or self.joint.init(next(iter(h.values())))
            for own in h.values():
                own["joint"] = self.carried["joint"]

    def after(self, x, g, h):
        if self.joint:
            found = {name: self.joint.terms(x[name], g[name], self.states.get(name, {}), h[name]) for name in x}
            self.states = {name: state for name, (state, _) in found.items()}
            sums = [sum(parts) for parts in zip(*(terms for _, terms in found.values()), strict=True)]
            self.carried = self.joint.value(self.carried, sums, next(iter(h.values())))


def error(ours, theirs):
    """Worst relative error of the displacement since the start, over the parameters of both."""
    start = problem.start()
    pairs = ((ours[name] - value, value - start[name]) for name, value in theirs.items() if name in ours)
    return max(np.linalg.norm(distance) / np.linalg.norm(way) for distance, way in pairs)


def only(condition, tree):
    return {name: value for name, value in tree.items() if condition(name)}


def peer(name):
    """A peer's module, or a skip that says what brings it; timm's optimizers need no torchvision."""
    top = name.split(".")[0]
    if importlib.util.find_spec(top) is None:
        pytest.skip(f"{top} is not installed: pip install '.[peers]'")
    if top == "timm":
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError):
            root = Path(importlib.machinery.PathFinder.find_spec("timm", sys.path).origin).parent
            for part, folder in (("timm", root), ("timm.optim", root / "optim")):
                package = types.ModuleType(part)
                package.__spec__ = importlib.machinery.ModuleSpec(part, None, is_package=True)
                package.__path__ = [str(folder)]
                sys.modules[part] = package
    return importlib.import_module(name)


def groups(parameters):
    """Theirs with our rule of decay: matrices and the head decay, the rest does not."""
    decayed = [p for name, p in parameters.items() if problem.decays(name)]
    rest = [p for name, p in parameters.items() if not problem.decays(name)]
    return [{"params": decayed}] + [{"params": rest, "weight_decay": 0.0}] * bool(rest)


def run(parameters, optimizer, gradients, before=lambda step: None, after=lambda step: None):
    for step, tree in enumerate(gradients):
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
            group["lr"] = group["initial_lr"] * problem.schedule(step)
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(tree[name], dtype=parameter.dtype)
        before(step + 1)
        optimizer.step()
        after(step + 1)
    return {name: parameter.detach().double().numpy() for name, parameter in parameters.items()}


def distance(ours, theirs, gradients=None, names=lambda name: True, dtype=torch.float32):
    """Build both on the same start, run both, and return the worst relative distance of what they moved."""
    gradients = problem.gradients() if gradients is None else gradients
    mine, other = only(names, as_parameters(dtype)), only(names, as_parameters(dtype))
    gradients = [only(names, tree) for tree in gradients]
    return error(run(mine, ours(mine), gradients), run(other, theirs(other), gradients))


def matrices(cls, **words):
    """A builder of ours for hidden matrices, by name and with nothing clipped."""
    return lambda parameters: cls(parameters.items(), LR, **words, max_grad_norm=0.0)
