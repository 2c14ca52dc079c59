"""What the command line shows to people: tables on stdout, progress and notes on stderr."""

from tuneopt.console.plain import err, loss, number, out, pairs, say, span, table
from tuneopt.console.searches import search_summary
from tuneopt.console.studies import study_plan, study_spent, study_status
from tuneopt.console.sweeps import cost, sweep_summary
from tuneopt.console.trials import events, record, trials

__all__ = [
    "cost",
    "err",
    "events",
    "loss",
    "number",
    "out",
    "pairs",
    "record",
    "say",
    "search_summary",
    "span",
    "study_plan",
    "study_spent",
    "study_status",
    "sweep_summary",
    "table",
    "trials",
]
