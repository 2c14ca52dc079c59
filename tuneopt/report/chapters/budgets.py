"""What the tuning of each optimizer has cost: by coordinate, where budgets are unequal, and the runs of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tuneopt.analysis.costs import Budget
from tuneopt.report.blocks import Block, Chapter, NamedValues, Table, table_or_fold
from tuneopt.report.compare import Comparison
from tuneopt.report.figure import Figure
from tuneopt.report.figures.budgets import BudgetsInfo, budgets_info, draw_budgets
from tuneopt.report.study import StudyView
from tuneopt.report.text import NONE, count_text, duration_text, listed, percent_text, plural

TITLE = "What tuning has cost"

NAMED = 3
"""Regimes that the sentence on unequal budgets names; of more it gives the number."""


def chapter(study: StudyView | None, comparison: Comparison) -> Chapter:
    """The budget record of a ledger's sweeps; a table of results has none."""
    info = None if study is None else budgets_info(study.views)
    if study is None or info is None:
        return Chapter("budgets", TITLE, ())
    blocks: list[Block] = [Figure.of("spent", info, draw_budgets(info)), table_or_fold(_table(info))]
    if study.runs:
        blocks.append(_runs(study))
    return Chapter("budgets", TITLE, (_whole(info), *_unequal(comparison)), tuple(blocks))


def _whole(info: BudgetsInfo) -> str:
    trials, seconds = sum(row.trials for row in info.rows), sum(row.device_seconds for row in info.rows)
    flops = sum(row.flops for row in info.rows)
    return (
        f"{plural(trials, 'trial')} of {plural(len(info.optimizers), 'optimizer')} took {duration_text(seconds)} of "
        f"device time and {count_text(flops)} training FLOPs."
    )


def _unequal(comparison: Comparison) -> tuple[str, ...]:
    """Where the optimizers of a regime had different numbers of trials, the widest gap first."""
    places: dict[tuple[str | None, str | None, float | None], list[Budget]] = {}
    for each in comparison.analysis.budgets:
        places.setdefault((each.corpus, each.scale, each.ratio), []).append(each)
    shared = {place: held for place, held in places.items() if len({each.optimizer for each in held}) > 1}
    if not shared:
        return ()
    gaps = [_gap(held, several=comparison.several_corpora) for held in shared.values()]
    unequal = sorted((gap for gap in gaps if gap[0] > 1), key=lambda gap: -gap[0])
    if not unequal:
        return (f"In every regime that they share, the optimizers had equally many trials ({len(shared)} regimes).",)
    named = listed(text for _, text in unequal[:NAMED])
    more = f", and {len(unequal) - NAMED} more" if len(unequal) > NAMED else ""
    return (
        f"Budgets are unequal in {len(unequal)} of {plural(len(shared), 'regime')} with several optimizers: "
        f"{named}{more}. An optimizer with more trials had more chances; `tuneopt study run --match-budget` gives all "
        "as many.",
    )


def _gap(held: Sequence[Budget], several: bool) -> tuple[float, str]:
    """How many times the least the most is, and both in words."""
    least, most = (pick(held, key=lambda each: (each.trials, each.optimizer)) for pick in (min, max))
    where = f"{least.scale}/{least.ratio:g}x" + (f" on {least.corpus}" if several else "")
    return most.trials / max(least.trials, 1), (
        f"{where} ({least.trials:,} of {least.optimizer}, {most.trials:,} of {most.optimizer})"
    )


def _table(info: BudgetsInfo) -> Table:
    rows = tuple(
        (row.optimizer, row.phase, row.coordinate, f"{row.trials:,}", str(row.diverged), count_text(row.tokens),
         count_text(row.flops), f"{row.device_seconds / 3600:.3g}")
        for name in info.optimizers
        for row in info.rows
        if row.optimizer == name
    )  # fmt: skip
    heads = ("optimizer", "phase", "spent on", "trials", "diverged", "tokens", "FLOPs", "device-hours")
    note = (
        "Each trial counts once, in the first sweep that needed it. Tokens and FLOPs are those of whole budgets; "
        "device time is what was used, start-up and evaluation included."
    )
    return Table("Budget by optimizer and coordinate", heads, rows, frozenset(range(3, 8)), note)


def _runs(study: StudyView) -> NamedValues:
    """The runs of the studies that the sweeps belong to, each second once."""
    wall = sum(_number(run, "wall_seconds") for run in study.runs)
    room = sum(_number(run, "wall_seconds") * _number(run, "slots") for run in study.runs)
    busy = sum(_number(run, "busy_seconds") for run in (*study.runs, *study.shares))
    unfinished = sum(_number(run, "busy_seconds") for run in study.runs)
    cut = sum(run.get("interrupted") is True for run in study.runs)
    return NamedValues(
        "Runs of the study",
        (
            ("runs", f"{len(study.runs)}" + (f", {cut} of them interrupted" if cut else "")),
            ("wall time", duration_text(wall)),
            ("slots", listed(sorted({f"{_number(run, 'slots'):g}" for run in study.runs}))),
            ("training and evaluation", duration_text(busy)),
            ("in trials that did not end", duration_text(unfinished) if unfinished > 0 else NONE),
            ("slot utilisation", percent_text(busy / room) if room else NONE),
        ),
        "Runs that were killed outright left no account; their trials count above all the same.",
    )


def _number(run: Mapping[str, object], name: str) -> float:
    value = run.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
