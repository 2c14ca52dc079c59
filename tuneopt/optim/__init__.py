"""Optimizers of language-model pretraining, with parameter routing and a proof that the named rule ran.

`create` builds one by name for a model; `info` lists what there is. An optimizer is a file: its update function, which
is the formula, and a thin class. Around them stand `routing` (which parameter gets which rule), `hyperparameters` (what
may be set, and its bounds), `rule` and `base` (the step over buckets of equal shapes), and `proof` with `reference`
(the update check).

Importing this package imports no torch: `info` answers without it, everything else loads on first use. Names are
listed twice below: for type checkers, which do not run `__getattr__`, and for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tuneopt.errors import InputError
from tuneopt.optim.info import OptimizerInfo as OptimizerInfo
from tuneopt.optim.info import info as info

if TYPE_CHECKING:
    from tuneopt.optim.adam_mini import AdamMini as AdamMini
    from tuneopt.optim.adamw import AdamW as AdamW
    from tuneopt.optim.ademamix import AdEMAMix as AdEMAMix
    from tuneopt.optim.adopt import ADOPT as ADOPT
    from tuneopt.optim.base import Optimizer as Optimizer
    from tuneopt.optim.base import Parameters as Parameters
    from tuneopt.optim.cautious import Cautious as Cautious
    from tuneopt.optim.dion import Dion as Dion
    from tuneopt.optim.factory import create as create
    from tuneopt.optim.factory import describe as describe
    from tuneopt.optim.hyperparameters import Bounds as Bounds
    from tuneopt.optim.hyperparameters import Count as Count
    from tuneopt.optim.hyperparameters import DecayRate as DecayRate
    from tuneopt.optim.hyperparameters import Index as Index
    from tuneopt.optim.hyperparameters import NotNegative as NotNegative
    from tuneopt.optim.hyperparameters import OneOf as OneOf
    from tuneopt.optim.hyperparameters import Only as Only
    from tuneopt.optim.hyperparameters import Positive as Positive
    from tuneopt.optim.hyperparameters import ScalesRate as ScalesRate
    from tuneopt.optim.hyperparameters import Settings as Settings
    from tuneopt.optim.hyperparameters import settings_of as settings_of
    from tuneopt.optim.kron import Kron as Kron
    from tuneopt.optim.lion import Lion as Lion
    from tuneopt.optim.mars import MARS as MARS
    from tuneopt.optim.muon import Muon as Muon
    from tuneopt.optim.nadamw import NAdamW as NAdamW
    from tuneopt.optim.prodigy import Prodigy as Prodigy
    from tuneopt.optim.proof import Check as Check
    from tuneopt.optim.proof import Proof as Proof
    from tuneopt.optim.proof import UpdateCheck as UpdateCheck
    from tuneopt.optim.reference import Reference as Reference
    from tuneopt.optim.routing import DEFAULT_RULES as DEFAULT_RULES
    from tuneopt.optim.routing import Route as Route
    from tuneopt.optim.routing import RouteRule as RouteRule
    from tuneopt.optim.routing import route_table as route_table
    from tuneopt.optim.rule import ElementwiseRule as ElementwiseRule
    from tuneopt.optim.rule import MatrixRule as MatrixRule
    from tuneopt.optim.rule import Rule as Rule
    from tuneopt.optim.rule import Shape as Shape
    from tuneopt.optim.schedule_free import ScheduleFree as ScheduleFree
    from tuneopt.optim.scion import Scion as Scion
    from tuneopt.optim.sf_muon import SFMuon as SFMuon
    from tuneopt.optim.shampoo import Shampoo as Shampoo
    from tuneopt.optim.soap import SOAP as SOAP
    from tuneopt.optim.sophia import Sophia as Sophia

_PARTS = {
    "adam_mini": ("AdamMini",),
    "ademamix": ("AdEMAMix",),
    "adopt": ("ADOPT",),
    "adamw": ("AdamW",),
    "base": ("Optimizer", "Parameters"),
    "cautious": ("Cautious",),
    "dion": ("Dion",),
    "factory": ("create", "describe"),
    "hyperparameters": ("Bounds", "Count", "DecayRate", "Index", "NotNegative", "OneOf", "Only", "Positive",
                        "ScalesRate", "Settings", "settings_of"),
    "kron": ("Kron",),
    "lion": ("Lion",),
    "mars": ("MARS",),
    "muon": ("Muon",),
    "nadamw": ("NAdamW",),
    "prodigy": ("Prodigy",),
    "proof": ("Check", "Proof", "UpdateCheck"),
    "reference": ("Reference",),
    "routing": ("DEFAULT_RULES", "Route", "RouteRule", "route_table"),
    "rule": ("ElementwiseRule", "MatrixRule", "Rule", "Shape"),
    "schedule_free": ("ScheduleFree",),
    "scion": ("Scion",),
    "sf_muon": ("SFMuon",),
    "shampoo": ("Shampoo",),
    "soap": ("SOAP",),
    "sophia": ("Sophia",),
}  # fmt: skip
"""Modules and what they offer here: the optimizers, and what a class from outside tuneopt is made of
(docs/bring-your-own-optimizer.md)."""

_HOMES = {name: module for module, names in _PARTS.items() for name in names}

_GONE = ("Invariant", "Moment", "Subject", "Tally", "excess", "relative", "visible")
"""What files of users imported while a rule was proven by an invariant."""


def __getattr__(name: str) -> Any:
    # Answered by name, because "has no attribute" would not say what to write instead.
    if name in _GONE:
        raise InputError(
            f"tuneopt.optim.{name} is gone: leave out the invariant, and give the class its formula as `reference` "
            "(docs/bring-your-own-optimizer.md), or nothing for a generic proof"
        )
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
