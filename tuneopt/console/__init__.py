"""What the command line shows to people: tables on stdout, progress and notes on stderr."""

from tuneopt.console.corpora import corpus, preparing
from tuneopt.console.exports import exported, exported_model
from tuneopt.console.ledgers import cleaned
from tuneopt.console.listings import findings, optimizers, space
from tuneopt.console.plain import err, loss, number, out, pairs, say, span, table
from tuneopt.console.prediction import prediction
from tuneopt.console.reports import report_summary
from tuneopt.console.searches import search_summary
from tuneopt.console.studies import study_plan, study_spent, study_status
from tuneopt.console.sweeps import cost, sweep_summary
from tuneopt.console.trials import events, record, trials

__all__ = [
    "cleaned",
    "corpus",
    "cost",
    "err",
    "events",
    "exported",
    "exported_model",
    "findings",
    "loss",
    "number",
    "optimizers",
    "out",
    "pairs",
    "prediction",
    "preparing",
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
