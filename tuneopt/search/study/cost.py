"""What a study will cost before it starts: trials, tokens, FLOPs, device-hours, memory, disk; and what cannot fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tuneopt.search.study.expect import Expected
from tuneopt.search.study.planner import StudyPlan
from tuneopt.search.sweep import micro_batch
from tuneopt.spec import Regime

RECORD_BYTES = 40_000
"""Bytes of one trial's record in the ledger, its learning curve and routing table included."""

KEPT_CHECKPOINTS = 2
"""Checkpoints that a running trial keeps; it removes them when it ends."""

WEIGHT_BYTES = 4
"""Weights, their gradients and the optimizer's state are kept in fp32."""

StateBytes = Callable[[str], float]
"""Bytes of optimizer state per parameter, by optimizer."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What one trial needs at its largest: bytes of device memory, and bytes of its checkpoints on disk."""

    optimizer: str
    regime: Regime
    peak_bytes: int
    checkpoint_bytes: int


def needs(plan: StudyPlan, optimizer: str, regime: Regime, state_bytes: float) -> Needs:
    """The memory of one trial, from its shapes.

    Weights, gradients and state; the activations that the backward pass reads: 8 d + 4 f values for each token and
    layer; and three copies of the logits in fp32 (themselves, their softmax, its gradient).
    """
    scale, space = regime.scale, plan.study.spaces[optimizer]
    weights = scale.total_parameters(regime.corpus.vocab_size)
    tokens = micro_batch(int(space.value(space.start, "train_batch_size")), scale) * scale.seq_len
    half = plan.study.precision == "bf16"
    activations = tokens * scale.layers * (8 * scale.d_model + 4 * scale.d_ff) * (2 if half else 4)
    logits = 3 * tokens * regime.corpus.vocab_size * 4
    held = weights * (2 * WEIGHT_BYTES + state_bytes + (2 if half else 0))
    kept = KEPT_CHECKPOINTS * weights * (WEIGHT_BYTES + state_bytes)
    return Needs(optimizer, regime, int(held + activations + logits), int(kept))


def rows(
    expectations: Iterable[Expected], rate: Callable[[Regime], float | None], *, done: bool = True
) -> list[dict[str, Any]]:
    """The cost of each phase and optimizer; ``rate`` gives the tokens per second of a trial's device or devices.

    ``done=False`` counts only the trials still to come.
    """  # fmt: skip
    groups: dict[tuple[str, str], list[tuple[Expected, int]]] = {}
    for each in expectations:
        count = each.trials if done else each.remaining
        groups.setdefault((each.phase, each.optimizer), []).append((each, count))
    return [
        {
            "name": phase,
            "optimizer": optimizer,
            "trials": sum(count for _, count in held),
            "tokens": sum(each.regime.tokens * count for each, count in held),
            "flops": float(sum(each.regime.flops * count for each, count in held)),
            "device_hours": _hours(held, rate),
        }
        for (phase, optimizer), held in groups.items()
    ]


def total(parts: Sequence[dict[str, Any]], **names: str) -> dict[str, Any]:
    """The sum of cost rows, under other names."""
    hours = [part["device_hours"] for part in parts]
    return {
        **names,
        "trials": sum(part["trials"] for part in parts),
        "tokens": sum(part["tokens"] for part in parts),
        "flops": sum(part["flops"] for part in parts),
        "device_hours": None if None in hours else sum(hours),
    }


def _hours(held: Sequence[tuple[Expected, int]], rate: Callable[[Regime], float | None]) -> float | None:
    hours = 0.0
    for each, count in held:
        speed = rate(each.regime)
        if speed is None:
            return None
        hours += each.regime.tokens * count / speed / 3600
    return hours


def plan_document(
    plan: StudyPlan,
    expectations: Sequence[Expected],
    rate: Callable[[Regime], float | None],
    state_bytes: StateBytes,
    *,
    slots: int,
    memory_per_slot: int | None,
    free_disk: int | None,
) -> dict[str, Any]:
    """What ``study plan --json`` prints: costs by phase and optimizer, the largest trial, and whether all fits."""
    parts = rows(expectations, rate)
    phases = [
        total([part for part in parts if part["name"] == phase], name=phase)
        for phase in dict.fromkeys(part["name"] for part in parts)
    ]
    places = dict.fromkeys((each.optimizer, each.regime) for each in expectations)
    wanted = [needs(plan, optimizer, regime, state_bytes(optimizer)) for optimizer, regime in places]
    largest = max(wanted, key=lambda each: each.peak_bytes)
    trials = sum(part["trials"] for part in parts)
    disk = trials * RECORD_BYTES + slots * max(each.checkpoint_bytes for each in wanted)
    whole = total(parts)
    why = [*_memory(largest, memory_per_slot), *_disk(disk, free_disk)]
    return {
        "study": plan.study.name,
        "phases": phases,
        "optimizers": parts,
        "total": whole,
        "peak_bytes": largest.peak_bytes,
        "peak_trial": {"optimizer": largest.optimizer, "scale": largest.regime.scale.name},
        "disk_bytes": disk,
        "slots": slots,
        "fits": not why,
        "why": "; ".join(why),
        "limits": limits_dict(plan),
        "warnings": _short(plan, whole),
    }


def limits_dict(plan: StudyPlan) -> dict[str, float | None]:
    """The study's limits, in the units of its file."""
    seconds = plan.study.limits.max_device_seconds
    return {
        "max_trials": plan.study.limits.max_trials,
        "max_device_hours": None if seconds is None else seconds / 3600,
    }


def _memory(largest: Needs, most: int | None) -> list[str]:
    if most is None or largest.peak_bytes <= most:
        return []
    return [
        f"a trial of {largest.optimizer} at {largest.regime.scale.name} needs {size(largest.peak_bytes)} of memory and "
        f"a slot has {size(most)}: take fewer slots, larger devices or smaller scales"
    ]


def _disk(needed: int, free: int | None) -> list[str]:
    if free is None or needed <= free:
        return []
    return [f"the study needs {size(needed)} of disk and {size(free)} are free: free some, or move the ledger"]


def _short(plan: StudyPlan, whole: dict[str, Any]) -> list[str]:
    found = []
    for name, spent, unit in (("max_trials", whole["trials"], "trials"),
                              ("max_device_hours", whole["device_hours"], "device-hours")):  # fmt: skip
        most = limits_dict(plan)[name]
        if most is not None and spent is not None and spent > most:
            found.append(f"about {spent:,.0f} {unit} are expected, and the study stops at {name} {most:,.0f}")
    return found


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
