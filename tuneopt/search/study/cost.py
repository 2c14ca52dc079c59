"""What a study will cost before it starts: trials, tokens, FLOPs, device-hours, memory, disk, and what cannot fit.

Two parts: what one trial of a scale needs of its devices (`needs`), and the document of ``study plan``, which puts it
together with how many trials are to be expected. Memory is asked of a function (`PeakBytes`), because the model of it
belongs to training, which this floor does not import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tuneopt.search.study.expected import Expected
from tuneopt.search.study.planner import StudyPlan
from tuneopt.search.study.study import Devices, Study
from tuneopt.search.sweep import micro_batch
from tuneopt.spec import Regime, Scale

RECORD_BYTES = 40_000
"""Bytes of one trial's record in the ledger, its learning curve and routing table included. Records of nano trials have
11 kB; the routing table grows with the layers, 4 there and 32 on the paper ladder."""

KEPT_CHECKPOINTS = 2
"""Checkpoints that a running trial keeps (`tuneopt.training.mirror.KEPT`); it removes them when it ends."""

WEIGHT_BYTES = 4
"""Weights and state are kept in fp32."""

HEADROOM = 0.9
"""Share of a device's memory that a proposed placement may take: the memory model was off by -9% to +10%
(docs/zero.md)."""

STAGES = (1, 2, 3)
"""ZeRO's stages, the least sharding and the least traffic first."""


@dataclass(frozen=True, slots=True)
class TrialShape:
    """What a trial's memory follows from; ``sequences`` are those of one rank's forward pass at most."""

    optimizer: str
    scale: Scale
    vocabulary: int  # entries of the tokenizer
    precision: str  # "fp32" or "bf16"
    sequences: int
    devices: Devices


PeakBytes = Callable[[TrialShape], int]
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
        return {
            "scale": self.scale.name,
            "optimizer": self.optimizer,
            **asdict(self.devices),
            "peak_bytes": self.peak_bytes,
            "fits": None if most is None else self.peak_bytes <= most,
            "enough": None if self.enough is None else {**asdict(self.enough), "peak_bytes": self.enough_bytes},
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
        devices, sizes = study.placement.get(scale.name, Devices()), batches(study, optimizer)
        sequences = max(_share(micro_batch(batch, scale), batch, devices.ranks) for batch in sizes)
        shape = TrialShape(optimizer, scale, vocabulary, study.precision, sequences, devices)
        weights = scale.total_parameters(vocabulary)
        kept = int(KEPT_CHECKPOINTS * weights * (WEIGHT_BYTES + state(optimizer)))
        need = Need(optimizer, scale, devices, peak(shape), kept)
        if device_bytes is not None and need.peak_bytes > device_bytes:
            need = _enough(need, shape, peak, device_bytes, most_ranks, sizes)
        known = largest.get(scale.name)
        top = need if known is None or need.peak_bytes > known.peak_bytes else known
        # The fullest device and the largest checkpoint may be of different optimizers: disk must hold the largest.
        largest[scale.name] = replace(top, checkpoint_bytes=max(kept, known.checkpoint_bytes if known else 0))
    return sorted(largest.values(), key=lambda need: need.scale.parameters)


def batches(study: Study, optimizer: str) -> list[int]:
    """Every batch that the optimizer's trials may have, in sequences."""
    space = study.spaces[optimizer]
    axis = space.by_name.get("train_batch_size")
    return [int(size) for size in (axis.values if axis else [space.value(space.start, "train_batch_size")])]


def _share(most: int, batch: int, ranks: int) -> int:
    """Sequences of a rank's forward pass: the largest part of its share of the batch within one process' own."""
    # The part must divide the share: gradients are accumulated over forward passes of one size.
    share = max(1, batch // ranks)
    return next(size for size in range(min(most, share), 0, -1) if share % size == 0)


def _enough(
    need: Need, shape: TrialShape, peak: PeakBytes, device_bytes: int, most_ranks: int, sizes: Sequence[int]
) -> Need:
    """The need with the fewest ranks, and among those the lowest stage of ZeRO, that fit with `HEADROOM` to spare."""
    # Every batch of the space must divide among the ranks: what is searched is not cut down to fit.
    ranks = 1
    while (ranks := 2 * ranks) <= most_ranks and all(batch % ranks == 0 for batch in sizes):
        for stage in STAGES:
            # Of each batch anew: what the study's own ranks leave a pass is less than what fewer ranks leave it.
            sequences = max(_share(micro_batch(batch, shape.scale), batch, ranks) for batch in sizes)
            devices = Devices(ranks, stage, shape.devices.offload)
            needed = peak(replace(shape, devices=devices, sequences=sequences))
            if needed <= HEADROOM * device_bytes:
                return replace(need, enough=devices, enough_bytes=needed)
    return need


_Counts = Sequence[tuple[Expected, int]]

Seconds = Callable[[str, Regime], float | None]
"""Seconds of a trial, by optimizer and regime; None where nothing is known."""


def plan_document(
    plan: StudyPlan,
    forecasts: Sequence[Sequence[Expected]],
    seconds: Seconds,
    scale_needs: Sequence[Need],
    *,
    off: tuple[float, float] = (1.0, 1.0),
    slots: int,
    device_bytes: int | None,
    free_disk: int | None,
) -> dict[str, Any]:
    """What ``study plan --json`` prints: costs by phase and optimizer, the largest trials, and whether all fits.

    ``forecasts`` are those of `tuneopt.search.study.expected.forecasts`: the usual one gives the trials and the
    device-hours, the other two their ends. ``off`` are the factors between which ``seconds`` may be wrong.
    ``scale_needs`` holds the need of each scale; ``device_bytes`` and ``free_disk`` are None where they are not known.
    """
    fewest, expectations, most = forecasts
    groups: dict[tuple[str, str], list[Expected]] = {}
    for part in expectations:
        groups.setdefault((part.phase, part.optimizer), []).append(part)
    parts = [
        {
            "name": phase,
            "optimizer": optimizer,
            "trials": sum(part.trials for part in group),
            "tokens": sum(part.regime.tokens * part.trials for part in group),
            "flops": float(sum(part.regime.flops * part.trials for part in group)),
            "device_hours": _hours([(part, part.trials) for part in group], seconds),
        }
        for (phase, optimizer), group in groups.items()
    ]
    phases = [
        {"name": phase, **_total([part for part in parts if part["name"] == phase])}
        for phase in dict.fromkeys(part["name"] for part in parts)
    ]
    # One row for each phase and optimizer, then sums over optimizers, then the whole: a reader goes down that way.
    whole = {**_total(parts), **_ends([[(part, part.trials) for part in end] for end in (fewest, most)], seconds, off)}
    left, *ends = ([(part, part.remaining) for part in end] for end in (expectations, fewest, most))
    largest = max(scale_needs, key=lambda need: need.peak_bytes)
    # Records stay; checkpoints go when their trial ends, so only those of the trials that run at once count.
    at_once = max(max(1, slots // need.devices.ranks) * need.checkpoint_bytes for need in scale_needs)
    disk = whole["trials"] * RECORD_BYTES + at_once
    why, warnings = [], []  # what makes the study impossible, and what may
    for need in scale_needs:
        if device_bytes is not None and need.peak_bytes > device_bytes:
            why.append(_memory(need, device_bytes))
        elif device_bytes is not None and need.peak_bytes > HEADROOM * device_bytes:
            warnings.append(
                f"{need.optimizer} at {need.scale.name} takes {size(need.peak_bytes)} of the {size(device_bytes)} of a "
                "device, and the memory model is good to a tenth"
            )
    if free_disk is not None and disk > free_disk:
        why.append(
            f"the study needs {size(disk)} of disk and {size(free_disk)} are free: free some, or move the ledger"
        )
    # A limit that is too small is no reason not to start: the study stops at it, and goes on when it is raised.
    limits = limits_dict(plan)
    over = []
    for amount, limit, unit in (
        (whole["trials"], "max_trials", "trials"),
        (whole["device_hours"], "max_device_hours", "device-hours"),
    ):
        stop = limits[limit]
        if stop is not None and amount is not None and amount > stop:
            over.append(f"about {_usual(amount)} {unit} are expected, and the study stops at {limit} {_usual(stop)}")
    return {
        "study": plan.study.name,
        "phases": phases,
        "optimizers": parts,
        "total": whole,
        "left": {
            "trials": sum(trials for _, trials in left),
            "device_hours": _hours(left, seconds),
            **_ends(ends, seconds, off),
        },
        "peak_bytes": largest.peak_bytes,
        "peak_trial": {"optimizer": largest.optimizer, "scale": largest.scale.name},
        "scales": [need.to_dict(device_bytes) for need in scale_needs],
        "device_bytes": device_bytes,
        "disk_bytes": disk,
        "slots": slots,
        "fits": not why,
        "why": "; ".join(why),
        "limits": limits,
        "warnings": [*over, *warnings],
    }


def _hours(counts: _Counts, seconds: Seconds) -> float | None:
    """Device-hours of so many trials each; None as soon as one regime's speed is not known."""
    hours = 0.0
    for part, trials in counts:
        one = seconds(part.optimizer, part.regime)
        if one is None:
            return None
        hours += trials * one / 3600
    return hours


def _ends(ends: Sequence[_Counts], seconds: Seconds, off: tuple[float, float]) -> dict[str, Any]:
    """The ends of trials and device-hours: by what may be found to scale, and as wrong as step times are."""
    named: dict[str, Any] = {}
    for name, counts, factor in zip(("low", "high"), ends, off, strict=True):
        hours = _hours(counts, seconds)
        named[f"trials_{name}"] = sum(trials for _, trials in counts)
        named[f"device_hours_{name}"] = None if hours is None else hours * factor
    return named


def _total(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    hours = [part["device_hours"] for part in parts]
    sums: dict[str, Any] = {name: sum(part[name] for part in parts) for name in ("trials", "tokens", "flops")}
    return {**sums, "device_hours": None if None in hours else sum(hours)}


def limits_dict(plan: StudyPlan) -> dict[str, float | None]:
    """The study's limits, in the units of its file."""
    seconds = plan.study.limits.max_device_seconds
    return {
        "max_trials": plan.study.limits.max_trials,
        "max_device_hours": None if seconds is None else seconds / 3600,
    }


def _memory(need: Need, most: int) -> str:
    """What is short, and the placement that mends it, as it can be pasted into the study's file."""
    short = f"a trial of {need.optimizer} at {need.scale.name} needs {size(need.peak_bytes)} of memory on each device"
    short += f" ({need.devices.ranks} ranks)" if need.devices.ranks > 1 else ""
    short += f" and a device has {size(most)}: "
    if need.enough is None or need.enough_bytes is None:
        return short + "take larger devices, more ranks or smaller scales"
    ranks, stage = need.enough.ranks, need.enough.zero
    more = ", offload: true" if need.enough.offload else ""
    return (
        f"{short}on {ranks} ranks with ZeRO {stage} it needs {size(need.enough_bytes)}; add placement: "
        f"{{{need.scale.name}: {{ranks: {ranks}, zero: {stage}{more}}}}}"
    )


def _usual(amount: float) -> str:
    """A number in whole ones, or in three digits where it is small: nano studies take parts of an hour."""
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"


def size(count: float) -> str:
    """Bytes as people read them, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
