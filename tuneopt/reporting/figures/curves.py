"""Learning curves: those of one sweep, and what rankings during training would have told about the final one.

A loss is compared at the end of training only. Learning-rate decay moves losses late and by different amounts, so
that curves cross; these figures show by how much an early look would have misled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneopt.ledger import TrialRecord
from tuneopt.reporting.blocks import Cell, Info
from tuneopt.reporting.drawing import Drawing, spread
from tuneopt.reporting.figures.star import differences
from tuneopt.reporting.palette import BAD, FAINT, LOOKS, MUTED, PLAIN, look
from tuneopt.reporting.study import SweepView
from tuneopt.reporting.text import changes_text, count_text, drawn_of, listed, percent_text, plain

if TYPE_CHECKING:
    from tuneopt.analysis.training import TrainingOrder

SETTLED = 0.25
"""The vertical scale leaves out what the best curve covers in this first part of its run: the fall from the start."""

MOST_EPOCHS = 12
"""Ends of epochs that are marked; more lines would be a grid, and such a run is about memory anyway."""

OPTIMIZERS = "optimizers"
"""What an order is among, if not among the trials of one optimizer."""

MOST = 10
"""Orders that one figure draws: one colour each."""

_HOVER = "%{y:.4f} nats per token at %{x:.3s} tokens<extra></extra>"


@dataclass(frozen=True)
class Curve:
    """One trial: ``role`` is best, seed (the best configuration, another seed), start, other or diverged.

    ``losses`` are those of the select split in nats per token, at ``tokens``; ``label`` says what sets it apart.
    """

    trial: str
    role: str
    label: str
    tokens: tuple[int, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class CurvesInfo(Info):
    """Claim: how the best configuration came to its loss, against the start and all that was tried.

    ``left_out`` counts the curves that the limit kept away. ``budget`` is in tokens, ``epoch`` is tokens per pass over
    the training text, None if not known. ``bottom`` and ``top`` are the vertical scale in nats: from the lowest loss to
    where the front curves had settled, for only there the ends can be told apart.
    """

    optimizer: str
    curves: tuple[Curve, ...]
    left_out: int
    budget: int
    epoch: float | None
    bottom: float
    top: float

    title = "Learning curves"
    columns = ("trial", "role", "tokens", "select_loss_nats")

    def _reading(self) -> str:
        passes = f", one pass over the training text being {count_text(self.epoch)} tokens" if self.epoch else ""
        shown = f"; {self.left_out} more trials are not drawn" if self.left_out else ""
        return (
            "Lower is better, and only the right-hand ends are compared, because curves may still cross while learning "
            f"rates decay{passes}{shown}."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (curve.trial, curve.role, tokens, loss)
            for curve in self.curves
            for tokens, loss in zip(curve.tokens, curve.losses, strict=True)
        ]


def curves_info(view: SweepView, limit: int) -> CurvesInfo:
    """The curves of a sweep, at most ``limit`` of its other trials: spread evenly over their final losses.

    In front are the best configuration with all its seeds and the start with the sweep's own; the rest is background.
    Of a selection by chance the reader would not know what it leaves out; an even one shows good and bad trials alike.
    Trials without a loss, that is diverged ones, come last and are thinned as the others.
    """
    best, start = view.state.descent.incumbent, view.sweep.space.start
    front: list[Curve] = []
    back: list[TrialRecord] = []
    for record in view.needed.values():
        config, own_seed = record.spec.hyperparameters, record.spec.seed == view.sweep.seed
        if config == best and record.comparable:
            front.append(_curve(record, "best" if own_seed else "seed", "best configuration"))
        elif config == start and own_seed:
            front.append(_curve(record, "start", "start"))
        else:
            back.append(record)
    back.sort(key=lambda record: (record.select_loss is None, record.select_loss or 0.0, record.trial))
    chosen = [back[index] for index in spread(len(back), limit)]
    others = [
        _curve(record, "other", changes_text(differences(best, record.spec.hyperparameters)) or "another seed")
        for record in chosen
    ]
    curves = tuple(curve for curve in (*others, *front) if curve.losses)
    passes = (record.tokens / record.epochs for record in view.records.values() if record.epochs > 0)
    return CurvesInfo(
        view.optimizer, curves, len(back) - len(chosen), view.sweep.regime.tokens, next(passes, None), *_range(curves)
    )


def _curve(record: TrialRecord, role: str, label: str) -> Curve:
    """The select losses of a trial at the points where they were evaluated; a diverged trial is shown as that."""
    points = [(point.tokens, point.select_loss) for point in record.curve if point.select_loss is not None]
    role = "diverged" if record.status == "diverged" else role
    tokens = tuple(tokens for tokens, _ in points)
    # Five digits are more than a drawing shows, and rounding halves the page of a large study.
    return Curve(record.trial, role, label, tokens, tuple(round(loss, 5) for _, loss in points))


def _range(curves: Sequence[Curve]) -> tuple[float, float]:
    """A vertical scale on which the ends can be told apart, from the lowest loss to where the front curves settled.

    A curve has settled a quarter into its run (`SETTLED`). The fall from the first loss, several nats, would press all
    ends onto one line; and a background trial that ended high is cut off rather than allowed to do the same. The scale
    has a height of one thousandth of a nat at least, for a figure of equal losses.
    """
    if not curves:
        return 0.0, 1.0
    bottom = min(min(curve.losses) for curve in curves)
    top = bottom + 1e-3
    for curve in [curve for curve in curves if curve.role in ("best", "start", "seed")] or curves:
        # The last point counts as settled in any case, so that there is one.
        settled = next(loss for tokens, loss in zip(curve.tokens, curve.losses, strict=True)
                       if tokens >= SETTLED * curve.tokens[-1])  # fmt: skip
        top = max(top, settled, curve.losses[-1])
    return bottom, top


def draw_curves(info: CurvesInfo) -> Drawing:
    """Faint lines as one trace with gaps, then start, seeds and best; dotted verticals at the ends of epochs.

    The best configuration is drawn last, on top, in the optimizer's colour and widest; the start is dashed in neutral
    grey. Of faint lines the ends alone answer to a pointer: what a faint line belongs to is asked where it is compared.
    """
    colour = look(info.optimizer).colour
    drawing = Drawing(400, "training tokens", "select loss (nats/token)", legend=True)
    for name, role, tone, width, dash in (
        ("other trials", "other", FAINT, 1.0, "solid"),
        ("diverged", "diverged", BAD, 1.2, "dot"),
        ("best, other seeds", "seed", colour, 1.2, "solid"),
        ("start", "start", PLAIN, 2.4, "6px,4px"),
        ("best configuration", "best", colour, 3.0, "solid"),
    ):
        curves = [curve for curve in info.curves if curve.role == role]
        if not curves:
            continue
        faint = role in ("other", "diverged")
        pieces = [zip(curve.tokens, curve.losses, strict=True) for curve in curves]
        drawing.lines(pieces, tone, width, dash, name=name, **({} if faint else {"hovertemplate": _HOVER}))
        if faint:
            cross = {"symbol": "x-thin", "size": 6, "color": tone, "line": {"width": 1.5, "color": tone}}
            drawing.scatter(
                x=[curve.tokens[-1] for curve in curves], y=[curve.losses[-1] for curve in curves], mode="markers",
                marker=cross if role == "diverged" else {"size": 4, "color": tone},
                text=[plain(curve.label) for curve in curves], hovertemplate="%{text}<br>" + _HOVER, showlegend=False,
                cliponaxis=role == "diverged",
            )  # fmt: skip
    if info.epoch is not None:
        passes = int(info.budget // info.epoch)
        for number in range(1, passes + 1) if passes <= MOST_EPOCHS else ():
            drawing.rule(number * info.epoch, FAINT, "dot")
    pad = 0.04 * (info.top - info.bottom)
    drawing.across.update(range=[0, 1.01 * info.budget], tickformat="~s", nticks=7, tickangle=0)
    drawing.up.update(range=[info.bottom - pad, info.top + pad])
    return drawing


@dataclass(frozen=True)
class TrainingInfo(Info):
    """Claim: rankings by an intermediate loss are not the final ranking.

    ``orders`` hold Kendall's tau with the final ranking at fractions of training: of the optimizers of a regime, or
    (``trials``) of the trials of one tuning. A moment is marked where keeping the better half, as successive halving
    does (Li et al., arXiv 1810.05934), would have dropped one of the final winners. ``every`` counts all orders.
    """

    orders: tuple[TrainingOrder, ...]
    every: int
    trials: bool

    columns = ("corpus", "scale", "ratio", "among", "curves", "fraction", "kendall_tau", "pairs_crossed",
               "crossed_beyond_noise", "place_of_the_winner", "winners_thrown_away", "regret_nats")  # fmt: skip

    def _title(self) -> str:
        what = "trials of one tuning" if self.trials else "optimizers"
        return f"The order of {what} during training against the final one"

    def _reading(self) -> str:
        return (
            "At 1 the ranking by intermediate loss is the final ranking, at 0 it says nothing, below 0 it is rather "
            "the reverse; a cross marks a moment at which keeping the better half would have dropped a winner"
            f"{drawn_of(len(self.orders), self.every, 'orders')}."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (*order.regime, order.among, order.curves, order.fractions[at], order.tau[at], order.crossed[at],
             order.significant[at], order.winner_rank[at], " ".join(order.thrown_away[at]), order.cut_regret[at])
            for order in self.orders
            for at in range(len(order.fractions))
        ]  # fmt: skip


def training_info(orders: Sequence[TrainingOrder], trials: bool) -> TrainingInfo | None:
    """The orders of optimizers, or those of ``trials``, that have a tau anywhere; None without one.

    A tau needs two curves with a loss at the same moment. The two kinds are figures apart: optimizers are few and far
    from each other, trials many and near, so that their taus do not compare.
    """
    known = [
        order for order in orders if (order.among != OPTIMIZERS) == trials and any(tau is not None for tau in order.tau)
    ]
    chosen = tuple(known[place] for place in spread(len(known), MOST))
    return TrainingInfo(chosen, len(known), trials) if chosen else None


def draw_training(info: TrainingInfo) -> Drawing:
    """A line per regime, with crosses where a winner would have been lost.

    Lines are regimes and not optimizers, so that colours are taken from the palette in order. A cross is larger and
    bolder than a mark: it is what the figure is about.
    """
    drawing = Drawing(360, "fraction of training", "Kendall's tau with the final ranking", legend=len(info.orders) > 1)
    looks = list(LOOKS.values())
    several = len({order.regime.corpus for order in info.orders}) > 1
    for number, order in enumerate(info.orders):
        colour, symbol = looks[number % len(looks)]
        label = order.regime.label if several else order.regime._replace(corpus="").label
        label = f"{order.among} {label}" if info.trials else label
        known = [at for at, tau in enumerate(order.tau) if tau is not None]
        lost = [bool(order.thrown_away[at]) for at in known]
        drawing.scatter(
            x=[order.fractions[at] for at in known],
            y=[order.tau[at] for at in known],
            mode="lines+markers",
            name=plain(label),
            line={"color": colour, "width": 2},
            marker={
                "symbol": ["x-thin" if gone else symbol for gone in lost],
                "size": [12 if gone else 7 for gone in lost],
                "color": colour,
                "line": {"width": [2.5 if gone else 0 for gone in lost], "color": colour},
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
    """One moment of an order in words: tau, pairs that still cross, and what a cut there would drop."""
    gone = f"; a cut to the better half drops {listed(order.thrown_away[at])}" if order.thrown_away[at] else ""
    return (
        f"{label} at {percent_text(order.fractions[at])}: tau {order.tau[at]:.2f}, {order.crossed[at]} pairs crossed, "
        f"{order.significant[at]} beyond noise; the winner is number {order.winner_rank[at]}{gone}"
    )
