"""Where a sweep stands, as a value, and how its trials are looked up by configuration.

Nothing here decides: `tuneopt.search.sweep` makes a `SweepState` of what its search and its finish say. Losses are nats
per token.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from tuneopt.search.descent import Certificate, Change, Descent
from tuneopt.search.plan import Outcome
from tuneopt.search.space import Config
from tuneopt.spec import TrialSpec

if TYPE_CHECKING:
    from tuneopt.search.noise import Spread

TrialId = Callable[..., str]
"""The id of the trial of a configuration, and of a seed where not the sweep's own."""

TYPICAL_MOVES = 1
"""Moves that a sweep usually makes; only the estimate of the remaining trials rests on it."""

TYPICAL_STARS = 1.8
"""Stars that a search usually pays for, in trials, the last one included; for that estimate too."""

TYPICAL_FINISH = 0.6
"""Runs of a sweep's finish in trials of its search, stars of what takes over among them; for that estimate too. Eleven
sweeps over real models at nano-65k, with the default resolution, took 1.9 to 5.1 stars in all and 2.9 in the middle
(docs/nano-study.md, docs/muon-study.md): fewer in the search than simulated ones, and as many again in the finish."""

Span = tuple[float, float]

SPANS: Mapping[str, tuple[Span, Span]] = {
    "joint": ((1.0, 3.1), (0.0, 0.5)),
    "single": ((1.0, 5.0), (0.0, 0.5)),
    "cyclic": ((1.0, 2.2), (0.0, 0.5)),
    "model": ((0.8, 2.4), (0.0, 0.5)),
}
"""By policy, the trials of a search in stars and the runs of its finish in trials of the search: most sweeps lie
between. A declared start is often the best already, hence the low ends. From random starts `joint` took 1.7 to 3.1
stars in four of five of 84 sweeps, and up to 0.9 times as many runs again, seldom both (``python
benchmarks/trials_to_come.py --stars stars.json --starts 3``); `single` took up to 4.9. The high ends of the others
follow from the trials of docs/search.md. Starts that diverge, and resolutions finer than the default, take more."""


@dataclass(frozen=True, slots=True)
class Best:
    """The incumbent with its losses in nats per token.

    ``select_loss`` is that of ``trial``, which ran with the sweep's own seed. ``select_mean`` and ``report_loss`` are
    means over the ``seeds`` that completed, on the two splits; ``report_error`` is the latter's standard error, None
    below two seeds.
    """

    spec: TrialSpec
    trial: str
    select_loss: float
    report_loss: float | None
    report_error: float | None
    seeds: int
    select_mean: float


@dataclass(frozen=True, slots=True)
class SweepProgress:
    """Figures for a live display.

    ``needed`` counts the trials that the sweep is known to need so far, of which ``done`` ended, ``diverged`` and
    ``unproven`` among them, and ``missing`` were given up. ``remaining`` estimates the trials still to come, those
    pending included; most sweeps need between ``fewest`` and ``most``. ``best_loss`` is the lowest select loss
    yet, in nats per token.
    """

    waves: int
    needed: int
    done: int
    diverged: int
    unproven: int
    missing: int
    remaining: int
    best_loss: float | None
    fewest: int
    most: int


@dataclass(frozen=True, slots=True)
class SweepState:
    """A sweep at one moment.

    ``pending`` holds the unfinished trials of the current wave in launch order: the start first, then those of most
    steps, which take longest; and last the starts of peers, where their noise is waited for. ``needed`` holds all
    trials the sweep has asked for, in that order too, those of the finish after all others. ``spread`` is the noise
    between seeds as it is known, None while the start's seeds are out. ``descent`` is where the sweep stands, its
    finish included, and ``searched`` where the search alone does: what is final as soon as nothing of it is pending.
    ``finishing`` says that only further seeds can be to come, ``finished`` that nothing is left to run, with or without
    a certificate.
    """

    pending: tuple[TrialSpec, ...]
    needed: tuple[TrialSpec, ...]
    spread: Spread | None
    tolerance: float
    descent: Descent
    searched: Descent
    finished: bool
    finishing: bool
    best: Best | None
    progress: SweepProgress

    @property
    def sigma(self) -> float | None:
        """The standard deviation between seeds in nats, as all replicates and the prior tell it."""
        return None if self.spread is None else self.spread.sigma

    @property
    def certificate(self) -> Certificate:
        """What the sweep can claim."""
        return self.descent.certificate


class LossByConfig:
    """The outcomes of the sweep's own seed as `descend` reads them; ``trial_id`` gives the id of a configuration."""

    def __init__(self, trial_id: TrialId, outcomes: Mapping[str, Outcome]) -> None:
        self._trial_id, self._outcomes = trial_id, outcomes

    def __contains__(self, config: object, /) -> bool:
        return self._trial_id(config) in self._outcomes

    def get(self, config: Config, /) -> float | None:
        """The loss of the configuration's trial; None where there is none."""
        outcome = self._outcomes.get(self._trial_id(config))
        return outcome.loss if outcome else None


class GivenUp:
    """The configurations whose trial was given up; most sweeps have none, and then no id is computed."""

    def __init__(self, trial_id: TrialId, gave_up: Collection[str]) -> None:
        self._trial_id, self._gave_up = trial_id, gave_up

    def __contains__(self, config: object, /) -> bool:
        return bool(self._gave_up) and self._trial_id(config) in self._gave_up


def name_unproven(trial_id: TrialId, change: Change, outcomes: Mapping[str, Outcome]) -> Change:
    """To the descent an unproven trial is one that cannot win, as a diverged one; people are told which it was."""
    if change.status == "diverged" and (outcome := outcomes.get(trial_id(change.config))) is not None:
        return replace(change, status="unproven") if outcome.status == "unproven" else change
    return change


def best_of(spec: TrialSpec, specs: Sequence[TrialSpec], outcomes: Mapping[str, Outcome]) -> Best | None:
    """The incumbent, which ``spec`` runs with the sweep's own seed, over all its seeds among ``specs``."""
    first = outcomes.get(spec.id)
    if first is None or first.loss is None:
        return None
    ran = [outcomes[one.id] for one in specs if one.hyperparameters == spec.hyperparameters and one.id in outcomes]
    select = [run.loss for run in ran if run.loss is not None]
    report = [run.reported for run in ran if run.reported is not None]
    return Best(
        spec=spec,
        trial=spec.id,
        select_loss=first.loss,
        report_loss=statistics.fmean(report) if report else None,
        report_error=statistics.stdev(report) / math.sqrt(len(report)) if len(report) > 1 else None,
        seeds=len(report),
        select_mean=statistics.fmean(select),
    )


def progress_of(
    waves: int, trials: Sequence[str], left: ToCome, outcomes: Mapping[str, Outcome], gave_up: Collection[str]
) -> SweepProgress:
    """The figures of a sweep that has needed ``trials``."""
    ended = [outcomes[trial] for trial in trials if trial in outcomes]
    return SweepProgress(
        waves=waves,
        needed=len(trials),
        done=len(ended),
        diverged=sum(outcome.status == "diverged" for outcome in ended),
        unproven=sum(outcome.status == "unproven" for outcome in ended),
        missing=sum(trial in gave_up and trial not in outcomes for trial in trials),
        remaining=left.about,
        best_loss=min((outcome.loss for outcome in ended if outcome.loss is not None), default=None),
        fewest=left.fewest,
        most=left.most,
    )


class ToCome(NamedTuple):
    """Trials still to come, those pending included: about how many, and between which numbers."""

    about: int
    fewest: int
    most: int


def searching(policy: str, descent: Descent, replicates: int, pending: int) -> ToCome:
    """What a search still needs, ``pending`` among it, and its finish."""
    moves = max(0, TYPICAL_MOVES - len(descent.path))
    star, asked = len(descent.star) + 1, len(descent.asked)
    # What the star around the incumbent still lacks is owed in any case: the certificate needs all of it.
    owed = len({change.config for change in descent.star} - set(descent.asked)) if policy != "model" else 0
    stars = max(owed, round(TYPICAL_STARS * star) - asked if moves else 0)
    reruns = 0 if not descent.path and not moves else replicates - 1
    runs = round(TYPICAL_FINISH * (asked + stars))
    (low, high), (_, finish) = SPANS[policy]
    # A start that stays needs no reruns of a winner; and what is spent beyond the usual says that more may come.
    fewest = pending + max(owed, round(low * star) - asked)
    longest = max(round(high * star) - asked, stars)
    most = pending + longest + replicates - 1 + round(finish * (asked + longest))
    about = pending + stars + reruns + runs
    return ToCome(about, min(fewest, about), max(most, about))


def typical_trials(star: int, replicates: int) -> int:
    """The trials that a sweep with ``star`` changes of its start usually takes; without any, seeds of the start."""
    if not star:
        return replicates
    return round(TYPICAL_STARS * (1 + TYPICAL_FINISH) * (star + 1)) + 2 * (replicates - 1)  # of start and winner


def finishing(pending: int, needed: int | None, room: int) -> ToCome:
    """What a finish still needs: ``needed`` runs as it stands, of at most ``room``, ``pending`` among them."""
    expected = room if needed is None else min(max(needed, pending), room)
    # The runs show what is close: where more is than was thought, it takes as many again.
    return ToCome(max(expected, pending), pending, max(min(2 * expected, room), pending))
