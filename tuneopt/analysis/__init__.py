"""What finished trials say: noise, loss laws, speedups, rankings, flips, unfairness, sensitivity, costs.

Pure numpy and scipy over one table; nothing here trains, and neither torch nor ray is imported. The names below take a
ledger's table, rows or the path of a results file; most return a pyarrow table (docs/analysis.md). The values and
functions behind them are in the modules. Names resolve lazily.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneopt.analysis.best import choose
    from tuneopt.analysis.document import summary
    from tuneopt.analysis.inputs import Inputs, from_ledger, from_rows
    from tuneopt.analysis.load import read_results
    from tuneopt.analysis.noise import measure
    from tuneopt.analysis.runs import RegimeKey, Run, read_runs
    from tuneopt.analysis.study import Analysis, analyse
    from tuneopt.analysis.tables import (
        as_table,
        budgets,
        coordinate_scaling,
        cost_ranks,
        edge_values,
        hyper_scaling,
        joint_factors,
        joint_residuals,
        leaders,
        order_flips,
        pareto_points,
        rankings,
        sensitivities,
        speedups,
        training_orders,
        transfers,
        undertuned_runs,
    )

_HOMES = {
    "best": ("choose",),
    "inputs": ("Inputs", "from_ledger", "from_rows"),
    "load": ("read_results",),
    "noise": ("measure",),
    "runs": ("RegimeKey", "Run", "read_runs"),
    "study": ("Analysis", "analyse"),
    "tables": (
        "as_table",
        "budgets",
        "coordinate_scaling",
        "cost_ranks",
        "edge_values",
        "hyper_scaling",
        "joint_factors",
        "joint_residuals",
        "leaders",
        "order_flips",
        "pareto_points",
        "rankings",
        "sensitivities",
        "speedups",
        "training_orders",
        "transfers",
        "undertuned_runs",
    ),
}

_HOME_OF = {name: home for home, names in _HOMES.items() for name in names} | {"summary": "document"}

__all__ = [
    "Analysis",
    "Inputs",
    "RegimeKey",
    "Run",
    "analyse",
    "as_table",
    "budgets",
    "choose",
    "coordinate_scaling",
    "cost_ranks",
    "edge_values",
    "from_ledger",
    "from_rows",
    "hyper_scaling",
    "joint_factors",
    "joint_residuals",
    "leaders",
    "measure",
    "order_flips",
    "pareto_points",
    "rankings",
    "read_results",
    "read_runs",
    "sensitivities",
    "speedups",
    "summary",
    "training_orders",
    "transfers",
    "undertuned_runs",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
