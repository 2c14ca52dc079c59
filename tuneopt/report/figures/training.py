"""Rankings during training against the final one: what a cut at some moment would have thrown away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.palette import LOOKS, MUTED
from tuneopt.report.rows import spread
from tuneopt.report.text import listed, percent_text, plain

if TYPE_CHECKING:
    from tuneopt.analysis.training import TrainingOrder

OPTIMIZERS = "optimizers"
"""What an order is among, if not among the trials of one optimizer."""

MOST = 10
"""Orders that one figure draws: one colour each."""


@dataclass(frozen=True)
class TrainingInfo:
    """Orders over the course of training: of the optimizers of a regime, or of the trials of one tuning."""

    orders: tuple[TrainingOrder, ...]
    every: int
    trials: bool

    @property
    def title(self) -> str:
        """What is shown."""
        what = "trials of one tuning" if self.trials else "optimizers"
        return f"The order of {what} during training against the final one"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        hidden = f" ({len(self.orders)} of {self.every} orders are drawn)" if len(self.orders) < self.every else ""
        return (
            "At 1 the ranking by intermediate loss is the final ranking, at 0 it says nothing, below 0 it is rather "
            f"the reverse; a cross marks a moment at which keeping the better half would have dropped a winner{hidden}."
        )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per regime and fraction."""
        columns = ("corpus", "scale", "ratio", "among", "curves", "fraction", "kendall_tau", "pairs_crossed",
                   "crossed_beyond_noise", "place_of_the_winner", "winners_thrown_away", "regret_nats")  # fmt: skip
        return columns, [
            (*order.regime, order.among, order.curves, order.fractions[at], order.tau[at], order.crossed[at],
             order.significant[at], order.winner_rank[at], " ".join(order.thrown_away[at]), order.cut_regret[at])
            for order in self.orders
            for at in range(len(order.fractions))
        ]  # fmt: skip


def training_info(orders: Sequence[TrainingOrder], trials: bool) -> TrainingInfo | None:
    """The orders of optimizers, or those of ``trials``, that have a tau anywhere; None without one."""
    known = [
        order for order in orders if (order.among != OPTIMIZERS) == trials and any(t is not None for t in order.tau)
    ]
    chosen = tuple(known[place] for place in spread(len(known), MOST))
    return TrainingInfo(chosen, len(known), trials) if chosen else None


def draw_training(info: TrainingInfo) -> Drawing:
    """A line per regime, with crosses where a winner would have been lost."""
    drawing = Drawing(360, "fraction of training", "Kendall's tau with the final ranking", legend=len(info.orders) > 1)
    looks = list(LOOKS.values())
    several = len({order.regime.corpus for order in info.orders}) > 1
    for number, order in enumerate(info.orders):
        seen = looks[number % len(looks)]
        label = order.regime.label if several else order.regime._replace(corpus="").label
        label = f"{order.among} {label}" if info.trials else label
        known = [at for at, tau in enumerate(order.tau) if tau is not None]
        lost = [bool(order.thrown_away[at]) for at in known]
        drawing.scatter(
            x=[order.fractions[at] for at in known],
            y=[order.tau[at] for at in known],
            mode="lines+markers",
            name=plain(label),
            line={"color": seen.colour, "width": 2},
            marker={
                "symbol": ["x-thin" if gone else seen.symbol for gone in lost],
                "size": [12 if gone else 7 for gone in lost],
                "color": seen.colour,
                "line": {"width": [2.5 if gone else 0 for gone in lost], "color": seen.colour},
            },
            text=[plain(_hover(order, at, label)) for at in known],
            hovertemplate="%{text}<extra></extra>",
        )
    drawing.level(0, MUTED, "dot")
    drawing.across.update(range=[0, 1.03], tickformat=".0%", nticks=6, tickangle=0)
    lowest = min([0.0, *(tau for order in info.orders for tau in order.tau if tau is not None)])
    drawing.up.update(range=[lowest - 0.08, 1.08], tickformat=".1f", nticks=6)
    return drawing


def _hover(order: TrainingOrder, at: int, label: str) -> str:
    gone = f"; a cut to the better half drops {listed(order.thrown_away[at])}" if order.thrown_away[at] else ""
    return (
        f"{label} at {percent_text(order.fractions[at])}: tau {order.tau[at]:.2f}, {order.crossed[at]} pairs crossed, "
        f"{order.significant[at]} beyond noise; the winner is number {order.winner_rank[at]}{gone}"
    )
