"""What a study will cost before it starts: trials, tokens, FLOPs, device-hours, memory, disk, and what cannot fit.

Three parts: how many trials each sweep will probably take (`expected`), what one trial of a scale needs of its devices
(`needs`), and the document of ``study plan`` that puts both together.

Numbers of trials are estimates: a descent's path is known only when it has been walked. Sweeps that have begun are
counted as their own state tells, the others as a sweep usually goes. Memory is asked of a function (`PeakBytes`),
because the model of it belongs to training, which this floor does not import.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tuneopt.search.space import LadderSpace
from tuneopt.search.standing import Standing
from tuneopt.search.state import TYPICAL_MOVES
from tuneopt.search.study.brackets import BRACKET
from tuneopt.search.study.comparison import coming
from tuneopt.search.study.matching import MATCH
from tuneopt.search.study.planner import StudyPlan
from tuneopt.search.study.study import Devices, Study
from tuneopt.search.sweep import micro_batch
from tuneopt.spec import Regime, Scale

USUALLY_SENSITIVE = ("learning_rate", "weight_decay")
"""Coordinates that are counted as scaling-sensitive before Phase I has said which are: an optimizer of the published
study has one to three, and these most often."""

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
class Expected:
    """The trials of one optimizer in one regime: those ended, and those probably still to come."""

    phase: str  # "I", "II" or "III"
    optimizer: str
    regime: Regime
    done: int  # trials
    remaining: int

    @property
    def trials(self) -> int:
        """Those ended and those to come."""
        return self.done + self.remaining


def expected(plan: StudyPlan, standings: Mapping[str, Standing]) -> tuple[Expected, ...]:
    """The trials of every sweep that the study has or will have; the unmatched budgets are not among them."""
    begun: dict[tuple[str, str, Regime], list[Standing]] = {}
    for standing in standings.values():
        key = (standing.task.phase, standing.task.optimizer, standing.task.sweep.regime)
        begun.setdefault(key, []).append(standing)
    counts = []
    seen: set[str] = set()
    for key, sweeps in begun.items():
        # A standing counts its running trials among its own: those have not ended. And a trial that several sweeps
        # share, such as a tuning and the further seeds of what it ended on, counts for the first of them.
        waiting = {spec.id for standing in sweeps for spec in standing.pending}
        done = {trial for standing in sweeps for trial in standing.trials} - waiting - seen
        seen |= done
        last = sweeps[-1]  # earlier attempts at the regime have ended
        left = _left(last)
        counts.append(Expected(*key, len(done), 0 if last.finished else left))
    if plan.study.comparison is not None:
        scale = plan.regimes("I")[0].scale
        return (
            *counts,
            *(
                Expected(phase, optimizer, Regime(scale, ratio, plan.corpus), 0, round(trials))
                for phase, optimizer, ratio, trials in coming(plan.study, standings)
            ),
        )
    for name, space in plan.study.spaces.items():
        # Phases that have not begun: as many trials as a sweep over what will probably be varied there usually takes.
        finding = plan.finding(name, standings)
        sensitive = finding.sensitive if finding.verdicts else USUALLY_SENSITIVE
        for phase, varied in (("II", sensitive), ("III", tuple(space.by_name) if plan.study.star else ())):
            trials = _sweep_trials(space, varied, plan.study.replicates)
            for regime in plan.regimes(phase):
                if (phase, name, regime) not in begun:
                    counts.append(Expected(phase, name, regime, 0, trials))
        if name == plan.study.bracket:
            trials = _sweep_trials(space, sensitive, plan.study.replicates)
            counts += [
                Expected(BRACKET, name, regime, 0, trials)
                for regime in _to_bracket(plan)
                if not _ended(plan, regime, begun)
            ]
    return tuple(counts)


def _to_bracket(plan: StudyPlan) -> Iterator[Regime]:
    """The regimes that bracketing usually takes: twice the longest ratio of each scale."""
    longest: dict[Scale, float] = {}
    for regime in (*plan.regimes("I"), *plan.regimes("II")):
        longest[regime.scale] = max(regime.ratio, longest.get(regime.scale, 0.0))
    for scale, ratio in longest.items():
        yield Regime(scale, 2 * ratio, plan.corpus)


def _ended(plan: StudyPlan, regime: Regime, begun: Mapping[tuple[str, str, Regime], Sequence[Standing]]) -> bool:
    """Whether a scale's sweeps have all ended: what bracketing it takes, if anything, is then known."""
    places = [one for one in (*plan.regimes("I"), *plan.regimes("II")) if one.scale == regime.scale]
    return all(
        any((phase, name, place) in begun and begun[phase, name, place][-1].finished for phase in ("I", "II"))
        for name in plan.study.optimizers
        for place in places
    )


def _left(standing: Standing) -> int:
    """The trials that a sweep will still take, those pending among them."""
    if standing.task.quota is None:
        return standing.state.progress.remaining
    if standing.task.phase == MATCH:
        return len(standing.pending)
    # A comparison's tuning takes its quota: what its search does not use goes into seeds.
    return standing.task.quota - len(standing.trials) + len(standing.pending)


def _sweep_trials(space: LadderSpace, varied: tuple[str, ...], replicates: int) -> int:
    """The trials of a sweep that varies some coordinates; without any, as many as the start has seeds."""
    # Replicates of the start; its star; for each move another star with its centre; replicates of the winner.
    star = sum(len(axis.line(axis.start)) for axis in space.axes if axis.name in varied)
    return replicates + star + (TYPICAL_MOVES * (star + 1) + replicates - 1 if star else 0)


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
            sequences = max(_share(shape.sequences, batch, ranks) for batch in sizes)
            devices = Devices(ranks, stage, shape.devices.offload)
            needed = peak(replace(shape, devices=devices, sequences=sequences))
            if needed <= HEADROOM * device_bytes:
                return replace(need, enough=devices, enough_bytes=needed)
    return need


def plan_document(
    plan: StudyPlan,
    expectations: Sequence[Expected],
    seconds: Callable[[str, Regime], float | None],
    scale_needs: Sequence[Need],
    *,
    off: tuple[float, float] = (1.0, 1.0),
    slots: int,
    device_bytes: int | None,
    free_disk: int | None,
) -> dict[str, Any]:
    """What ``study plan --json`` prints: costs by phase and optimizer, the largest trials, and whether all fits.

    ``seconds`` gives those of a trial by optimizer and regime, None where nothing is known; ``off`` are the factors
    between which it may be wrong. ``scale_needs`` holds the need of each scale; ``device_bytes`` and ``free_disk`` are
    None where they are not known.
    """
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
            "device_hours": _hours(((part, part.trials) for part in group), seconds),
        }
        for (phase, optimizer), group in groups.items()
    ]
    phases = [
        {"name": phase, **_total([part for part in parts if part["name"] == phase])}
        for phase in dict.fromkeys(part["name"] for part in parts)
    ]
    # One row for each phase and optimizer, then sums over optimizers, then the whole: a reader goes down that way.
    whole = _between(_total(parts), off)
    left = _hours(((part, part.remaining) for part in expectations), seconds)
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
        most = limits[limit]
        if most is not None and amount is not None and amount > most:
            over.append(f"about {amount:,.0f} {unit} are expected, and the study stops at {limit} {most:,.0f}")
    return {
        "study": plan.study.name,
        "phases": phases,
        "optimizers": parts,
        "total": whole,
        "left": _between({"trials": sum(part.remaining for part in expectations), "device_hours": left}, off),
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


def _hours(counts: Iterable[tuple[Expected, int]], seconds: Callable[[str, Regime], float | None]) -> float | None:
    """Device-hours of so many trials each; None as soon as one regime's speed is not known."""
    hours = 0.0
    for part, trials in counts:
        one = seconds(part.optimizer, part.regime)
        if one is None:
            return None
        hours += trials * one / 3600
    return hours


def _between(sums: Mapping[str, Any], off: tuple[float, float]) -> dict[str, Any]:
    """Sums with the ends of their device-hours, as wrong as step times may be."""
    hours = sums["device_hours"]
    low, high = (None if hours is None else hours * factor for factor in off)
    return {**sums, "device_hours_low": low, "device_hours_high": high}


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
    return (
        f"{short}on {ranks} ranks with ZeRO {stage} it needs {size(need.enough_bytes)}; add placement: "
        f"{{{need.scale.name}: {{ranks: {ranks}, zero: {stage}}}}}"
    )


def size(count: float) -> str:
    """Bytes as people read them, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
