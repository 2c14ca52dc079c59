"""Provenance of a comparison: its sources, the trials behind each result, and how each figure is made again.

Files are named by their contents (SHA-256) and ledgers by their address. The commands can be copied, and with the same
sources they give the same file byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence

from tuneopt.reporting import provenance
from tuneopt.reporting.blocks import Block, Chapter, Command, Fold, NamedValues, Prose, Table, figures_of
from tuneopt.reporting.compare import Comparison
from tuneopt.reporting.sources import Material
from tuneopt.reporting.text import loss_text, plural, value_text

TITLE = "Provenance"

MOST = 2000
"""Results that the table of trials lists."""

FUNCTIONS = {
    "speedup-by-ratio": "speedups",
    "speedup-by-size": "speedups",
    "flips-by-ratio": "rankings",
    "flips-by-size": "rankings",
    "crossings": "training_orders",
    "speedups": "speedups",
    "laws": "speedups",
    "joint": "joint_factors",
    "residuals": "joint_residuals",
    "distances": "rankings",
    "losses": "rankings",
    "training": "training_orders",
    "training-trials": "training_orders",
    "undertuned": "undertuned_runs",
    "spent": "tuneopt.search.study.spent.spent",
    "transfer": "transfers",
    "regrets": "sensitivities",
    "exponents": "hyper_scaling",
    "pareto": "pareto_points",
    "races": "targets.to_target",
}
"""The function of the analysis, or of another package, that gives a figure's numbers, by its key without its number."""


def chapter(material: Material, comparison: Comparison, before: Sequence[Chapter], sweeps: int) -> Chapter:
    """Where every number comes from; folded, because it is for the tenth question.

    ``before`` are the chapters whose figures are listed; a page of one sweep has none and shows its trials itself.
    """
    blocks: list[Block] = [Command("How to make this report again", material.command),
                           Fold("How to cite", (Command("How to cite", citation(material)),))]  # fmt: skip
    blocks += [Fold(origin.name, (NamedValues(origin.name, origin.facts),)) for origin in material.origins]
    if material.inputs.notes:
        notes = Prose(tuple(f"{note[:1].upper()}{note[1:]}." for note in material.inputs.notes))
        blocks.append(Fold("What the sources do not say", (notes,)))
    if material.study is not None:
        environment = provenance.environment(material.study.views)
        blocks.append(Fold(environment.title, (environment,)))
        if material.study.other_trials:
            others, own = plural(material.study.other_trials, "further trial"), "this sweep" if sweeps == 1 else (
                "these sweeps")  # fmt: skip
            told = [f"The ledger holds {others} outside {own}."]
            if replaced := material.study.replaced:
                which = (
                    "One sweep of an earlier plan is" if replaced == 1 else f"{replaced} sweeps of earlier plans are"
                )
                told.append(f"{which} not shown: the study's newest plan has others in their place.")
            blocks.append(Prose(tuple(told)))
    for table in (*([_results(comparison)] if sweeps != 1 else []), _figures(material, before)):
        if table.rows:
            blocks.append(Fold(table.title, (table,)))
    return Chapter("provenance", TITLE, (), tuple(blocks))


STUDY = """@article{wen2025fantastic,
  title   = {Fantastic Pretraining Optimizers and Where to Find Them},
  author  = {Wen, Kaiyue and Hall, David and Ma, Tengyu and Liang, Percy},
  journal = {arXiv preprint arXiv:2509.02046},
  year    = {2025}
}"""
"""The study whose losses `tuneopt.analysis.inputs.published` holds, and whose method speedups follow."""


def citation(material: Material) -> str:
    """What to cite for the numbers of a report, as BibTeX: the report with its command and sources, and the study.

    Sources are named with what identifies them, so that a reader can tell whether a file is the same.
    """
    told = "; ".join(
        f"{origin.name}" + "".join(f", {name} {value}" for name, value in origin.facts if name == "SHA-256")
        for origin in material.origins
    )
    note = f"`{material.command}`, from {told}"
    own = "\n".join([
        "@misc{tuneopt_report,", "  title = {tuneopt report: a comparison of pretraining optimizers},",
        f"  note  = {{{note.replace('{', '(').replace('}', ')')}}}", "}",
    ])  # fmt: skip
    return f"{own}\n\n{STUDY}"


def _results(comparison: Comparison) -> Table:
    """The trials that each result averages, and the one configuration that they share."""
    rows = tuple(
        (comparison.label(one.regime), one.optimizer, loss_text(one.loss), ", ".join(one.trials),
         ", ".join(f"{name} {value_text(value)}" for name, value in one.config))
        for one in comparison.analysis.winners[:MOST]
    )  # fmt: skip
    heads = ("regime", "optimizer", "report loss (nats)", "trials averaged", "configuration")
    return Table("Trials and configuration behind each result", heads, rows, frozenset({2}))


def _figures(material: Material, before: Sequence[Chapter]) -> Table:
    """The command behind each figure, and the function that gives its numbers in Python.

    A figure whose key is not in `FUNCTIONS` is an error: no figure goes without a way to its numbers.
    """
    rows = []
    for part in before:
        for figure in figures_of(part.blocks):
            name = FUNCTIONS[figure.key.rstrip("0123456789").rstrip("-")]
            function = name if "." in name else f"tuneopt.analysis.{name}"
            rows.append((part.title, figure.title, f"{material.command} -o report.html", f"#{figure.key}", function))
    heads = ("chapter", "figure", "command", "place in the file", "numbers in Python")
    return Table("How each figure is made again", heads, tuple(rows))
