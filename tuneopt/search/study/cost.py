"""What a study will cost before it starts: trials, tokens, FLOPs, device-hours, memory, disk; and what cannot fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tuneopt.search.study.expect import Expected
from tuneopt.search.study.needs import HEADROOM, Need
from tuneopt.search.study.planner import StudyPlan
from tuneopt.spec import Regime

RECORD_BYTES = 40_000
"""Bytes of one trial's record in the ledger, its learning curve and routing table included."""


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
    wanted: Sequence[Need],
    *,
    slots: int,
    device_bytes: int | None,
    free_disk: int | None,
) -> dict[str, Any]:
    """What ``study plan --json`` prints: costs by phase and optimizer, the largest trials, and whether all fits.

    ``wanted`` holds the need of each scale; ``device_bytes`` and ``free_disk`` are None where they are not known.
    """
    parts = rows(expectations, rate)
    phases = [
        total([part for part in parts if part["name"] == phase], name=phase)
        for phase in dict.fromkeys(part["name"] for part in parts)
    ]
    largest = max(wanted, key=lambda each: each.peak_bytes)
    trials = sum(part["trials"] for part in parts)
    at_once = max(max(1, slots // each.devices.ranks) * each.checkpoint_bytes for each in wanted)
    disk = trials * RECORD_BYTES + at_once
    whole = total(parts)
    short = [each for each in wanted if device_bytes is not None and each.peak_bytes > device_bytes]
    why = [*(_memory(each, device_bytes or 0) for each in short), *_disk(disk, free_disk)]
    return {
        "study": plan.study.name,
        "phases": phases,
        "optimizers": parts,
        "total": whole,
        "peak_bytes": largest.peak_bytes,
        "peak_trial": {"optimizer": largest.optimizer, "scale": largest.scale.name},
        "scales": [each.to_dict(device_bytes) for each in wanted],
        "device_bytes": device_bytes,
        "disk_bytes": disk,
        "slots": slots,
        "fits": not why,
        "why": "; ".join(why),
        "limits": limits_dict(plan),
        "warnings": [*_short(plan, whole), *_close(wanted, device_bytes)],
    }


def limits_dict(plan: StudyPlan) -> dict[str, float | None]:
    """The study's limits, in the units of its file."""
    seconds = plan.study.limits.max_device_seconds
    return {
        "max_trials": plan.study.limits.max_trials,
        "max_device_hours": None if seconds is None else seconds / 3600,
    }


def _memory(need: Need, most: int) -> str:
    """What is short, and the placement that mends it."""
    said = f"a trial of {need.optimizer} at {need.scale.name} needs {size(need.peak_bytes)} of memory on each device"
    said += f" ({need.devices.ranks} ranks)" if need.devices.ranks > 1 else ""
    said += f" and a device has {size(most)}: "
    if need.enough is None or need.enough_bytes is None:
        return said + "take larger devices, more ranks or smaller scales"
    ranks, stage = need.enough.ranks, need.enough.zero
    return (
        f"{said}on {ranks} ranks with ZeRO {stage} it needs {size(need.enough_bytes)}; add placement: "
        f"{{{need.scale.name}: {{ranks: {ranks}, zero: {stage}}}}}"
    )


def _close(wanted: Sequence[Need], most: int | None) -> list[str]:
    """The scales that fit by less than the memory model can tell."""
    return [
        f"{each.optimizer} at {each.scale.name} takes {size(each.peak_bytes)} of the {size(most)} of a device, and the "
        "memory model is good to a tenth"
        for each in wanted
        if most is not None and HEADROOM * most < each.peak_bytes <= most
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
