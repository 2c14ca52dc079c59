"""Learning curves of a sweep: all trials faint, the start and the best configuration in front."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tuneopt.ledger import TrialRecord
from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.figures.path import differences
from tuneopt.report.palette import BAD, FAINT, PLAIN, look
from tuneopt.report.rows import spread
from tuneopt.report.study import SweepView
from tuneopt.report.text import changes_text, count_text, plain

SETTLED = 0.25
"""The vertical scale leaves out what the best curve covers in this first part of its run."""


_HOVER = "%{y:.4f} nats per token at %{x:.3s} tokens<extra></extra>"


@dataclass(frozen=True)
class Curve:
    """One trial: ``role`` is best, seed (the best configuration, another seed), start, other or diverged."""

    trial: str
    role: str
    label: str
    tokens: tuple[int, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class CurvesInfo:
    """The curves drawn; ``left_out`` counts those that the limit kept away. ``epoch`` is tokens per pass, if known."""

    optimizer: str
    curves: tuple[Curve, ...]
    left_out: int
    budget: int
    epoch: float | None
    bottom: float
    top: float

    title = "Learning curves"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        passes = f", one pass over the training text being {count_text(self.epoch)} tokens" if self.epoch else ""
        shown = f"; {self.left_out} more trials are not drawn" if self.left_out else ""
        return (
            "Lower is better, and only the right-hand ends are compared, because curves may still cross while learning "
            f"rates decay{passes}{shown}."
        )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per point drawn."""
        return ("trial", "role", "tokens", "select_loss_nats"), [
            (curve.trial, curve.role, tokens, loss)
            for curve in self.curves
            for tokens, loss in zip(curve.tokens, curve.losses, strict=True)
        ]


def curves_info(view: SweepView, limit: int) -> CurvesInfo:
    """The curves of a sweep, at most ``limit`` of its other trials: spread evenly over their final losses."""
    best, start = view.state.descent.incumbent, view.sweep.space.start
    front, back = [], []
    for record in view.every.values():
        config = record.spec.hyperparameters
        if config == best and record.comparable:
            front.append(
                _curve(record, "best" if record.spec.seed == view.sweep.seed else "seed", "best configuration")
            )
        elif config == start and record.spec.seed == view.sweep.seed:
            front.append(_curve(record, "start", "start"))
        else:
            back.append(record)
    back.sort(key=lambda record: (record.select_loss is None, record.select_loss or 0.0, record.trial))
    chosen = spread(len(back), limit)
    others = [
        _curve(
            back[index], "other", changes_text(differences(best, back[index].spec.hyperparameters)) or "another seed"
        )
        for index in chosen
    ]
    curves = [curve for curve in (*others, *front) if curve.losses]
    bottom, top = _range(curves)
    return CurvesInfo(
        optimizer=view.optimizer,
        curves=tuple(curves),
        left_out=len(back) - len(chosen),
        budget=view.sweep.regime.tokens,
        epoch=_epoch(view.records.values()),
        bottom=bottom,
        top=top,
    )


def _curve(record: TrialRecord, role: str, label: str) -> Curve:
    points = [(point.tokens, point.select_loss) for point in record.curve if point.select_loss is not None]
    return Curve(
        record.trial,
        "diverged" if record.status == "diverged" else role,
        label,
        tuple(tokens for tokens, _ in points),
        tuple(round(loss, 5) for _, loss in points),
    )


def _range(curves: list[Curve]) -> tuple[float, float]:
    """A vertical scale on which the ends can be told apart, from the lowest loss to where the front curves settled."""
    if not curves:
        return 0.0, 1.0
    bottom = min(min(curve.losses) for curve in curves)
    front = [curve for curve in curves if curve.role in ("best", "start", "seed")] or curves
    settled = [
        next(
            (
                loss
                for tokens, loss in zip(curve.tokens, curve.losses, strict=True)
                if tokens >= SETTLED * curve.tokens[-1]
            ),
            curve.losses[-1],
        )
        for curve in front
    ]
    top = max([*settled, *(curve.losses[-1] for curve in front)])
    return bottom, max(top, bottom + 1e-3)


def _epoch(records: Iterable[TrialRecord]) -> float | None:
    return next((record.tokens / record.epochs for record in records if record.epochs > 0), None)


def draw_curves(info: CurvesInfo) -> Drawing:
    """Faint lines as one trace with gaps, then start, seeds and best; dotted verticals at the ends of epochs."""
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
        x: list[int | None] = []
        y: list[float | None] = []
        for curve in curves:
            x += [*curve.tokens, None]
            y += [*curve.losses, None]
        front = role not in ("other", "diverged")
        drawing.scatter(
            x=x,
            y=y,
            mode="lines",
            line={"color": tone, "width": width, "dash": dash},
            name=name,
            **({"hovertemplate": _HOVER} if front else {"hoverinfo": "skip"}),
        )
        if not front:
            # The ends alone answer to a pointer: what a faint line belongs to is asked where it is compared.
            drawing.scatter(
                x=[curve.tokens[-1] for curve in curves],
                y=[curve.losses[-1] for curve in curves],
                mode="markers",
                marker={"symbol": "x-thin", "size": 6, "line": {"width": 1.5, "color": tone}}
                if role == "diverged"
                else {"size": 4, "color": tone},
                text=[plain(curve.label) for curve in curves],
                hovertemplate="%{text}<br>" + _HOVER,
                showlegend=False,
                cliponaxis=role == "diverged",
            )
    if info.epoch is not None:
        passes = int(info.budget // info.epoch)
        for number in range(1, passes + 1) if passes <= 12 else ():
            drawing.rule(number * info.epoch, FAINT, "dot")
    pad = 0.04 * (info.top - info.bottom)
    drawing.across.update(range=[0, 1.01 * info.budget], tickformat="~s", nticks=7, tickangle=0)
    drawing.up.update(range=[info.bottom - pad, info.top + pad])
    return drawing
