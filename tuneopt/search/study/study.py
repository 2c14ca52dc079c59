"""What a study is: its optimizers, the regimes of its three phases, and the rules that it keeps.

A `Study` is what a file declares (`tuneopt.search.study.file`), without a corpus: it makes the sweeps of a regime, and
lowers a start that cannot run there. Which sweeps there are, and when, is `tuneopt.search.study.planner`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tuneopt.constants import NEAR_OPTIMAL, TOLERANCE
from tuneopt.scale_files import find_scale
from tuneopt.search.queue import Limits
from tuneopt.search.space import LadderSpace
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, Evaluation, InputError, Regime, Scale, canonical_json

PHASES = ("I", "II", "III")
"""Sweep everything; sweep what scales; predict the next scale."""

_STEPWISE = ("warmup", "train_batch_size")
"""What can keep a start from running in a small regime, the first to be lowered first: a warmup longer than the run is
an accident of the larger regime that it comes from, while a smaller batch is another search."""

ScaleRatio = tuple[str, float]
"""A regime by its names: scale and ratio. The corpus is the study's."""


@dataclass(frozen=True, slots=True)
class Devices:
    """Where a trial trains: on ``ranks`` devices, with a stage of ZeRO, its state in host memory with ``offload``.

    It changes no result, so it is no part of what tells trials or studies apart.
    """

    ranks: int = 1
    zero: int = 0
    offload: bool = False


@dataclass(frozen=True, slots=True)
class ComparisonRules:
    """What a comparison adds to a study (`tuneopt.search.study.comparison`): equal budgets, and where D_eff is sought.

    Every optimizer gets ``trials`` to be tuned at the first of ``ratios``, and then ``seeds`` of what that ended on.
    The ``baseline`` runs at all ``ratios``, the first one included; at each further one ``rate_trials`` tune its
    learning rate again. Where a rival's loss comes within ``margin`` nats of the end of the baseline's losses, another
    ratio is added there, as long as ``reserve`` pays for it; what is left buys more seeds. ``prices`` are device
    seconds of a trial by optimizer, those of any length and those at ratio 1 besides. The reserve is in device seconds
    then, and else in trials of ratio 1. ``hours`` by the clock is what it was planned to take; nothing rests on it.
    """

    baseline: str
    ratios: tuple[float, ...]
    trials: int
    rate_trials: int = 3
    seeds: int = 3
    reserve: float = 0.0
    margin: float = 0.0
    hours: float = 0.0
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def price(self, optimizer: str, ratio: float) -> float:
        """What a trial takes of the reserve."""
        fixed, each = self.prices.get(optimizer, (0.0, 1.0))
        return fixed + each * ratio


@dataclass(frozen=True)
class Study:
    """A study as its file declares it.

    ``spaces`` holds each optimizer's search space on the study's ladder, in the order of the file. ``phase_1`` regimes
    are swept over every coordinate, ``phase_2`` over the scaling-sensitive ones alone, and for ``phase_3`` they are
    predicted; with ``star`` a sweep goes on from each prediction, so that its distance from a certified optimum is
    known. ``corpus`` is a name or path, ``vocabulary`` the entries of its tokenizer. Losses are nats per token.
    ``placement`` says by scale where trials train; scales left out train in one process. With ``comparison`` it is a
    comparison, planned for a budget, in one regime of Phase I. ``bracket`` names the baseline that is run at further
    ratios until every loss of a rival lies between two of its own (`tuneopt.search.study.brackets`). ``scales`` holds
    the scales that are not built in, by name: with other content under the same name it is another study.
    """

    name: str
    spaces: Mapping[str, LadderSpace]
    corpus: str
    vocabulary: int
    phase_1: tuple[ScaleRatio, ...]
    phase_2: tuple[ScaleRatio, ...] = ()
    phase_3: tuple[ScaleRatio, ...] = ()
    star: bool = False
    seed: int = 0
    replicates: int = 3
    policy: str = "joint"
    tolerance: float = TOLERANCE
    resolution: float | None = None
    near_optimal: float = NEAR_OPTIMAL
    precision: str = "fp32"
    compile: bool | None = None
    evaluation: Evaluation = field(default_factory=Evaluation)
    match_budget: bool = False
    limits: Limits = field(default_factory=Limits)
    placement: Mapping[str, Devices] = field(default_factory=dict)
    comparison: ComparisonRules | None = None
    bracket: str | None = None
    scales: Mapping[str, Scale] = field(default_factory=dict)

    def scale(self, name: str) -> Scale:
        """A scale of the study by its name."""
        return self.scales[name] if name in self.scales else find_scale(name)

    @property
    def ladder(self) -> str:
        """The ladder of every scale."""
        return self.scale(self.phase_1[0][0]).ladder

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The optimizers, in the order of the file."""
        return tuple(self.spaces)

    def regimes(self, phase: str, corpus: CorpusId) -> tuple[Regime, ...]:
        """The regimes of a phase on a corpus."""
        places = {"I": self.phase_1, "II": self.phase_2, "III": self.phase_3}[phase]
        return tuple(Regime(self.scale(scale), ratio, corpus) for scale, ratio in places)

    def sweep(self, space: LadderSpace, regime: Regime, compile: bool, *, lower: bool = False) -> Sweep:
        """The sweep of a space in a regime; ``compile`` goes into every trial.

        With ``lower``, a start that does not fit the regime is lowered in warmup, then in batch size, until it does.
        Raises `InputError` for a start that cannot run, and with ``lower`` when no value of these fits.
        """

        def over(plane: LadderSpace) -> Sweep:
            return Sweep(
                plane,
                regime,
                self.seed,
                self.replicates,
                self.policy,
                self.precision,
                compile,
                self.evaluation,
                tolerance_floor=self.tolerance,
                resolution=self.resolution,
            )

        try:
            return over(space)
        except InputError as error:
            for axis in (space.by_name[name] for name in _STEPWISE if lower and name in space.by_name):
                values = [value for value in (*axis.below, *axis.values) if float(value) < float(axis.start)]
                for value in sorted(values, key=float, reverse=True):
                    try:
                        return over(space.begin_at({axis.name: value}))
                    except InputError:
                        continue
            raise error

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, complete enough to tell two studies apart."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["spaces"] = {name: space.to_dict() for name, space in self.spaces.items()}
        plain["limits"], plain["evaluation"] = asdict(self.limits), asdict(self.evaluation)
        plain["placement"] = {scale: asdict(devices) for scale, devices in self.placement.items()}
        plain["scales"] = {name: scale.to_dict() for name, scale in self.scales.items()} or None
        plain["comparison"] = None if self.comparison is None else _rules(self.comparison)
        for phase in ("phase_1", "phase_2", "phase_3"):
            plain[phase] = [list(place) for place in plain[phase]]
        return plain

    @property
    def text(self) -> str:
        """One spelling of the study, less its limits and devices: with others of them it stays the same study."""
        # None is left out too, so that a key which a later release adds leaves the ids of older studies as they are.
        left_out = ("limits", "placement")
        plain = {name: value for name, value in self.to_dict().items() if name not in left_out and value is not None}
        return canonical_json(plain)


def _rules(rules: ComparisonRules) -> dict[str, Any]:
    plain = {**asdict(rules), "ratios": list(rules.ratios)}
    # Left out where there are none, so that comparisons from before there were any keep their ids.
    return plain if rules.prices else {name: value for name, value in plain.items() if name != "prices"}


def closeness(one: Regime, other: Regime) -> float:
    """How far two regimes are apart: doublings of the ratio, and twice those of the parameters.

    Parameters weigh more, because a learning rate that a larger model bears is bounded by its size first.
    """
    sizes = abs(math.log2(one.scale.parameters / other.scale.parameters))
    return 2 * sizes + abs(math.log2(one.ratio / other.ratio))
