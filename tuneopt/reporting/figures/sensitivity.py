"""How much each coordinate matters: in one sweep over its neighbouring values, and over the stars of all regimes.

The paper asks which hyperparameters need tuning at all and which may be left alone (Wen et al., arXiv 2509.02046). Both
figures answer with the loss at values near the best one while everything else stays at its best; they say nothing
about two coordinates changed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneopt.analysis.sensitivity import Sensitivity, sensitivities
from tuneopt.constants import NEAR_OPTIMAL
from tuneopt.reporting.blocks import Cell, Info
from tuneopt.reporting.drawing import MOST_ROWS, Drawing, Mark, height, lay_out, scale_edge
from tuneopt.reporting.figures.star import star_info
from tuneopt.reporting.palette import BAD, FAINT, look, position
from tuneopt.reporting.study import SweepView
from tuneopt.reporting.text import change_text, near_text, plain, value_text
from tuneopt.spec import Value

if TYPE_CHECKING:
    from tuneopt.analysis.sensitivity import Star


def _values(values: Sequence[Value]) -> str:
    return " ".join(value_text(value) for value in values)


@dataclass(frozen=True)
class SensitivityInfo(Info):
    """Claim: which coordinates of one sweep need careful tuning.

    ``coordinates`` hold the losses (nats per token, select split) over the near grid, one value to each side of the
    best, the widest range first. ``tolerance`` is the sweep's: a range within it is drawn grey, for noise leaves open
    whether that coordinate matters.
    """

    optimizer: str
    incumbent_loss: float
    tolerance: float
    coordinates: tuple[Sensitivity, ...]

    title = "Sensitivity of each coordinate"
    columns = ("coordinate", "best_value", "near_values", "select_losses_nats", "diverged", "spread_nats")

    def _reading(self) -> str:
        return (
            "Each bar spans the losses when one coordinate moves a single grid step from its best value, so a long bar "
            "needs careful tuning. Of a bar inside the shaded tolerance noise leaves open whether it matters."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (one.coordinate, value_text(one.incumbent), _values(one.values),
             " ".join(f"{loss:.5f}" for loss in one.losses), _values(one.diverged), one.spread)
            for one in self.coordinates
        ]  # fmt: skip


def sensitivity_info(view: SweepView) -> SensitivityInfo | None:
    """The sensitivities of a sweep; None before its incumbent has a loss or any neighbour of it ended.

    One step to each side and no more: a grid that was extended far on one side would make its coordinate look
    sensitive for having been explored. What diverged counts as a neighbour and has no loss.
    """
    info = star_info(view)
    near = []
    for lane in info.lanes:
        own = next(index for index, point in enumerate(lane.points) if point.incumbent)
        for point in (*lane.points[max(own - 1, 0) : own], *lane.points[own + 1 : own + 2]):
            if point.status in ("completed", "diverged"):
                near.append((lane.coordinate, point.value, point.loss))
    if info.incumbent_loss is None or not near:
        return None
    incumbent = dict(view.state.descent.incumbent)
    ranked = sensitivities(incumbent, info.incumbent_loss, near, info.tolerance)
    return SensitivityInfo(info.optimizer, info.incumbent_loss, info.tolerance, ranked)


def draw_sensitivity(info: SensitivityInfo) -> Drawing:
    """A bar per coordinate with its name and worst cost above it, and a dot per value; the best is a diamond.

    Names stand above the bars instead of at the axis, so that the bars have the whole width of a phone. A range beyond
    the scale ends at the edge in a triangle, and its number is above it. A bar no wider than the tolerance is grey.
    The scale leaves 1.8 tolerances to the left of the best, so that the band is seen whole.
    """
    colour, base = look(info.optimizer).colour, info.incumbent_loss
    worst = [loss - base for one in info.coordinates for loss in one.losses]
    edge = scale_edge(worst, info.tolerance)
    rows = max(len(info.coordinates), 2)
    drawing = Drawing(40 * rows + 58, "select loss above the best (nats/token)")
    drawing.band(-info.tolerance, info.tolerance)
    drawing.rule(0)
    for row, one in enumerate(info.coordinates):
        low, high = min(one.losses) - base, max(one.losses) - base
        gone = f" \u00b7 diverged at {', '.join(value_text(value) for value in one.diverged)}" if one.diverged else ""
        beyond = ", off the scale" if high > edge else ""
        drawing.note(
            f"<b>{plain(one.coordinate)}</b>  {change_text(high)}{beyond}{plain(gone)}",
            x=0, xref="paper", xanchor="left", xshift=4, y=row - 0.3, align="left",
        )  # fmt: skip
        tone = colour if high - low > info.tolerance else FAINT
        drawing.bars([(low, min(high, edge), row + 0.14)], tone, 7, 0.45)
        marks = []
        for value, loss in zip(one.values, one.losses, strict=True):
            best = value == one.incumbent
            symbol = "diamond" if best else "triangle-right" if loss - base > edge else "circle"
            words = f"{one.coordinate} = {value_text(value)}\n{change_text(loss - base)} nats per token"
            marks.append(Mark(min(loss - base, edge), row + 0.14, words, symbol, 12 if best else 9))
        drawing.marks(marks, colour, 0.7, cliponaxis=False)
    drawing.scale(min(-1.8 * info.tolerance, 1.25 * min([0.0, *worst])), 1.06 * edge, "+.4~g")
    drawing.up.update(range=[rows - 0.4, -0.7], showticklabels=False)
    return drawing


@dataclass(frozen=True)
class RegretsInfo(Info):
    """Claim: what one wrong coordinate costs, over all regimes with a star.

    A mark is the regret (nats above the best) of the worst value of a coordinate that still trained, in one regime.
    ``lanes`` are the optimizers with their coordinates, the costliest first; ``hidden`` calmer ones have no room.
    Within `NEAR_OPTIMAL` nats of the best a value counts as near-optimal, by the rule of the paper.
    """

    stars: tuple[Star, ...]
    lanes: tuple[tuple[str, tuple[str, ...]], ...]
    hidden: int

    title = "What one wrong coordinate costs"
    columns = ("optimizer", "corpus", "scale", "ratio", "coordinate", "best_value", "worst_regret_nats",
               "spread_nats", "near_optimal_values", "values", "losses_nats", "diverged_values")  # fmt: skip

    def _reading(self) -> str:
        hidden = f"; {self.hidden} calmer coordinates are not drawn" if self.hidden else ""
        return (
            "Each mark is a regime: the loss of the worst value of that coordinate which still trained, the others at "
            f"their best; near-optimal is {near_text(max(star.threshold for star in self.stars))}; "
            f"{NEAR_OPTIMAL:g} nats are shaded, and a red cross is a regime in which some value diverged{hidden}."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (star.optimizer, *star.regime, one.coordinate, value_text(one.incumbent), one.regret, one.spread,
             _values(one.near_optimal), _values(one.values), " ".join(f"{loss:.5g}" for loss in one.losses),
             _values(one.diverged))
            for star in self.stars
            for one in star.sensitivities
        ]  # fmt: skip


def regrets_info(stars: Sequence[Star]) -> RegretsInfo | None:
    """The stars that changed anything; None without one. The costliest coordinates of each optimizer fit in.

    A coordinate that diverged somewhere counts as costing one nat at least: that is the mistake to warn of.
    """
    known = [star for star in stars if star.sensitivities]
    worst: dict[str, dict[str, float]] = {}
    for star in known:
        for one in star.sensitivities:
            own = worst.setdefault(star.optimizer, {})
            own[one.coordinate] = max(own.get(one.coordinate, 0.0), one.regret, 1.0 if one.diverged else 0.0)
    if not worst:
        return None
    room = max(2, (MOST_ROWS - 2 * len(worst)) // len(worst))
    ranked = {
        optimizer: sorted(worst[optimizer], key=lambda name: (-worst[optimizer][name], name))
        for optimizer in sorted(worst, key=position)
    }
    hidden = sum(max(len(names) - room, 0) for names in ranked.values())
    lanes = tuple((optimizer, tuple(names[:room])) for optimizer, names in ranked.items())
    return RegretsInfo(tuple(known), lanes, hidden)


def draw_regrets(info: RegretsInfo) -> Drawing:
    """A lane per optimizer, a row per coordinate, a mark per regime; red crosses at the edge are regimes that diverged.

    Marks are see-through, so that several regimes at one place look darker. A regret beyond the scale is a triangle at
    its edge. Crosses carry no text: the mark of their regime says which values are near-optimal.
    """
    drawing = Drawing(height(info.lanes), "loss above the best (nats/token)")
    drawing.band(0, NEAR_OPTIMAL)
    placed = lay_out(drawing, info.lanes)
    edge = scale_edge([one.regret for star in info.stars for one in star.sensitivities], NEAR_OPTIMAL)
    for (optimizer, names), places in zip(info.lanes, placed, strict=True):
        rows = dict(zip(names, places, strict=True))
        colour, symbol = look(optimizer)
        own = [(star, one) for star in info.stars if star.optimizer == optimizer
               for one in star.sensitivities if one.coordinate in rows]  # fmt: skip
        marks = [
            Mark(min(one.regret, edge), rows[one.coordinate],
                 f"{one.coordinate} at {star.regime.label}: worst {change_text(one.regret)} nats; near-optimal: "
                 f"{', '.join(value_text(value) for value in one.near_optimal)}",
                 "triangle-right" if one.regret > edge else symbol)
            for star, one in own
        ]  # fmt: skip
        drawing.marks(marks, colour, 0.7, cliponaxis=False)
        gone = [Mark(edge, rows[one.coordinate], symbol="x-thin") for _, one in own if one.diverged]
        drawing.marks(gone, BAD, cliponaxis=False)
    drawing.scale(-0.03 * edge, 1.04 * edge, ".4~g")
    return drawing
