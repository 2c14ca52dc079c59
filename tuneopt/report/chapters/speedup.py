"""By how much: speedups over the baseline, their bands, and the joint fit as a second opinion."""

from __future__ import annotations

from collections.abc import Sequence

from tuneopt.analysis.speedup import Speedup
from tuneopt.report.blocks import Block, Chapter, Table, table_or_fold
from tuneopt.report.compare import Comparison
from tuneopt.report.figure import Figure
from tuneopt.report.figures.against_scale import against_scale_info, draw_against_scale
from tuneopt.report.figures.joint import ResidualsInfo, draw_joint, draw_residuals, joint_info, rivals_of
from tuneopt.report.figures.laws import draw_laws, laws_info
from tuneopt.report.figures.speedups import PUBLISHED_BAND, draw_speedups, interval_text, speedups_infos
from tuneopt.report.text import loss_text, percent_text, plural

TITLE = "Speedup"


def chapter(comparison: Comparison) -> Chapter:
    """The speedups, or a sentence on what would make them known."""
    analysis = comparison.analysis
    rivals = [each for each in analysis.speedups if each.optimizer != analysis.baseline]
    if not rivals:
        return Chapter("speedup", TITLE, (
            f"A speedup needs {analysis.baseline} at two ratios or more (better three) of a scale, and another "
            "optimizer there.",
        ))  # fmt: skip
    return Chapter("speedup", TITLE, (_band_sentence(comparison, rivals), *_joint_sentence(comparison)),
                   tuple(_blocks(comparison, rivals)))  # fmt: skip


def _blocks(comparison: Comparison, rivals: Sequence[Speedup]) -> list[Block]:
    analysis = comparison.analysis
    found: list[Block] = []
    scales = against_scale_info(rivals, comparison.scales, analysis.baseline, analysis.level)
    if scales is not None:
        found.append(Figure.of("against-scale", scales, draw_against_scale(scales)))
    found.append(_bands(comparison, rivals))
    found += [Figure.of(f"speedups-{number}" if number else "speedups", info, draw_speedups(info))
              for number, info in enumerate(speedups_infos(comparison))]  # fmt: skip
    laws = laws_info(analysis.laws, analysis.winners, analysis.speedups, analysis.baseline)
    if laws is not None:
        found.append(Figure.of("laws", laws, draw_laws(laws)))
    found += _joint(comparison, rivals)
    found.append(table_or_fold(_table(comparison, rivals)))
    return found


def _band_sentence(comparison: Comparison, rivals: Sequence[Speedup]) -> str:
    low, high = PUBLISHED_BAND
    inside = sum(low <= each.speedup <= high for each in rivals)
    above = [each for each in rivals if each.speedup > high]
    sure = sum(each.low is not None and each.low > high for each in above)
    best = max(rivals, key=lambda each: each.speedup)
    whole = "none" if sure == 0 else "all" if sure == len(above) else str(sure)
    beyond = f"{len(above)} above ({whole} of them with the whole interval)" if above else "none above"
    return (
        f"Of {plural(len(rivals), 'speedup')} over {comparison.analysis.baseline}, {inside} lie between {low:.1f} and "
        f"{high:.1f}, {sum(each.speedup < low for each in rivals)} below and {beyond}; the largest is {best.optimizer} "
        f"at {comparison.label(best.regime)}: {interval_text(best.speedup, best.low, best.high)}, with its "
        f"{percent_text(comparison.analysis.level)} interval."
    )


def _bands(comparison: Comparison, rivals: Sequence[Speedup]) -> Table:
    """How many speedups of each scale lie in the published band, and the span of the leaders."""
    low, high = PUBLISHED_BAND
    rows = []
    order = {name: at for at, name in enumerate(comparison.scales)}
    places = sorted({each.regime[:2] for each in rivals}, key=lambda key: (key[0], order[key[1]]))
    for corpus, scale in places:
        own = [each for each in rivals if each.regime[:2] == (corpus, scale)]
        best = [max((each for each in own if each.regime.ratio == ratio), key=lambda each: each.speedup)
                for ratio in sorted({each.regime.ratio for each in own})]  # fmt: skip
        rows.append((
            f"{corpus} {scale}" if comparison.several_corpora else scale,
            str(sum(each.speedup < low for each in own)),
            str(sum(low <= each.speedup <= high for each in own)),
            str(sum(each.speedup > high for each in own)),
            str(sum(each.low is not None and each.low > low for each in own)),
            ", ".join(f"{each.regime.ratio:g}x: {each.optimizer} {interval_text(each.speedup, each.low, each.high)}"
                      for each in (*best[:1], *best[1:][-3:])),
        ))  # fmt: skip
    heads = ("scale", f"below {low:.1f}", f"{low:.1f} to {high:.1f}", f"above {high:.1f}",
             f"interval above {low:.1f}", "largest at each ratio")  # fmt: skip
    return Table("Bands of the speedups at each scale", heads, tuple(rows), frozenset({1, 2, 3, 4}),
                 "The largest of several equal ones is luck as well; tie groups say who shares the lead.")  # fmt: skip


def _joint_sentence(comparison: Comparison) -> list[str]:
    fits = comparison.analysis.joint
    if not fits:
        return []
    fit = fits[0]
    rivals = rivals_of(fit, comparison.analysis.baseline)
    if not rivals:
        return []
    named = ", ".join(
        f"{each.optimizer} {interval_text(each.factor or 0.0, each.low, each.high)}" for each in rivals[:3]
    )
    doubt = ", more than noise explains, so one factor per optimizer is too simple" if "misfit" in fit.flags else ""
    return [
        f"A joint fit with one exponent ({fit.exponent:.3f}) and one factor per optimizer, the more robust second "
        f"opinion, gives {named} over all regimes; it misses the losses by {fit.rms:.4f} nats{doubt}."
    ]


def _joint(comparison: Comparison, rivals: Sequence[Speedup]) -> list[Block]:
    analysis = comparison.analysis
    single: dict[tuple[str, str | None, str], tuple[float, float]] = {}
    for each in rivals:
        for scale in (None, each.regime.scale):
            key = (each.regime.corpus, scale, each.optimizer)
            low, high = single.get(key, (each.speedup, each.speedup))
            single[key] = (min(low, each.speedup), max(high, each.speedup))
    info = joint_info(analysis.joint, single, analysis.baseline, analysis.level)
    if info is None:
        return []
    found: list[Block] = [Figure.of("joint", info, draw_joint(info))]
    corpora = dict.fromkeys(fit.corpus for fit in analysis.joint)
    for number, corpus in enumerate(corpora):
        fit = next(fit for fit in analysis.joint if fit.corpus == corpus)
        spreads = [analysis.noise.of(each.regime) for each in fit.residuals]
        known = [spread.sigma for spread in spreads if spread is not None]
        residuals = ResidualsInfo(fit, max(known, default=None))
        if fit.residuals and number < 4:
            found.append(Figure.of(f"residuals-{number}" if number else "residuals", residuals,
                                   draw_residuals(residuals)))  # fmt: skip
    return found


def _table(comparison: Comparison, rivals: Sequence[Speedup]) -> Table:
    rows = tuple(
        (comparison.label(each.regime), each.optimizer, loss_text(each.loss), f"{each.speedup:.3f}",
         "\u2013" if each.low is None else f"{each.low:.3f}",
         ("open" if each.low is not None else "\u2013") if each.high is None else f"{each.high:.3f}",
         str(each.runs), ", ".join(each.flags))
        for each in rivals
    )  # fmt: skip
    heads = ("regime", "optimizer", "report loss (nats)", "speedup", "low", "high", "seeds", "remarks")
    return Table("Speedups", heads, rows, frozenset({2, 3, 4, 5, 6}))
