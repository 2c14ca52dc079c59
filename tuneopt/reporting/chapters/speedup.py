"""By how much: speedups over the baseline, their bands, the laws behind them, and the joint fit as a second opinion.

A speedup of an optimizer in a regime is D_eff / D: the tokens at which the baseline's law reaches its loss, over the
tokens that it used (Wen et al., arXiv 2509.02046). Remarks of the analysis go with every number: whether it was
interpolated between two results, extrapolated beyond the law's data, or is a bound only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tuneopt.analysis.frontier import Frontier
from tuneopt.analysis.names import in_words, optimizer_name, ratio_span, scale_name
from tuneopt.analysis.speedup import Speedup, above_one
from tuneopt.reporting.blocks import Block, Chapter, Figure, Fold, Prose, Table, figures_of
from tuneopt.reporting.compare import Comparison
from tuneopt.reporting.figures.laws import draw_laws, laws_info
from tuneopt.reporting.figures.savings import SavingsInfo, draw_savings, savings_info
from tuneopt.reporting.figures.speedups import (
    ResidualsInfo,
    draw_joint,
    draw_residuals,
    draw_speedups,
    interval_text,
    joint_info,
    measured,
    rivals_of,
    speedups_infos,
)
from tuneopt.reporting.text import NONE, listed, loss_text, percent_text

TITLE = "Speedup"

DETAILS = "Behind the speedups"

MOST_ROWS = 8
"""Speedups over a frontier that the page lists; the figure shows all, and more are folded."""

MOST_RESIDUALS = 4
"""Corpora whose joint fit gets a figure of residuals."""


def chapter(comparison: Comparison) -> Chapter:
    """The speedups by ratio and by size, the figures that people come for, or what would make them known."""
    analysis = comparison.analysis
    rivals = _rivals(comparison)
    over_sizes = _frontiers(comparison)
    if not rivals and over_sizes:
        over = Figure.all("speedup-by-size", _over_sizes(comparison), draw_savings)
        lead = frontier_sentences(comparison) if analysis.laws else ()  # without laws they stand on the first screen
        return Chapter("speedup", TITLE, lead, (*over, *(table.folded(MOST_ROWS) for table in over_sizes)))
    if not rivals:
        name = optimizer_name(analysis.baseline)
        need = f"A speedup needs {name} at two ratios or more (better three) of a scale, and another optimizer there."
        if analysis.laws and len(comparison.optimizers) > 1:
            need = f"The losses of {name} give no law at any scale, so there is no speedup: a warning says why."
        return Chapter("speedup", TITLE, (need,))
    blocks: list[Block] = []
    for by in ("ratio", "size"):
        trends = [one.sentence for one in analysis.findings if one.kind == "trend"] if by == "size" else []
        told = in_words(trends[0]).removesuffix(".") if trends else ""
        info = savings_info(rivals, comparison.scales, by, analysis.baseline, analysis.level, told)
        drawn = Figure.all(f"speedup-by-{by}", [info], draw_savings)
        # The same speedups a second time would keep the flips off the second screen: their finding is the fold's name.
        blocks += [Fold(figure.title, (figure,)) for figure in drawn] if blocks else drawn
    # At one ratio of one scale rows are all that can be drawn.
    blocks = blocks or list(Figure.all("speedups", speedups_infos(comparison), draw_speedups))
    if over_sizes:  # a second measure of the same, where there are speedups in tokens
        blocks.append(Fold(over_sizes[0].title, (Prose(frontier_sentences(comparison)), *over_sizes)))
    return Chapter("speedup", TITLE, (), tuple(blocks))


def _over_sizes(comparison: Comparison) -> list[SavingsInfo]:
    """The speedups in compute of each frontier by size: its ratios are about equal, and stand in one panel."""
    analysis, infos = comparison.analysis, []
    for frontier in analysis.frontiers:
        ratio = min(one.regime.ratio for one in frontier.speedups)
        line = [replace(one, regime=one.regime._replace(ratio=ratio)) for one in frontier.speedups]
        told = f"Speedup in compute over {optimizer_name(analysis.baseline)}'s frontier of sizes"
        info = savings_info(line, comparison.scales, "size", analysis.baseline, analysis.level, told)
        title = ratio_span([one.regime.ratio for one in frontier.speedups])
        panels = () if info is None else tuple((title, own) for _, own in info.panels)
        infos += [] if info is None else [replace(info, what="compute", panels=panels)]
    return infos


def details(comparison: Comparison) -> Chapter:
    """What stands behind the first figures, folded: every speedup, the laws that they are read from, the joint fit."""
    analysis, rivals = comparison.analysis, _rivals(comparison)
    if not rivals:
        return Chapter("details", DETAILS, ())
    laws = laws_info(analysis.laws, analysis.winners, analysis.speedups, analysis.baseline)
    drawn = {figure.key for figure in figures_of(chapter(comparison).blocks)}
    rows = [figure for figure in Figure.all("speedups", speedups_infos(comparison), draw_speedups)
            if figure.key not in drawn]  # fmt: skip
    blocks: list[Block] = [
        Fold(_all(len(rivals)), (*rows, _table(comparison, rivals))),
        *(Fold(figure.title, (figure,)) for figure in Figure.all("laws", [laws], draw_laws)),
    ]
    joint = _joint(comparison, rivals)
    if joint:
        words = tuple(Prose((text,)) for text in _joint_sentence(comparison))
        blocks.append(Fold("A second opinion on the speedups: one factor per optimizer from a joint fit",
                           (*words, *joint)))  # fmt: skip
    return Chapter("details", DETAILS, (_sentence(comparison, rivals),), tuple(blocks))


def _all(count: int) -> str:
    """The name of the fold that holds every speedup."""
    few = {1: "The speedup with its interval", 2: "Both speedups with their intervals"}
    return few.get(count, f"All {count:,} speedups with their intervals")


def _frontiers(comparison: Comparison) -> list[Table]:
    """Speedups in compute over the baseline's sizes, a table for each line of about equal ratios."""
    tables = []
    for front in comparison.analysis.frontiers:
        rows = tuple(
            (comparison.label(one.regime), optimizer_name(one.optimizer), loss_text(one.loss),
             interval_text(one.speedup, one.low, one.high), ", ".join(one.flags))
            for one in front.speedups
            if one.optimizer != comparison.analysis.baseline
        )  # fmt: skip
        measure = "FLOPs as the table counts them" if front.measure == "flops" else "6 N D FLOPs"
        note = (
            "The compute at which the baseline, grown in size and tokens, reaches the loss, over that of the optimizer "
            f"({measure})."
        )
        if not rows:  # nobody but the baseline was run along this line
            continue
        heads = ("regime", "optimizer", "report loss (nats)", "speedup in compute", "remarks")
        tables.append(Table("Speedup in compute over a frontier of sizes", heads, rows, frozenset({2, 3}), note))
    return tables


def frontier_sentences(comparison: Comparison) -> tuple[str, ...]:
    """For each frontier the optimizer that saves most, from its smallest to its largest size."""
    sentences = []
    for front in comparison.analysis.frontiers:
        rivals = [one for one in front.speedups if one.optimizer != comparison.analysis.baseline]
        if not rivals:
            continue
        totals: dict[str, list[float]] = {}
        for one in rivals:
            totals.setdefault(one.optimizer, []).append(one.speedup)
        best = max(totals, key=lambda name: (sum(totals[name]) / len(totals[name]), name))
        own = [one for one in rivals if one.optimizer == best]
        words = ", ".join(
            f"{interval_text(one.speedup, one.low, one.high)} at {scale_name(one.regime.scale)}"
            f"{' (extrapolated)' if 'extrapolated' in one.flags else ''}"
            for one in own
        )
        over = f"{optimizer_name(comparison.analysis.baseline)}'s frontier of sizes"
        begin = "In" if comparison.analysis.laws else "Each scale has about one ratio, so speedups are in"
        on = f" on {front.corpus}" if comparison.several_corpora and front.corpus else ""
        sentences.append(
            f"{begin} compute, over {over}{on}: {optimizer_name(best)} {words}.{_off_line(comparison, front)}"
        )
    return tuple(sentences)


def _off_line(comparison: Comparison, front: Frontier) -> str:
    """Scales that a frontier leaves out although the baseline and others met there, as a further sentence."""
    met = [one.regime for one in comparison.analysis.rankings if one.regime.corpus == front.corpus]
    met = [regime for regime in met if (regime, comparison.analysis.baseline) in comparison.winners]
    on = {winner.regime.scale for winner in front.law.winners}
    off = [name for name in comparison.scales if name not in on and any(regime.scale == name for regime in met)]
    if not off or comparison.analysis.laws or len(comparison.analysis.frontiers) > 1:
        return ""
    ratio, verb = ("another ratio", "is") if len(off) == 1 else ("other ratios", "are")
    return f" {listed(map(scale_name, off))}, at {ratio}, {verb} not on it."


def _rivals(comparison: Comparison) -> list[Speedup]:
    """The speedups of all optimizers but the baseline, whose own is 1 by definition; without a law there is none."""
    rivals = (one for one in comparison.analysis.speedups if one.optimizer != comparison.analysis.baseline)
    return [one for one in rivals if "no law" not in one.flags]


def _sentence(comparison: Comparison, rivals: Sequence[Speedup]) -> str:
    """How many speedups are above 1 and below 1 beyond noise, and the largest that was measured, with its interval.

    A lone speedup is the largest one.
    """
    name, level = optimizer_name(comparison.analysis.baseline), percent_text(comparison.analysis.level)
    above = sum(above_one(one.low, one.flags) for one in rivals)
    below = sum(one.high is not None and one.high < 1 for one in rivals)
    unknown = sum(one.low is None and one.high is None for one in rivals)
    known = [one for one in rivals if measured(one)]
    largest = ""
    best = max(known, key=lambda one: one.speedup, default=None)
    # The largest of speedups that are all as good as 1 is chance.
    if best is not None and not (best.low is not None and best.low <= 1 <= (best.high or math.inf)):
        word = "It is" if len(rivals) == 1 else "The largest that was measured is"
        largest = (
            f" {word} {interval_text(best.speedup, best.low, best.high)}, of "
            f"{optimizer_name(best.optimizer)} at {comparison.label(best.regime)}."
        )
    rest = len(rivals) - len(known)
    if len(rivals) == 1:
        if unknown:
            return f"The one speedup over {name} has no interval, the noise being unknown.{largest}"
        side = "above 1" if above else "below 1" if below else "on both sides of 1"
        return f"The {level} interval of the one speedup over {name} lies {side}.{largest}"
    beyond = all(one.extrapolated or measured(one) for one in rivals)
    rests = f"outside the budgets of {name}" if beyond else f"outside {name}'s runs or rest on two of them alone"
    some = f"{rest} of {'the ' + str(len(rivals)) if unknown == len(rivals) else 'them'}"
    guessed = f" {'All' if rest == len(rivals) else some} {'lies' if rest == 1 else 'lie'} {rests}." if rest else ""
    if unknown == len(rivals):
        return f"No speedup over {name} has an interval, the noise being unknown.{guessed}{largest}"

    def counted(count: int) -> str:
        return f"{count or 'none'} {'has' if count < 2 else 'have'}"

    without = f", and {counted(unknown)} none, the noise being unknown" if unknown else ""
    joined = f"{counted(above)} a {level} interval above 1{',' if unknown else ' and'}"
    return (
        f"Of {len(rivals):,} speedups over {name}, {joined} {counted(below)} one below it{without}.{guessed}{largest}"
    )


def _joint_sentence(comparison: Comparison) -> list[str]:
    """What the joint fit gives, and whether its own test rejects it (the flag ``misfit``).

    The first fit is the one over all scales of the first corpus; its three largest factors are named.
    """
    fits = comparison.analysis.joint
    rivals = rivals_of(fits[0], comparison.analysis.baseline) if fits else []
    if not rivals:
        return []
    named = ", ".join(
        f"{optimizer_name(one.optimizer)} {interval_text(one.factor or 0.0, one.low, one.high)}" for one in rivals[:3]
    )
    verdict = (
        " That is more than noise explains: one factor per optimizer is too simple, and no regime is described by it."
        if "misfit" in fits[0].flags
        else ""
    )
    return [
        f"A joint fit with one exponent ({fits[0].exponent:.3f}) and one factor per optimizer gives {named} over all "
        f"regimes. It misses the losses by {fits[0].rms:.4f} nats.{verdict}"
    ]


def _joint(comparison: Comparison, rivals: Sequence[Speedup]) -> list[Figure]:
    """The joint factors with the span of single speedups, and for each corpus what its fit over all scales misses."""
    analysis = comparison.analysis
    single: dict[tuple[str, str | None, str], tuple[float, float]] = {}
    for one in rivals:
        for scale in (None, one.regime.scale):
            key = (one.regime.corpus, scale, one.optimizer)
            low, high = single.get(key, (one.speedup, one.speedup))
            single[key] = (min(low, one.speedup), max(high, one.speedup))
    info = joint_info(analysis.joint, single, analysis.baseline, analysis.level)
    if info is None:
        return []
    first = {fit.corpus: fit for fit in reversed(analysis.joint)}  # a corpus' fit over all scales comes first
    residuals = []
    for corpus in list(dict.fromkeys(fit.corpus for fit in analysis.joint))[:MOST_RESIDUALS]:
        if first[corpus].residuals:
            noise = [analysis.noise.of(one.regime, one.optimizer) for one in first[corpus].residuals]
            sigma = max((known.sigma for known in noise if known is not None), default=None)
            residuals.append(ResidualsInfo(first[corpus], sigma))
    return [*Figure.all("joint", [info], draw_joint), *Figure.all("residuals", residuals, draw_residuals)]


def _table(comparison: Comparison, rivals: Sequence[Speedup]) -> Table:
    """Every speedup with three digits, its interval and its remarks: what the figures round and leave out."""
    rows = tuple(
        (comparison.label(one.regime), one.optimizer, loss_text(one.loss), f"{one.speedup:.3f}",
         NONE if one.low is None else f"{one.low:.3f}",
         ("open" if one.low is not None else NONE) if one.high is None else f"{one.high:.3f}",
         str(one.runs), ", ".join(one.flags))
        for one in rivals
    )  # fmt: skip
    heads = ("regime", "optimizer", "report loss (nats)", "speedup", "low", "high", "seeds", "remarks")
    return Table("Speedups", heads, rows, frozenset({2, 3, 4, 5, 6}))
