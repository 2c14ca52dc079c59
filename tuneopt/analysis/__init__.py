"""What finished trials say: noise, loss laws, speedups, rankings, flips, unfairness, sensitivity, costs.

Pure numpy and scipy over typed runs; nothing here trains, and neither torch nor ray is imported. The names below take a
ledger, a table, rows or the path of a results file; most return a pyarrow table (docs/analysis.md). The values and
functions behind them are in the modules. Names resolve lazily, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES = {
    "document": ("summary",),
    "inputs": ("Inputs", "from_ledger", "from_rows", "load", "published", "read_runs"),
    "noise": ("measure",),
    "results": ("read_results",),
    "runs": ("RegimeKey", "TrainingRun"),
    "study": ("Analysis", "analyse"),
    "tables": (
        "as_table",
        "budgets",
        "coordinate_scaling",
        "cost_ranks",
        "edge_values",
        "frontier_speedups",
        "hyper_scaling",
        "joint_factors",
        "joint_residuals",
        "leaders",
        "order_flips",
        "pareto_points",
        "rankings",
        "sensitivities",
        "speedups",
        "target_costs",
        "training_orders",
        "transfers",
        "undertuned_runs",
    ),
    "winner": ("Winner", "winners"),
}

_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
