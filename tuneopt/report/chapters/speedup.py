"""By how much: speedups over the baseline, their bands, the laws behind them, and the joint fit as a second opinion.

A speedup of an optimizer in a regime is D_eff / D: the tokens at which the baseline's law reaches its loss, over the
tokens that it used (Wen et al., arXiv 2509.02046). Remarks of the analysis go with every number: whether it was
interpolated between two results, extrapolated beyond the law's data, or is a bound only.
"""

from __future__ import annotations

from collections.abc import Sequence

from tuneopt.analysis.speedup import Speedup
from tuneopt.report.blocks import Block, Chapter, Figure, Table
from tuneopt.report.compare import Comparison
from tuneopt.report.figures.against import against_scale_info, draw_against_scale
from tuneopt.report.figures.laws import draw_laws, laws_info
from tuneopt.report.figures.speedups import (
    PUBLISHED_BAND,
    ResidualsInfo,
    draw_joint,
    draw_residuals,
    draw_speedups,
    interval_text,
    joint_info,
    rivals_of,
    speedups_infos,
)
from tuneopt.report.text import NONE, loss_text, percent_text, plural

TITLE = "Speedup"

MOST_RESIDUALS = 4
"""Corpora whose joint fit gets a figure of residuals."""


def chapter(comparison: Comparison) -> Chapter:
    """The speedups, or a sentence on what would make them known.

    Figures come from the coarse to the fine: against scale, the rows of every regime, the laws that they are read from,
    and the joint fit with its residuals.
    """
    analysis = comparison.analysis
    rivals = [one for one in analysis.speedups if one.optimizer != analysis.baseline]
    if not rivals:
        need = f"A speedup needs {analysis.baseline} at two ratios or more (better three) of a scale, and another "
        return Chapter("speedup", TITLE, (f"{need}optimizer there.",))
    scales = against_scale_info(rivals, comparison.scales, analysis.baseline, analysis.level)
    laws = laws_info(analysis.laws, analysis.winners, analysis.speedups, analysis.baseline)
    blocks: list[Block] = [
        *Figure.all("against-scale", [scales], draw_against_scale),
        _bands(comparison, rivals),
        *Figure.all("speedups", speedups_infos(comparison), draw_speedups),
        *Figure.all("laws", [laws], draw_laws),
        *_joint(comparison, rivals),
        _table(comparison, rivals).folded(),
    ]
    lead = (_band_sentence(comparison, rivals), *_joint_sentence(comparison))
    return Chapter("speedup", TITLE, lead, tuple(blocks))


def _band_sentence(comparison: Comparison, rivals: Sequence[Speedup]) -> str:
    """How many speedups lie in the published band, and the largest with its interval.

    Above the band, those are counted apart whose whole interval is: one that reaches into the band does not contradict
    the paper.
    """
    low, high = PUBLISHED_BAND
    inside = sum(low <= one.speedup <= high for one in rivals)
    above = [one for one in rivals if one.speedup > high]
    sure = sum(one.low is not None and one.low > high for one in above)
    best = max(rivals, key=lambda one: one.speedup)
    whole = "none" if sure == 0 else "all" if sure == len(above) else str(sure)
    beyond = f"{len(above)} above ({whole} of them with the whole interval)" if above else "none above"
    return (
        f"Of {plural(len(rivals), 'speedup')} over {comparison.analysis.baseline}, {inside} lie between {low:.1f} and "
        f"{high:.1f}, {sum(one.speedup < low for one in rivals)} below and {beyond}; the largest is {best.optimizer} "
        f"at {comparison.label(best.regime)}: {interval_text(best.speedup, best.low, best.high)}, with its "
        f"{percent_text(comparison.analysis.level)} interval."
    )


def _bands(comparison: Comparison, rivals: Sequence[Speedup]) -> Table:
    """How many speedups of each scale lie in the published band, and the leader at each ratio.

    Of many ratios the smallest and the three largest are named: they say whether the advantage lasts.
    """
    low, high = PUBLISHED_BAND
    rows = []
    for corpus, scale in sorted(
        {one.regime[:2] for one in rivals}, key=lambda key: (key[0], comparison.scales.index(key[1]))
    ):
        own = [one for one in rivals if one.regime[:2] == (corpus, scale)]
        best = [max((one for one in own if one.regime.ratio == ratio), key=lambda one: one.speedup)
                for ratio in sorted({one.regime.ratio for one in own})]  # fmt: skip
        rows.append((
            f"{corpus} {scale}" if comparison.several_corpora else scale,
            str(sum(one.speedup < low for one in own)),
            str(sum(low <= one.speedup <= high for one in own)),
            str(sum(one.speedup > high for one in own)),
            str(sum(one.low is not None and one.low > low for one in own)),
            ", ".join(f"{one.regime.ratio:g}x: {one.optimizer} {interval_text(one.speedup, one.low, one.high)}"
                      for one in (*best[:1], *best[1:][-3:])),
        ))  # fmt: skip
    heads = ("scale", f"below {low:.1f}", f"{low:.1f} to {high:.1f}", f"above {high:.1f}",
             f"interval above {low:.1f}", "largest at each ratio")  # fmt: skip
    return Table("Bands of the speedups at each scale", heads, tuple(rows), frozenset({1, 2, 3, 4}),
                 "The largest of several equal ones is luck as well; tie groups say who shares the lead.")  # fmt: skip


def _joint_sentence(comparison: Comparison) -> list[str]:
    """What the joint fit gives, and whether its own test rejects it (the flag ``misfit``).

    The first fit is the one over all scales of the first corpus; its three largest factors are named.
    """
    fits = comparison.analysis.joint
    rivals = rivals_of(fits[0], comparison.analysis.baseline) if fits else []
    if not rivals:
        return []
    named = ", ".join(f"{one.optimizer} {interval_text(one.factor or 0.0, one.low, one.high)}" for one in rivals[:3])
    doubt = ", more than noise explains, so one factor per optimizer is too simple" if "misfit" in fits[0].flags else ""
    return [
        f"A joint fit with one exponent ({fits[0].exponent:.3f}) and one factor per optimizer, the more robust second "
        f"opinion, gives {named} over all regimes; it misses the losses by {fits[0].rms:.4f} nats{doubt}."
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
            noise = [analysis.noise.of(one.regime) for one in first[corpus].residuals]
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
