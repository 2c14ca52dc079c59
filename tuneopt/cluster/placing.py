"""How the trials of a run are trained: in one process or on several ranks, on which devices, and what they keep."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tuneopt.cluster.session import Session, connect
from tuneopt.spec import InputError, TrialSpec

if TYPE_CHECKING:
    from tuneopt.train.config import ParallelConfig

Placements = Mapping[str, "ParallelConfig"]
"""Where trials run, by the name of their scale; a scale that is left out trains in one process."""

HOLDER = {"memory": 1.0}
"""What Tune reserves for a trial on ranks: nearly nothing, because Ray Train reserves the devices of its ranks."""


@dataclass(frozen=True)
class Placing:
    """What a run asks of its workers. A rank takes one CPU and ``gpus_per_trial`` GPUs; one process is one rank.

    ``together`` keeps the ranks of a trial on one machine, because the trial's checkpoints are there. Raises
    `InputError` for GPUs that ranks cannot work on: a rank drives one whole GPU, or none.
    """

    placements: Placements = field(default_factory=dict)
    gpus_per_trial: float = 0.0
    together: bool = False
    keep_weights: bool = False

    def __post_init__(self) -> None:
        for scale, placement in self.placements.items():
            if placement.distributed and self.gpus_per_trial not in (0, 1):
                raise InputError(
                    f"each of the {placement.ranks} ranks of a trial at {scale} drives one GPU, and --gpus-per-trial "
                    f"is {self.gpus_per_trial:g}; give 1, or 0 to train on CPUs"
                )

    def connect(self, address: str | None, scales: Collection[str]) -> AbstractContextManager[Session]:
        """Connect to a cluster that holds trials of these scales, and of all that are placed."""
        ranks = {self._ranks(scale) for scale in (*scales, *self.placements)}
        return connect(address, gpus_per_trial=self.gpus_per_trial, ranks=ranks, together=self.together)

    def trainable(self, base: Any) -> Any:
        """The worker class that trains as ``base`` does, on ranks where a trial's scale asks for them."""
        if not self.placements and not self.keep_weights:
            return base
        settings: dict[str, Any] = {"placements": dict(self.placements), "keep_weights": self.keep_weights}
        if not self._ranked:
            return type(base.__name__, (base,), settings)
        from tuneopt.cluster.ranks import Ranked

        settings |= {"gpus_per_rank": self.gpus_per_trial, "together": self.together}
        return type(f"Ranked{base.__name__}", (Ranked, base), settings)

    @property
    def request(self) -> Any:
        """What Tune reserves for a trial, or a function that says it for a trial's configuration."""
        alone = {"cpu": 1.0, "gpu": self.gpus_per_trial}
        if not self._ranked:
            return alone
        from ray.tune.execution.placement_groups import resource_dict_to_pg_factory

        def request(config: dict[str, Any]) -> Any:
            placement = self.placements.get(json.loads(config["spec"])["regime"]["scale"]["name"])
            held = HOLDER if placement is not None and placement.distributed else alone
            return resource_dict_to_pg_factory(dict(held))

        return request

    def as_compiled(self, specs: Sequence[TrialSpec]) -> list[TrialSpec]:
        """The trials with the micro-batch that their ranks will compile for; without those that compile nothing."""
        found = []
        for spec in specs:
            placement = self.placements.get(spec.regime.scale.name)
            if placement is None or not placement.distributed:
                found.append(spec)
            elif placement.zero < 3 and spec.batch % placement.ranks == 0:
                found.append(replace(spec, micro_batch=placement.micro_batch(spec)))
        return found

    @property
    def _ranked(self) -> bool:
        return any(placement.distributed for placement in self.placements.values())

    def _ranks(self, scale: str) -> int:
        return self.placements[scale].ranks if scale in self.placements else 1


def check_batches(placement: ParallelConfig, scale: str, batches: Collection[Any]) -> None:
    """Raise `InputError` where a batch of a grid does not divide among the ranks of its scale."""
    odd = sorted({int(batch) for batch in batches if int(batch) % placement.ranks})
    if odd:
        raise InputError(
            f"train_batch_size {', '.join(map(str, odd))} does not divide among {placement.ranks} ranks at {scale}; "
            "choose a number of ranks that divides every batch, or other batches with --grid train_batch_size=..."
        )
