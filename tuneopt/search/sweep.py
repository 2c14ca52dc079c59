"""One sweep: coordinate descent in one regime, from the first wave to a winner rerun with other seeds.

The first wave holds the start, the start again with other seeds, and the star around it. The spread of the start over
its seeds sets the tolerance, so nothing is decided before those runs are in. When the descent ends, its incumbent is
rerun with the same other seeds. All of it is a pure function of the sweep and of the outcomes of its trials
(`Sweep.state`): nothing is kept between calls, so a killed sweep goes on from its records alone.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

from tuneopt import checked
from tuneopt.constants import DIFFERENCE_95, TOLERANCE
from tuneopt.search.descent import POLICIES, Change, Descent, descend
from tuneopt.search.outcome import Outcome
from tuneopt.search.space import Config, LadderSpace
from tuneopt.spec import Evaluation, InputError, Regime, Scale, TrialSpec, identity, nearest

__all__ = ["MICRO_BATCH_TOKENS", "Best", "Outcome", "Sweep", "SweepProgress", "SweepState", "micro_batch"]

LARGEST_REPLICATES = 1000
"""Seeds that a start and a winner may run with."""

LARGEST_SEED = 2**62
"""Seeds follow each other from a sweep's own on, within 64 bits."""

MICRO_BATCH_TOKENS: Mapping[str, int] = {"nano": 2048, "paper": 4096}
"""Tokens of one forward pass: 16 nano sequences keep a core busy, one paper sequence fits with a 1.2b model."""

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
class SweepProgress:
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
    progress: SweepProgress


def micro_batch(batch: int, scale: Scale) -> int:
    """Sequences per forward pass: the largest divisor of ``batch`` within the ladder's `MICRO_BATCH_TOKENS`."""
    most = max(1, MICRO_BATCH_TOKENS[scale.ladder] // scale.seq_len)
    return next(size for size in range(min(most, batch), 0, -1) if batch % size == 0)


@dataclass(frozen=True)
class Sweep:
    """Everything a sweep depends on. Two equal sweeps have one `id` and ask for the same trials.

    The start and the winner run with ``replicates`` seeds (``seed``, ``seed`` + 1, and so on). ``tolerance_floor`` is
    in nats per token; measured noise can raise the tolerance above it, nothing lowers it. ``precision``, ``compile``
    and ``evaluation`` go into every trial as they are. Raises `InputError` for settings out of range, and for a start
    that cannot run in the regime.
    """

    space: LadderSpace
    regime: Regime
    seed: int = 0
    replicates: int = 3
    policy: str = "joint"
    precision: str = "fp32"
    compile: bool = False
    evaluation: Evaluation = field(default_factory=Evaluation)
    tolerance_floor: float = TOLERANCE
    _trials: dict[tuple[Config, int], tuple[str, TrialSpec]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise InputError(f"unknown policy {self.policy!r}; {nearest(self.policy, POLICIES)}")
        if checked.whole("replicates", self.replicates, most=LARGEST_REPLICATES) < 1:
            raise InputError(f"replicates must be 1 or more, not {self.replicates}; the default is 3")
        checked.whole("seed", self.seed, least=-LARGEST_SEED, most=LARGEST_SEED)
        if not checked.is_number(self.tolerance_floor) or self.tolerance_floor < 0:
            raise InputError(
                f"tolerance_floor must be 0 nats or more, not {checked.shown(self.tolerance_floor)}; try {TOLERANCE}"
            )
        if self.space.ladder != self.regime.scale.ladder:
            raise InputError(f"{self.regime.scale.name} is not on the ladder {self.space.ladder!r} of this space")
        fault = self._fault(self.space.start)
        if fault:
            raise InputError(fault)

    @cached_property
    def id(self) -> str:
        """Sixteen hexadecimal digits that identify the sweep; its corpus counts by content, as in a trial's id."""
        return identity(self.to_dict())

    @property
    def seeds(self) -> range:
        """Every seed that the start and the winner run with, the sweep's own first."""
        return range(self.seed, self.seed + self.replicates)

    def spec(self, config: Config, seed: int | None = None) -> TrialSpec:
        """The trial that runs ``config``, with the sweep's own seed unless another is given."""
        return self._trial(config, self.seed if seed is None else seed)[1]

    def trial_id(self, config: Config, seed: int | None = None) -> str:
        """The id of that trial."""
        return self._trial(config, self.seed if seed is None else seed)[0]

    def _trial(self, config: Config, seed: int) -> tuple[str, TrialSpec]:
        # Remembered: a replay asks for the same ids at every step, and each costs a canonical JSON and a hash.
        known = self._trials.get((config, seed))
        if known is None:
            batch = int(self.space.value(config, "train_batch_size"))
            spec = TrialSpec(
                optimizer=self.space.optimizer,
                hyperparameters=config,
                regime=self.regime,
                seed=seed,
                precision=self.precision,
                compile=self.compile,
                micro_batch=micro_batch(batch, self.regime.scale),
                evaluation=self.evaluation,
            )
            known = self._trials[config, seed] = (spec.id, spec)
        return known

    def feasible(self, config: Config) -> bool:
        """Whether ``config`` can run in the regime: at least one step, and a warmup that ends before the run does."""
        return not self._fault(config)

    def _fault(self, config: Config) -> str:
        try:
            steps = self.regime.steps(int(self.space.value(config, "train_batch_size")))
        except InputError as error:
            return str(error)
        warmup = float(self.space.value(config, "warmup"))
        if warmup < (steps if warmup >= 1 else 1):
            return ""
        return f"warmup of {warmup:g} steps does not end within the {steps} steps of the run; choose a smaller one"

    def state(self, outcomes: Mapping[str, Outcome], gave_up: Collection[str] = frozenset()) -> SweepState:
        """Where the sweep stands, given the outcomes by trial id; pure, and independent of their number and order.

        ``gave_up`` names trials that will never finish: the sweep goes on without them, its certificate incomplete
        where the star lacks one.
        """
        start = self.space.start
        replicas = [self.trial_id(start, seed) for seed in self.seeds]
        # The tolerance decides every move. So nothing is decided on a noise that a late replicate would still change.
        measured = all(trial in outcomes or trial in gave_up for trial in replicas)
        losses = [loss for trial in replicas if trial in outcomes and (loss := outcomes[trial].loss) is not None]
        sigma = statistics.stdev(losses) if measured and len(losses) > 1 else None
        tolerance = max(self.tolerance_floor, DIFFERENCE_95 * (sigma or 0.0))
        descent = descend(
            self.space,
            _LossByConfig(self, outcomes),
            tolerance,
            self.policy,
            feasible=self.feasible,
            missing=_GivenUp(self, gave_up),
            decide=measured,
        )
        # Names for people only: the descent has decided, and to it both kinds of trial cannot win.
        descent = replace(descent, star=tuple(_name_unproven(self, change, outcomes) for change in descent.star))
        needed = dict.fromkeys((start, seed) for seed in self.seeds)
        needed |= dict.fromkeys((config, self.seed) for config in descent.asked)
        descended = measured and not descent.pending
        # The winner is rerun with fresh seeds: its own loss is the lowest of many and therefore lucky.
        if descended and descent.incumbent_loss is not None:
            needed |= dict.fromkeys((descent.incumbent, seed) for seed in self.seeds)
        trials = [self._trial(config, seed) for config, seed in needed]
        # The start first, so that its divergence shows early; then the longest, so that no straggler ends a wave.
        ordered = trials[:1] + sorted(trials[1:], key=lambda trial: -trial[1].steps)
        pending = tuple(spec for trial, spec in ordered if trial not in outcomes and trial not in gave_up)
        names = [trial for trial, _ in ordered]
        return SweepState(
            pending=pending,
            needed=tuple(spec for _, spec in ordered),
            sigma=sigma,
            tolerance=tolerance,
            descent=descent,
            finished=descended and not pending,
            best=_best(self, descent, outcomes),
            progress=_progress(self, descent, names, len(pending), descended, outcomes, gave_up),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is its inverse. The `id` hashes it, so no field may change its form."""
        return {
            "space": self.space.to_dict(),
            "regime": self.regime.to_dict(),
            "seed": self.seed,
            "replicates": self.replicates,
            "policy": self.policy,
            "precision": self.precision,
            "compile": self.compile,
            "evaluation": asdict(self.evaluation),
            "tolerance_floor": self.tolerance_floor,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Sweep:
        """Rebuild a sweep; raises `InputError` for anything that is not one."""
        try:
            fields = dict(plain)
            return cls(
                space=LadderSpace.from_dict(fields.pop("space")),
                regime=Regime.from_dict(fields.pop("regime")),
                evaluation=Evaluation(**fields.pop("evaluation")),
                **fields,
            )
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise InputError(f"not a sweep: {error}") from None


class _LossByConfig:
    """The outcomes of the sweep's own seed as `descend` reads them."""

    def __init__(self, sweep: Sweep, outcomes: Mapping[str, Outcome]) -> None:
        self._sweep, self._outcomes = sweep, outcomes

    def __contains__(self, config: object, /) -> bool:
        return self._sweep.trial_id(config) in self._outcomes  # type: ignore[arg-type]

    def get(self, config: Config, /) -> float | None:
        outcome = self._outcomes.get(self._sweep.trial_id(config))
        return outcome.loss if outcome else None


class _GivenUp:
    """The configurations whose trial was given up; most sweeps have none, and then no id is computed."""

    def __init__(self, sweep: Sweep, gave_up: Collection[str]) -> None:
        self._sweep, self._gave_up = sweep, gave_up

    def __contains__(self, config: object, /) -> bool:
        return bool(self._gave_up) and self._sweep.trial_id(config) in self._gave_up  # type: ignore[arg-type]


def _name_unproven(sweep: Sweep, change: Change, outcomes: Mapping[str, Outcome]) -> Change:
    """To the descent an unproven trial is one that cannot win, as a diverged one; people are told which it was."""
    if change.status == "diverged" and outcomes[sweep.trial_id(change.config)].status != "diverged":
        return replace(change, status="unproven")
    return change


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
) -> SweepProgress:
    ended = [outcomes[trial] for trial in trials if trial in outcomes]
    losses = [outcome.loss for outcome in ended if outcome.loss is not None]
    confirmed = descended or not descent.path
    moves = 0 if descended else max(0, TYPICAL_MOVES - len(descent.path))
    star, asked = len(descent.star) + 1, len(descent.asked)
    # What the star around the incumbent still lacks is owed in any case: the certificate needs all of it.
    owed = 0 if descended else len({change.config for change in descent.star} - set(descent.asked))
    stars = max(owed, round(TYPICAL_STARS * star) - asked if moves else 0)
    reruns = 0 if confirmed and not moves else sweep.replicates - 1
    return SweepProgress(
        waves=descent.waves + (descended and bool(descent.path) and sweep.replicates > 1),
        needed=len(trials),
        done=len(ended),
        diverged=sum(outcome.status == "diverged" for outcome in ended),
        unproven=sum(outcome.status == "unproven" for outcome in ended),
        missing=sum(trial in gave_up and trial not in outcomes for trial in trials),
        remaining=pending + stars + reruns,
        best_loss=min(losses, default=None),
    )
