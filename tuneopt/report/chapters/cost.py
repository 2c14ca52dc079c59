"""The same ranking by what it costs: seconds, FLOPs, peak memory and checkpoint bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuneopt.report.blocks import Block, Chapter, Table, table_or_fold
from tuneopt.report.compare import Comparison
from tuneopt.report.figure import Figure
from tuneopt.report.figures.pareto import draw_pareto, pareto_info
from tuneopt.report.text import NONE, bytes_text, count_text, duration_text, loss_text

if TYPE_CHECKING:
    from tuneopt.analysis.costs import Cost

TITLE = "Cost"

MISSING = (
    "Rankings by seconds, memory and checkpoint size need columns seconds, peak_bytes and checkpoint_bytes; trials of "
    "a ledger bring them."
)


def chapter(comparison: Comparison) -> Chapter:
    """Rankings by every measure that was recorded; FLOPs alone say too little for a chapter."""
    analysis = comparison.analysis
    measured = [each for each in analysis.costs if any((each.seconds, each.peak_bytes, each.checkpoint_bytes))]
    if not measured:
        return Chapter("cost", TITLE, (MISSING,))
    blocks: list[Block] = []
    pareto = pareto_info(analysis.pareto)
    if pareto is not None:
        blocks.append(Figure.of("pareto", pareto, draw_pareto(pareto)))
    blocks.append(table_or_fold(_table(comparison)))
    return Chapter("cost", TITLE, (_sentence(comparison),), tuple(blocks))


def _sentence(comparison: Comparison) -> str:
    """How many token speedups survive on the clock."""
    baseline = comparison.analysis.baseline
    rivals = [each for each in comparison.analysis.costs if each.optimizer != baseline]
    both = [each for each in rivals if each.speedup is not None and each.speedup_seconds is not None]
    if not both:
        return "Tokens are not the only price: the table ranks each regime by every cost that was measured."
    faster = [each for each in both if (each.speedup or 0) > 1]
    kept = [each for each in faster if (each.speedup_seconds or 0) > 1]
    best = max(both, key=lambda each: each.speedup_seconds or 0.0)
    return (
        f"Of {len(faster)} speedups above 1 in tokens, {len(kept)} remain above 1 in seconds; the largest in seconds "
        f"is {best.optimizer} at {comparison.label(best.regime)} with {best.speedup_seconds:.2f} ({best.speedup:.2f} "
        "in tokens). Seconds are those of the hardware in the provenance below."
    )


def _table(comparison: Comparison) -> Table:
    rows = tuple(
        (comparison.label(each.regime), each.optimizer, _rank(each, "loss", loss_text(each.loss)),
         _rank(each, "seconds", duration_text(each.seconds)), _rank(each, "flops", count_text(each.flops)),
         _rank(each, "peak_bytes", bytes_text(each.peak_bytes)),
         _rank(each, "checkpoint_bytes", bytes_text(each.checkpoint_bytes)),
         *(NONE if value is None else f"{value:.2f}"
           for value in (each.speedup, each.speedup_seconds, each.speedup_flops)))
        for each in comparison.analysis.costs
    )  # fmt: skip
    heads = ("regime", "optimizer", "report loss (nats)", "training time", "FLOPs", "peak memory", "checkpoint",
             "speedup in tokens", "in seconds", "in FLOPs")  # fmt: skip
    note = "In brackets the place in the regime, 1 being the best; times are device-seconds of one trial."
    return Table("Rankings by cost", heads, rows, frozenset(range(2, 10)), note)


def _rank(each: Cost, measure: str, text: str) -> str:
    rank = dict(each.ranks).get(measure)
    return text if rank is None else f"{text} ({rank})"
