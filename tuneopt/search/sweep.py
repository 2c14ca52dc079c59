"""One sweep: coordinate descent in one regime, from the first wave to a winner rerun with other seeds.

The first wave holds the start, the start again with other seeds, and the star around it. The spread of the start over
its seeds sets the tolerance, so nothing is decided before those runs are in. When the descent ends, its incumbent is
rerun with the same other seeds. All of it is a pure function of the sweep and the outcomes of its trials.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from tuneopt import checked
from tuneopt.constants import TOLERANCE
from tuneopt.search.descent import POLICIES
from tuneopt.search.ladder import Config, LadderSpace
from tuneopt.search.outcome import Outcome
from tuneopt.search.state import SweepState, survey
from tuneopt.spec import (
    CorpusId,
    Evaluation,
    InputError,
    Regime,
    Scale,
    TrialSpec,
    identity,
    nearest,
)

__all__ = ["MICRO_BATCH_TOKENS", "Outcome", "Sweep", "SweepState", "micro_batch"]

LARGEST_REPLICATES = 1000
"""Seeds that a start and a winner may run with."""

LARGEST_SEED = 2**62
"""Seeds follow each other from a sweep's own on, within 64 bits."""

MICRO_BATCH_TOKENS: Mapping[str, int] = {"nano": 2048, "paper": 4096}
"""Tokens of one forward pass: 16 nano sequences keep a core busy, one paper sequence fits beside a 1.2b model."""


def micro_batch(batch: int, scale: Scale) -> int:
    """Sequences per forward pass: the largest divisor of ``batch`` within the ladder's `MICRO_BATCH_TOKENS`."""
    most = max(1, MICRO_BATCH_TOKENS[scale.ladder] // scale.seq_len)
    return next(size for size in range(min(most, batch), 0, -1) if batch % size == 0)


@dataclass(frozen=True)
class Sweep:
    """Everything a sweep depends on. Two equal sweeps have one `id` and ask for the same trials.

    The start and the winner run with ``replicates`` seeds (``seed``, ``seed`` + 1, and so on). ``tolerance_floor`` is
    in nats per token. ``precision``, ``compile`` and ``evaluation`` go into every trial as they are. Raises
    `InputError` for settings out of range, and for a start that cannot run in the regime.
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
        """The id of that trial; hashed once, then remembered."""
        return self._trial(config, self.seed if seed is None else seed)[0]

    def _trial(self, config: Config, seed: int) -> tuple[str, TrialSpec]:
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
        return survey(self, outcomes, gave_up)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` is its inverse."""
        return {
            "space": self.space.to_dict(),
            "regime": asdict(self.regime),
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
            space, regime = LadderSpace.from_dict(fields.pop("space")), fields.pop("regime")
            return cls(
                space=space,
                regime=Regime(Scale(**regime["scale"]), regime["ratio"], CorpusId(**regime["corpus"])),
                evaluation=Evaluation(**fields.pop("evaluation")),
                **fields,
            )
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise InputError(f"not a sweep: {error}") from None
