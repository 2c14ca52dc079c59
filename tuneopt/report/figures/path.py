"""The path of the descent: every configuration in the order it was asked for, and the incumbent as it moved."""

from __future__ import annotations

from dataclasses import dataclass

from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.figures.star import scale_edge
from tuneopt.report.palette import BAD, MUTED, look
from tuneopt.report.study import SweepView
from tuneopt.report.text import changes_text, plain, value_text
from tuneopt.search.space import Config
from tuneopt.spec import Value

Changes = tuple[tuple[str, Value, Value], ...]


@dataclass(frozen=True)
class Tried:
    """A configuration: its place in the order asked (1 is the start), status, select loss in nats, and its changes.

    ``changes`` is what sets it apart from the incumbent that it is nearest to.
    """

    place: int
    trial: str
    status: str
    loss: float | None
    changes: Changes


@dataclass(frozen=True)
class Stand:
    """An incumbent: from which place on it stood, in which wave it was decided, and the move that led to it."""

    place: int
    wave: int
    kind: str
    loss: float | None
    before: float | None
    changes: Changes


@dataclass(frozen=True)
class PathInfo:
    """The configurations tried with the sweep's own seed, and the incumbents."""

    optimizer: str
    tolerance: float
    tried: tuple[Tried, ...]
    stands: tuple[Stand, ...]

    title = "Path of the descent"
    reading = (
        "Each dot is a configuration in the order the search asked for it; the stepped line is the loss of the "
        "incumbent, and each numbered mark on it is a move that the table below spells out."
    )

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per configuration."""
        columns = ("order", "trial", "status", "select_loss_nats", "differs_from_incumbent")
        return columns, [
            (each.place, each.trial, each.status, each.loss, "; ".join(f"{n}: {value_text(a)} to {value_text(b)}"
                                                                      for n, a, b in each.changes))
            for each in self.tried
        ]  # fmt: skip


def differences(before: Config, after: Config) -> Changes:
    """What two configurations differ in, as (name, value before, value after)."""
    return tuple((old[0], old[1], new[1]) for old, new in zip(before, after, strict=True) if old != new)


def path_info(view: SweepView) -> PathInfo:
    """The path of a sweep as its outcomes tell it."""
    descent, start = view.state.descent, view.sweep.space.start
    places = {config: number for number, config in enumerate(descent.asked, start=1)}
    incumbents = [move.config for move in reversed(descent.path)] + [start]
    tried = []
    for config, place in places.items():
        record = view.record(config)
        status = "pending" if record is None else record.status
        if record is not None and record.status == "completed" and not record.comparable:
            status = "unproven"
        loss = record.select_loss if record is not None and status == "completed" else None
        changes = min((differences(incumbent, config) for incumbent in incumbents), key=len)
        tried.append(Tried(place, view.sweep.trial_id(config), status, loss, changes))
    stands = [Stand(1, 1, "start", tried[0].loss if tried else None, None, ())]
    for move in descent.path:
        # A move may lead to a configuration that an earlier star asked for: it cannot stand before its predecessor.
        place = max(places[move.config], stands[-1].place)
        stands.append(Stand(place, move.wave, move.kind, move.loss, move.loss_before, move.changes))
    return PathInfo(view.optimizer, view.state.tolerance, tuple(tried), tuple(stands))


def draw_path(info: PathInfo) -> Drawing:
    """Dots, a stepped line and numbered marks; losses above the scale stand at its upper edge."""
    colour = look(info.optimizer).colour
    losses = [each.loss for each in info.tried if each.loss is not None]
    floor = min(losses, default=0.0)
    edge = scale_edge([loss - floor for loss in losses], info.tolerance)
    starts = [stand.loss - floor for stand in info.stands if stand.loss is not None]
    top = floor + max([edge, *(1.1 * above for above in starts)])
    drawing = Drawing(340, "configurations tried, in order", "select loss (nats/token)", legend=True)
    for name, wanted, symbol, tone in (
        ("configuration", "inside", "circle", MUTED),
        ("above the scale", "above", "triangle-up", MUTED),
        ("diverged", "diverged", "x-thin", BAD),
    ):
        points = [each for each in info.tried if _place(each, top) == wanted]
        if points:
            drawing.scatter(
                x=[each.place for each in points],
                y=[min(each.loss, top) if each.loss is not None else top for each in points],
                mode="markers",
                name=name,
                marker={"symbol": symbol, "size": 8 if symbol == "x-thin" else 6, "color": tone,
                        "line": {"width": 2 if symbol == "x-thin" else 0, "color": tone}},
                customdata=[[plain(_hover(each))] for each in points],
                hovertemplate="%{customdata[0]}<extra></extra>",
                cliponaxis=False,
            )  # fmt: skip
    numbered = [(number, stand) for number, stand in enumerate(info.stands) if stand.loss is not None]
    stands = [stand for _, stand in numbered]
    last = max((each.place for each in info.tried), default=1)
    drawing.scatter(
        x=[stand.place for stand in stands] + [last] * bool(stands),
        y=[stand.loss for stand in stands] + [stand.loss for stand in stands[-1:]],
        mode="lines",
        line={"color": colour, "width": 2.5, "shape": "hv"},
        name="incumbent",
        hoverinfo="skip",
    )
    drawing.scatter(
        x=[stand.place for stand in stands],
        y=[stand.loss for stand in stands],
        mode="markers+text",
        marker={"size": 17, "color": colour},
        text=[str(number) for number, _ in numbered],
        textfont={"size": 10, "color": "#ffffff"},
        textposition="middle center",
        customdata=[[plain(f"{stand.kind}: {changes_text(stand.changes)}" if stand.changes else stand.kind), stand.loss]
                    for stand in stands],
        hovertemplate="%{customdata[0]}<br>%{y:.4f} nats per token<extra></extra>",
        showlegend=False,
        cliponaxis=False,
    )  # fmt: skip
    span = max(top - floor, 1e-9)
    drawing.up.update(range=[floor - 0.09 * span, top + 0.04 * span], tickformat=".4~f")
    drawing.across.update(range=[0.2, last + 0.8], tickformat="d")
    return drawing


def _place(each: Tried, top: float) -> str:
    if each.status == "diverged":
        return "diverged"
    return "" if each.loss is None else "inside" if each.loss <= top else "above"


def _hover(each: Tried) -> str:
    what = changes_text(each.changes) or "an incumbent"
    return f"{what}: {each.status if each.loss is None else f'{each.loss:.4f} nats per token'}"
