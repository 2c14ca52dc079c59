"""What finished trials say: noise, loss laws, speedups, rankings, flips, sensitivity, budgets.

Pure numpy and scipy over one table; nothing here trains, and neither torch nor ray is imported. Names resolve lazily.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneopt.analysis.best import Result, choose
    from tuneopt.analysis.budget import Budget, budgets
    from tuneopt.analysis.curves import Agreement, agreement, align, training_flips
    from tuneopt.analysis.document import summary, warnings
    from tuneopt.analysis.flips import Flip, regime_flips
    from tuneopt.analysis.load import read_results
    from tuneopt.analysis.noise import Noise, NoiseModel, measure
    from tuneopt.analysis.ranking import Ranking, rankings
    from tuneopt.analysis.runs import RegimeKey, Run, read_runs
    from tuneopt.analysis.scaling import Law, fit
    from tuneopt.analysis.sensitivity import Sensitivity, sensitivities, star
    from tuneopt.analysis.speedup import Speedup, baseline_laws, speedups
    from tuneopt.analysis.tables import as_table

_HOMES = {
    "best": ("Result", "choose"),
    "budget": ("Budget", "budgets"),
    "curves": ("Agreement", "agreement", "align", "training_flips"),
    "flips": ("Flip", "regime_flips"),
    "load": ("read_results",),
    "noise": ("Noise", "NoiseModel", "measure"),
    "ranking": ("Ranking", "rankings"),
    "runs": ("RegimeKey", "Run", "read_runs"),
    "scaling": ("Law", "fit"),
    "sensitivity": ("Sensitivity", "sensitivities", "star"),
    "speedup": ("Speedup", "baseline_laws", "speedups"),
    "document": ("summary", "warnings"),
    "tables": ("as_table",),
}

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Agreement",
    "Budget",
    "Flip",
    "Law",
    "Noise",
    "NoiseModel",
    "Ranking",
    "RegimeKey",
    "Result",
    "Run",
    "Sensitivity",
    "Speedup",
    "agreement",
    "align",
    "as_table",
    "baseline_laws",
    "budgets",
    "choose",
    "fit",
    "measure",
    "rankings",
    "read_results",
    "read_runs",
    "regime_flips",
    "sensitivities",
    "speedups",
    "star",
    "summary",
    "training_flips",
    "warnings",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
