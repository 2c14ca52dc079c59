"""Losses with their standard errors: of the optimizers of each regime, and of a sweep's start and best over seeds.

All are losses on the report split, on which no choice was made (nats per token): the lowest of many losses on the split
that chose it would be too low by luck. Errors differ in their source. Of a regime they come from the spread that the
analysis pools over regimes; of one sweep's confirmation from its own seeds, as they are shown beside the dots.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from tuneopt.analysis.names import decimals, optimizer_name
from tuneopt.reporting.blocks import Cell, Info
from tuneopt.reporting.compare import Comparison
from tuneopt.reporting.drawing import Drawing, Mark, fitting, height, lay_out
from tuneopt.reporting.palette import MUTED, look
from tuneopt.reporting.study import SweepView
from tuneopt.reporting.text import drawn_of, loss_text, plural


@dataclass(frozen=True)
class LossPoint:
    """An optimizer's result: mean report loss over ``runs`` seeds, its standard error (None: no noise is known)."""

    optimizer: str
    loss: float
    error: float | None
    runs: int
    group: int | None


@dataclass(frozen=True)
class LossLane:
    """A regime and its optimizers, lowest loss first."""

    label: str
    points: tuple[LossPoint, ...]


@dataclass(frozen=True)
class LossesInfo(Info):
    """Claim: who has the lowest loss in a regime, and who cannot be told apart from it.

    A standard error is sigma / sqrt(seeds), with sigma the spread between seeds that the analysis estimates for the
    regime. Tie groups are those of the ranking (1 is the best). ``regimes`` counts those that the figure has no room
    for as well.
    """

    lanes: tuple[LossLane, ...]
    regimes: int

    title = "Loss by optimizer and regime"
    columns = ("regime", "optimizer", "report_loss_nats", "standard_error_nats", "seeds", "tie_group")

    def _reading(self) -> str:
        return (
            "Each row is an optimizer's distance to the lowest report loss of its regime, with one standard error to "
            "each side; optimizers of one tie group cannot be told apart"
            f"{drawn_of(len(self.lanes), self.regimes, 'regimes')}."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (lane.label, point.optimizer, point.loss, point.error, point.runs, point.group)
            for lane in self.lanes
            for point in lane.points
        ]


def losses_info(comparison: Comparison) -> LossesInfo | None:
    """The losses that a comparison ranks; None where no regime has several. Regimes with no room are left out evenly.

    Order, losses and tie groups are those of the document that ``report --json`` prints.
    """
    lanes = []
    for regime, ranking in comparison.rankings.items():
        points = []
        groups = ranking["tie_groups"] or [None] * len(ranking["order"])
        sigma = ranking["sigma"]
        for optimizer, loss, group in zip(ranking["order"], ranking["losses"], groups, strict=True):
            runs = comparison.winners[regime, optimizer].runs
            points.append(LossPoint(optimizer, loss, None if sigma is None else sigma / math.sqrt(runs), runs, group))
        lanes.append(LossLane(comparison.label(regime), tuple(points)))
    # A regime with one optimizer has no distances; its loss is in the tables.
    lanes = [lane for lane in lanes if len(lane.points) > 1]
    chosen = tuple(lanes[place] for place in fitting([len(lane.points) for lane in lanes]))
    return LossesInfo(chosen, len(lanes)) if chosen else None


def draw_losses(info: LossesInfo) -> Drawing:
    """A lane per regime, a row per optimizer in its colour; the loss and the tie group stand to the right.

    Distances and not losses are drawn, because regimes differ by far more than optimizers do. One trace holds all rows
    of an optimizer, because a trace has one colour for its error bars. The scale is a thousandth of a nat at least.
    """
    lanes = [(lane.label, [optimizer_name(point.optimizer) for point in lane.points]) for lane in info.lanes]
    drawing = Drawing(height(lanes), "report loss above the lowest (nats/token)")
    drawing.rule(0)
    texts = [[f"{point.loss:.{decimals(point.error)}f}" + (f" \u00b7 {point.group}" if point.group else "")
              for point in lane.points] for lane in info.lanes]  # fmt: skip
    placed = lay_out(drawing, lanes, texts, "loss \u00b7 tie group")
    rows: dict[str, list[tuple[float, int, LossPoint]]] = {}
    for lane, places in zip(info.lanes, placed, strict=True):
        for point, place in zip(lane.points, places, strict=True):
            rows.setdefault(point.optimizer, []).append((point.loss - lane.points[0].loss, place, point))
    for optimizer, own in rows.items():
        colour, symbol = look(optimizer)
        errors = [point.error or 0.0 for _, _, point in own]
        marks = [
            Mark(
                x,
                place,
                f"{loss_text(point.loss, point.error)} nats per token, {plural(point.runs, 'seed')}",
                symbol,
                11,
            )
            for x, place, point in own
        ]
        error = {"type": "data", "array": errors, "thickness": 2, "width": 5, "color": colour}
        drawing.marks(marks, colour, cliponaxis=False, error_x=error)
    widest = max([1e-3, *(x + (point.error or 0.0) for own in rows.values() for x, _, point in own)])
    least = min(x - (point.error or 0.0) for own in rows.values() for x, _, point in own)
    drawing.scale(min(-0.1 * widest, 1.06 * least), 1.06 * widest, "+.4~g")
    return drawing


@dataclass(frozen=True)
class SeedGroup:
    """A configuration's report losses by seed in nats per token, with the ids of their trials."""

    name: str
    seeds: tuple[int, ...]
    losses: tuple[float, ...]
    trials: tuple[str, ...]

    @property
    def mean(self) -> float:
        """Mean report loss."""
        return statistics.fmean(self.losses)

    @property
    def error(self) -> float | None:
        """Standard error of the mean, from these seeds alone; None below two seeds, where nothing is known of it."""
        return statistics.stdev(self.losses) / math.sqrt(len(self.losses)) if len(self.losses) > 1 else None


@dataclass(frozen=True)
class SeedsInfo(Info):
    """Claim: tuning gained what the two means differ by, confirmed with fresh seeds on a split that chose nothing.

    ``groups`` are the start and the best configuration; one group alone where the descent never moved.
    """

    optimizer: str
    groups: tuple[SeedGroup, ...]

    title = "Start and best configuration over seeds"
    columns = ("configuration", "trial", "seed", "report_loss_nats")

    def _reading(self) -> str:
        return (
            "Each dot is one seed's loss on the report split, which no choice was made on; the bar is the mean with "
            "one standard error to each side."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (group.name, trial, seed, loss)
            for group in self.groups
            for trial, seed, loss in zip(group.trials, group.seeds, group.losses, strict=True)
        ]


def seeds_info(view: SweepView) -> SeedsInfo | None:
    """The confirmation of a sweep; None before anything ended. Runs without a comparable loss are left out."""
    named = [("start", view.start), ("best", view.winner)] if view.moved else [("start and best", view.start)]
    groups = []
    for name, records in named:
        known = [(one.spec.seed, one.report_loss, one.trial) for one in records if one.report_loss is not None]
        if known:
            groups.append(SeedGroup(name, *zip(*known, strict=True)))
    return SeedsInfo(view.optimizer, tuple(groups)) if groups else None


def draw_seeds(info: SeedsInfo) -> Drawing:
    """A row per configuration: dots for seeds, mean and error bar, its numbers above it.

    The best is in the optimizer's colour and the start grey. The scale holds the losses and nothing else, for their
    differences are small against the losses themselves. Numbers stand above the dots, so that a phone has the whole
    width for the scale. With one seed the bar has no length, and the text gives no error.
    """
    colour = look(info.optimizer).colour
    drawing = Drawing(56 * len(info.groups) + 62, "report loss (nats/token)")
    for row, group in enumerate(info.groups):
        tone = colour if "best" in group.name else MUTED
        mean, y = loss_text(group.mean, group.error), row + 0.12
        drawing.note(f"<b>{group.name}</b>  {mean}, {plural(len(group.losses), 'seed')}",
                     x=0, xref="paper", xanchor="left", xshift=4, y=row - 0.3)  # fmt: skip
        error = {"type": "data", "array": [group.error or 0.0], "thickness": 2.5, "width": 7, "color": tone}
        drawing.marks([Mark(group.mean, y, f"mean {mean} nats per token", "line-ns", 18)], tone, error_x=error)
        seeds = zip(group.seeds, group.losses, group.trials, strict=True)
        marks = [
            Mark(loss, y, f"seed {seed}: {loss_text(loss)} nats per token\n{trial}") for seed, loss, trial in seeds
        ]
        drawing.marks(marks, tone, opacity=0.6)
    losses = [loss for group in info.groups for loss in group.losses]
    pad = 0.12 * max(max(losses) - min(losses), 1e-3)
    drawing.scale(min(losses) - pad, max(losses) + pad, ".4~f")
    drawing.up.update(range=[len(info.groups) - 0.45, -0.65], showticklabels=False)
    return drawing
