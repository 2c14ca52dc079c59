"""What trials need at their largest, in memory of a device and on disk, and what to do where that is too much."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuneopt.search.study.study import Devices, Study
from tuneopt.search.sweep import micro_batch
from tuneopt.spec import Regime, Scale

KEPT_CHECKPOINTS = 2
"""Checkpoints that a running trial keeps; it removes them when it ends."""

WEIGHT_BYTES = 4
"""Weights and state are kept in fp32."""

HEADROOM = 0.9
"""Share of a device's memory that a placement which is proposed may take: the model is good to a tenth."""

STAGES = (1, 2, 3)
"""ZeRO's stages, the least sharding and the least traffic first."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The shapes that a trial's memory follows from; ``sequences`` are those of one rank's forward pass at most."""

    optimizer: str
    scale: Scale
    vocabulary: int
    precision: str
    sequences: int
    devices: Devices


PeakBytes = Callable[[Asked], int]
"""Bytes of memory that the fullest device of a trial needs."""

StateBytes = Callable[[str], float]
"""Bytes of optimizer state per parameter, by optimizer."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one trial of a scale needs: bytes of its fullest device, and of its checkpoints on disk (of any optimizer).

    ``enough`` are the fewest devices on which it would fit, with the lowest stage of ZeRO that does; None where it fits
    as it is, or on none.
    """

    optimizer: str
    scale: Scale
    devices: Devices
    peak_bytes: int
    checkpoint_bytes: int
    enough: Devices | None = None
    enough_bytes: int | None = None

    def to_dict(self, most: int | None) -> dict[str, Any]:
        """Plain data for JSON; ``most`` are the bytes that a device has."""
        found = self.enough
        return {
            "scale": self.scale.name,
            "optimizer": self.optimizer,
            **self.devices.to_dict(),
            "peak_bytes": self.peak_bytes,
            "fits": None if most is None else self.peak_bytes <= most,
            "enough": None if found is None else {**found.to_dict(), "peak_bytes": self.enough_bytes},
        }


def needs(
    study: Study,
    places: Iterable[tuple[str, Regime]],
    peak: PeakBytes,
    state: StateBytes,
    *,
    device_bytes: int | None = None,
    most_ranks: int = 1,
) -> list[Need]:
    """The need of the largest trial of each scale, where the study places it; smallest scale first.

    Where it takes more than ``device_bytes``, up to ``most_ranks`` devices are tried, doubled each time.
    """
    largest: dict[str, Need] = {}
    for optimizer, scale, vocabulary in dict.fromkeys(
        (name, regime.scale, regime.corpus.vocab_size) for name, regime in places
    ):
        asked = _asked(study, optimizer, scale, vocabulary)
        weights = scale.total_parameters(vocabulary)
        kept = int(KEPT_CHECKPOINTS * weights * (WEIGHT_BYTES + state(optimizer)))
        need = Need(optimizer, scale, asked.devices, peak(asked), kept)
        if device_bytes is not None and need.peak_bytes > device_bytes:
            need = _enough(need, asked, peak, device_bytes, most_ranks, batches(study, optimizer))
        known = largest.get(scale.name)
        kept = max(kept, known.checkpoint_bytes if known else 0)
        top = need if known is None or need.peak_bytes > known.peak_bytes else known
        largest[scale.name] = replace(top, checkpoint_bytes=kept)
    return sorted(largest.values(), key=lambda need: need.scale.parameters)


def _asked(study: Study, optimizer: str, scale: Scale, vocabulary: int) -> Asked:
    devices = study.placement.get(scale.name, Devices())
    sequences = max(_share(micro_batch(batch, scale), batch, devices.ranks) for batch in batches(study, optimizer))
    return Asked(optimizer, scale, vocabulary, study.precision, sequences, devices)


def batches(study: Study, optimizer: str) -> list[int]:
    """Every batch that the optimizer's trials may have."""
    space = study.spaces[optimizer]
    axis = space.by_name.get("train_batch_size")
    return [int(each) for each in (axis.values if axis else [space.value(space.start, "train_batch_size")])]


def _share(most: int, batch: int, ranks: int) -> int:
    """Sequences of a rank's forward pass: the largest part of its share of the batch within one process' own."""
    share = max(1, batch // ranks)
    return next(size for size in range(min(most, share), 0, -1) if share % size == 0)


def _enough(
    need: Need, asked: Asked, peak: PeakBytes, device_bytes: int, most_ranks: int, sizes: Sequence[int]
) -> Need:
    ranks = 1
    while (ranks := 2 * ranks) <= most_ranks and all(batch % ranks == 0 for batch in sizes):
        for stage in STAGES:
            sequences = max(_share(asked.sequences, batch, ranks) for batch in sizes)
            devices = Devices(ranks, stage, asked.devices.offload)
            found = peak(replace(asked, devices=devices, sequences=sequences))
            if found <= HEADROOM * device_bytes:
                return replace(need, enough=devices, enough_bytes=found)
    return need
