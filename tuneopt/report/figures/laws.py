"""The baseline's loss law at each scale, and the best result of each regime against it: where speedups come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuneopt.analysis.runs import RegimeKey
from tuneopt.analysis.scaling import describe
from tuneopt.analysis.speedup import BaselineLaw, Speedup
from tuneopt.analysis.winner import Winner
from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.palette import look, position
from tuneopt.report.rows import spread
from tuneopt.report.text import count_text, loss_text, plain

POINTS = 60
"""Points along a drawn law."""

MOST_LAWS = 8
"""Scales that one figure holds."""

BEYOND = 1.5
"""A law is drawn this far beyond its largest budget, dashed: there it is a guess."""


@dataclass(frozen=True)
class LawsInfo:
    """The baseline's laws, its results and the lowest loss of each regime at their scales.

    ``reached`` holds the tokens at which the law reaches a result's loss, by optimizer and regime.
    """

    baseline: str
    laws: tuple[BaselineLaw, ...]
    results: tuple[Winner, ...]
    reached: Mapping[tuple[str, RegimeKey], float]
    hidden: int

    @property
    def title(self) -> str:
        """What is shown."""
        return f"Loss law of {self.baseline} and the lowest loss of each regime"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        hidden = f" ({self.hidden} more scales are not drawn)" if self.hidden else ""
        return (
            f"The curve is the loss that {self.baseline} reaches with a token budget; a horizontal line leads from the "
            "lowest loss of a regime to the curve, and the tokens at its end over those at its mark are the speedup; "
            f"dotted is beyond the budgets that {self.baseline} was trained with{hidden}."
        )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per result, with the law's loss at its budget."""
        columns = ("corpus", "scale", "ratio", "optimizer", "tokens", "report_loss_nats", "law_loss_nats",
                   "law_tokens_for_the_loss", "runs")  # fmt: skip
        fitted = {(each.corpus, each.scale): each.law for each in self.laws}
        return columns, [
            (*each.regime[:2], each.regime.ratio, each.optimizer, each.tokens, each.loss,
             float(fitted[each.regime.corpus, each.regime.scale].loss(each.tokens)),
             self.reached.get((each.optimizer, each.regime)), each.runs)
            for each in self.results
        ]  # fmt: skip


def laws_info(
    laws: Sequence[BaselineLaw], results: Sequence[Winner], speedups: Sequence[Speedup], baseline: str
) -> LawsInfo | None:
    """The laws with the results that show how they are read, None without a law."""
    if not laws:
        return None
    kept = [laws[place] for place in spread(len(laws), MOST_LAWS)]
    keys = {(each.corpus, each.scale) for each in kept}
    here = [each for each in results if (each.regime.corpus, each.regime.scale) in keys]
    lowest: dict[RegimeKey, Winner] = {}
    for each in here:
        if each.regime not in lowest or each.loss < lowest[each.regime].loss:
            lowest[each.regime] = each
    drawn = [each for each in here if each.optimizer == baseline or lowest[each.regime] is each]
    drawn.sort(key=lambda each: (position(each.optimizer), each.regime))
    reached = {
        (each.optimizer, each.regime): each.effective_tokens for each in speedups if each.effective_tokens is not None
    }
    return LawsInfo(baseline, tuple(kept), tuple(drawn), reached, len(laws) - len(kept))


def draw_laws(info: LawsInfo) -> Drawing:
    """A line per scale, named at its end; a marker per result."""
    drawing = Drawing(480, "training tokens D", "report loss (nats/token)", legend=True)
    colour = look(info.baseline).colour
    largest = max(float(each.law.budgets[-1]) for each in info.laws)
    for known in info.laws:
        law = describe(known.law)
        name = f"{known.corpus} {known.scale}".strip() if len({each.corpus for each in info.laws}) > 1 else known.scale
        ends = float(known.law.budgets[0]), float(known.law.budgets[-1])
        for start, end, dash in ((ends[0] / 1.1, ends[1], "solid"), (ends[1], BEYOND * ends[1], "dot")):
            budgets = np.geomspace(start, end, POINTS)
            drawing.scatter(
                x=[float(f"{budget:.5g}") for budget in budgets],
                y=[round(float(loss), 5) for loss in known.law.loss(budgets)],
                mode="lines",
                line={"color": colour, "width": 2, "dash": dash},
                showlegend=False,
                hovertemplate=plain(_law_text(info.baseline, name, law)) + "<extra></extra>",
            )
        drawing.note(
            f"<b>{plain(name)}</b>",
            x=float(np.log10(BEYOND * ends[1])), y=float(known.law.loss(BEYOND * ends[1])),
            xanchor="right", yanchor="top", yshift=-3, font={"size": 12},
        )  # fmt: skip
    for optimizer in dict.fromkeys(each.optimizer for each in info.results):
        own = [each for each in info.results if each.optimizer == optimizer]
        seen = look(optimizer)
        landing = {each.regime: info.reached.get((optimizer, each.regime), each.tokens) for each in own}
        if optimizer != info.baseline:
            drawing.scatter(
                x=[x for each in own for x in (each.tokens, min(landing[each.regime], 3 * largest), None)],
                y=[y for each in own for y in (each.loss, each.loss, None)],
                mode="lines", line={"color": seen.colour, "width": 1.5}, legendgroup=optimizer, showlegend=False,
                hoverinfo="skip",
            )  # fmt: skip
        drawing.scatter(
            x=[each.tokens for each in own],
            y=[each.loss for each in own],
            mode="markers",
            legendgroup=optimizer,
            name=plain(optimizer),
            marker={"symbol": seen.symbol, "size": 8, "color": seen.colour},
            text=[
                plain(
                    f"{optimizer} at {each.regime.label}: {loss_text(each.loss)} nats, {count_text(each.tokens)} tokens"
                )
                for each in own
            ],
            hovertemplate="%{text}<extra></extra>",
        )
    smallest = min(float(each.law.budgets[0]) for each in info.laws)
    drawing.across.update(
        type="log", range=[float(np.log10(smallest / 1.2)), float(np.log10(largest * BEYOND * 1.35))],
        tickformat="~s", dtick="D2", tickangle=0,
    )  # fmt: skip
    drawing.up.update(tickformat=".3~f")
    return drawing


def _law_text(baseline: str, scale: str, law: dict[str, object]) -> str:
    if law["kind"] == "log-linear":
        return f"{baseline} at {scale}: straight line in log D through two ratios"
    return (
        f"{baseline} at {scale}: L = {law['alpha']:.4g} D^-{law['exponent']:.3f} + {law['beta']:.4f}, "
        f"residual {law['residual']:.4f} nats"
    )
