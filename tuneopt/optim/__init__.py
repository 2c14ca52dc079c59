"""Optimizers of language-model pretraining, with parameter routing and a proof that the named rule ran.

Importing this package imports no torch: `info` answers without it, everything else loads on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tuneopt.errors import InputError
from tuneopt.optim.info import OptimizerInfo, info

if TYPE_CHECKING:
    from tuneopt.optim.adam_mini import AdamMini
    from tuneopt.optim.adamw import AdamW
    from tuneopt.optim.base import Optimizer, Parameters
    from tuneopt.optim.cautious import Cautious
    from tuneopt.optim.factory import create, describe
    from tuneopt.optim.hyperparameters import Bounds, Settings
    from tuneopt.optim.kron import Kron
    from tuneopt.optim.lion import Lion
    from tuneopt.optim.mars import MARS
    from tuneopt.optim.muon import Muon
    from tuneopt.optim.nadamw import NAdamW
    from tuneopt.optim.proof import Check, Proof, UpdateCheck
    from tuneopt.optim.reference import Reference
    from tuneopt.optim.routing import DEFAULT_RULES, Route, RouteRule, route_table
    from tuneopt.optim.rule import ElementwiseRule, MatrixRule, Rule, Shape
    from tuneopt.optim.scion import Scion
    from tuneopt.optim.soap import SOAP
    from tuneopt.optim.sophia import Sophia

__all__ = [
    "DEFAULT_RULES",
    "MARS",
    "SOAP",
    "AdamMini",
    "AdamW",
    "Bounds",
    "Cautious",
    "Check",
    "ElementwiseRule",
    "Kron",
    "Lion",
    "MatrixRule",
    "Muon",
    "NAdamW",
    "Optimizer",
    "OptimizerInfo",
    "Parameters",
    "Proof",
    "Reference",
    "Route",
    "RouteRule",
    "Rule",
    "Scion",
    "Settings",
    "Shape",
    "Sophia",
    "UpdateCheck",
    "create",
    "describe",
    "info",
    "route_table",
]

_HOMES = {
    "AdamMini": "adam_mini",
    "AdamW": "adamw",
    "Cautious": "cautious",
    "Kron": "kron",
    "Lion": "lion",
    "MARS": "mars",
    "Muon": "muon",
    "NAdamW": "nadamw",
    "SOAP": "soap",
    "Scion": "scion",
    "Sophia": "sophia",
    "Optimizer": "base",
    "Parameters": "base",
    "create": "factory",
    "describe": "factory",
    "Check": "proof",
    "Proof": "proof",
    "Reference": "reference",
    "UpdateCheck": "proof",
    "DEFAULT_RULES": "routing",
    "Route": "routing",
    "RouteRule": "routing",
    "route_table": "routing",
    "ElementwiseRule": "rule",
    "MatrixRule": "rule",
    "Rule": "rule",
    "Shape": "rule",
    "Bounds": "hyperparameters",
    "Settings": "hyperparameters",
}
"""The second part is what a class from outside tuneopt is made of: docs/bring-your-own-optimizer.md."""


_GONE = ("Invariant", "Moment", "Subject", "Tally", "excess", "relative", "visible")
"""What files of users imported while a rule was proven by an invariant."""


def __getattr__(name: str) -> Any:
    if name in _GONE:
        raise InputError(
            f"tuneopt.optim.{name} is gone: leave out the invariant, and give the class its formula as `reference` "
            "(docs/bring-your-own-optimizer.md), or nothing for a generic proof"
        )
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
