"""How the candidates of the optimizer-step benchmark are built on a model: ours, and those of public packages.

Clipping by joint norm is off on our side, because the peers leave it to the caller.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import io
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from tuneopt import optim
from tuneopt.optim.routing import DEFAULT_RULES, owners, route

LR, WD, BETAS, EPS = 1e-3, 0.1, (0.9, 0.95), 1e-8
ADAM: dict[str, Any] = {"lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": WD}
LATE = 5000
"""Step number that Kron's timing starts from: far behind the annealing of its probability of a fit."""

Steps = Sequence[torch.optim.Optimizer]
"""The optimizers that make one step together: torch's Muon moves the hidden matrices, its AdamW the rest."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One implementation of one rule."""

    label: str
    package: str
    build: Callable[[nn.Module], Steps]
    same: bool = True
    note: str = ""
    starts_otherwise: bool = False
    """Whether its first steps differ though its rule is the same, as where it sets preconditioners up apart."""

    @property
    def ours(self) -> bool:
        return self.package == "tuneopt"

    @property
    def exact(self) -> bool:
        """Whether it must move the hidden matrices as far as ours does, from the first steps on."""
        return self.same and not self.starts_otherwise


def split(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Hidden matrices, and everything else."""
    named = list(model.named_parameters())
    routes = route(named, DEFAULT_RULES, {"main": "main", "fallback": "fallback"}, owners(model))
    hidden = [p for (_, p), entry in zip(named, routes, strict=True) if entry.rule == "main"]
    rest = [p for (_, p), entry in zip(named, routes, strict=True) if entry.rule == "fallback"]
    return hidden, rest


def module(name: str) -> ModuleType:
    """Import a module of a peer; timm's optimizers load without timm's models, which need torchvision."""
    if name.startswith("timm."):
        try:
            importlib.import_module("timm")
        except (ImportError, RuntimeError):
            found = importlib.machinery.PathFinder.find_spec("timm", sys.path)
            if found is None or found.origin is None:
                raise
            for part, folder in (("timm", ""), ("timm.optim", "optim")):
                package = ModuleType(part)
                package.__spec__ = importlib.machinery.ModuleSpec(part, None, is_package=True)
                package.__path__ = [str(Path(found.origin).parent / folder)]
                sys.modules[part] = package
    return importlib.import_module(name)


def peer(name: str, cls: str, **settings: Any) -> Callable[[nn.Module], Steps]:
    """A builder for a class that takes all parameters."""
    return lambda model: [getattr(module(name), cls)(list(model.parameters()), **settings)]


def hybrid(name: str, cls: str, **settings: Any) -> Callable[[nn.Module], Steps]:
    """A builder for a class that takes hidden matrices alone, with torch's fused AdamW for the others."""

    def build(model: nn.Module) -> Steps:
        hidden, rest = split(model)
        return [getattr(module(name), cls)(hidden, **settings), torch.optim.AdamW(rest, **ADAM, fused=True)]

    return build


def mine(cls: str, **settings: Any) -> Callable[[nn.Module], Steps]:
    """A builder for one of our classes, with nothing clipped."""
    return lambda model: [getattr(optim, cls)(model, **{"max_grad_norm": 0.0, **settings})]


def named(name: str, **words: Any) -> Callable[[nn.Module], Steps]:
    """A builder for one of ours by its name, in the words of search spaces, with nothing clipped."""
    given = {"learning_rate": LR, "weight_decay": WD, "max_grad_norm": 0.0, **words}
    return lambda model: [optim.create(name, model, **given)]


def begun(build: Callable[[nn.Module], Steps]) -> Callable[[nn.Module], Steps]:
    """After its first step, in which the rule sets itself up and moves nothing."""

    def built(model: nn.Module) -> Steps:
        steps = build(model)
        for optimizer in steps:
            optimizer.step()
        return steps

    return built


def in_training(build: Callable[[nn.Module], Steps]) -> Callable[[nn.Module], Steps]:
    """For Schedule-Free classes, which want to be told that they train."""

    def built(model: nn.Module) -> Steps:
        steps: Any = build(model)
        for optimizer in steps:
            optimizer.train()
        return list(steps)

    return built


def grouped(cls: str, **settings: Any) -> Callable[[nn.Module], Steps]:
    """A builder for pytorch_optimizer's kin of Muon, whose groups say who is a matrix, with torch's fused AdamW."""

    def build(model: nn.Module) -> Steps:
        hidden, rest = split(model)
        matrices = getattr(module("pytorch_optimizer"), cls)([{"params": hidden, "use_muon": True}], **settings)
        return [matrices, torch.optim.AdamW(rest, **ADAM, fused=True)]

    return build


def late(build: Callable[[nn.Module], Steps]) -> Callable[[nn.Module], Steps]:
    """Ours after `LATE` steps: one ordinary step, after which the counters are put forward."""

    def built(model: nn.Module) -> Steps:
        steps = build(model)
        for optimizer in steps:
            assert isinstance(optimizer, optim.Optimizer)
            optimizer.step()
            for entry in optimizer.state.values():
                entry["step"] = LATE
        return steps

    return built


def our_adam_mini(model: nn.Module) -> Steps:
    """Ours, with one block per head for queries and keys."""
    scale: Any = model.scale
    return [optim.AdamMini(model, **ADAM, heads=scale.heads, max_grad_norm=0.0)]


def adam_mini(model: nn.Module) -> Steps:
    """The official class reads sizes and heads from its arguments and prints what it finds."""
    scale: Any = model.scale
    with redirect_stdout(io.StringIO()):
        cls = module("adam_mini").Adam_mini
        return [cls(model.named_parameters(), **ADAM, dim=scale.d_model, n_heads=scale.heads, verbose=False)]


def diagonal_rest(name: str, late_start: dict[str, Any]) -> Callable[[nn.Module], Steps]:
    """PSGD with triangular factors on hidden matrices, and diagonal ones on the rest, as here."""

    def build(model: nn.Module) -> Steps:
        hidden, rest = split(model)
        groups = [{"params": hidden}, {"params": rest, "max_size_triangular": 0}]
        return [module(name).Kron(groups, lr=LR, **late_start)]

    return build


def sophia(model: nn.Module) -> Steps:
    """Its own Hessian pass is kept off: estimates would come every ``update_period`` steps."""
    optimizer = module("pytorch_optimizer").SophiaH(
        list(model.parameters()), lr=LR, betas=(0.95, 0.99), weight_decay=WD, update_period=10**9
    )
    # Its first step wants an estimate whatever the period is; zeros are one.
    optimizer.step(hessian=[torch.zeros_like(p) for p in model.parameters()])
    return [optimizer]
