"""Coordinate descent as figures: the path that the search took, and the star around where it ended.

The star is the incumbent and every one-coordinate change of it; the certificate of a sweep is a statement on it, so
its figure is the one to look at before believing the statement. The path shows how the search came there: moves, what
was tried for each, and how much each gained (coordinate descent as in Wen et al., arXiv 2509.02046).

Encodings: the optimizer's colour, red crosses for runs that diverged, triangles at the edge for losses beyond the
scale (`scale_edge`), and the tolerance as a shaded band.
"""

from __future__ import annotations

from dataclasses import dataclass

from tuneopt.reporting.blocks import Cell, Info
from tuneopt.reporting.drawing import Drawing, Mark, height, lay_out, scale_edge
from tuneopt.reporting.palette import BAD, MUTED, look
from tuneopt.reporting.study import SweepView
from tuneopt.reporting.text import change_text, changes_text, loss_text, plain, value_text
from tuneopt.search.space import Config
from tuneopt.spec import Value

Changes = tuple[tuple[str, Value, Value], ...]
"""What two configurations differ in, as (name, value before, value after)."""


@dataclass(frozen=True)
class StarPoint:
    """One value of a coordinate, the rest as in the incumbent; ``difference`` to the incumbent in nats if it ended.

    ``status`` is incumbent, completed, diverged, pending, missing or unproven.
    """

    value: Value
    status: str
    loss: float | None
    difference: float | None

    @property
    def incumbent(self) -> bool:
        """Whether this is the incumbent itself."""
        return self.status == "incumbent"


@dataclass(frozen=True)
class StarLane:
    """A coordinate and its values in ascending order (words as declared), the incumbent's among them."""

    coordinate: str
    points: tuple[StarPoint, ...]


@dataclass(frozen=True)
class StarInfo(Info):
    """Claim: what each single change of the best configuration costs, in nats per token on the select split.

    ``tolerance`` is the difference that the sweep's certificate counts as none, and ``edge`` the largest difference
    drawn to scale (nats). The incumbent has no loss where nothing could be compared yet; then there are no differences.
    """

    optimizer: str
    incumbent_loss: float | None
    tolerance: float
    lanes: tuple[StarLane, ...]
    edge: float

    title = "Ablations around the best configuration"
    columns = ("coordinate", "value", "status", "select_loss_nats", "difference_to_incumbent_nats")

    def _reading(self) -> str:
        return (
            "Each row changes one value of the best configuration and nothing else; points to the right are worse, "
            "arrows lie beyond the scale, and inside the shaded band "
            f"(\u00b1{self.tolerance:.4f} nats, the tolerance) a single run cannot be told from the best."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (lane.coordinate, value_text(point.value), point.status, point.loss, point.difference)
            for lane in self.lanes
            for point in lane.points
        ]


def star_info(view: SweepView) -> StarInfo:
    """The star of a sweep; coordinates in declared order, those that the space holds at one value left out.

    Numbers ascend, so that a valley looks like one. Words keep the order in which they were declared.
    """
    descent, space = view.state.descent, view.sweep.space
    base = descent.incumbent_loss
    lanes = []
    for axis in space.axes:
        points = [
            StarPoint(change.value, change.status, change.loss,
                      None if base is None or change.loss is None else change.loss - base)
            for change in descent.star
            if change.coordinate == axis.name
        ]  # fmt: skip
        if points:
            own = space.value(descent.incumbent, axis.name)
            points.append(StarPoint(own, "incumbent", base, None if base is None else 0.0))
            points.sort(key=lambda one: float(one.value) if axis.numeric else axis.values.index(one.value))
            lanes.append(StarLane(axis.name, tuple(points)))
    differences = [point.difference for lane in lanes for point in lane.points if point.difference is not None]
    tolerance = view.state.tolerance
    return StarInfo(view.optimizer, base, tolerance, tuple(lanes), scale_edge(differences, tolerance))


def draw_star(info: StarInfo) -> Drawing:
    """A lane per coordinate, a row per value; what lies beyond the scale stands at its edge with its number.

    The incumbent is a large diamond on zero, a pale line leads from zero to each mark, and what has no loss (a value
    that diverged, or was not run) stands at the edge as a cross or a hollow circle with its status as number.
    """
    colour = look(info.optimizer).colour
    differences = [point.difference for lane in info.lanes for point in lane.points if point.difference is not None]
    lanes = [(lane.coordinate, [value_text(point.value) for point in lane.points]) for lane in info.lanes]
    drawing = Drawing(height(lanes), "select loss above the best (nats/token)")
    drawing.band(-info.tolerance, info.tolerance)
    drawing.rule(0)
    shown = [[_shown(point, info.edge) for point in lane.points] for lane in info.lanes]
    placed = lay_out(drawing, lanes, [[label for _, _, label, _ in own] for own in shown])
    for lane, own, places in zip(info.lanes, shown, placed, strict=True):
        drawing.bars([(0, x, place) for (x, *_), place in zip(own, places, strict=True)], colour, 2, 0.35)
        marks = [
            Mark(x, place, f"{lane.coordinate} = {value_text(point.value)}\n{hover}", symbol,
                 13 if point.incumbent else 10, BAD if point.status == "diverged" else "")
            for point, (x, symbol, _, hover), place in zip(lane.points, own, places, strict=True)
        ]  # fmt: skip
        drawing.marks(marks, colour, cliponaxis=False)
    drawing.scale(min(-1.8 * info.tolerance, 1.25 * min(differences, default=0.0)), 1.04 * info.edge, "+.4~g")
    return drawing


def _shown(point: StarPoint, edge: float) -> tuple[float, str, str, str]:
    """Where a point is drawn, its symbol, what stands to the right of its row, and its hover text."""
    loss = "no loss" if point.loss is None else f"{point.loss:.4f} nats per token"
    if point.incumbent:
        return 0.0, "diamond", "best", f"best configuration, {loss}"
    if point.difference is None:
        return edge, "x-thin" if point.status == "diverged" else "circle-open", point.status, point.status
    label = change_text(point.difference)
    if point.difference > edge:
        return edge, "triangle-right", label, f"{loss}, {label} to the best, off the scale"
    return point.difference, "circle", label, f"{loss}, {label} to the best"


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
    """An incumbent: from which place on it stood, in which wave it was decided, and the move that led to it.

    ``loss`` and ``before`` are the select losses after and before the move, in nats.
    """

    place: int
    wave: int
    kind: str
    loss: float | None
    before: float | None
    changes: Changes


@dataclass(frozen=True)
class PathInfo(Info):
    """Claim: each move of the search brought the incumbent down by more than ``tolerance`` (nats per token).

    ``tried`` are the configurations with the sweep's own seed in the order the search asked for them, ``stands`` the
    incumbents with the start first. Losses are those of the select split, on which the search decides. A finalist,
    which further seeds put first, stands at its mean over seeds, and may gain less than the tolerance.
    """

    optimizer: str
    tolerance: float
    tried: tuple[Tried, ...]
    stands: tuple[Stand, ...]

    title = "Path of the descent"
    columns = ("order", "trial", "status", "select_loss_nats", "differs_from_incumbent")

    def _reading(self) -> str:
        return (
            "Each dot is a configuration in the order the search asked for it; the stepped line is the loss of the "
            "incumbent, and each numbered mark on it is a move that the table below spells out."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (one.place, one.trial, one.status, one.loss,
             "; ".join(f"{name}: {value_text(old)} to {value_text(new)}" for name, old, new in one.changes))
            for one in self.tried
        ]  # fmt: skip


def differences(before: Config, after: Config) -> Changes:
    """What two configurations of one space differ in."""
    return tuple((old[0], old[1], new[1]) for old, new in zip(before, after, strict=True) if old != new)


def path_info(view: SweepView) -> PathInfo:
    """The path of a sweep as its outcomes tell it.

    A completed trial whose optimizer was not proven to have run is ``unproven`` and shows no loss: it could not win.
    """
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
    """Grey dots, a stepped line in the optimizer's colour and numbered marks; high losses stand at the upper edge.

    The scale always holds the start: from there the reader measures what tuning gained. What has not ended has no mark.
    Marks are grey, for almost all of them lost; colour is for the incumbent. The line is stepped, because an incumbent
    stands unchanged until a move replaces it, and it runs on to the last configuration, which did not.
    """
    colour = look(info.optimizer).colour
    losses = [one.loss for one in info.tried if one.loss is not None]
    floor = min(losses, default=0.0)
    stands = [(number, stand, stand.loss) for number, stand in enumerate(info.stands) if stand.loss is not None]
    edge = scale_edge([loss - floor for loss in losses], info.tolerance)
    top = floor + max([edge, *(1.1 * (loss - floor) for *_, loss in stands)])
    drawing = Drawing(340, "configurations tried, in order", "select loss (nats/token)", legend=True)
    gone = [one for one in info.tried if one.status == "diverged"]
    rest = [one for one in info.tried if one.status != "diverged" and one.loss is not None]
    for name, own, symbol, tone, size in (
        ("configuration", [one for one in rest if (one.loss or 0.0) <= top], "circle", MUTED, 6),
        ("above the scale", [one for one in rest if (one.loss or 0.0) > top], "triangle-up", MUTED, 6),
        ("diverged", gone, "x-thin", BAD, 8),
    ):
        marks = []
        for one in own:
            end = one.status if one.loss is None else f"{loss_text(one.loss)} nats per token"
            words = f"{changes_text(one.changes) or 'an incumbent'}: {end}"
            marks.append(Mark(one.place, top if one.loss is None else min(one.loss, top), words, symbol, size))
        if marks:
            drawing.marks(marks, tone, name=name, cliponaxis=False)
    last = max((one.place for one in info.tried), default=1)
    steps = [(stand.place, loss) for _, stand, loss in stands]
    drawing.lines([[*steps, *((last, loss) for _, loss in steps[-1:])]], colour, 2.5, shape="hv", name="incumbent")
    moves = [f"{stand.kind}: {changes_text(stand.changes)}" if stand.changes else stand.kind for _, stand, _ in stands]
    drawing.scatter(
        x=[place for place, _ in steps],
        y=[loss for _, loss in steps],
        mode="markers+text",  # ``text`` is the number in the mark, so that the hover needs data of its own
        marker={"size": 17, "color": colour},
        text=[str(number) for number, *_ in stands],
        textfont={"size": 10, "color": "#ffffff"},
        textposition="middle center",
        customdata=[[plain(move), loss] for move, (_, loss) in zip(moves, steps, strict=True)],
        hovertemplate="%{customdata[0]}<br>%{y:.4f} nats per token<extra></extra>",
        showlegend=False,
        cliponaxis=False,
    )
    span = max(top - floor, 1e-9)
    drawing.up.update(range=[floor - 0.09 * span, top + 0.04 * span], tickformat=".4~f")
    drawing.across.update(range=[0.2, last + 0.8], tickformat="d")
    return drawing
