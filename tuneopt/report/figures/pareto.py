"""Loss against seconds: which optimizers nobody beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.palette import MUTED, hollow, look, position
from tuneopt.report.rows import spread
from tuneopt.report.text import duration_text, loss_text, plain

if TYPE_CHECKING:
    from tuneopt.analysis.costs import ParetoPoint

MOST = 2000
"""Points that one figure holds; those on the front are always drawn."""


@dataclass(frozen=True)
class ParetoInfo:
    """The trials with a loss and a time; ``front`` marks those that no other of the scale beats in both."""

    points: tuple[ParetoPoint, ...]
    hidden: int

    title = "Loss against seconds"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        hidden = f"; {self.hidden} points behind the front are not drawn" if self.hidden else ""
        return (
            "Down and left is better; filled marks on the dashed line of a scale are beaten by none of that scale in "
            f"both loss and time, hollow ones are{hidden}."
        )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per trial."""
        columns = ("corpus", "scale", "ratio", "optimizer", "device_seconds", "loss_nats", "on_the_front", "trial")
        return columns, [
            (*each.regime, each.optimizer, each.seconds, each.loss, each.front, each.trial) for each in self.points
        ]


def pareto_info(points: Sequence[ParetoPoint]) -> ParetoInfo | None:
    """The points, thinned behind the front; None without one."""
    front = [each for each in points if each.front]
    back = [each for each in points if not each.front]
    kept = [back[place] for place in spread(len(back), max(MOST - len(front), 2))]
    if not points:
        return None
    drawn = sorted((*front, *kept), key=lambda each: (position(each.optimizer), each.regime, each.seconds))
    return ParetoInfo(tuple(drawn), len(back) - len(kept))


def draw_pareto(info: ParetoInfo) -> Drawing:
    """Markers by optimizer, a dashed front for each regime."""
    drawing = Drawing(440, "device-seconds of the trial", "loss (nats/token)", legend=True)
    for scale in dict.fromkeys(each.regime[:2] for each in info.points):
        front = sorted((each for each in info.points if each.regime[:2] == scale and each.front),
                       key=lambda each: each.seconds)  # fmt: skip
        drawing.scatter(
            x=[each.seconds for each in front], y=[each.loss for each in front], mode="lines",
            line={"color": MUTED, "width": 1.5, "dash": "dash", "shape": "hv"}, hoverinfo="skip", showlegend=False,
        )  # fmt: skip
    for optimizer in dict.fromkeys(each.optimizer for each in info.points):
        own = [each for each in info.points if each.optimizer == optimizer]
        seen = look(optimizer)
        drawing.scatter(
            x=[each.seconds for each in own],
            y=[each.loss for each in own],
            mode="markers",
            name=plain(optimizer),
            marker={"symbol": [seen.symbol if each.front else hollow(seen.symbol) for each in own], "size": 9,
                    "color": seen.colour, "line": {"width": [0 if each.front else 1.5 for each in own],
                                                   "color": seen.colour}},
            text=[plain(f"{optimizer} at {each.regime.label}: {loss_text(each.loss)} nats, "
                        f"{duration_text(each.seconds)}") for each in own],
            hovertemplate="%{text}<extra></extra>",
        )  # fmt: skip
    times = [each.seconds for each in info.points if each.seconds > 0]
    if times and max(times) > 20 * min(times):
        drawing.across.update(type="log")
    drawing.across.update(tickangle=0, nticks=6)
    drawing.up.update(tickformat=".3~f")
    return drawing
