"""tuneopt: fair comparisons of language-model pretraining optimizers.

The public API is in `tuneopt.api`; `tuneopt.optim` holds the optimizers. Importing this package imports neither torch
nor ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneopt import api as api
    from tuneopt.ledger import Ledger as Ledger
    from tuneopt.spec import Regime as Regime
    from tuneopt.spec import TrialSpec as TrialSpec

__version__ = "0.1.0"
__all__ = ["Ledger", "Regime", "TrialSpec", "__version__", "api"]

_HOMES = {"Ledger": "tuneopt.ledger", "Regime": "tuneopt.spec", "TrialSpec": "tuneopt.spec"}


def __getattr__(name: str) -> Any:
    if name == "api":
        return import_module("tuneopt.api")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tuneopt' has no attribute {name!r}")
