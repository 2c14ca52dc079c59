"""Where a sweep stands: what to launch next, the noise and tolerance, the descent, and the best configuration."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tuneopt.constants import DIFFERENCE_95
from tuneopt.search.descent import Change, Descent, descend
from tuneopt.search.ladder import Config
from tuneopt.search.outcome import Outcome
from tuneopt.spec import TrialSpec

if TYPE_CHECKING:
    from tuneopt.search.sweep import Sweep

TYPICAL_MOVES = 1
"""Moves that a sweep usually makes; only the estimate of the remaining trials rests on it."""

TYPICAL_STARS = 1.8
"""Stars that a sweep usually pays for, in trials, the last one included; for that estimate too."""


@dataclass(frozen=True, slots=True)
class Best:
    """The incumbent with its losses in nats per token.

    ``select_loss`` is the sweep's own seed's, on which it was chosen. ``report_loss`` is the mean over the ``seeds``
    that completed, on the report split; ``report_error`` its standard error, None below two seeds.
    """

    spec: TrialSpec
    trial: str
    select_loss: float
    report_loss: float | None
    report_error: float | None
    seeds: int


@dataclass(frozen=True, slots=True)
class Progress:
    """Figures for a live display.

    ``needed`` counts the trials that the sweep is known to need so far, of which ``done`` ended, ``diverged`` and
    ``unproven`` among them, and ``missing`` were given up. ``remaining`` estimates the trials still to come, those
    pending included. ``best_loss`` is the lowest select loss yet, in nats per token.
    """

    waves: int
    needed: int
    done: int
    diverged: int
    unproven: int
    missing: int
    remaining: int
    best_loss: float | None


@dataclass(frozen=True, slots=True)
class SweepState:
    """A sweep at one moment.

    ``pending`` holds the unfinished trials of the current wave in launch order: the start first, then those of most
    steps, which take longest. ``needed`` holds all trials the sweep has asked for, in that order too. ``sigma`` is the
    seed noise of the start in nats, None below two completed seeds. ``finished`` says that nothing is left to run,
    with or without a certificate.
    """

    pending: tuple[TrialSpec, ...]
    needed: tuple[TrialSpec, ...]
    sigma: float | None
    tolerance: float
    descent: Descent
    finished: bool
    best: Best | None
    progress: Progress


class _ByConfig:
    """The outcomes of one seed as `descend` reads them."""

    def __init__(self, sweep: Sweep, outcomes: Mapping[str, Outcome]) -> None:
        self._sweep, self._outcomes = sweep, outcomes

    def __contains__(self, config: object, /) -> bool:
        return self._sweep.trial_id(config) in self._outcomes  # type: ignore[arg-type]

    def get(self, config: Config, /) -> float | None:
        outcome = self._outcomes.get(self._sweep.trial_id(config))
        return outcome.loss if outcome else None


class _GivenUp:
    """The configurations whose trial was given up."""

    def __init__(self, sweep: Sweep, gave_up: Collection[str]) -> None:
        self._sweep, self._gave_up = sweep, gave_up

    def __contains__(self, config: object, /) -> bool:
        return bool(self._gave_up) and self._sweep.trial_id(config) in self._gave_up  # type: ignore[arg-type]


def survey(sweep: Sweep, outcomes: Mapping[str, Outcome], gave_up: Collection[str]) -> SweepState:
    """The state of ``sweep`` given its trials' outcomes; see `Sweep.state`."""
    start = sweep.space.start
    noise = [sweep.trial_id(start, seed) for seed in sweep.seeds]
    measured = all(trial in outcomes or trial in gave_up for trial in noise)
    losses = [loss for trial in noise if trial in outcomes and (loss := outcomes[trial].loss) is not None]
    sigma = statistics.stdev(losses) if measured and len(losses) > 1 else None
    tolerance = max(sweep.tolerance_floor, DIFFERENCE_95 * (sigma or 0.0))
    descent = descend(
        sweep.space,
        _ByConfig(sweep, outcomes),
        tolerance,
        sweep.policy,
        feasible=sweep.feasible,
        missing=_GivenUp(sweep, gave_up),
        decide=measured,
    )
    descent = replace(descent, star=tuple(_name_unproven(sweep, change, outcomes) for change in descent.star))
    needed = dict.fromkeys((start, seed) for seed in sweep.seeds)
    needed |= dict.fromkeys((config, sweep.seed) for config in descent.asked)
    descended = measured and not descent.pending
    confirming = descended and descent.incumbent_loss is not None
    if confirming:
        needed |= dict.fromkeys((descent.incumbent, seed) for seed in sweep.seeds)
    ordered = _launch_order(sweep, needed)
    pending = tuple(spec for trial, spec in ordered if trial not in outcomes and trial not in gave_up)
    return SweepState(
        pending=pending,
        needed=tuple(spec for _, spec in ordered),
        sigma=sigma,
        tolerance=tolerance,
        descent=descent,
        finished=descended and not pending,
        best=_best(sweep, descent, outcomes),
        progress=_progress(sweep, descent, [trial for trial, _ in ordered], len(pending), descended, outcomes, gave_up),
    )


def _name_unproven(sweep: Sweep, change: Change, outcomes: Mapping[str, Outcome]) -> Change:
    """To the descent an unproven trial is one that cannot win, as a diverged one; people are told which it was."""
    if change.status == "diverged" and outcomes[sweep.trial_id(change.config)].status != "diverged":
        return replace(change, status="unproven")
    return change


def _launch_order(sweep: Sweep, needed: Iterable[tuple[Config, int]]) -> list[tuple[str, TrialSpec]]:
    """The start first, so that its divergence shows early; then the longest, so that no straggler ends a wave."""
    trials = [(sweep.trial_id(config, seed), sweep.spec(config, seed)) for config, seed in needed]
    return trials[:1] + sorted(trials[1:], key=lambda trial: -trial[1].steps)


def _best(sweep: Sweep, descent: Descent, outcomes: Mapping[str, Outcome]) -> Best | None:
    if descent.incumbent_loss is None:
        return None
    runs = [outcomes.get(sweep.trial_id(descent.incumbent, seed)) for seed in sweep.seeds]
    losses = [run.reported for run in runs if run and run.reported is not None]
    return Best(
        spec=sweep.spec(descent.incumbent),
        trial=sweep.trial_id(descent.incumbent),
        select_loss=descent.incumbent_loss,
        report_loss=statistics.fmean(losses) if losses else None,
        report_error=statistics.stdev(losses) / math.sqrt(len(losses)) if len(losses) > 1 else None,
        seeds=len(losses),
    )


def _progress(
    sweep: Sweep,
    descent: Descent,
    trials: list[str],
    pending: int,
    descended: bool,
    outcomes: Mapping[str, Outcome],
    gave_up: Collection[str],
) -> Progress:
    ended = [outcomes[trial] for trial in trials if trial in outcomes]
    losses = [outcome.loss for outcome in ended if outcome.loss is not None]
    confirmed = descended or not descent.path
    moves = 0 if descended else max(0, TYPICAL_MOVES - len(descent.path))
    star, asked = len(descent.star) + 1, len(descent.asked)
    owed = 0 if descended else len({change.config for change in descent.star} - set(descent.asked))
    return Progress(
        waves=descent.waves + (descended and bool(descent.path) and sweep.replicates > 1),
        needed=len(trials),
        done=len(ended),
        diverged=sum(outcome.status == "diverged" for outcome in ended),
        unproven=sum(outcome.status == "unproven" for outcome in ended),
        missing=sum(trial in gave_up and trial not in outcomes for trial in trials),
        remaining=pending
        + max(owed, round(TYPICAL_STARS * star) - asked if moves else 0)
        + (0 if confirmed and not moves else sweep.replicates - 1),
        best_loss=min(losses, default=None),
    )
