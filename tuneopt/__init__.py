"""tuneopt: fair comparisons of language-model pretraining optimizers.

What a notebook needs is here, by the names of `tuneopt.api`:

    import tuneopt as to
    sweep, corpus = to.plan("soap", scale="nano-65k", ratio=1)
    result = to.tune(sweep, "ledger", backend="inline")
    to.api.report("ledger", "reports/mine.html")

`to.api` has the rest; `train` and `report` stay there, because here they are the names of packages. The optimizers are
in `tuneopt.optim`. Importing this package imports neither torch nor ray: names are looked up when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneopt import api as api
    from tuneopt.api import RunOptions as RunOptions
    from tuneopt.api import compare as compare
    from tuneopt.api import comparison_plan as comparison_plan
    from tuneopt.api import export as export
    from tuneopt.api import load_study as load_study
    from tuneopt.api import plan as plan
    from tuneopt.api import plot_curves as plot_curves
    from tuneopt.api import plot_flips as plot_flips
    from tuneopt.api import plot_speedups as plot_speedups
    from tuneopt.api import predict as predict
    from tuneopt.api import run_study as run_study
    from tuneopt.api import sample as sample
    from tuneopt.api import simulate_study as simulate_study
    from tuneopt.api import single_trial as single_trial
    from tuneopt.api import study_plan as study_plan
    from tuneopt.api import study_status as study_status
    from tuneopt.api import tune as tune
    from tuneopt.api.optimizers import optimizers as optimizers
    from tuneopt.ledger import Ledger as Ledger
    from tuneopt.ledger import open_ledger as open_ledger
    from tuneopt.spec import Regime as Regime
    from tuneopt.spec import TrialSpec as TrialSpec

__version__ = "0.1.0"

_HOMES = {
    "tuneopt.api": (
        "RunOptions", "compare", "comparison_plan", "export", "load_study", "optimizers", "plan", "plot_curves",
        "plot_flips", "plot_speedups", "predict", "run_study", "sample", "simulate_study", "single_trial",
        "study_plan", "study_status", "tune",
    ),
    "tuneopt.ledger": ("Ledger", "open_ledger"),
    "tuneopt.spec": ("Regime", "TrialSpec"),
}  # fmt: skip
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", "api", *_HOME]


def __getattr__(name: str) -> Any:
    if name == "api":
        return import_module("tuneopt.api")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'tuneopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
