"""How many trials a study will probably take, phase by phase, from what is known so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tuneopt.search.space import LadderSpace
from tuneopt.search.standing import Standing
from tuneopt.search.study.planner import StudyPlan
from tuneopt.search.sweep import TYPICAL_MOVES
from tuneopt.spec import Regime

USUALLY_SENSITIVE = ("learning_rate", "weight_decay")
"""Coordinates that are counted as scaling-sensitive before Phase I has said which are: an optimizer of the published
study has one to three, and these most often."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The trials of one optimizer in one regime: those ended, and those probably still to come."""

    phase: str
    optimizer: str
    regime: Regime
    done: int
    remaining: int

    @property
    def trials(self) -> int:
        """All of them."""
        return self.done + self.remaining


def expected(plan: StudyPlan, standings: Mapping[str, Standing]) -> tuple[Expected, ...]:
    """The trials of every sweep that the study has or will have; the unmatched budgets are not among them."""
    found: dict[tuple[str, str, Regime], list[Standing]] = {}
    for standing in standings.values():
        key = (standing.task.phase, standing.task.optimizer, standing.task.sweep.regime)
        found.setdefault(key, []).append(standing)
    begun = [_begun(*key, held) for key, held in found.items()]
    coming = [each for each in _coming(plan, standings) if (each.phase, each.optimizer, each.regime) not in found]
    return (*begun, *coming)


def _begun(phase: str, optimizer: str, regime: Regime, held: list[Standing]) -> Expected:
    waiting = {spec.id for standing in held for spec in standing.pending}
    done = {trial for standing in held for trial in standing.trials} - waiting
    last = held[-1]
    left = len(last.pending) if last.task.quota is not None else last.state.progress.remaining
    return Expected(phase, optimizer, regime, len(done), 0 if last.finished else left)


def _coming(plan: StudyPlan, standings: Mapping[str, Standing]) -> Iterator[Expected]:
    study = plan.study
    for name, space in study.spaces.items():
        finding = plan.finding(name, standings)
        sensitive = finding.sensitive if finding.verdicts else USUALLY_SENSITIVE
        for regime in plan.regimes("II"):
            yield Expected("II", name, regime, 0, _sweep(space, sensitive, study.replicates))
        for regime in plan.regimes("III"):
            varied = tuple(space.by_name) if study.star else ()
            yield Expected("III", name, regime, 0, _sweep(space, varied, study.replicates))


def _sweep(space: LadderSpace, varied: tuple[str, ...], replicates: int) -> int:
    """The trials of a sweep over some coordinates: its start and star, and a combination with its own for each move."""
    star = sum(len(axis.line(axis.start)) for axis in space.axes if axis.name in varied)
    return replicates + star + (TYPICAL_MOVES * (star + 1) + replicates - 1 if star else 0)
