"""Coordinate descent as a pure function of the finished trials.

`descend` keeps no state: it replays the whole search from the start over the outcomes it is given and stops where one
is missing. So a sweep can be killed at any moment, trials may finish in any order, and what is asked next depends on
the space, the start and the outcomes alone.

Policies. `single` is the published scheme (Wen et al., arXiv 2509.02046, section 3): evaluate the star around the
incumbent, move to the best change. `joint` (`tuneopt.search.joint`, docs/search.md) explores neighbours, jumps to the
combination that all trials together predict, and completes the star there. `cyclic` searches one coordinate at a time.
These stop at the same certificate; every move lowers the loss, over a set of values that extensions keep finite, so
that they terminate. `model` (`tuneopt.search.modelled`) ends after few waves without completing the star, and states
the resolution that its trials give. Losses are nats per token.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any

from tuneopt.constants import TOLERANCE
from tuneopt.search.replaying import Losses, Move, Remember, Replaying, forgetful
from tuneopt.search.space import Config, LadderSpace
from tuneopt.spec import InputError, Value, nearest


@dataclass(frozen=True, slots=True)
class Change:
    """One point of a star; ``loss`` is None unless ``status`` is completed.

    The others are diverged, pending, missing (given up) and, in a sweep, unproven.
    """

    coordinate: str
    value: Value
    config: Config
    loss: float | None
    status: str


FINALIST = "finalist"
"""The kind of a move that further seeds decided, after the search."""

CERTIFIED, BLIND, INCOMPLETE = STATES = ("certified", "blind", "incomplete")
"""What a certificate can be. Blind: nothing is missing, but its resolution is coarser than what was asked, or than most
effects in the star, so that it says little of them."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a finished sweep can claim.

    ``complete``: every change around the incumbent was evaluated, none beats it by more than ``tolerance``, and no
    coordinate stands on an edge that could still be extended. ``edges`` flags the coordinates that stand on an edge
    all the same, ``missing`` counts the trials of the star that were given up.

    ``resolution``: no change in the star is better by more, in nats, with ``confidence``, whether it was evaluated or
    not; None where that is not known yet. ``asked`` is the resolution that was asked for, and ``seeds_needed`` about
    how many further runs would reach it (None where they are too many to say). ``state`` is one of `STATES`: a descent
    by itself knows no noise, so that only a sweep certifies.
    """

    complete: bool
    tolerance: float
    edges: tuple[str, ...]
    missing: int
    resolution: float | None = None
    confidence: float | None = None
    asked: float | None = None
    seeds_needed: int | None = None
    state: str = INCOMPLETE

    @property
    def certified(self) -> bool:
        """Whether it holds at the asked resolution."""
        return self.state == CERTIFIED

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, the same wherever a certificate is printed."""
        return {
            "complete": self.complete,
            "state": self.state,
            "tolerance": self.tolerance,
            "resolution": self.resolution,
            "confidence": self.confidence,
            "asked": self.asked,
            "seeds_needed": self.seeds_needed,
            "edges": list(self.edges),
        }


@dataclass(frozen=True, slots=True)
class Descent:
    """Where the search stands: ``pending`` is the current wave's unfinished configurations, empty at the end.

    ``star`` is the star around the incumbent, ``waves`` the number of waves begun, ``asked`` every configuration that
    the search has needed so far, in order. ``extendable``: the incumbent stands on an edge that could be extended.
    """

    incumbent: Config
    incumbent_loss: float | None
    pending: tuple[Config, ...]
    star: tuple[Change, ...]
    path: tuple[Move, ...]
    waves: int
    asked: tuple[Config, ...]
    certificate: Certificate
    extendable: bool = False


def _single(replay: Replaying) -> None:
    # Steepest descent: the whole star, then the best change of it.
    while True:
        star = replay.around()
        if not replay.ask([replay.incumbent, *(config for _, _, config in star)]):
            return
        best = replay.best(star)
        if best is None:
            return
        replay.move("single", best)


def _joint(replay: Replaying) -> None:
    # Imported when a sweep runs: the model behind it needs numpy, and listing policies does not.
    from tuneopt.search.joint import descend_jointly

    descend_jointly(replay)


def _model(replay: Replaying) -> None:
    from tuneopt.search.modelled import descend_by_model  # imported late as above

    descend_by_model(replay)


def _cyclic(replay: Replaying) -> None:
    # One coordinate after another: fewer trials in a wave, and more waves.
    names = [axis.name for axis in replay.space.axes]
    place = quiet = 0
    # Over when every coordinate in a row was quiet. A space without coordinates still owes the trial of its start.
    while quiet < max(len(names), 1):
        line = replay.around(names[place : place + 1])
        if not replay.ask([replay.incumbent, *(config for _, _, config in line)]):
            return
        best = replay.best(line)
        if best is not None:
            # The same coordinate again: a move to an edge opens a further value there.
            replay.move("single", best)
            quiet = 0
        else:
            quiet += 1
            place = (place + 1) % max(len(names), 1)


POLICIES: Mapping[str, Callable[[Replaying], None]] = {
    "joint": _joint,
    "single": _single,
    "cyclic": _cyclic,
    "model": _model,
}
"""The ways to search; all but ``model`` end with a complete star, ``model`` with a resolution."""


def descend(
    space: LadderSpace,
    outcomes: Losses,
    tolerance: float,
    policy: str = "joint",
    *,
    feasible: Callable[[Config], bool] = lambda config: True,
    missing: Container[Config] = frozenset(),
    decide: bool = True,
    foreseen: float | None = None,
    remember: Remember = forgetful,
) -> Descent:
    """Replay the search from the start over ``outcomes``, and say where it stands and what it needs next.

    ``outcomes`` maps a configuration to its loss in nats per token, None if it diverged; it is only looked up, never
    walked, so its size does not matter. ``feasible`` tells which configurations can run at all: others are never asked
    for. ``missing`` names configurations that were given up: they never win, and a star that lacks one is not
    complete. ``decide=False`` asks for the first wave and goes no further. ``foreseen`` is the tolerance that was
    expected before anything ran, by default ``tolerance``: what the first wave holds rests on it alone, for that wave
    is asked for before the noise is known, and must be the same afterwards. ``remember`` keeps costly decisions between
    replays; it must be of this search and this ``feasible`` alone. Raises `InputError` for an unknown policy
    and a tolerance that is not a number from 0 up.
    """
    if not tolerance >= 0:
        raise InputError(f"the tolerance must be 0 nats or more, not {tolerance:g}; try {TOLERANCE}")
    if policy not in POLICIES:
        raise InputError(f"unknown policy {policy!r}; {nearest(policy, POLICIES)}")
    replay = Replaying(space, outcomes, tolerance, feasible, missing, decide, foreseen, remember)
    POLICIES[policy](replay)
    # Whatever the policy did, the certificate is judged here, on the star around the incumbent and on its edges.
    return _judged(replay, decide)


def standing_at(
    descent: Descent,
    incumbent: Config,
    space: LadderSpace,
    outcomes: Losses,
    *,
    feasible: Callable[[Config], bool],
    missing: Container[Config],
) -> Descent:
    """The descent with another incumbent, which further seeds have shown to be better: its star and its certificate."""
    replay = Replaying(space, outcomes, descent.certificate.tolerance, feasible, missing, True)
    replay.incumbent, replay.path, replay.waves = descent.incumbent, list(descent.path), descent.waves
    replay.asked = dict.fromkeys(descent.asked)
    replay.move(FINALIST, incumbent)
    # A combination that the finish alone tried is in no star, and the search's path would not hold it otherwise.
    replay.asked[incumbent] = None
    replay.asked.update((config, None) for _, _, config in replay.around() if config in outcomes)
    return _judged(replay, True)


def _judged(replay: Replaying, decide: bool) -> Descent:
    """Where a replay stands, with its certificate."""
    star = tuple(_change(replay, *change) for change in replay.around())
    edges, extendable = _edges(replay)
    loss = replay.loss(replay.incumbent)
    lacking = sum(change.status == "missing" for change in star)
    done = decide and not replay.pending and loss is not None
    # Three policies have seen to this; `model` may leave changes out, and may follow its posterior past a lucky loss.
    settled = all(change.status != "pending" for change in star) and not replay.best(replay.around())
    return Descent(
        incumbent=replay.incumbent,
        incumbent_loss=loss,
        pending=replay.pending,
        star=star,
        path=tuple(replay.path),
        waves=replay.waves,
        asked=tuple(replay.asked),
        certificate=Certificate(
            complete=done and settled and not lacking and not extendable,
            tolerance=replay.tolerance,
            edges=edges,
            missing=lacking,
            resolution=replay.resolution if done else None,
        ),
        extendable=extendable,
    )


def _change(replay: Replaying, name: str, value: Value, config: Config) -> Change:
    loss = replay.loss(config)
    if loss is not None:
        return Change(name, value, config, loss, "completed")
    status = "diverged" if config in replay.outcomes else "missing" if config in replay.missing else "pending"
    return Change(name, value, config, None, status)


def _edges(replay: Replaying) -> tuple[tuple[str, ...], bool]:
    """The coordinates on an edge whose further values are not in the star, and whether one could still be extended."""
    # Where the value beyond the edge is in the star, the edge is an inner point: the star shows that it is no better.
    # A value that cannot run in the regime, or that the grid may not hold, leaves the edge flagged. Only the limit on
    # extensions leaves open whether going on would help, so that it alone denies the certificate.
    found, extendable = [], False
    for axis in replay.space.axes:
        value = replay.space.value(replay.incumbent, axis.name)
        edge = axis.edge(value)
        if edge == "extended":
            further = axis.extension(value)
            assert further is not None, "an extended edge has a further value"
            if replay.feasible(replay.space.change(replay.incumbent, axis.name, further)):
                continue
        if edge:
            found.append(axis.name)
            extendable = extendable or edge == "limit"
    return tuple(found), extendable
