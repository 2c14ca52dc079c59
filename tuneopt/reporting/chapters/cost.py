"""Two chapters on cost: what the tuning of each optimizer took, and rankings by seconds, FLOPs, memory and bytes.

A speedup in tokens is not one on the clock: a matrix optimizer pays for its update with time and with state. And an
optimizer that was tuned with more trials had more chances. Both chapters give the numbers and leave the weighing to
the reader. Seconds are device-seconds (seconds times devices) of the hardware that ran, never a prediction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from tuneopt.analysis.costs import Budget
from tuneopt.analysis.names import optimizer_name
from tuneopt.analysis.runs import RegimeKey
from tuneopt.reporting.blocks import Block, Chapter, Figure, NamedValues, Table
from tuneopt.reporting.compare import Comparison
from tuneopt.reporting.figures.costs import BudgetsInfo, budgets_info, draw_budgets, draw_pareto, pareto_info
from tuneopt.reporting.figures.speedups import MARKS, interval_text, mark_of
from tuneopt.reporting.study import StudyView
from tuneopt.reporting.text import NONE, bytes_text, count_text, duration_text, listed, loss_text, percent_text, plural

NAMED = 3
"""Regimes that the sentence on unequal budgets names; of more it gives the number."""


def chapter(comparison: Comparison) -> Chapter:
    """Rankings by every measure that was recorded.

    FLOPs alone say too little for a chapter: they follow from tokens and model, and are there for every table.
    """
    analysis = comparison.analysis
    if not any(any((one.seconds, one.peak_bytes, one.checkpoint_bytes)) for one in analysis.costs):
        need = "Rankings by seconds, memory and checkpoint size need columns seconds, peak_bytes and checkpoint_bytes"
        return Chapter("cost", "Cost", (f"{need}; trials of a ledger bring them.",))
    blocks: list[Block] = [*Figure.all("pareto", [pareto_info(analysis.pareto)], draw_pareto)]
    return Chapter("cost", "Cost", (_sentence(comparison),), (*blocks, _rankings(comparison).folded()))


def _sentence(comparison: Comparison) -> str:
    """How many token speedups survive on the clock, and the largest that does.

    Counted are speedups above 1 in tokens; the baseline is left out, being 1 by definition.
    """
    both = [
        (one, one.speedup, one.speedup_seconds)
        for one in comparison.analysis.costs
        if one.optimizer != comparison.analysis.baseline and one.speedup is not None and one.speedup_seconds is not None
    ]
    if not both:
        return "Tokens are not the only price: the table ranks each regime by every cost that was measured."
    faster = [seconds for _, tokens, seconds in both if tokens > 1]
    best, in_tokens, in_seconds = max(both, key=lambda known: known[2])
    marks = _marks(comparison)
    ends = best.speedup_seconds_high
    still = sum(seconds > 1 for seconds in faster)
    first = (
        f"Of {len(faster):,} speedups above 1 in tokens, {still} {'remains' if still == 1 else 'remain'} above 1 in "
        "seconds."
        if len(faster) > 1
        else f"The one speedup above 1 in tokens {'remains' if still else 'is not'} above 1 in seconds."
        if faster
        else "No speedup is above 1 in tokens."
    )
    return (
        f"{first} The largest in seconds is {interval_text(in_seconds, best.speedup_seconds_low, ends)}, of "
        f"{optimizer_name(best.optimizer)} at {comparison.label(best.regime)} ({in_tokens:.2f} in tokens"
        f"{', not measured but extrapolated, interpolated or a bound' if marks[best.regime, best.optimizer] else ''}). "
        "Seconds go by the median speed of an optimizer's trials on the machines that ran them."
    )


def _marks(comparison: Comparison) -> dict[tuple[RegimeKey, str], str]:
    """The mark behind each speedup in tokens, and so behind those in seconds and FLOPs that follow from it."""
    return {(one.regime, one.optimizer): mark_of(one) for one in comparison.analysis.speedups}


def _rankings(comparison: Comparison) -> Table:
    """Each result by every cost, with its place in the regime in brackets behind what was ranked.

    A measure has a place only where the analysis could rank it: where several optimizers of the regime recorded it. One
    that no run recorded has no column.
    """
    rows, marks = [], _marks(comparison)
    for one in comparison.analysis.costs:
        ranks, mark = dict(one.ranks), marks.get((one.regime, one.optimizer), "")
        measures = (
            ("loss", loss_text(one.loss)), ("seconds", duration_text(one.seconds)), ("flops", count_text(one.flops)),
            ("peak_bytes", bytes_text(one.peak_bytes)), ("checkpoint_bytes", bytes_text(one.checkpoint_bytes)),
        )  # fmt: skip
        speedups = (one.speedup, one.speedup_seconds, one.speedup_flops)
        rows.append((
            comparison.label(one.regime),
            one.optimizer,
            *(f"{text} ({ranks[name]})" if ranks.get(name) is not None else text for name, text in measures),
            *(NONE if value is None else f"{value:.2f}{mark}" for value in speedups),
        ))  # fmt: skip
    heads = ("regime", "optimizer", "report loss (nats)", "training time", "FLOPs", "peak memory", "checkpoint",
             "speedup in tokens", "in seconds", "in FLOPs")  # fmt: skip
    note = "In brackets the place in the regime, 1 being the best. Times are device-seconds of one trial."
    if any(one.speedup_seconds is not None for one in comparison.analysis.costs):
        note += " The speedup in seconds goes by the median tokens per second of an optimizer's trials."
    if any(row[-3].endswith("*") for row in rows):
        note += f" {MARKS}"
    kept = [at for at in range(len(heads)) if any(row[at] != NONE for row in rows)]
    shown = tuple(tuple(row[at] for at in kept) for row in rows)
    return Table("Rankings by cost", tuple(heads[at] for at in kept), shown, frozenset(range(2, len(kept))), note)


def budgets_chapter(study: StudyView | None, comparison: Comparison) -> Chapter:
    """The budget record of a ledger's sweeps; a table of results has none."""
    title = "What tuning has cost"
    info = None if study is None else budgets_info(study.views)
    if study is None or info is None:
        return Chapter("budgets", title, ())
    trials, seconds = sum(row.trials for row in info.rows), sum(row.device_seconds for row in info.rows)
    whole = (
        f"{plural(trials, 'trial')} of {plural(len(info.optimizers), 'optimizer')} took {duration_text(seconds)} of "
        f"device time and {count_text(sum(row.flops for row in info.rows))} training FLOPs."
    )
    blocks: list[Block] = [Figure.of("spent", info, draw_budgets), _budget(info).folded()]
    if study.runs:
        blocks.append(_runs(study))
    return Chapter("budgets", title, (whole, *_unequal(comparison)), tuple(blocks))


def _unequal(comparison: Comparison) -> tuple[str, ...]:
    """Where the optimizers of a regime had different numbers of configurations, the widest gap first.

    Seeds of a configuration are not counted: they are no further chance.

    Regimes are compared one by one: sums over regimes would hide that one optimizer was tuned at another scale.
    """
    places: dict[tuple[str | None, str | None, float | None], list[Budget]] = {}
    for one in comparison.analysis.budgets:
        places.setdefault((one.corpus, one.scale, one.ratio), []).append(one)
    shared = [own for own in places.values() if len({one.optimizer for one in own}) > 1]
    if not shared:
        return ()
    gaps = []
    for own in shared:
        least, most = (pick(own, key=lambda one: (one.configurations, one.optimizer)) for pick in (min, max))
        where = f"{least.scale}/{least.ratio:g}x" + (f" on {least.corpus}" if comparison.several_corpora else "")
        words = (
            f"{where} ({plural(least.configurations, 'configuration')} of {least.optimizer}, "
            f"{most.configurations:,} of {most.optimizer})"
        )
        gaps.append((most.configurations / max(least.configurations, 1), words))
    unequal = sorted((gap for gap in gaps if gap[0] > 1), key=lambda gap: -gap[0])
    if not unequal:
        where = "the one regime" if len(shared) == 1 else f"all {len(shared)} regimes"
        return (f"The optimizers had equally many configurations in {where} that they share.",)
    named = listed(text for _, text in unequal[:NAMED])
    more = f", and {len(unequal) - NAMED} more" if len(unequal) > NAMED else ""
    first = (
        f"Budgets are unequal in the one regime with several optimizers: {named}."
        if len(shared) == 1
        else f"Budgets are unequal in {len(unequal)} of {len(shared)} regimes with several optimizers: {named}{more}."
    )
    return (
        f"{first} An optimizer with more configurations had more chances; `tuneopt study run --match-budget` "
        "gives all as many.",
    )


def _budget(info: BudgetsInfo) -> Table:
    """The rows of the figure in full: what the map sums up over phases, and its tokens, FLOPs and device-hours."""
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
    """The runs of the studies that the sweeps belong to.

    A run's busy seconds are those of trials that did not end; what ended is in the shares of its sweeps. So each second
    counts once.
    """

    def total(runs: Sequence[Mapping[str, object]], *names: str) -> float:
        return sum(math.prod(_number(run.get(name)) for name in names) for run in runs)

    wall, room = total(study.runs, "wall_seconds"), total(study.runs, "wall_seconds", "slots")
    unfinished = total(study.runs, "busy_seconds")
    busy = unfinished + total(study.shares, "busy_seconds")
    cut = sum(run.get("interrupted") is True for run in study.runs)
    return NamedValues(
        "Runs of the study",
        (
            ("runs", f"{len(study.runs)}" + (f", {cut} of them interrupted" if cut else "")),
            ("wall time", duration_text(wall)),
            ("slots", listed(sorted({f"{_number(run.get('slots')):g}" for run in study.runs}))),
            ("training and evaluation", duration_text(busy)),
            ("in trials that did not end", duration_text(unfinished) if unfinished > 0 else NONE),
            ("slot utilisation", percent_text(busy / room) if room else NONE),
        ),
        "Runs that were killed outright left no account; their trials count above all the same.",
    )


def _number(value: object) -> float:
    # Accounts may be of another release: a field that is missing or is no number counts as 0.
    return float(value) if isinstance(value, int | float) else 0.0
