"""The joint fit: one factor for each optimizer over all regimes, and what it misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.figures.speedups import PUBLISHED_BAND, interval_text
from tuneopt.report.palette import look, position
from tuneopt.report.rows import fitting, height, lay_out
from tuneopt.report.text import change_text, percent_text, plain

if TYPE_CHECKING:
    from tuneopt.analysis.joint import Factor, JointFit


@dataclass(frozen=True)
class JointInfo:
    """The factors of joint fits, and beside each the optimizer's single speedups: smallest and largest."""

    baseline: str
    level: float
    fits: tuple[JointFit, ...]
    single: Mapping[tuple[str, str | None, str], tuple[float, float]]
    """(corpus, scale or None, optimizer): the range of the speedups of single regimes."""

    title = "Second opinion: one speedup factor from a joint fit"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        return (
            f"All results are fitted at once with one exponent, one floor per scale and one factor per optimizer, "
            f"which multiplies its tokens (Volkova et al., arXiv 2602.07712); marks are factors with "
            f"{percent_text(self.level)} intervals, pale lines span the speedups of single regimes, and where the two "
            "disagree, trust neither to the last digit."
        )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per optimizer and fit."""
        columns = ("fit", "optimizer", "factor", "low", "high", "results", "least_single", "largest_single")
        return columns, [
            (fit_name(fit), each.optimizer, each.factor, each.low, each.high, each.results,
             *self.single.get((fit.corpus, fit.scale, each.optimizer), (None, None)))
            for fit in self.fits
            for each in fit.factors
        ]  # fmt: skip


def fit_name(fit: JointFit) -> str:
    """A fit in short: its scale or all scales, with its corpus where it has one."""
    place = "all scales together" if fit.scale is None else f"{fit.scale} alone"
    return f"{fit.corpus}: {place}" if fit.corpus else place


def joint_info(
    fits: Sequence[JointFit], single: Mapping[tuple[str, str | None, str], tuple[float, float]],
    baseline: str, level: float,
) -> JointInfo | None:  # fmt: skip
    """The joint fits as far as one figure holds them; None without one."""
    known = [fit for fit in fits if rivals_of(fit, baseline)]
    chosen = [known[place] for place in fitting([len(fit.factors) for fit in known])]
    return JointInfo(baseline, level, tuple(chosen), single) if chosen else None


def draw_joint(info: JointInfo) -> Drawing:
    """A lane per fit, a row per optimizer but the baseline, largest factor first."""
    ordered = [rivals_of(fit, info.baseline) for fit in info.fits]
    lanes = [(fit_name(fit), [each.optimizer for each in own]) for fit, own in zip(info.fits, ordered, strict=True)]
    drawing = Drawing(height(lanes), "speedup factor (tokens/tokens)")
    drawing.band(*PUBLISHED_BAND)
    drawing.rule(1)
    beside = [[interval_text(each.factor or 0.0, each.low, each.high) for each in own] for own in ordered]
    placed = lay_out(drawing, lanes, beside, f"factor [{percent_text(info.level)}]")
    ends = [0.9, 1.5]
    for fit, own, places in zip(info.fits, ordered, placed, strict=True):
        for each, place in zip(own, places, strict=True):
            seen, factor = look(each.optimizer), each.factor or 0.0
            least, largest = info.single.get((fit.corpus, fit.scale, each.optimizer), (factor, factor))
            low = factor if each.low is None else each.low
            high = factor if each.high is None else each.high
            ends += [low, high, factor]
            drawing.scatter(
                x=[least, largest], y=[place] * 2, mode="lines", line={"color": seen.colour, "width": 9},
                opacity=0.22, hoverinfo="skip",
            )  # fmt: skip
            drawing.scatter(
                x=[low, high], y=[place] * 2, mode="lines", line={"color": seen.colour, "width": 2.5},
                opacity=0.7, hoverinfo="skip",
            )  # fmt: skip
            drawing.scatter(
                x=[factor], y=[place], mode="markers",
                marker={"symbol": seen.symbol, "size": 11, "color": seen.colour},
                text=[plain(f"{each.optimizer}: {interval_text(factor, each.low, each.high)}, "
                            f"single regimes {least:.2f} to {largest:.2f}")],
                hovertemplate="%{text}<extra></extra>", cliponaxis=False,
            )  # fmt: skip
    drawing.across.update(
        range=[0.97 * min(ends), 1.03 * min(max(ends), 3.0)], tickformat=".2~f", nticks=5, tickangle=0
    )
    return drawing


def rivals_of(fit: JointFit, baseline: str) -> list[Factor]:
    """The factors that a fit could find, but the baseline's; largest first."""
    known = [each for each in fit.factors if each.optimizer != baseline and each.factor is not None]
    return sorted(known, key=lambda each: (-(each.factor or 0.0), each.optimizer))


@dataclass(frozen=True)
class ResidualsInfo:
    """What a joint fit over all scales misses at each result, in nats; positive is a loss above the fit."""

    fit: JointFit
    noise: float | None

    @property
    def title(self) -> str:
        """What is shown."""
        return f"Residuals of the joint fit: {fit_name(self.fit)}"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        band = f", the shaded band being one standard deviation of the noise between seeds ({self.noise:.4f})"
        return (
            "Each mark is a result's loss minus the fitted one; marks of one optimizer that drift from one side to "
            f"the other are a speedup that changes with the regime, which one factor cannot "
            f"say{band if self.noise else ''}."
        )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per result."""
        columns = ("optimizer", "corpus", "scale", "ratio", "report_loss_nats", "fitted_nats", "residual_nats")
        return columns, [(each.optimizer, *each.regime, each.loss, each.fitted, each.residual)
                         for each in self.fit.residuals]  # fmt: skip


def draw_residuals(info: ResidualsInfo) -> Drawing:
    """A row per optimizer, a mark per regime; larger marks for larger models."""
    optimizers = sorted({each.optimizer for each in info.fit.residuals}, key=position)
    lanes = [("residual of each regime", optimizers)]
    drawing = Drawing(height(lanes) + 10, "loss minus fitted loss (nats/token)")
    if info.noise is not None:
        drawing.band(-info.noise, info.noise)
    drawing.rule(0)
    places = dict(zip(optimizers, lay_out(drawing, lanes)[0], strict=True))
    scales = list(dict.fromkeys(each.regime.scale for each in info.fit.residuals))
    for optimizer in optimizers:
        own = [each for each in info.fit.residuals if each.optimizer == optimizer]
        seen = look(optimizer)
        drawing.scatter(
            x=[each.residual for each in own],
            y=[places[optimizer]] * len(own),
            mode="markers",
            marker={"symbol": seen.symbol, "color": seen.colour, "opacity": 0.75,
                    "size": [7 + 3 * min(scales.index(each.regime.scale), 3) for each in own]},
            text=[plain(f"{optimizer} at {each.regime.label}: {change_text(each.residual)} nats") for each in own],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    drawing.across.update(tickformat="+.4~g", nticks=5, tickangle=0)
    return drawing
