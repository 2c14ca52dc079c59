"""tuneopt: fair comparisons of language-model pretraining optimizers.

What a notebook needs is here:

    import tuneopt as to
    answer = to.compare(["adamw", "muon"], "ledger", hours=0.5)     # the whole question, within a budget
    sweep = to.tune("soap", "ledger", scale="nano-65k", ratio=1)    # one optimizer, to its certificate
    answer.plot_speedups()
    to.report("ledger", "reports/mine.html")

A result shows itself (`tuneopt.api.reading`), and gives its rows with ``to_pandas()``. A run that is interrupted keeps
what was finished: the same call goes on from there. `tuneopt.api` has the rest, the optimizers are in `tuneopt.optim`,
records in `tuneopt.ledger`. Importing this package imports neither torch nor ray: names are looked up when they are
used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tuneopt import api as api
    from tuneopt import ledger as ledger
    from tuneopt.api import RunOptions as RunOptions
    from tuneopt.api import compare as compare
    from tuneopt.api import comparison_plan as comparison_plan
    from tuneopt.api import encoded_corpus as encoded_corpus
    from tuneopt.api import export as export
    from tuneopt.api import load_study as load_study
    from tuneopt.api import optimizers as optimizers  # type: ignore[no-redef]  # a module of api has the name too
    from tuneopt.api import plan as plan
    from tuneopt.api import plot_curves as plot_curves
    from tuneopt.api import plot_flips as plot_flips
    from tuneopt.api import plot_speedups as plot_speedups
    from tuneopt.api import plot_star as plot_star
    from tuneopt.api import predict as predict
    from tuneopt.api import report as report
    from tuneopt.api import run_study
    from tuneopt.api import sample as sample
    from tuneopt.api import scale_facts as scale_facts
    from tuneopt.api import simulate_comparison as simulate_comparison
    from tuneopt.api import simulate_study as simulate_study
    from tuneopt.api import single_trial as single_trial
    from tuneopt.api import space_of as space_of
    from tuneopt.api import study_plan as study_plan
    from tuneopt.api import study_status as study_status
    from tuneopt.api import train as train
    from tuneopt.api import tune as tune
    from tuneopt.ledger import Ledger as Ledger
    from tuneopt.ledger import open_ledger as open_ledger
    from tuneopt.spec import InputError as InputError
    from tuneopt.spec import Regime as Regime
    from tuneopt.spec import Scale as Scale
    from tuneopt.spec import TrialSpec as TrialSpec

    study = run_study

__version__ = "0.1.0"

_PACKAGES = ("api", "ledger")

_HOMES = {
    "tuneopt.api": (
        "RunOptions", "compare", "comparison_plan", "encoded_corpus", "export", "load_study", "optimizers", "plan",
        "plot_curves", "plot_flips", "plot_speedups", "plot_star", "predict", "report", "sample", "scale_facts",
        "simulate_comparison", "simulate_study", "single_trial", "space_of", "study_plan", "study_status", "train",
        "tune",
    ),
    "tuneopt.ledger": ("Ledger", "open_ledger"),
    "tuneopt.spec": ("InputError", "Regime", "Scale", "TrialSpec"),
}  # fmt: skip

_RENAMED = {"study": ("tuneopt.api", "run_study")}
"""Here verbs and nouns of the command line; there ``study`` is what a study is called that one holds."""

_HOME = {**{name: (home, name) for home, names in _HOMES.items() for name in names}, **_RENAMED}

__all__ = ["__version__", *_PACKAGES, *_HOME]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"tuneopt.{name}")
    if name in _HOME:
        home, own = _HOME[name]
        return getattr(import_module(home), own)
    raise AttributeError(f"module 'tuneopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
