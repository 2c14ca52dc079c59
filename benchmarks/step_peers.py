"""Who takes part in the optimizer-step benchmark: our optimizers, and the public implementations of the same rules.

A candidate says which package it comes from, which extra installs that, how it is built on a model, and whether it
computes the rule that runs here (``same``), or something of about the same cost that moves parameters otherwise.
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


MOMENTUM_FREE = "momentum not bias-corrected"
EPS_MAX = "max(sqrt(v), eps) in place of sqrt(v) + eps"
OTHER_SCALE = "another shape factor and other norms for vectors"

CANDIDATES: dict[str, list[Candidate]] = {
    "adamw": [
        Candidate("tuneopt", "tuneopt", mine("AdamW", **ADAM)),
        Candidate("torch AdamW, fused", "torch", peer("torch.optim", "AdamW", **ADAM, fused=True)),
        Candidate("torch AdamW, foreach", "torch", peer("torch.optim", "AdamW", **ADAM, foreach=True)),
        Candidate("timm AdamW", "timm", peer("timm.optim.adamw", "AdamWLegacy", **ADAM)),
        Candidate("heavyball AdamW", "heavyball", peer("heavyball", "AdamW", **ADAM), False, EPS_MAX),
    ],
    "nadamw": [
        Candidate("tuneopt", "tuneopt", mine("NAdamW", **ADAM)),
        Candidate(
            "torch NAdam, foreach",
            "torch",
            peer("torch.optim", "NAdam", **ADAM, momentum_decay=1e9, decoupled_weight_decay=True, foreach=True),
            note="momentum_decay=1e9, decoupled_weight_decay=True",
        ),
        Candidate("timm NAdamW", "timm", peer("timm.optim.nadamw", "NAdamW", **ADAM), False, "bias correction with t"),
        Candidate("heavyball NAdam", "heavyball", peer("heavyball", "NAdam", **ADAM), False, "momentum schedule"),
    ],
    "mars": [
        Candidate("tuneopt", "tuneopt", mine("MARS", **ADAM)),
        Candidate(
            "pytorch_optimizer MARS",
            "pytorch_optimizer",
            peer("pytorch_optimizer", "MARS", **ADAM, optimize_1d=True),
            False,
            "clips each tensor; eps grows by 1 / sqrt(1 - beta2^t)",
        ),
        Candidate(
            "timm Mars",
            "timm",
            peer("timm.optim.mars", "Mars", **ADAM, optimize_1d=True),
            False,
            "clips each tensor; no correction in the first step",
        ),
    ],
    "cautious": [
        Candidate("tuneopt", "tuneopt", mine("Cautious", **ADAM)),
        Candidate("timm AdamW, caution", "timm", peer("timm.optim.adamw", "AdamWLegacy", **ADAM, caution=True)),
        Candidate("heavyball AdamW, caution", "heavyball", peer("heavyball", "AdamW", **ADAM, caution=True), False),
    ],
    "lion": [
        Candidate("tuneopt", "tuneopt", mine("Lion", lr=LR, betas=(0.9, 0.95), weight_decay=WD)),
        Candidate(
            "lion-pytorch",
            "lion_pytorch",
            peer("lion_pytorch", "Lion", lr=LR, betas=(0.9, 0.95), weight_decay=WD),
        ),
        Candidate("timm Lion", "timm", peer("timm.optim.lion", "Lion", lr=LR, betas=(0.9, 0.95), weight_decay=WD)),
        Candidate(
            "pytorch_optimizer Lion",
            "pytorch_optimizer",
            peer("pytorch_optimizer", "Lion", lr=LR, betas=(0.9, 0.95), weight_decay=WD),
        ),
    ],
    "adam_mini": [
        Candidate("tuneopt", "tuneopt", our_adam_mini),
        Candidate("adam-mini, official", "adam_mini", adam_mini, note="the same but for norms, one scalar there"),
    ],
    "sophia": [
        Candidate("tuneopt", "tuneopt", mine("Sophia", lr=LR, weight_decay=WD), note="without the Hessian pass"),
        Candidate("pytorch_optimizer SophiaH", "pytorch_optimizer", sophia, False, MOMENTUM_FREE),
    ],
    "muon": [
        Candidate("tuneopt, fp32", "tuneopt", mine("Muon", lr=LR, weight_decay=WD)),
        Candidate("tuneopt, bf16", "tuneopt", mine("Muon", lr=LR, weight_decay=WD, ns_precision="bf16")),
        Candidate(
            "torch Muon + fused AdamW",
            "torch",
            hybrid("torch.optim", "Muon", lr=LR, weight_decay=WD),
            note="products in bf16",
        ),
        Candidate(
            "pytorch_optimizer Muon + fused AdamW",
            "pytorch_optimizer",
            lambda m: [
                module("pytorch_optimizer").Muon([{"params": split(m)[0], "use_muon": True}], lr=LR, weight_decay=WD),
                torch.optim.AdamW(split(m)[1], **ADAM, fused=True),
            ],
            note="products in bf16",
        ),
        Candidate(
            "heavyball Muon", "heavyball", peer("heavyball", "Muon", lr=LR), False, "another quintic, raw gradient"
        ),
    ],
    "scion": [
        Candidate("tuneopt, fp32", "tuneopt", mine("Scion", lr=LR, weight_decay=WD)),
        Candidate("tuneopt, bf16", "tuneopt", mine("Scion", lr=LR, weight_decay=WD, ns_precision="bf16")),
        Candidate(
            "pytorch_optimizer SCION",
            "pytorch_optimizer",
            peer("pytorch_optimizer", "SCION", lr=LR, weight_decay=WD),
            False,
            OTHER_SCALE,
        ),
        Candidate("heavyball Scion", "heavyball", peer("heavyball", "Scion", lr=LR), False, OTHER_SCALE),
    ],
    "kron": [
        Candidate(
            "tuneopt, blocks of 256",
            "tuneopt",
            late(mine("Kron", lr=LR, preconditioner_update_probability=0.1, update_prob_flat_start=0)),
            note="the study's blocks",
        ),
        Candidate(
            "tuneopt, whole matrices",
            "tuneopt",
            late(
                mine("Kron", lr=LR, preconditioner_update_probability=0.1, update_prob_flat_start=0, block_size=1 << 20)
            ),
            note="no blocks, as the peers",
        ),
        Candidate(
            "kron-torch",
            "kron_torch",
            diagonal_rest("kron_torch", {"preconditioner_update_probability": 0.1}),
            note="without blocks and normalisation",
            starts_otherwise=True,
        ),
        Candidate(
            "pytorch_optimizer Kron",
            "pytorch_optimizer",
            diagonal_rest("pytorch_optimizer", {"pre_conditioner_update_probability": 0.1}),
            note="without blocks, normalisation and damping",
            starts_otherwise=True,
        ),
    ],
    "soap": [
        Candidate("tuneopt, blocks of 256", "tuneopt", mine("SOAP", lr=LR), note="the study's blocks"),
        Candidate("tuneopt, whole matrices", "tuneopt", mine("SOAP", lr=LR, block_size=1 << 20), note="as the peers"),
        Candidate(
            "pytorch_optimizer SOAP + fused AdamW",
            "pytorch_optimizer",
            hybrid("pytorch_optimizer", "SOAP", lr=LR, precondition_frequency=10, shampoo_beta=0.95),
            note="without blocks",
            starts_otherwise=True,
        ),
        Candidate(
            "heavyball SOAP + fused AdamW",
            "heavyball",
            hybrid("heavyball", "SOAP", lr=LR, precondition_frequency=10),
            False,
            "another schedule and a debiased factor average",
        ),
    ],
}
"""For every optimizer our candidates first, then the peers."""

CYCLES = {"kron": 10, "soap": 10}
"""Steps after which a rule with periodic work begins again; figures are taken over whole cycles."""
