"""What a study is: its optimizers, the regimes of its three phases, and the rules it is held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tuneopt.constants import NEAR_OPTIMAL, TOLERANCE
from tuneopt.search.queue import Limits
from tuneopt.search.space import LadderSpace
from tuneopt.spec import Evaluation, canonical_json, find_scale

PHASES = ("I", "II", "III")
"""Sweep everything; sweep what scales; predict the next scale."""

Place = tuple[str, float]
"""A regime by its names: scale and ratio. The corpus is the study's."""


@dataclass(frozen=True, slots=True)
class Devices:
    """Where a trial trains: on ``ranks`` devices, with a stage of ZeRO, its state in host memory with ``offload``.

    It changes no result, so it is no part of what tells trials or studies apart.
    """

    ranks: int = 1
    zero: int = 0
    offload: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Study:
    """A study as its file declares it.

    ``spaces`` holds each optimizer's search space on the study's ladder, in the order of the file. ``phase_1`` regimes
    are swept over every coordinate, ``phase_2`` over the scaling-sensitive ones alone, and for ``phase_3`` they are
    predicted; with ``star`` a sweep goes on from each prediction, so that its distance from a certified optimum is
    known. ``corpus`` is a name or path, ``vocabulary`` the entries of its tokenizer. Losses are nats per token.
    ``placement`` says by scale where trials train; scales left out train in one process.
    """

    name: str
    spaces: Mapping[str, LadderSpace]
    corpus: str
    vocabulary: int
    phase_1: tuple[Place, ...]
    phase_2: tuple[Place, ...] = ()
    phase_3: tuple[Place, ...] = ()
    star: bool = False
    seed: int = 0
    replicates: int = 3
    policy: str = "joint"
    tolerance: float = TOLERANCE
    near_optimal: float = NEAR_OPTIMAL
    precision: str = "fp32"
    compile: bool | None = None
    evaluation: Evaluation = field(default_factory=Evaluation)
    match_budget: bool = False
    limits: Limits = field(default_factory=Limits)
    placement: Mapping[str, Devices] = field(default_factory=dict)

    @property
    def ladder(self) -> str:
        """The ladder of every scale."""
        return find_scale(self.phase_1[0][0]).ladder

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The optimizers, in the order of the file."""
        return tuple(self.spaces)

    def places(self, phase: str) -> tuple[Place, ...]:
        """The regimes of a phase."""
        return {"I": self.phase_1, "II": self.phase_2, "III": self.phase_3}[phase]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, complete enough to tell two studies apart."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain["spaces"] = {name: space.to_dict() for name, space in self.spaces.items()}
        plain["limits"], plain["evaluation"] = asdict(self.limits), asdict(self.evaluation)
        plain["placement"] = {scale: devices.to_dict() for scale, devices in self.placement.items()}
        for phase in ("phase_1", "phase_2", "phase_3"):
            plain[phase] = [list(place) for place in plain[phase]]
        return plain

    @property
    def text(self) -> str:
        """One spelling of the study, less its limits and devices: with others of them it stays the same study."""
        left_out = ("limits", "placement")
        plain = {name: value for name, value in self.to_dict().items() if name not in left_out and value is not None}
        return canonical_json(plain)
