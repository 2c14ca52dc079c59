"""Optimizers of language-model pretraining, with parameter routing and a proof that the named rule ran.

Importing this package imports no torch: `info` answers without it, everything else loads on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tuneopt.optim.info import OptimizerInfo, info

if TYPE_CHECKING:
    from tuneopt.optim.adam_mini import AdamMini
    from tuneopt.optim.adamw import AdamW
    from tuneopt.optim.base import Optimizer
    from tuneopt.optim.cautious import Cautious
    from tuneopt.optim.factory import create
    from tuneopt.optim.kron import Kron
    from tuneopt.optim.lion import Lion
    from tuneopt.optim.mars import MARS
    from tuneopt.optim.muon import Muon
    from tuneopt.optim.nadamw import NAdamW
    from tuneopt.optim.proof import Check, Proof, Witness
    from tuneopt.optim.routing import Route, RouteRule, route_table
    from tuneopt.optim.scion import Scion
    from tuneopt.optim.soap import SOAP
    from tuneopt.optim.sophia import Sophia

__all__ = [
    "MARS",
    "SOAP",
    "AdamMini",
    "AdamW",
    "Cautious",
    "Check",
    "Kron",
    "Lion",
    "Muon",
    "NAdamW",
    "Optimizer",
    "OptimizerInfo",
    "Proof",
    "Route",
    "RouteRule",
    "Scion",
    "Sophia",
    "Witness",
    "create",
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
    "create": "factory",
    "Check": "proof",
    "Proof": "proof",
    "Witness": "proof",
    "Route": "routing",
    "RouteRule": "routing",
    "route_table": "routing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
