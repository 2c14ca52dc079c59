"""One sweep: coordinate descent in one regime, from the first wave to a certificate that says what it can see.

The first wave holds the start, the start again with other seeds, and the star around it. How much those seeds spread,
with all else that is known of noise (`tuneopt.search.evidence`), sets the tolerance, so nothing is decided before those
runs are in. When the descent ends, its incumbent is rerun with the same other seeds, and further seeds follow where
they decide (`tuneopt.search.finish`), until the certificate's resolution is the asked one. All of it is a pure function
of the sweep, of what it knew of noise, and of the outcomes of its trials (`Sweep.state`): nothing is kept between
calls, so a killed sweep goes on from its records alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from tuneopt import checked
from tuneopt.constants import TOLERANCE
from tuneopt.search.descent import BLIND, CERTIFIED, INCOMPLETE, POLICIES, Descent, descend, standing_at
from tuneopt.search.evidence import ALONE, Evidence, replicates_of, spread_model
from tuneopt.search.plan import Outcome
from tuneopt.search.space import Config, LadderSpace
from tuneopt.search.state import (
    GivenUp,
    LossByConfig,
    SweepState,
    ToCome,
    best_of,
    finishing,
    name_unproven,
    progress_of,
    searching,
)
from tuneopt.spec import Evaluation, InputError, Regime, Scale, TrialSpec, identity, nearest

if TYPE_CHECKING:
    from tuneopt.search.finish import Asked, Finish
    from tuneopt.search.noise import Spread

T = TypeVar("T")

LARGEST_REPLICATES = 1000
"""Seeds that a start and a winner may run with."""

LARGEST_SEED = 2**62
"""Seeds follow each other from a sweep's own on, within 64 bits."""

MICRO_BATCH_TOKENS: Mapping[str, int] = {"nano": 2048, "paper": 4096}
"""Tokens of one forward pass: 16 nano sequences keep a core busy, one paper sequence fits with a 1.2b model."""

MOST_FINISH = 5000
"""Runs that a finish takes for a resolution that was asked for: beyond, the question is out of reach."""

REMEMBERED = 4096
"""Figures of noise and of finishes that a sweep remembers between calls; each is small."""


def micro_batch(batch: int, scale: Scale) -> int:
    """Sequences per forward pass: the largest divisor of ``batch`` within the ladder's `MICRO_BATCH_TOKENS`."""
    most = max(1, MICRO_BATCH_TOKENS[scale.ladder] // scale.seq_len)
    return next(size for size in range(min(most, batch), 0, -1) if batch % size == 0)


@dataclass(frozen=True)
class Sweep:
    """Everything a sweep depends on. Two equal sweeps have one `id` and ask for the same trials.

    The start and the winner run with ``replicates`` seeds (``seed``, ``seed`` + 1, and so on), and with more where the
    finish needs them. ``tolerance_floor`` is in nats per token; noise can raise the tolerance above it, nothing lowers
    it. ``resolution`` is what the certificate is to see, in nats; None asks for what the scale usually affords
    (`question`). ``precision``, ``compile`` and ``evaluation`` go into every trial as they are. Raises `InputError` for
    settings out of range, and for a start that cannot run in the regime.
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
    resolution: float | None = None
    _trials: dict[tuple[Config, int], tuple[str, TrialSpec]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _remembered: dict[object, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

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
        if self.resolution is not None and not (checked.is_number(self.resolution) and self.resolution > 0):
            raise InputError(f"a resolution must be more than 0 nats, not {checked.shown(self.resolution)}; try 0.03")
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
    def question(self) -> float:
        """The resolution that is asked for, in nats."""
        if self.resolution is not None:
            return float(self.resolution)
        from tuneopt.search.belief import default_resolution

        return default_resolution(self.regime.scale.parameters)

    @property
    def seeds(self) -> range:
        """The seeds that the start and the winner run with in any case, the sweep's own first."""
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
            spec = self.describe(config, seed)
            known = self._trials[config, seed] = (spec.id, spec)
        return known

    def describe(self, config: Config, seed: int) -> TrialSpec:
        """The trial that runs ``config`` with ``seed``, made anew: its id is computed only when it is asked for."""
        batch = int(self.space.value(config, "train_batch_size"))
        return TrialSpec(
            optimizer=self.space.optimizer,
            hyperparameters=config,
            regime=self.regime,
            seed=seed,
            precision=self.precision,
            compile=self.compile,
            micro_batch=micro_batch(batch, self.regime.scale),
            evaluation=self.evaluation,
        )

    def feasible(self, config: Config) -> bool:
        """Whether ``config`` can run in the regime: at least one step, and a warmup that ends before the run does."""
        return not self._fault(config)

    def _fault(self, config: Config) -> str:
        """Why ``config`` cannot run in the regime, in a sentence; empty where it can."""
        try:
            steps = self.regime.steps(int(self.space.value(config, "train_batch_size")))
        except InputError as error:
            return str(error)
        warmup = float(self.space.value(config, "warmup"))
        if warmup < (steps if warmup >= 1 else 1):  # below 1 it is a share of the run
            return ""
        return f"warmup of {warmup:g} steps does not end within the {steps} steps of the run; choose a smaller one"

    def state(
        self,
        outcomes: Mapping[str, Outcome],
        gave_up: Collection[str] = frozenset(),
        evidence: Evidence = ALONE,
    ) -> SweepState:
        """Where the sweep stands, given the outcomes by trial id; pure: neither their order nor those of others matter.

        ``gave_up`` names trials that will never finish: the sweep goes on without them, its certificate incomplete
        where the star lacks one. ``evidence`` is what else is known of noise, the same at every call.
        """
        start = self.space.start
        replicas = [self.spec(start, seed) for seed in self.seeds]
        # The tolerance decides every move. So nothing is decided on a noise that a late replicate would still change.
        late = [spec for spec in (*replicas, *evidence.peers) if spec.id not in outcomes and spec.id not in gave_up]
        spread, tolerance = None, self.tolerance_floor
        if not late:
            spread, tolerance = self._noise(replicas, outcomes, evidence)
        searched = descend(
            self.space,
            LossByConfig(self.trial_id, outcomes),
            tolerance,
            self.policy,
            feasible=self.feasible,
            missing=GivenUp(self.trial_id, gave_up),
            decide=not late,
            foreseen=self._noise((), {}, evidence)[1],  # without own runs, so that it is the same when they have ended
            remember=self._remember,
        )
        # The order of ``needed`` is that in which trials are asked for. Runs of the descent have the sweep's own seed,
        # those of start and winner all seeds; a dict keeps the first place of what both need.
        descended = not late and not searched.pending
        needed = dict.fromkeys((start, seed) for seed in self.seeds)
        needed |= dict.fromkeys((config, self.seed) for config in searched.asked)
        # The winner is rerun with fresh seeds: its own loss is the lowest of many and therefore lucky.
        if descended and searched.incumbent_loss is not None:
            needed |= dict.fromkeys((searched.incumbent, seed) for seed in self.seeds)
        trials = [self._trial(config, seed) for config, seed in needed]
        # The start first, so that its divergence shows early; then the longest, so that no straggler ends a wave.
        ordered = [*trials[:1], *sorted(trials[1:], key=lambda trial: -trial[1].steps)]
        descent, finish = searched, None
        if descended and searched.incumbent_loss is not None and all(
            trial in outcomes or trial in gave_up for trial, _ in ordered
        ):  # fmt: skip
            finish = self._finish(searched, needed, outcomes, gave_up, evidence)
            descent = self._finished(searched, finish, gave_up)
            extra = [self._trial(*each) for each in finish.asked if each not in needed]
            ordered += sorted(extra, key=lambda trial: -trial[1].steps)
            spread = finish.spread
        # Names for people only: the descent has decided, and to it both kinds of trial cannot win.
        descent = replace(
            descent, star=tuple(name_unproven(self.trial_id, change, outcomes) for change in descent.star)
        )
        pending = [spec for trial, spec in ordered if trial not in outcomes and trial not in gave_up]
        own = {trial for trial, _ in ordered}
        reruns = int(
            descended and bool(searched.path) and self.replicates > 1
        )  # the winner's seeds, a wave of their own
        return SweepState(
            pending=(*pending, *(spec for spec in late if spec.id not in own)),
            needed=tuple(spec for _, spec in ordered),
            spread=spread,
            tolerance=tolerance,
            descent=descent,
            searched=searched,
            finished=descended and not pending,
            finishing=finish is not None,
            best=best_of(self.spec(descent.incumbent), [spec for _, spec in ordered], outcomes),
            progress=progress_of(
                descent.waves + reruns,
                [trial for trial, _ in ordered],
                self._to_come(searched, descended, finish, len(pending)),
                outcomes,
                gave_up,
            ),
        )

    def _to_come(self, searched: Descent, descended: bool, finish: Finish | None, pending: int) -> ToCome:
        """The trials that are still to come, as a range: how long a descent is shows only when it has ended."""
        if not self.space.varied:  # seeds of one configuration: they are asked for at once, and nothing follows them
            return ToCome(pending, pending, pending)
        if finish is not None:
            return finishing(pending, finish.needed if pending else 0, self._room(searched) - len(finish.asked))
        if descended:
            return ToCome(pending, pending, pending + self._room(searched))
        return searching(self.policy, searched, self.replicates, pending)

    def _noise(
        self, specs: Sequence[TrialSpec], outcomes: Mapping[str, Outcome], evidence: Evidence
    ) -> tuple[Spread, float]:
        """The noise of this sweep's regime by ``specs`` and all evidence, and the tolerance that follows.

        One tolerance holds for all optimizers of the regime that are known: the largest of their bars.
        """
        from tuneopt.search.noise import NoiseRegime

        own = replicates_of(specs, outcomes)
        others = (*evidence.replicates, *replicates_of(evidence.peers, outcomes))

        def work() -> tuple[Spread, float]:
            model = spread_model(own, others)
            regime = NoiseRegime(float(self.regime.scale.parameters), float(self.regime.ratio))
            names = {cell.optimizer for cell in model.measured if cell.regime == regime}
            names |= {self.space.optimizer, *evidence.optimizers}
            bar = model.tolerance(regime, sorted(names), self.tolerance_floor)
            return model.spread(self.space.optimizer, regime), bar

        return self._remember(("noise", tuple(own), others, evidence.optimizers), work)

    def _finish(
        self,
        searched: Descent,
        needed: Collection[tuple[Config, int]],
        outcomes: Mapping[str, Outcome],
        gave_up: Collection[str],
        evidence: Evidence,
    ) -> Finish:
        """Where the finish stands, after a search whose trials have all ended."""
        from tuneopt.search.finish import Finishing

        runs: dict[Config, dict[int, float | None]] = {}
        for config, seed in (*((config, self.seed) for config in searched.asked), *needed):
            if (outcome := outcomes.get(self.trial_id(config, seed))) is not None:
                runs.setdefault(config, {})[seed] = outcome.loss

        def spread(held: Mapping[Config, Mapping[int, float | None]]) -> Spread:
            several = [self.spec(config, seed) for config, seeds in held.items() if len(seeds) > 1 for seed in seeds]
            return self._noise(several, outcomes, evidence)[0]

        def lost(asked: Asked) -> bool:
            return bool(gave_up) and self.trial_id(*asked) in gave_up

        def remember(key: object, work: Callable[[], T], /) -> T:
            return self._remember((key, tuple(sorted(gave_up))), work)

        return Finishing(
            space=self.space,
            runs=runs,
            outcome=lambda asked: outcomes.get(self.trial_id(*asked)),
            gave_up=lost,
            spread=spread,
            seeds=self.seeds,
            resolution=self.question,
            most=self._room(searched),
            stars=self.policy != "model",
            feasible=self.feasible,
            missing=GivenUp(self.trial_id, gave_up),
            remember=remember,
        ).run(searched.incumbent)

    def _room(self, searched: Descent) -> int:
        """Runs that the finish may take: where nobody said how fine, no more than the search took."""
        return len(searched.asked) if self.resolution is None else MOST_FINISH

    def _finished(self, searched: Descent, finish: Finish, gave_up: Collection[str]) -> Descent:
        """The descent with what the finish made of it: another incumbent perhaps, and a certificate that says R."""
        descent, missing = searched, GivenUp(self.trial_id, gave_up)
        for config in finish.path:
            descent = standing_at(descent, config, self.space, finish.means, feasible=self.feasible, missing=missing)
        found, claims = finish.resolution, descent.certificate
        covered = claims.complete or (self.policy == "model" and not claims.missing and not descent.extendable)
        state = BLIND if covered else INCOMPLETE
        if covered and not finish.pending and found.nats <= self.question and not found.blind:
            state = CERTIFIED
        return replace(
            descent,
            waves=searched.waves + finish.waves,
            certificate=replace(
                claims,
                resolution=found.nats,
                confidence=found.confidence,
                asked=self.question,
                seeds_needed=finish.needed,
                state=state,
            ),
        )

    def _remember(self, key: object, work: Callable[[], T], /) -> T:
        """The result of ``work``, which follows from ``key``; forgetting it changes nothing but the time it takes."""
        if key not in self._remembered:
            if len(self._remembered) >= REMEMBERED:
                self._remembered.clear()
            self._remembered[key] = work()
        found: T = self._remembered[key]
        return found

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
            # A key that is not there leaves the ids of sweeps as they were before it was.
            **({} if self.resolution is None else {"resolution": self.resolution}),
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
        except (KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise InputError(f"not a sweep: {error}") from None
