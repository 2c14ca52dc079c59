"""The public Python API: the same steps that the command line takes, as functions.

from tuneopt import api
sweep, corpus = api.plan("soap", scale="nano-65k", ratio=1)
result = api.tune(sweep, "ledger")
"""

from tuneopt.api.corpora import VOCAB_SIZES, inspect_corpus, regime_on
from tuneopt.api.reports import report
from tuneopt.api.sweeps import cost, plan, regime_dict, single_trial, summary, train, tune
from tuneopt.api.words import parse_assignments, parse_value, parse_values

__all__ = [
    "VOCAB_SIZES",
    "cost",
    "inspect_corpus",
    "parse_assignments",
    "parse_value",
    "parse_values",
    "plan",
    "regime_dict",
    "regime_on",
    "report",
    "single_trial",
    "summary",
    "train",
    "tune",
]
