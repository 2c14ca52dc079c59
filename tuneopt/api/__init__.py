"""The public Python API: the same steps that the command line takes, as functions.

from tuneopt import api
sweep, corpus = api.plan("soap", scale="nano-65k", ratio=1)
result = api.tune(sweep, "ledger")
"""

from tuneopt.api.corpora import VOCAB_SIZES, CorpusAccount, inspect_corpus, prepare_corpus, regime_on
from tuneopt.api.ledgers import clean, export
from tuneopt.api.optimizers import optimizers, space_of
from tuneopt.api.prediction import predict
from tuneopt.api.reports import report
from tuneopt.api.searches import sample, search_cost, search_summary
from tuneopt.api.simulation import simulate_study
from tuneopt.api.speed import Speed
from tuneopt.api.studies import load_study, run_study, study_plan, study_status
from tuneopt.api.sweeps import cost, placed, placement_of, plan, regime_dict, single_trial, summary, train, tune
from tuneopt.api.weights import export_model
from tuneopt.api.words import parse_assignments, parse_value, parse_values
from tuneopt.search.sampled import SampledSearch, check_names

__all__ = [
    "VOCAB_SIZES",
    "CorpusAccount",
    "SampledSearch",
    "Speed",
    "check_names",
    "clean",
    "cost",
    "export",
    "export_model",
    "inspect_corpus",
    "load_study",
    "optimizers",
    "parse_assignments",
    "parse_value",
    "parse_values",
    "placed",
    "placement_of",
    "plan",
    "predict",
    "prepare_corpus",
    "regime_dict",
    "regime_on",
    "report",
    "run_study",
    "sample",
    "search_cost",
    "search_summary",
    "simulate_study",
    "single_trial",
    "space_of",
    "study_plan",
    "study_status",
    "summary",
    "train",
    "tune",
]
