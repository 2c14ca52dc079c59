"""How many trials a study will probably take, by phase, optimizer and regime.

Numbers of trials are estimates: a descent's path is known only when it has been walked. Sweeps that have begun are
counted as their own state tells, the others as a sweep usually goes. What Phase II takes depends on which coordinates
will be found to scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tuneopt.search.space import LadderSpace
from tuneopt.search.standing import Standing
from tuneopt.search.state import typical_trials
from tuneopt.search.study.brackets import BRACKET
from tuneopt.search.study.comparison import coming
from tuneopt.search.study.matching import MATCH
from tuneopt.search.study.planner import StudyPlan
from tuneopt.spec import Regime, Scale

SENSITIVE = ((), ("learning_rate", "weight_decay", "warmup"))
"""Coordinates that are counted as scaling-sensitive before Phase I has said which are: the fewest, and the most."""

USUALLY_SENSITIVE = {"nano": (), "paper": ("learning_rate", "weight_decay")}
"""Those that usually are, by ladder. An optimizer of the published study has one to three, and these most often. On
small models runs scatter more than values matter: of 12 optimizers in two studies at nano-65k none had any
(docs/nano-study.md, docs/muon-study.md), and Phase II is a few seeds in place of sweeps."""


@dataclass(frozen=True, slots=True)
class Expected:
    """The trials of one optimizer in one regime: those ended, and those probably still to come."""

    phase: str  # "I", "II" or "III"
    optimizer: str
    regime: Regime
    done: int  # trials
    remaining: int

    @property
    def trials(self) -> int:
        """Those ended and those to come."""
        return self.done + self.remaining


def expected(
    plan: StudyPlan, standings: Mapping[str, Standing], guess: tuple[str, ...] | None = None
) -> tuple[Expected, ...]:
    """The trials of every sweep that the study has or will have; the unmatched budgets are not among them.

    ``guess`` are the coordinates counted as scaling-sensitive where that is not known yet, by default the usual ones.
    """
    if guess is None:
        guess = USUALLY_SENSITIVE[plan.regimes("I")[0].scale.ladder]
    begun: dict[tuple[str, str, Regime], list[Standing]] = {}
    for standing in standings.values():
        key = (standing.task.phase, standing.task.optimizer, standing.task.sweep.regime)
        begun.setdefault(key, []).append(standing)
    counts = []
    seen: set[str] = set()
    for key, sweeps in begun.items():
        # A standing counts its running trials among its own: those have not ended. And a trial that several sweeps
        # share, such as a tuning and the further seeds of what it ended on, counts for the first of them.
        waiting = {spec.id for standing in sweeps for spec in standing.pending}
        done = {trial for standing in sweeps for trial in standing.trials} - waiting - seen
        seen |= done
        last = sweeps[-1]  # earlier attempts at the regime have ended
        left = _left(last)
        counts.append(Expected(*key, len(done), 0 if last.finished else left))
    if plan.study.comparison is not None:
        scale = plan.regimes("I")[0].scale
        return (
            *counts,
            *(
                Expected(phase, optimizer, Regime(scale, ratio, plan.corpus), 0, round(trials))
                for phase, optimizer, ratio, trials in coming(plan.study, standings)
            ),
        )
    for name, space in plan.study.spaces.items():
        # Phases that have not begun: as many trials as a sweep over what will probably be varied there usually takes.
        finding = plan.finding(name, standings)
        sensitive = finding.sensitive if finding.verdicts else guess
        for phase, varied in (("II", sensitive), ("III", tuple(space.by_name) if plan.study.star else ())):
            trials = _sweep_trials(space, varied, plan.study.replicates)
            for regime in plan.regimes(phase):
                if (phase, name, regime) not in begun:
                    counts.append(Expected(phase, name, regime, 0, trials))
        if name == plan.study.bracket:
            trials = _sweep_trials(space, sensitive, plan.study.replicates)
            counts += [
                Expected(BRACKET, name, regime, 0, trials)
                for regime in _to_bracket(plan)
                if not _ended(plan, regime, begun)
            ]
    return tuple(counts)


def forecasts(plan: StudyPlan, standings: Mapping[str, Standing]) -> tuple[tuple[Expected, ...], ...]:
    """The trials of every sweep with the fewest, the usual and the most coordinates that may be found to scale."""
    fewest, most = (expected(plan, standings, guess) for guess in SENSITIVE)
    return fewest, expected(plan, standings), most


def _to_bracket(plan: StudyPlan) -> Iterator[Regime]:
    """The regimes that bracketing usually takes: twice the longest ratio of each scale."""
    longest: dict[Scale, float] = {}
    for regime in (*plan.regimes("I"), *plan.regimes("II")):
        longest[regime.scale] = max(regime.ratio, longest.get(regime.scale, 0.0))
    for scale, ratio in longest.items():
        yield Regime(scale, 2 * ratio, plan.corpus)


def _ended(plan: StudyPlan, regime: Regime, begun: Mapping[tuple[str, str, Regime], Sequence[Standing]]) -> bool:
    """Whether a scale's sweeps have all ended: what bracketing it takes, if anything, is then known."""
    places = [one for one in (*plan.regimes("I"), *plan.regimes("II")) if one.scale == regime.scale]
    return all(
        any((phase, name, place) in begun and begun[phase, name, place][-1].finished for phase in ("I", "II"))
        for name in plan.study.optimizers
        for place in places
    )


def _left(standing: Standing) -> int:
    """The trials that a sweep will still take, those pending among them."""
    if standing.task.quota is None:
        return standing.state.progress.remaining
    if standing.task.phase == MATCH:
        return len(standing.pending)
    # A comparison's tuning takes its quota: what its search does not use goes into seeds.
    return standing.task.quota - len(standing.trials) + len(standing.pending)


def _sweep_trials(space: LadderSpace, varied: tuple[str, ...], replicates: int) -> int:
    """The trials of a sweep that varies some coordinates; without any, as many as the start has seeds."""
    star = sum(len(axis.line(axis.start)) for axis in space.axes if axis.name in varied)
    return typical_trials(star, replicates)
