"""How much each coordinate matters: the cost of its worst neighbouring values, over all stars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneopt.analysis.sensitivity import Sensitivity
from tuneopt.constants import NEAR_OPTIMAL
from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.figures.star import scale_edge
from tuneopt.report.palette import BAD, look, position
from tuneopt.report.rows import MOST_ROWS, height, lay_out
from tuneopt.report.text import change_text, plain, value_text

if TYPE_CHECKING:
    from tuneopt.analysis.sensitivity import Star


@dataclass(frozen=True)
class RegretsInfo:
    """The stars, by optimizer; coordinates are drawn the costliest first."""

    stars: tuple[Star, ...]
    lanes: tuple[tuple[str, tuple[str, ...]], ...]
    hidden: int

    title = "What one wrong coordinate costs"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        hidden = f"; {self.hidden} calmer coordinates are not drawn" if self.hidden else ""
        return (
            "Each mark is a regime: the loss of the worst value of that coordinate which still trained, the others at "
            f"their best; inside the shaded {NEAR_OPTIMAL:g} nats any value on the grid is near-optimal, a red cross "
            f"is a regime in which some value diverged{hidden}."
        )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per star and coordinate."""
        columns = ("optimizer", "corpus", "scale", "ratio", "coordinate", "best_value", "worst_regret_nats",
                   "spread_nats", "near_optimal_values", "values", "losses_nats", "diverged_values")  # fmt: skip
        return columns, [
            (star.optimizer, *star.regime, each.coordinate, value_text(each.incumbent), each.regret, each.spread,
             _values(each.near_optimal), _values(each.values), " ".join(f"{loss:.5g}" for loss in each.losses),
             _values(each.diverged))
            for star in self.stars
            for each in star.sensitivities
        ]  # fmt: skip


def _values(values: Sequence[object]) -> str:
    return " ".join(value_text(value) for value in values)  # type: ignore[arg-type]


def regrets_info(stars: Sequence[Star]) -> RegretsInfo | None:
    """The stars that changed anything; None without one. The costliest coordinates of each optimizer fit in."""
    known = [star for star in stars if star.sensitivities]
    worst: dict[str, dict[str, float]] = {}
    for star in known:
        for each in star.sensitivities:
            own = worst.setdefault(star.optimizer, {})
            own[each.coordinate] = max(own.get(each.coordinate, 0.0), each.regret, 1.0 if each.diverged else 0.0)
    if not worst:
        return None
    room = max(2, (MOST_ROWS - 2 * len(worst)) // len(worst))
    lanes = []
    hidden = 0
    for optimizer in sorted(worst, key=position):
        costs = worst[optimizer]
        ranked = sorted(costs, key=lambda name: (-costs[name], name))
        hidden += max(len(ranked) - room, 0)
        lanes.append((optimizer, tuple(ranked[:room])))
    return RegretsInfo(tuple(known), tuple(lanes), hidden)


def draw_regrets(info: RegretsInfo) -> Drawing:
    """A lane per optimizer, a row per coordinate, a mark per regime."""
    drawing = Drawing(height(info.lanes), "loss above the best (nats/token)")
    drawing.band(0, NEAR_OPTIMAL)
    placed = lay_out(drawing, info.lanes)
    edge = scale_edge([each.regret for star in info.stars for each in star.sensitivities], NEAR_OPTIMAL)
    for (optimizer, names), places in zip(info.lanes, placed, strict=True):
        rows = dict(zip(names, places, strict=True))
        seen = look(optimizer)
        found = [(star, each) for star in info.stars if star.optimizer == optimizer
                 for each in star.sensitivities if each.coordinate in rows]  # fmt: skip
        drawing.scatter(
            x=[min(each.regret, edge) for _, each in found],
            y=[rows[each.coordinate] for _, each in found],
            mode="markers",
            marker={"symbol": ["triangle-right" if each.regret > edge else seen.symbol for _, each in found],
                    "size": 9, "color": seen.colour, "opacity": 0.7},
            text=[plain(_hover(star, each)) for star, each in found],
            hovertemplate="%{text}<extra></extra>",
            cliponaxis=False,
        )  # fmt: skip
        gone = [each for _, each in found if each.diverged]
        drawing.scatter(
            x=[edge] * len(gone), y=[rows[each.coordinate] for each in gone], mode="markers", hoverinfo="skip",
            marker={"symbol": "x-thin", "size": 9, "line": {"width": 2, "color": BAD}}, cliponaxis=False,
        )  # fmt: skip
    drawing.across.update(range=[-0.03 * edge, 1.04 * edge], tickformat=".4~g", nticks=5, tickangle=0)
    return drawing


def _hover(star: Star, each: Sensitivity) -> str:
    near = ", ".join(value_text(value) for value in each.near_optimal)
    return f"{each.coordinate} at {star.regime.label}: worst {change_text(each.regret)} nats; near-optimal: {near}"
