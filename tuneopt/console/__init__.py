"""What the command line shows to people: tables on stdout, progress and notes on stderr."""

from tuneopt.console.exports import exported
from tuneopt.console.listings import corpus, findings, optimizers, space
from tuneopt.console.plain import err, loss, number, out, pairs, say, span, table
from tuneopt.console.prediction import prediction
from tuneopt.console.reports import report_summary
from tuneopt.console.searches import search_summary
from tuneopt.console.studies import study_plan, study_spent, study_status
from tuneopt.console.sweeps import cost, sweep_summary
from tuneopt.console.trials import record, trials

__all__ = [
    "corpus",
    "cost",
    "err",
    "exported",
    "findings",
    "loss",
    "number",
    "optimizers",
    "out",
    "pairs",
    "prediction",
    "record",
    "report_summary",
    "say",
    "search_summary",
    "space",
    "span",
    "study_plan",
    "study_spent",
    "study_status",
    "sweep_summary",
    "table",
    "trials",
]
