"""What a run asks of whatever trains its trials: made once by a command or a caller of the API, and handed on whole."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneopt.ledger import Ledger
from tuneopt.spec import InputError
from tuneopt.training.config import ParallelConfig


@dataclass(frozen=True)
class RunOptions:
    """Where trials run, what each takes, and what it leaves behind. None of it is part of a trial's identity.

    ``ledger`` gets the records; None for a simulation, which leaves none. ``corpus`` is the name or path that workers
    load the text by. ``address`` is that of a Ray cluster, None for this machine; at most ``max_concurrent`` trials run
    at once. A trial takes one CPU and ``gpus_per_trial`` GPUs, once for each of its ranks. ``parallel`` says by scale
    how a trial is spread over ranks; a scale that is left out trains in one process. ``keep_weights`` keeps the final
    weights of every trial, for `tuneopt.api.export_model`.

    Raises `InputError` for GPUs that ranks cannot work on: a rank drives one whole GPU, or none.
    """

    ledger: Ledger | None = None
    corpus: str = "embedded"
    address: str | None = None
    max_concurrent: int | None = None
    gpus_per_trial: float = 0.0
    parallel: Mapping[str, ParallelConfig] = field(default_factory=dict)
    keep_weights: bool = False

    def __post_init__(self) -> None:
        for scale, placement in self.parallel.items():
            if placement.distributed and self.gpus_per_trial not in (0, 1):
                raise InputError(
                    f"each of the {placement.ranks} ranks of a trial at {scale} drives one GPU, and --gpus-per-trial "
                    f"is {self.gpus_per_trial:g}; give 1, or 0 to train on CPUs"
                )

    @property
    def distributed(self) -> bool:
        """Whether some trials run on ranks."""
        return any(placement.distributed for placement in self.parallel.values())

    @property
    def together(self) -> bool:
        """Whether the ranks of a trial must be on one machine: a remote ledger leaves checkpoints where they train."""
        return self.ledger is not None and not self.ledger.is_local

    @property
    def reachable_corpus(self) -> str:
        """The corpus as workers elsewhere find it: the whole path where it is one, else its name."""
        return str(Path(self.corpus).resolve()) if Path(self.corpus).exists() else self.corpus


def check_batches(placement: ParallelConfig, scale: str, batches: Collection[Any]) -> None:
    """Raise `InputError` where a batch of a grid does not divide among the ranks of its scale."""
    odd = sorted({int(batch) for batch in batches if int(batch) % placement.ranks})
    if odd:
        raise InputError(
            f"train_batch_size {', '.join(map(str, odd))} does not divide among {placement.ranks} ranks at {scale}; "
            "choose a number of ranks that divides every batch, or other batches with --grid train_batch_size=..."
        )
