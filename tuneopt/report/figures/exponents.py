"""How tuned hyperparameters move with model size and ratio: the exponents of their fitted laws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuneopt.analysis.hyper_laws import HyperLaw
from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.palette import hollow, look, position
from tuneopt.report.rows import MOST_ROWS, height, lay_out
from tuneopt.report.text import percent_text, plain

NARROWEST = 0.6
"""The scale shows at least this much to each side."""


@dataclass(frozen=True)
class ExponentsInfo:
    """The laws that were fitted, by optimizer; ``level`` is the intervals' coverage."""

    laws: tuple[HyperLaw, ...]
    level: float
    hidden: int

    title = "Exponents of the hyperparameter laws"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        hidden = f"; {self.hidden} more laws are in the data" if self.hidden else ""
        return (
            "A coordinate grows as model size to the power at its filled mark and as the ratio to the power at its "
            f"hollow mark; a line is the {percent_text(self.level)} interval, cut at the edges, and one that holds "
            f"0 shows no movement{hidden}."
        )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per law: h = a (N / 1e8)^b ratio^c + e."""
        columns = ("optimizer", "corpus", "coordinate", "regimes", "support", "a", "b", "b_low", "b_high", "c",
                   "c_low", "c_high", "e", "law_of_one_minus_value")  # fmt: skip
        return columns, [
            (law.optimizer, law.corpus, law.coordinate, law.regimes, law.support, law.a, law.b, law.b_low, law.b_high,
             law.c, law.c_low, law.c_high, law.e, law.complement)
            for law in self.laws
        ]  # fmt: skip


def exponents_info(laws: Sequence[HyperLaw], level: float) -> ExponentsInfo | None:
    """The coordinates that a law was fitted to; None without one."""
    fitted = [law for law in laws if law.b is not None and law.c is not None]
    fitted.sort(key=lambda law: (position(law.optimizer), law.corpus, law.coordinate))
    lanes = len({(law.optimizer, law.corpus) for law in fitted})
    hidden = max(len(fitted) + lanes - MOST_ROWS, 0)
    return ExponentsInfo(tuple(fitted), level, hidden) if fitted else None


def draw_exponents(info: ExponentsInfo) -> Drawing:
    """A lane per optimizer, a row per coordinate, two marks in each."""
    shown = info.laws[: len(info.laws) - info.hidden]
    several = len({law.corpus for law in shown}) > 1
    groups: dict[str, list[HyperLaw]] = {}
    for law in shown:
        groups.setdefault(f"{law.optimizer} on {law.corpus}" if several else law.optimizer, []).append(law)
    lanes = [(name, [law.coordinate for law in own]) for name, own in groups.items()]
    drawing = Drawing(height(lanes), "exponent (no unit)")
    drawing.rule(0)
    placed = lay_out(drawing, lanes)
    edge = max(NARROWEST, *(1.4 * abs(value) for law in shown for value in (law.b, law.c) if value is not None))
    for own, places in zip(groups.values(), placed, strict=True):
        seen = look(own[0].optimizer)
        for law, place in zip(own, places, strict=True):
            for value, low, high, shift, symbol in (
                (law.b, law.b_low, law.b_high, -0.17, seen.symbol),
                (law.c, law.c_low, law.c_high, 0.17, hollow(seen.symbol)),
            ):
                if value is None:
                    continue
                left, right = (_clip(value if end is None else end, edge) for end in (low, high))
                drawing.scatter(
                    x=[left, right], y=[place + shift] * 2, mode="lines", opacity=0.5, hoverinfo="skip",
                    line={"color": seen.colour, "width": 2},
                )  # fmt: skip
                drawing.scatter(
                    x=[value], y=[place + shift], mode="markers",
                    marker={"symbol": symbol, "size": 8, "color": seen.colour, "line": {"width": 1.5,
                                                                                       "color": seen.colour}},
                    text=[plain(_hover(law))], hovertemplate="%{text}<extra></extra>",
                )  # fmt: skip
    drawing.across.update(range=[-1.03 * edge, 1.03 * edge], tickformat=".2~f", nticks=5, tickangle=0)
    return drawing


def _clip(value: float, edge: float) -> float:
    return min(max(value, -edge), edge)


def _hover(law: HyperLaw) -> str:
    what = f"1 - {law.coordinate}" if law.complement else law.coordinate
    return (
        f"{law.optimizer}: {what} = {law.a:.3g} (N/1e8)^{law.b:.2f} ratio^{law.c:.2f} + {law.e:.3g}; support "
        f"{law.support:.2f} over {law.regimes} regimes"
    )
