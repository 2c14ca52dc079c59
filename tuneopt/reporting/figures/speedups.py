"""Speedups over the baseline with their intervals, and the joint fit that gives a second opinion on them.

A speedup is D_eff / D: the tokens at which the baseline's loss law reaches an optimizer's loss, over the tokens that
the optimizer used (Wen et al., arXiv 2509.02046). The joint fit explains all results at once with one
factor for each optimizer (Volkova et al., arXiv 2602.07712); where the two disagree, neither is to be trusted far.

Encodings of both figures: a lane for each regime or fit and a row for each optimizer in its colour and symbol. The
numbers stand to the right of the rows, where no mark can cover them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneopt.analysis.names import optimizer_name, scale_name, speedup_decimals
from tuneopt.reporting.blocks import Cell, Info
from tuneopt.reporting.compare import Comparison
from tuneopt.reporting.drawing import Drawing, Mark, fitting, height, lay_out, spread
from tuneopt.reporting.palette import hollow, look, position
from tuneopt.reporting.text import change_text, drawn_of, percent_text

if TYPE_CHECKING:
    from tuneopt.analysis.joint import Factor, JointFit
    from tuneopt.analysis.speedup import Speedup

TOGETHER = 45
"""Rows that one figure of all scales holds, about a screen; of more, each scale gets its own."""

MOST_FIGURES = 8
"""Figures of speedups on a page; of more scales an even selection is drawn, and the table has all."""

LESS_THAN_A_LAW = frozenset({"interpolated", "lower bound", "no law"})
"""Flags of a speedup that rests on less than a law of the baseline; an ``extrapolated`` one rests on a law."""

NOT_MEASURED = LESS_THAN_A_LAW | {"extrapolated"}
"""Flags of a speedup that the baseline's own runs do not reach: drawn open, and marked by an asterisk in text."""


def measured(one: Speedup | SpeedupPoint) -> bool:
    """Whether a speedup lies within what the baseline was run at, and is read from its law."""
    return not NOT_MEASURED & set(one.flags)


def mark_of(one: Speedup | SpeedupPoint) -> str:
    """What stands behind a speedup in text: an asterisk where it was not measured (`MARKS`)."""
    return "" if measured(one) else "*"


MARKS = "An asterisk marks a speedup that is extrapolated, interpolated or a bound."


@dataclass(frozen=True)
class SpeedupPoint:
    """A speedup with its interval (None where it is open or no noise is known); flags as the analysis gives them."""

    optimizer: str
    speedup: float
    low: float | None
    high: float | None
    flags: tuple[str, ...]

    @property
    def text(self) -> str:
        """The speedup and its interval; an asterisk where it rests on less than the law within its budgets."""
        return interval_text(self.speedup, self.low, self.high, mark_of(self))


@dataclass(frozen=True)
class SpeedupsInfo(Info):
    """Claim: by what factor an optimizer saves tokens over the baseline, regime by regime.

    ``lanes`` are (regime, points with the largest speedup first), of regimes where the baseline has a law; speedups are
    tokens over tokens. ``level`` is the coverage of the intervals, and ``regimes`` counts those that the figure has no
    room for as well. ``where`` ends the title of a figure of one scale.
    """

    baseline: str
    level: float
    lanes: tuple[tuple[str, tuple[SpeedupPoint, ...]], ...]
    regimes: int
    where: str = ""

    columns = ("regime", "optimizer", "speedup", "low", "high", "flags")

    def _title(self) -> str:
        return f"Speedup over {optimizer_name(self.baseline)}{self.where}"

    def _reading(self) -> str:
        return (
            f"At a speedup of 1.2, {optimizer_name(self.baseline)} needs 1.2 times the tokens for the same loss. Bars "
            f"are {percent_text(self.level)} intervals. An open mark and an asterisk: extrapolated, interpolated or a "
            f"bound{drawn_of(len(self.lanes), self.regimes, 'regimes')}."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (label, point.optimizer, point.speedup, point.low, point.high, "; ".join(point.flags))
            for label, points in self.lanes
            for point in points
        ]


def speedups_infos(comparison: Comparison) -> list[SpeedupsInfo]:
    """The speedups of a comparison, the baseline's own left out; one figure for all scales, or one for each.

    Scales are drawn apart where one figure would be taller than a screen or two (`TOGETHER`).
    """
    baseline, level = comparison.document["baseline"], comparison.document["level"]
    lanes: dict[tuple[str, str], list[tuple[str, tuple[SpeedupPoint, ...]]]] = {}
    for regime in comparison.rankings:
        points = [
            SpeedupPoint(row["optimizer"], row["speedup"], row["low"], row["high"], tuple(row["flags"]))
            for (place, name), row in comparison.speedups.items()
            if place == regime and name != baseline and "no law" not in row["flags"]
        ]
        points.sort(key=lambda point: (-point.speedup, point.optimizer))
        if points:
            lanes.setdefault(regime[:2], []).append((comparison.label(regime), tuple(points)))
    figures = [
        (f" at {corpus} {scale_name(scale)}" if comparison.several_corpora else f" at {scale_name(scale)}", own)
        for (corpus, scale), own in lanes.items()
    ]
    if figures and sum(len(points) for _, own in figures for _, points in own) <= TOGETHER:
        figures = [("", [lane for _, own in figures for lane in own])]
    infos = []
    for at in spread(len(figures), MOST_FIGURES):
        where, own = figures[at]
        chosen = tuple(own[place] for place in fitting([len(points) for _, points in own]))
        infos.append(SpeedupsInfo(baseline, level, chosen, len(own), where))
    return infos


def draw_speedups(info: SpeedupsInfo) -> Drawing:
    """A lane per regime, a row per optimizer; bars end in a cap, or in an arrow where they go on beyond the scale.

    A mark is open where the baseline's runs do not reach as far as the speedup says (`measured`). The largest speedup
    comes first in its lane. Bars are paler than marks, and one trace holds all rows of an optimizer.
    """
    lanes = [(label, [optimizer_name(point.optimizer) for point in points]) for label, points in info.lanes]
    drawing = Drawing(height(lanes), f"speedup over {optimizer_name(info.baseline)} (tokens/tokens)")
    drawing.rule(1)
    left, right = _range([point for _, points in info.lanes for point in points])
    texts = [[point.text for point in points] for _, points in info.lanes]
    placed = lay_out(drawing, lanes, texts, f"speedup [{percent_text(info.level)}]")
    rows: dict[str, list[tuple[int, SpeedupPoint]]] = {}
    for (_, points), places in zip(info.lanes, placed, strict=True):
        for point, place in zip(points, places, strict=True):
            rows.setdefault(point.optimizer, []).append((place, point))
    for optimizer, own in rows.items():
        colour, symbol = look(optimizer)
        x: list[float | None] = []
        y: list[int | None] = []
        caps: list[str] = []
        for place, point in own:
            if point.low is not None:
                beyond = point.high is None or point.high > right
                x += [point.low, right if beyond or point.high is None else point.high, None]
                y += [place, place, None]
                caps += ["line-ns", "triangle-right" if beyond else "line-ns", "line-ns"]
        drawing.scatter(
            x=x, y=y, mode="lines+markers", hoverinfo="skip", opacity=0.6, line={"color": colour, "width": 3},
            marker={"symbol": caps, "size": 9, "color": colour, "line": {"width": 2, "color": colour}},
            cliponaxis=False,
        )  # fmt: skip
        marks = [
            Mark(min(point.speedup, right), place, f"{point.text} {', '.join(point.flags)}",
                 symbol if measured(point) else hollow(symbol), 11)
            for place, point in own
        ]  # fmt: skip
        drawing.marks(marks, colour, cliponaxis=False)
    drawing.scale(left, right, ".2~f")
    return drawing


def _range(points: Sequence[SpeedupPoint]) -> tuple[float, float]:
    """From the lowest interval to the highest, but not beyond twice the largest speedup: some are open above.

    The scale holds 0.9 to 1.5 at least, so that figures of small speedups do not look like large ones.
    """
    largest = max([1.5, *(point.speedup for point in points if "lower bound" not in point.flags)])
    ends = [point.high if point.high is not None else point.speedup for point in points]
    starts = [point.low if point.low is not None else point.speedup for point in points]
    return 0.97 * min([0.9, *starts]), 1.03 * min(max([1.5, *ends]), 2 * largest)


def interval_text(speedup: float, low: float | None, high: float | None, mark: str = "") -> str:
    """A speedup with ``mark`` behind it, and its interval if there is one: ``1.30 [1.26, open]``."""
    digits = speedup_decimals(low, high)
    high_text = "open" if high is None else f"{high:.{digits}f}"
    return f"{speedup:.{digits}f}{mark}" + ("" if low is None else f" [{low:.{digits}f}, {high_text}]")


@dataclass(frozen=True)
class JointInfo(Info):
    """Claim: one factor for each optimizer over all regimes, with the smallest and largest of its single speedups.

    Factors multiply an optimizer's tokens in a law with one exponent and one floor per scale (Volkova et al., arXiv
    2602.07712; fitted in `tuneopt.analysis.joint`); they have no unit. ``level`` is the coverage of their intervals.
    Whether the law is rejected by the data is for the residuals and the chapter's text to say, not for this figure.
    """

    baseline: str
    level: float
    fits: tuple[JointFit, ...]
    single: Mapping[tuple[str, str | None, str], tuple[float, float]]
    """(corpus, scale or None, optimizer): the range of the speedups of single regimes."""

    title = "Second opinion: one speedup factor from a joint fit"
    columns = ("fit", "optimizer", "factor", "low", "high", "results", "least_single", "largest_single")

    def _reading(self) -> str:
        return (
            "All results are fitted at once, with one exponent, one floor per scale and one factor per optimizer. The "
            f"factor multiplies its tokens (Volkova et al., arXiv 2602.07712). Marks are factors with "
            f"{percent_text(self.level)} intervals. Pale lines span the speedups of single regimes. Where the two "
            "disagree, trust neither to the last digit."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (fit_name(fit), one.optimizer, one.factor, one.low, one.high, one.results,
             *self.single.get((fit.corpus, fit.scale, one.optimizer), (None, None)))
            for fit in self.fits
            for one in fit.factors
        ]  # fmt: skip


def fit_name(fit: JointFit) -> str:
    """A fit in short: its scale or all scales, with its corpus where it has one."""
    place = "all scales together" if fit.scale is None else f"{scale_name(fit.scale)} alone"
    return f"{fit.corpus}: {place}" if fit.corpus else place


def rivals_of(fit: JointFit, baseline: str) -> list[Factor]:
    """The factors that a fit could find, but the baseline's; largest first."""
    known = [one for one in fit.factors if one.optimizer != baseline and one.factor is not None]
    return sorted(known, key=lambda one: (-(one.factor or 0.0), one.optimizer))


def joint_info(
    fits: Sequence[JointFit], single: Mapping[tuple[str, str | None, str], tuple[float, float]],
    baseline: str, level: float,
) -> JointInfo | None:  # fmt: skip
    """The joint fits as far as one figure holds them; None without a fit that has a factor other than the baseline's.

    Fits over all scales of a corpus come first, then scale by scale: where these differ, the factor is no constant.
    """
    known = [fit for fit in fits if rivals_of(fit, baseline)]
    chosen = [known[place] for place in fitting([len(fit.factors) for fit in known])]
    return JointInfo(baseline, level, tuple(chosen), single) if chosen else None


def draw_joint(info: JointInfo) -> Drawing:
    """A lane per fit, a row per optimizer but the baseline, largest factor first.

    The factor's interval is a bar on a much wider and paler one, the range of single speedups: where the two lie apart
    the eye sees it at once.
    """
    ordered = [rivals_of(fit, info.baseline) for fit in info.fits]
    lanes = [
        (fit_name(fit), [optimizer_name(one.optimizer) for one in own])
        for fit, own in zip(info.fits, ordered, strict=True)
    ]
    drawing = Drawing(height(lanes), "speedup factor (tokens/tokens)")
    drawing.rule(1)
    texts = [[interval_text(one.factor or 0.0, one.low, one.high) for one in own] for own in ordered]
    placed = lay_out(drawing, lanes, texts, f"factor [{percent_text(info.level)}]")
    ends = [0.9, 1.5]
    for fit, own, places in zip(info.fits, ordered, placed, strict=True):
        for one, place in zip(own, places, strict=True):
            (colour, symbol), factor = look(one.optimizer), one.factor or 0.0
            least, largest = info.single.get((fit.corpus, fit.scale, one.optimizer), (factor, factor))
            low = factor if one.low is None else one.low
            high = factor if one.high is None else one.high
            ends += [low, high, factor]
            drawing.bars([(least, largest, place)], colour, 9, 0.22)
            drawing.bars([(low, high, place)], colour, 2.5, 0.7)
            words = (f"{optimizer_name(one.optimizer)}: {interval_text(factor, one.low, one.high)}, "
                     f"single regimes {least:.2f} to {largest:.2f}")  # fmt: skip
            drawing.marks([Mark(factor, place, words, symbol, 11)], colour, cliponaxis=False)
    drawing.scale(0.97 * min(ends), 1.03 * min(max(ends), 3.0), ".2~f")
    return drawing


@dataclass(frozen=True)
class ResidualsInfo(Info):
    """Claim: where one factor per optimizer is too simple, its residuals drift with the regime.

    Residuals are a result's loss minus the fitted one, in nats; positive is a loss above the fit. ``noise`` is one
    standard deviation between seeds, the largest of the regimes: what stays inside needs no explanation.
    """

    fit: JointFit
    noise: float | None

    columns = ("optimizer", "corpus", "scale", "ratio", "report_loss_nats", "fitted_nats", "residual_nats")

    def _title(self) -> str:
        return f"Residuals of the joint fit: {fit_name(self.fit)}"

    def _reading(self) -> str:
        band = f" The shaded band is one standard deviation of the noise between seeds ({self.noise:.4f})." if (
            self.noise) else ""  # fmt: skip
        return (
            "Each mark is a result's loss minus the fitted one. Marks of one optimizer that drift from one side to the "
            f"other are a speedup that changes with the regime. One factor cannot say that.{band}"
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [(one.optimizer, *one.regime, one.loss, one.fitted, one.residual) for one in self.fit.residuals]


def draw_residuals(info: ResidualsInfo) -> Drawing:
    """A row per optimizer, a mark per regime; marks grow with the model, so that a drift with scale can be seen.

    Four sizes can be told apart: the fourth scale and all above it share one. The band is the noise of one run; a fit
    that is right keeps two thirds of the marks inside it.
    """
    optimizers = sorted({one.optimizer for one in info.fit.residuals}, key=position)
    lanes = [("residual of each regime", [optimizer_name(name) for name in optimizers])]
    drawing = Drawing(height(lanes) + 10, "loss minus fitted loss (nats/token)")
    if info.noise is not None:
        drawing.band(-info.noise, info.noise)
    drawing.rule(0)
    scales = list(dict.fromkeys(one.regime.scale for one in info.fit.residuals))
    for optimizer, place in zip(optimizers, lay_out(drawing, lanes)[0], strict=True):
        own = [one for one in info.fit.residuals if one.optimizer == optimizer]
        colour, symbol = look(optimizer)
        marks = [
            Mark(one.residual, place, f"{optimizer} at {one.regime.label}: {change_text(one.residual)} nats", symbol,
                 7 + 3 * min(scales.index(one.regime.scale), 3))
            for one in own
        ]  # fmt: skip
        drawing.marks(marks, colour, 0.75)
    drawing.across.update(tickformat="+.4~g", nticks=5, tickangle=0)
    return drawing
