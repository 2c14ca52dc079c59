"""The confirmation: start and best configuration over seeds, on the split that nothing was chosen on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from tuneopt.ledger import TrialRecord
from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.palette import MUTED, look
from tuneopt.report.study import SweepView
from tuneopt.report.text import loss_text, plural


@dataclass(frozen=True)
class SeedGroup:
    """A configuration's report losses by seed, their mean and its standard error (None below two), in nats."""

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
        """Standard error of the mean."""
        return statistics.stdev(self.losses) / math.sqrt(len(self.losses)) if len(self.losses) > 1 else None


@dataclass(frozen=True)
class SeedsInfo:
    """Start and best configuration over the sweep's seeds; one group alone where the descent never moved."""

    optimizer: str
    groups: tuple[SeedGroup, ...]

    title = "Start and best configuration over seeds"
    reading = (
        "Each dot is one seed's loss on the report split, which no choice was made on; the bar is the mean with one "
        "standard error to each side."
    )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per run."""
        return ("configuration", "trial", "seed", "report_loss_nats"), [
            (group.name, trial, seed, loss)
            for group in self.groups
            for trial, seed, loss in zip(group.trials, group.seeds, group.losses, strict=True)
        ]


def seeds_info(view: SweepView) -> SeedsInfo | None:
    """The confirmation of a sweep; None before anything ended."""
    named = [("start and best" if not view.moved else "start", view.start)]
    if view.moved:
        named.append(("best", view.winner))
    groups = tuple(group for name, records in named if (group := _group(name, records)))
    return SeedsInfo(view.optimizer, groups) if groups else None


def _group(name: str, records: Sequence[TrialRecord]) -> SeedGroup | None:
    found = [
        (record.spec.seed, record.report_loss, record.trial) for record in records if record.report_loss is not None
    ]
    if not found:
        return None
    seeds, losses, trials = zip(*found, strict=True)
    return SeedGroup(name, seeds, losses, trials)


def draw_seeds(info: SeedsInfo) -> Drawing:
    """A row per configuration: dots for seeds, mean and error bar, its numbers above it."""
    colour = look(info.optimizer).colour
    drawing = Drawing(56 * len(info.groups) + 62, "report loss (nats/token)")
    for row, group in enumerate(info.groups):
        tone = colour if "best" in group.name else MUTED
        drawing.note(
            x=0, xref="paper", xanchor="left", xshift=4, y=row - 0.3,
            text=f"<b>{group.name}</b>  {loss_text(group.mean, group.error)}, {plural(len(group.losses), 'seed')}",
        )  # fmt: skip
        drawing.scatter(
            x=[group.mean], y=[row + 0.12], mode="markers",
            error_x={"type": "data", "array": [group.error or 0.0], "thickness": 2.5, "width": 7, "color": tone},
            marker={"symbol": "line-ns", "size": 18, "line": {"width": 2.5, "color": tone}},
            hovertemplate=f"mean {loss_text(group.mean, group.error)} nats per token<extra></extra>",
        )  # fmt: skip
        drawing.scatter(
            x=list(group.losses), y=[row + 0.12] * len(group.losses), mode="markers",
            marker={"size": 9, "color": tone, "opacity": 0.6},
            customdata=[[seed, trial] for seed, trial in zip(group.seeds, group.trials, strict=True)],
            hovertemplate="seed %{customdata[0]}: %{x:.4f} nats per token<br>%{customdata[1]}<extra></extra>",
        )  # fmt: skip
    losses = [loss for group in info.groups for loss in group.losses]
    pad = 0.12 * max(max(losses) - min(losses), 1e-3)
    drawing.across.update(range=[min(losses) - pad, max(losses) + pad], tickformat=".4~f", nticks=5, tickangle=0)
    drawing.up.update(range=[len(info.groups) - 0.45, -0.65], showticklabels=False)
    return drawing
