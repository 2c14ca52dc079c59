"""What the command line shows to people: tables on stdout, progress and notes on stderr."""

from tuneopt.console.listings import corpus, findings, optimizers, space
from tuneopt.console.plain import err, loss, number, out, pairs, say, span, table
from tuneopt.console.reports import report_summary
from tuneopt.console.sweeps import cost, sweep_summary
from tuneopt.console.trials import record, trials

__all__ = [
    "corpus",
    "cost",
    "err",
    "findings",
    "loss",
    "number",
    "optimizers",
    "out",
    "pairs",
    "record",
    "report_summary",
    "say",
    "space",
    "span",
    "sweep_summary",
    "table",
    "trials",
]
