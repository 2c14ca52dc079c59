"""Whether the comparison is fair: blind transfer, an under-tuned baseline, budgets side by side, edges."""

from __future__ import annotations

from collections.abc import Sequence

from tuneopt.analysis.coordinates import Edge
from tuneopt.analysis.costs import Budget
from tuneopt.analysis.fairness import Transfer
from tuneopt.report.blocks import Block, Chapter, Table, table_or_fold
from tuneopt.report.compare import Comparison
from tuneopt.report.figure import Figure
from tuneopt.report.figures.transfer import draw_transfer, transfer_infos, was_run
from tuneopt.report.figures.undertuned import draw_undertuned, undertuned_info
from tuneopt.report.palette import position
from tuneopt.report.text import NONE, change_text, count_text, listed, plural, value_text

TITLE = "What unfair tuning would have shown"

MOST_MATRICES = 4


def chapter(comparison: Comparison) -> Chapter:
    """Blind transfer, the under-tuned baseline, budgets and edges; what is not known is said in a sentence."""
    analysis = comparison.analysis
    lead: list[str] = []
    blocks: list[Block] = []
    under = undertuned_info(analysis.undertuned, analysis.baseline, analysis.level)
    if under is not None:
        blocks.append(Figure.of("undertuned", under, draw_undertuned(under)))
        lead.append(_worst(comparison))
    else:
        lead.append(
            f"The speedup that an under-tuned {analysis.baseline} would have manufactured needs runs of it with other "
            "learning rates than its best: a sweep's star holds them."
        )
    matrices = transfer_infos(analysis.transfer, MOST_MATRICES, comparison.label)
    blocks += [Figure.of(f"transfer-{number}", info, draw_transfer(info)) for number, info in enumerate(matrices)]
    drawn = {info.regime for info in matrices}
    rest = [cell for cell in analysis.transfer if was_run(cell) and cell.regime not in drawn]
    if rest:
        blocks.append(table_or_fold(_transfers(rest, comparison)))
    if not matrices and not rest:
        lead.append("Blind transfer needs runs of one optimizer at the hyperparameters tuned for another.")
    if any(each.trials > 1 for each in analysis.budgets):
        lead.append(_unequal(analysis.budgets))
        blocks.append(table_or_fold(_budgets(comparison)))
    else:
        lead.append("What the tuning of each optimizer has cost is not known: there is one run of it in a regime.")
    tried = [edge for edge in analysis.edges if edge.tried > 1]
    if tried:
        blocks.append(table_or_fold(_edges(tried, comparison)))
        names = sorted({f"{edge.optimizer}'s {edge.coordinate}" for edge in tried})
        shown = listed(names) if len(names) <= 5 else f"{len(names)} coordinates"
        lead.append(f"Still on an edge of what was tried: {shown}; beyond it the loss may be lower.")
    declared = [edge for edge in analysis.edges if edge.tried <= 1]
    if declared:
        words = "ends the declared grid" if len(declared) == 1 else "end the declared grids"
        lead.append(f"{plural(len(declared), 'tuned value')} {words}, and no run says what lies beyond.")
    return Chapter("fairness", TITLE, tuple(lead), tuple(blocks))


def _transfers(cells: Sequence[Transfer], comparison: Comparison) -> Table:
    """The blind runs of regimes that have too few of them for a matrix."""
    rows = tuple(
        (comparison.label(cell.regime), cell.optimizer, cell.donor,
         ", ".join(f"{name} {value_text(value)}" for name, value in cell.taken),
         "diverged" if cell.status == "diverged" else change_text(cell.regret),
         NONE if cell.speedup is None else f"{cell.speedup:.2f}",
         NONE if cell.speedup_tuned is None else f"{cell.speedup_tuned:.2f}")
        for cell in cells
    )  # fmt: skip
    heads = ("regime", "optimizer", "tuned for", "what it took over", "cost (nats)", "speedup", "speedup when tuned")
    return Table("Blind transfer, as far as runs exist", heads, rows, frozenset({4, 5, 6}))


def _worst(comparison: Comparison) -> str:
    known = [each for each in comparison.analysis.undertuned if each.manufactured is not None]
    baseline = comparison.analysis.baseline
    if not known:
        return f"Every under-tuned {baseline} diverged or lies at a scale without a law."
    worst = max(known, key=lambda each: each.manufactured or 0.0)
    gpt3 = [each for each in known if each.gpt3]
    found = (
        f"An under-tuned {baseline} manufactures speedups of up to {worst.manufactured:.2f} "
        f"({worst.what} at {comparison.label(worst.regime)})"
    )
    if gpt3:
        low, high = (pick(each.manufactured or 0.0 for each in gpt3) for pick in (min, max))
        span = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
        found += f"; the learning rate of GPT-3, 6e-4, with everything else tuned, one of {span}"
    return found + "."


def _unequal(budgets: Sequence[Budget]) -> str:
    trials: dict[str, int] = {}
    for each in budgets:
        trials[each.optimizer] = trials.get(each.optimizer, 0) + each.trials
    if len(trials) < 2:
        return f"{plural(sum(trials.values()), 'trial')} in all."
    least, most = min(trials, key=lambda name: (trials[name], name)), max(trials, key=lambda name: (trials[name], name))
    if trials[least] == trials[most]:
        return f"Every optimizer was given {plural(trials[most], 'trial')}."
    return (
        f"Tuning budgets differ by up to {trials[most] / trials[least]:.1f} times: {trials[least]:,} trials of "
        f"{least}, {trials[most]:,} of {most}."
    )


def _budgets(comparison: Comparison) -> Table:
    """What the tuning of each optimizer cost in each regime."""
    budgets = sorted(comparison.analysis.budgets, key=lambda each: position(each.optimizer))
    return Table(
        "Tuning budget of each optimizer",
        ("optimizer", "regime", "trials", "diverged", "unproven", "tokens", "FLOPs", "device-hours"),
        tuple(
            (each.optimizer, NONE if each.scale is None else f"{each.scale}/{each.ratio:g}x", f"{each.trials:,}",
             str(each.diverged), str(each.unproven), count_text(each.tokens), count_text(each.flops),
             NONE if each.device_hours is None else f"{each.device_hours:.3g}")
            for each in budgets
        ),
        frozenset(range(2, 8)),
        "Unequal budgets make an unequal comparison; FLOPs count training, not evaluation.",
    )  # fmt: skip


def _edges(found: Sequence[Edge], comparison: Comparison) -> Table:
    rows = tuple(
        (each.optimizer, comparison.label(each.regime), each.coordinate, value_text(each.value), each.side,
         str(each.tried), each.why)
        for each in found
    )  # fmt: skip
    heads = ("optimizer", "regime", "coordinate", "best value", "edge", "values tried", "why it counts as one")
    return Table("Best values on an edge", heads, rows, frozenset({3, 5}))
