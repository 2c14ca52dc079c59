"""Whether the comparison is fair: blind transfer, an under-tuned baseline, budgets side by side, edges.

Most published speedups over AdamW rest on a baseline tuned less than its rival (Wen et al., arXiv 2509.02046). The
chapter shows with this report's own runs what that would have been worth, and where this comparison itself may be
unfair. What is not known is said in a sentence of the lead, with the runs that would make it known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tuneopt.analysis.coordinates import Edge
from tuneopt.analysis.costs import Budget
from tuneopt.analysis.fairness import Transfer
from tuneopt.analysis.names import optimizer_name, place_name
from tuneopt.reporting.blocks import Block, Chapter, Figure, Fold, Table
from tuneopt.reporting.compare import Comparison
from tuneopt.reporting.figures.fairness import draw_transfer, draw_undertuned, transfer_infos, undertuned_info, was_run
from tuneopt.reporting.palette import position
from tuneopt.reporting.text import NONE, change_text, count_text, listed, plural, value_text

TITLE = "What unfair tuning would have shown"

MOST_ROWS = 30
"""Rows of under-tuned baselines that the page shows at once; more are folded."""

MOST_MATRICES = 4
"""Regimes whose blind transfer is drawn as a matrix; the others are listed in a table."""

LEAST = 1.005
"""Speedups from here on are printed as more than 1.00."""

NAMED = 5
"""Coordinates on an edge that the lead names; of more it gives the number."""


def chapter(comparison: Comparison) -> Chapter:
    """Blind transfer, the under-tuned baseline, budgets and edges.

    An edge counts where several values were tried and the best is the last of them; where one value alone was run,
    only the declared grid can say that it is at an end, and then nothing is known of what lies beyond.
    """
    analysis, baseline = comparison.analysis, optimizer_name(comparison.analysis.baseline)
    lead: list[str] = []
    under = undertuned_info(analysis.undertuned, analysis.baseline, analysis.level)
    rows = 0 if under is None else sum(len(own) for _, own in under.lanes)
    figures = Figure.all("undertuned", [under], draw_undertuned)
    blocks: list[Block] = [*figures] if rows <= MOST_ROWS else [Fold(figure.title, (figure,)) for figure in figures]
    if under is not None:
        lead.append(_worst(comparison))
    else:
        lead.append(
            f"The speedup that an under-tuned {baseline} would have manufactured needs runs of it with other "
            "learning rates than its best: a sweep's star holds them."
        )
    matrices = transfer_infos(analysis.transfer, MOST_MATRICES, comparison.label)
    blocks += [Figure.of(f"transfer-{number}", info, draw_transfer) for number, info in enumerate(matrices)]
    drawn = {info.regime for info in matrices}
    rest = [cell for cell in analysis.transfer if was_run(cell) and cell.regime not in drawn]
    if rest:
        blocks.append(_transfers(rest, comparison).folded())
    if not matrices and not rest:
        lead.append("Blind transfer needs runs of one optimizer at the hyperparameters tuned for another.")
    if any(one.trials > 1 for one in analysis.budgets):
        lead.append(configurations_sentence(analysis.budgets))
        blocks.append(_budgets(analysis.budgets, comparison.several_corpora).folded())
    elif analysis.budgets:
        lead.append("What the tuning of each optimizer has cost is not known: there is one run of it in a regime.")
    tried = [edge for edge in analysis.edges if edge.tried > 1]
    if tried:
        blocks.append(_edges(tried, comparison).folded())
        own: dict[str, list[str]] = {}
        for name, coordinate in sorted({(edge.optimizer, edge.coordinate) for edge in tried}):
            own.setdefault(name, []).append(coordinate)
        names = [f"{optimizer_name(name)}'s {listed(own[name])}" for name in sorted(own, key=position)]
        count = sum(map(len, own.values()))
        shown = "; ".join(names) if count <= NAMED else f"{count} coordinates"
        lead.append(f"Still on an edge of what was tried: {shown}. Beyond it the loss may be lower.")
    declared = sum(edge.tried <= 1 for edge in analysis.edges)
    if declared:
        words = "is the last of its declared grid" if declared == 1 else "are the last of their declared grids"
        lead.append(f"{plural(declared, 'tuned value')} {words}, and no run says what lies beyond.")
    return Chapter("fairness", TITLE, tuple(lead), tuple(blocks))


def _transfers(cells: Sequence[Transfer], comparison: Comparison) -> Table:
    """The blind runs of regimes that have too few of them for a matrix.

    Both speedups are over the same baseline: the one that the blind run would show, and the one of the tuned result.
    """
    rows = tuple(
        (comparison.label(cell.regime), cell.optimizer, cell.donor,
         ", ".join(f"{name} {value_text(value)}" for name, value in cell.taken),
         "diverged" if cell.status == "diverged" else change_text(cell.regret),
         *(NONE if value is None else f"{value:.2f}" for value in (cell.speedup, cell.speedup_tuned)))
        for cell in cells
    )  # fmt: skip
    heads = ("regime", "optimizer", "tuned for", "what it took over", "cost (nats)", "speedup", "speedup when tuned")
    return Table("Blind transfer, as far as runs exist", heads, rows, frozenset({4, 5, 6}))


def _worst(comparison: Comparison) -> str:
    """The largest speedup that an under-tuned baseline manufactures, and those of the learning rate of GPT-3.

    GPT-3's 6e-4 is what many comparisons gave their baseline, whatever its size (Wen et al., arXiv 2509.02046).
    """
    analysis, baseline = comparison.analysis, optimizer_name(comparison.analysis.baseline)
    known = [(one.manufactured, one) for one in analysis.undertuned if one.manufactured is not None]
    tried = [one for one in analysis.undertuned if one.status == "trial"]
    bounds = [(one.at_least, one) for one in tried if one.at_least is not None]
    beyond = sorted(bound for bound, _ in bounds)
    if not known:
        if beyond:
            every = "Every" if len(beyond) == len(tried) else "Some"
            return (
                f"{every} under-tuned {baseline} is worse than the tuned one at its smallest budget, so that it "
                f"manufactures a speedup of more than {beyond[0]:.1f}."
            )
        return f"No under-tuned {baseline} lies where a law says what it would have manufactured."
    amount, worst = max(known, key=lambda pair: pair[0])
    if amount < LEAST and not beyond:
        return f"As far as a law says, no run of {baseline} with another tuning than its best manufactures a speedup."
    upto = f"up to {amount:.2f}"
    if beyond and beyond[-1] > amount:
        bound, worst = max(bounds, key=lambda pair: pair[0])
        upto = f"{bound:.1f} and more"
    words = (
        f"An under-tuned {baseline} manufactures speedups of {upto} ({worst.what} at {comparison.label(worst.regime)})"
    )
    rates = sorted(value for value, one in known if one.gpt3 and one.status != "same")
    gpt3 = [f"{value:.2f}" for value in rates]
    if gpt3:
        span = gpt3[0] if gpt3[0] == gpt3[-1] else f"{gpt3[0]} to {gpt3[-1]}"
        words += f". The learning rate of GPT-3, 6e-4, with everything else tuned, manufactures {span}"
        words += " where that was measured" if any(one.gpt3 for _, one in bounds) else ""
    if beyond:
        broken = any(one.status == "broken" for one in analysis.undertuned)
        ends = " to ".join(dict.fromkeys(f"{bound:.1f}" for bound in (beyond[0], beyond[-1])))
        words += (
            f". {'Besides broken runs, ' if broken else ''}{plural(len(beyond), 'run')} with more than the smallest "
            f"budget did worse than the tuned {baseline} with that one: how much more than {ends} "
            f"{'it manufactures' if len(beyond) == 1 else 'they manufacture'} was not measured"
        )
    return f"{words}."


def configurations_sentence(budgets: Sequence[Budget]) -> str:
    """The most and the fewest configurations that an optimizer had in a regime, on average.

    Seeds are counted apart: to run a configuration again is care, and no further chance.
    """
    regimes: dict[str, list[Budget]] = {}
    for one in budgets:
        regimes.setdefault(one.optimizer, []).append(one)
    tried, trials = sum(one.configurations for one in budgets), sum(one.trials for one in budgets)
    repeated = trials - tried
    verb = "repeats" if repeated == 1 else "repeat"
    again = f" {plural(repeated, 'further run')} {verb} one with another seed." if repeated > 0 else ""
    if len(regimes) < 2:
        counts = sorted({one.configurations for one in budgets})
        own = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
        what = f"{own} configuration{'' if counts[-1] == 1 else 's'}"
        each = f" in each of {len(budgets)} regimes" if len(budgets) > 1 else ""
        return f"{what}{each}, in {plural(trials, 'run')}."
    # By regime, and where several met: runs that only lengthen the law of the baseline are few by design.
    met = Counter((one.corpus, one.scale, one.ratio) for one in budgets)
    shared = {name: [one for one in own if met[one.corpus, one.scale, one.ratio] > 1] for name, own in regimes.items()}
    regimes = {name: own for name, own in shared.items() if own}
    if len(regimes) < 2:
        return f"No two optimizers were tuned in one regime.{again}"
    mean = {name: sum(one.configurations for one in own) / len(own) for name, own in regimes.items()}
    least, most = (pick(mean, key=lambda name: (mean[name], name)) for pick in (min, max))
    if mean[least] == mean[most]:
        return f"Every optimizer was given {_count(mean[most])} in a regime.{again}"
    few, many = (optimizer_name(name) for name in (least, most))
    return (
        f"Tuning budgets differ by up to {mean[most] / mean[least]:.2g} times where optimizers meet: "
        f"{_count(mean[least])} of {few} in a regime, {mean[most]:.3g} of {many}.{again}"
    )


def _count(configurations: float) -> str:
    return f"{configurations:.3g} configuration{'' if configurations == 1 else 's'}"


def _budgets(budgets: Sequence[Budget], several: bool) -> Table:
    """What the tuning of each optimizer cost in each regime; optimizers in the palette's order."""
    rows = tuple(
        (one.optimizer, NONE if one.scale is None or one.ratio is None
         else place_name(one.scale, one.ratio, (one.corpus or "") if several else ""),
         f"{one.configurations:,}", f"{one.trials:,}",
         str(one.diverged), str(one.unproven), count_text(one.tokens), count_text(one.flops),
         NONE if one.device_hours is None else f"{one.device_hours:.3g}")
        for one in sorted(budgets, key=lambda one: position(one.optimizer))
    )  # fmt: skip
    heads = (
        "optimizer",
        "regime",
        "configurations",
        "trials",
        "diverged",
        "unproven",
        "tokens",
        "FLOPs",
        "device-hours",
    )
    note = "Unequal budgets make an unequal comparison; FLOPs count training, not evaluation."
    return Table("Tuning budget of each optimizer", heads, rows, frozenset(range(2, 9)), note)


def _edges(edges: Sequence[Edge], comparison: Comparison) -> Table:
    """The best values at an end of what was tried, with the side and the analysis' reason for calling it an edge."""
    rows = tuple(
        (edge.optimizer, comparison.label(edge.regime), edge.coordinate, value_text(edge.value), edge.side,
         str(edge.tried), edge.why)
        for edge in edges
    )  # fmt: skip
    heads = ("optimizer", "regime", "coordinate", "best value", "edge", "values tried", "why it counts as one")
    return Table("Best values on an edge", heads, rows, frozenset({3, 5}))
