"""The public Python API: the same steps that the command line takes, as functions.

from tuneopt import api
sweep, corpus = api.plan("soap", scale="nano-65k", ratio=1)
result = api.tune(sweep, "ledger")
"""

from tuneopt.api.budgets import chosen_coordinates
from tuneopt.api.comparing import compare, comparison_plan, run_comparison, simulate_comparison
from tuneopt.api.comparison_results import ComparisonPlan, ComparisonResult
from tuneopt.api.corpora import CorpusAccount, encoded_corpus, inspect_corpus, prepare_corpus, regime_on
from tuneopt.api.devices import placed, placement_of
from tuneopt.api.ledgers import clean, compact, export, mend, pack, unpack, verify
from tuneopt.api.optimizers import optimizers, space_of
from tuneopt.api.own_models import ModelFacts, chosen_scale, model_facts, own_model
from tuneopt.api.plots import plot_curves, plot_flips, plot_speedups, plot_star
from tuneopt.api.prediction import PredictedConfig, predict
from tuneopt.api.questions import page_name
from tuneopt.api.reports import Report, report
from tuneopt.api.results import SearchResult, SweepCost, SweepResult
from tuneopt.api.scales import ScaleFacts, scale_facts, scale_notes
from tuneopt.api.simulations import simulate_study
from tuneopt.api.step_times import Speed
from tuneopt.api.studies import load_study, report_baseline, run_study, study_plan, study_status
from tuneopt.api.study_results import SimulatedStudy, StudyResult
from tuneopt.api.sweeps import (
    check_backend,
    check_budget,
    cost,
    plan,
    sample,
    single_trial,
    train,
    tune,
)
from tuneopt.api.weights import export_model
from tuneopt.run.options import RunOptions
from tuneopt.search.sampled import SampledSearch, check_names

__all__ = [
    "ComparisonPlan",
    "ComparisonResult",
    "CorpusAccount",
    "ModelFacts",
    "PredictedConfig",
    "Report",
    "RunOptions",
    "SampledSearch",
    "ScaleFacts",
    "SearchResult",
    "SimulatedStudy",
    "Speed",
    "StudyResult",
    "SweepCost",
    "SweepResult",
    "check_backend",
    "check_budget",
    "check_names",
    "chosen_coordinates",
    "chosen_scale",
    "clean",
    "compact",
    "compare",
    "comparison_plan",
    "cost",
    "encoded_corpus",
    "export",
    "export_model",
    "inspect_corpus",
    "load_study",
    "mend",
    "model_facts",
    "optimizers",
    "own_model",
    "pack",
    "page_name",
    "placed",
    "placement_of",
    "plan",
    "plot_curves",
    "plot_flips",
    "plot_speedups",
    "plot_star",
    "predict",
    "prepare_corpus",
    "regime_on",
    "report",
    "report_baseline",
    "run_comparison",
    "run_study",
    "sample",
    "scale_facts",
    "scale_notes",
    "simulate_comparison",
    "simulate_study",
    "single_trial",
    "space_of",
    "study_plan",
    "study_status",
    "train",
    "tune",
    "unpack",
    "verify",
]
