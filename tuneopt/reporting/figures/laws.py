"""Fitted laws: the baseline's loss against tokens, from which speedups are read, and laws of tuned hyperparameters.

The first figure explains the word speedup: a horizontal line from an optimizer's loss to the baseline's curve, whose
two ends are D and D_eff. The second shows the exponents by which tuned values move with model size and ratio. A law
is fitted and not measured: both figures show where its data end, and how wide its exponents are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tuneopt.analysis.hyper_laws import HyperLaw
from tuneopt.analysis.names import optimizer_name, place_name, scale_name
from tuneopt.analysis.runs import RegimeKey
from tuneopt.analysis.scaling import describe
from tuneopt.analysis.speedup import BaselineLaw, Speedup
from tuneopt.analysis.winner import Winner
from tuneopt.reporting.blocks import Cell, Info
from tuneopt.reporting.drawing import LETTER, MOST_ROWS, Drawing, Mark, height, lay_out, spread
from tuneopt.reporting.figures.speedups import measured
from tuneopt.reporting.palette import hollow, look, position
from tuneopt.reporting.text import count_text, loss_text, percent_text, plain

POINTS = 60
"""Points along a drawn law."""

MOST_LAWS = 8
"""Scales that one figure holds."""

GUIDE_PIXELS = 320
"""Pixels that the guide's plot is about wide, on a screen and on a phone."""

BEYOND = 1.5
"""A law is drawn this far beyond its largest budget, dotted: there it is a guess."""

FARTHEST = 3.0
"""Times the largest budget at which an arrow to the curve is cut: a law may reach a loss at any distance, or never."""

NARROWEST = 0.6
"""Exponents are drawn on a scale of at least this much to each side."""


@dataclass(frozen=True)
class LawsInfo(Info):
    """Claim: how a speedup is read. The horizontal way from a result to the baseline's curve is D to D_eff.

    ``laws`` are L = alpha D^-exponent + beta for each scale (D in tokens, L in nats per token), fitted to the
    baseline's results, or a straight line in log D where there are two of them (Wen et al., arXiv 2509.02046).
    ``results`` are the baseline's, and the lowest loss of each regime. ``reached`` holds the tokens at which the law
    reaches a result's loss, by optimizer and regime. ``hidden`` scales have no room.
    """

    baseline: str
    laws: tuple[BaselineLaw, ...]
    results: tuple[Winner, ...]
    reached: Mapping[tuple[str, RegimeKey], float]
    hidden: int

    columns = ("corpus", "scale", "ratio", "optimizer", "tokens", "report_loss_nats", "law_loss_nats",
               "law_tokens_for_the_loss", "runs")  # fmt: skip

    def _title(self) -> str:
        return f"Loss law of {optimizer_name(self.baseline)} and the lowest loss of each regime"

    def _reading(self) -> str:
        hidden = f" {self.hidden} more scales are not drawn." if self.hidden else ""
        name = optimizer_name(self.baseline)
        return (
            f"A curve is the loss that {name} reaches with a token budget. A horizontal line leads from the lowest "
            "loss of a regime to the curve: the tokens at its end over those at its mark are the speedup. Dotted is "
            f"beyond the budgets that {name} was trained with.{hidden}"
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        laws = {(one.corpus, one.scale): one for one in self.laws}
        return [
            (*one.regime, one.optimizer, one.tokens, one.loss,
             float(laws[one.regime.corpus, one.regime.scale].loss(one.tokens)),
             self.reached.get((one.optimizer, one.regime)), one.runs)
            for one in self.results
        ]  # fmt: skip


def laws_info(
    laws: Sequence[BaselineLaw], results: Sequence[Winner], speedups: Sequence[Speedup], baseline: str
) -> LawsInfo | None:
    """The laws with the results that show how they are read, None without a law.

    Of the other optimizers only the lowest loss of each regime is drawn: all of them would bury the curves.
    """
    if not laws:
        return None
    kept = [laws[place] for place in spread(len(laws), MOST_LAWS)]
    keys = {(one.corpus, one.scale) for one in kept}
    here = [one for one in results if one.regime[:2] in keys]
    lowest: dict[RegimeKey, Winner] = {}
    for one in here:
        if one.regime not in lowest or one.loss < lowest[one.regime].loss:
            lowest[one.regime] = one
    drawn = [one for one in here if one.optimizer == baseline or lowest[one.regime] is one]
    drawn.sort(key=lambda one: (position(one.optimizer), one.regime))
    reached = {
        (one.optimizer, one.regime): one.effective_tokens for one in speedups if one.effective_tokens is not None
    }
    return LawsInfo(baseline, tuple(kept), tuple(drawn), reached, len(laws) - len(kept))


def draw_laws(info: LawsInfo) -> Drawing:
    """A line per scale, named at its end, solid over the baseline's budgets and dotted beyond; a mark per result.

    All laws have the baseline's colour: what tells them apart is where they lie. The axis is log D, on which equal
    speedups are equal distances. A way that would leave the plot is cut (`FARTHEST`). A law's own numbers answer to
    the pointer on its curve. Curves are rounded to five digits: nobody can tell more, and the page is shorter.
    """
    drawing = Drawing(480, "training tokens D", "report loss (nats/token)", legend=True)
    colour = look(info.baseline).colour
    several = len({one.corpus for one in info.laws}) > 1
    largest = max(float(one.law.budgets[-1]) for one in info.laws)
    for one in info.laws:
        name = f"{one.corpus} {scale_name(one.scale)}".strip() if several else scale_name(one.scale)
        least, most = float(one.law.budgets[0]), float(one.law.budgets[-1])
        law = describe(one.law)
        words = (
            f"{optimizer_name(info.baseline)} at {name}: the usual bend through two ratios"
            if law["kind"] == "log-linear"
            else f"{optimizer_name(info.baseline)} at {name}: "
            f"the one power law nearest to it is L = {law['alpha']:.4g} D^-{law['exponent']:.3f} + {law['beta']:.4f}, "
            f"residual {law['residual']:.4f} nats"
        )
        for start, end, dash in ((least / 1.1, most, "solid"), (most, BEYOND * most, "dot")):
            budgets = np.geomspace(start, end, POINTS)
            curve = [(float(f"{budget:.5g}"), round(float(loss), 5))
                     for budget, loss in zip(budgets, one.loss(budgets), strict=True)]  # fmt: skip
            drawing.lines([curve], colour, 2, dash, showlegend=False, hovertemplate=plain(words) + "<extra></extra>")
        drawing.note(
            f"<b>{plain(name)}</b>", x=float(np.log10(BEYOND * most)), y=float(one.loss(BEYOND * most)),
            xanchor="right", yanchor="top", yshift=-3, font={"size": 12},
        )  # fmt: skip
    for optimizer in dict.fromkeys(result.optimizer for result in info.results):
        own = [result for result in info.results if result.optimizer == optimizer]
        colour, symbol = look(optimizer)
        if optimizer != info.baseline:
            ends = [min(info.reached.get((optimizer, result.regime), result.tokens), FARTHEST * largest)
                    for result in own]  # fmt: skip
            ways = [[(result.tokens, result.loss), (end, result.loss)] for result, end in zip(own, ends, strict=True)]
            drawing.lines(ways, colour, 1.5, legendgroup=optimizer, showlegend=False)
        marks = [
            Mark(one.tokens, one.loss,
                 f"{optimizer} at {one.regime.label}: {loss_text(one.loss)} nats, {count_text(one.tokens)} tokens",
                 symbol, 8)
            for one in own
        ]  # fmt: skip
        drawing.marks(marks, colour, legendgroup=optimizer, name=plain(optimizer_name(optimizer)))
    smallest = min(float(one.law.budgets[0]) for one in info.laws)
    edges = [float(np.log10(smallest / 1.2)), float(np.log10(largest * BEYOND * 1.35))]
    drawing.across.update(type="log", range=edges, tickformat="~s", dtick="D2", tickangle=0)
    drawing.up.update(tickformat=".3~f")
    return drawing


@dataclass(frozen=True)
class GuideInfo(Info):
    """Claim: what a speedup is, on one result of this report.

    ``law`` is the baseline's at one scale, and ``example`` a result there whose D_eff lies within the baseline's
    budgets, so that the drawing shows nothing that was not measured on either side.
    """

    baseline: str
    law: BaselineLaw
    example: Speedup
    tokens: float

    title = "How to read a speedup"
    columns = ("optimizer", "scale", "ratio", "tokens", "report_loss_nats", "tokens_of_the_baseline", "speedup")

    def _reading(self) -> str:
        one, name = self.example, optimizer_name(self.baseline)
        return (
            f"At {place_name(one.regime.scale, one.regime.ratio)}, {optimizer_name(one.optimizer)} reaches "
            f"{loss_text(one.loss)} nats with {count_text(self.tokens)} tokens. {name} reaches that loss with "
            f"{count_text(one.effective_tokens)} (D_eff). The speedup is the length of the arrow: {one.speedup:.2f}."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        one = self.example
        return [(one.optimizer, one.regime.scale, one.regime.ratio, self.tokens, one.loss, one.effective_tokens,
                 one.speedup)]  # fmt: skip


def guide_info(
    laws: Sequence[BaselineLaw], results: Sequence[Winner], speedups: Sequence[Speedup], baseline: str
) -> GuideInfo | None:
    """The result that explains the word speedup best: the largest measured one; None without one above 1."""
    known = {(one.corpus, one.scale): one for one in laws}
    tokens = {(one.optimizer, one.regime): one.tokens for one in results}
    rivals = [
        one
        for one in speedups
        if one.optimizer != baseline and measured(one) and one.effective_tokens is not None and one.speedup > 1
    ]
    if not rivals:
        return None
    best = max(rivals, key=lambda one: one.speedup)
    return GuideInfo(baseline, known[best.regime[:2]], best, tokens[best.optimizer, best.regime])


def draw_guide(info: GuideInfo) -> Drawing:
    """The law of one scale with the baseline's runs, one result, and an arrow from it to the law."""
    one, own = info.example, info.law
    drawing = Drawing(185, "training tokens (log scale)", "loss (nats/token)")
    ink, colour = look(info.baseline).colour, look(one.optimizer).colour
    least, most = float(own.law.budgets[0]), float(own.law.budgets[-1])
    budgets = np.geomspace(least / 1.1, 1.05 * most, POINTS)
    curve = [(float(budget), round(float(loss), 5)) for budget, loss in
             zip(budgets, own.loss(budgets), strict=True)]  # fmt: skip
    drawing.lines([curve], ink, 2)
    name = optimizer_name(info.baseline)
    runs = [Mark(run.tokens, run.loss, f"{name}: {loss_text(run.loss)} nats with {count_text(run.tokens)} tokens")
            for run in own.winners]  # fmt: skip
    drawing.marks(runs, ink)
    end = float(one.effective_tokens or info.tokens)
    drawing.lines([[(info.tokens, one.loss), (end, one.loss)]], colour, 2.5)
    drawing.marks([Mark(end / 1.02, one.loss, "D_eff", "triangle-right", 10)], colour)
    words = f"{optimizer_name(one.optimizer)}: {loss_text(one.loss)} nats"
    drawing.marks([Mark(info.tokens, one.loss, words, size=11)], colour)
    start, stop = float(np.log10(info.tokens)), float(np.log10(end))
    drawing.note(f"<b>{plain(optimizer_name(one.optimizer))}</b>", x=start, y=one.loss, xanchor="right", xshift=-9,
                 font={"size": 12, "color": colour})  # fmt: skip
    drawing.note(f"<b>{one.speedup:.2f}\u00d7</b>", x=(start + stop) / 2, y=one.loss, yanchor="top", yshift=-6,
                 font={"size": 13, "color": colour})  # fmt: skip
    # The curve falls, so a name that stands on the height of its own first letter is crossed by nothing.
    across = [float(np.log10(least / 1.9)), float(np.log10(1.2 * most))]
    begin = 10 ** (np.log10(most) - 1.25 * LETTER * len(name) * (across[1] - across[0]) / GUIDE_PIXELS)
    drawing.note(f"<b>{plain(name)}</b>", x=float(np.log10(most)), y=float(own.loss(max(begin, least))),
                 xanchor="right", yanchor="bottom", yshift=3, font={"size": 12, "color": ink})  # fmt: skip
    low, high = float(own.loss(1.05 * most)), float(own.loss(least / 1.1))
    room = 0.08 * (high - low)
    bottom = min(low, one.loss - 2 * room) - 1.6 * room
    for place, words, side in ((start, "D", "right"), (stop, "D_eff", "left")):
        drawing.lines([[(10**place, one.loss), (10**place, bottom)]], colour, 1, "dot")
        drawing.note(words, x=place, y=bottom, xanchor=side, yanchor="bottom", xshift=4 if side == "left" else -4,
                     font={"size": 11, "color": colour})  # fmt: skip
    drawing.up.update(range=[bottom, high + room], tickformat=".2~f", nticks=5)
    drawing.across.update(type="log", range=across, tickformat="~s", nticks=6, tickangle=0)
    return drawing


@dataclass(frozen=True)
class ExponentsInfo(Info):
    """Claim: which tuned hyperparameters move with model size and with the ratio, and which do not.

    ``laws`` are h = a (N / 1e8)^b ratio^c + e over the tuned values of an optimizer's coordinate (Wen et al., arXiv
    2509.02046; fitted in `tuneopt.analysis.hyper_laws`). b and c have no unit; ``level`` is the coverage of their
    intervals. An interval that holds 0 shows no movement. ``hidden`` laws have no room and are in the data.
    """

    laws: tuple[HyperLaw, ...]
    level: float
    hidden: int

    title = "Exponents of the hyperparameter laws"
    columns = ("optimizer", "corpus", "coordinate", "regimes", "support", "a", "b", "b_low", "b_high", "c",
               "c_low", "c_high", "e", "law_of_one_minus_value")  # fmt: skip

    def _reading(self) -> str:
        hidden = f"; {self.hidden} more laws are in the data" if self.hidden else ""
        return (
            "A coordinate grows as model size to the power at its filled mark and as the ratio to the power at its "
            f"hollow mark; a line is the {percent_text(self.level)} interval, cut at the edges, and one that holds "
            f"0 shows no movement{hidden}."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (law.optimizer, law.corpus, law.coordinate, law.regimes, law.support, law.a, law.b, law.b_low, law.b_high,
             law.c, law.c_low, law.c_high, law.e, law.complement)
            for law in self.laws
        ]  # fmt: skip


def exponents_info(laws: Sequence[HyperLaw], level: float) -> ExponentsInfo | None:
    """The coordinates that a law was fitted to; None without one.

    A law needs both exponents, that is several scales and several ratios: of one alone the other is not known.
    """
    fitted = [law for law in laws if law.b is not None and law.c is not None]
    fitted.sort(key=lambda law: (position(law.optimizer), law.corpus, law.coordinate))
    lanes = len({(law.optimizer, law.corpus) for law in fitted})
    hidden = max(len(fitted) + lanes - MOST_ROWS, 0)
    return ExponentsInfo(tuple(fitted), level, hidden) if fitted else None


def draw_exponents(info: ExponentsInfo) -> Drawing:
    """A lane per optimizer, a row per coordinate: the filled mark is b (model size), the hollow one below it c (ratio).

    The scale is made for the exponents and not for their intervals, which are wide where few regimes were run. Both
    marks of a row answer with the whole law and its support, the share of variance that it explains.
    """
    shown = info.laws[: len(info.laws) - info.hidden]
    several = len({law.corpus for law in shown}) > 1
    groups: dict[str, list[HyperLaw]] = {}
    for law in shown:
        groups.setdefault(f"{law.optimizer} on {law.corpus}" if several else law.optimizer, []).append(law)
    lanes = [(name, [law.coordinate for law in own]) for name, own in groups.items()]
    drawing = Drawing(height(lanes), "exponent (no unit)")
    drawing.rule(0)
    placed = lay_out(drawing, lanes)
    edge = max([NARROWEST, *(1.4 * abs(value) for law in shown for value in (law.b, law.c) if value is not None)])
    for own, places in zip(groups.values(), placed, strict=True):
        colour, symbol = look(own[0].optimizer)
        for law, place in zip(own, places, strict=True):
            name = f"1 - {law.coordinate}" if law.complement else law.coordinate
            words = (
                f"{law.optimizer}: {name} = {law.a:.3g} (N/1e8)^{law.b:.2f} ratio^{law.c:.2f} + {law.e:.3g}; support "
                f"{law.support:.2f} over {law.regimes} regimes"
            )
            for value, low, high, shift, mark in (
                (law.b, law.b_low, law.b_high, -0.17, symbol),
                (law.c, law.c_low, law.c_high, 0.17, hollow(symbol)),
            ):
                if value is not None:
                    left, right = (min(max(value if end is None else end, -edge), edge) for end in (low, high))
                    drawing.bars([(left, right, place + shift)], colour, 2, 0.5)
                    drawing.marks([Mark(value, place + shift, words, mark, 8)], colour)
    drawing.scale(-1.03 * edge, 1.03 * edge, ".2~f")
    return drawing
