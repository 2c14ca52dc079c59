"""What a study will cost, where it stands, and what it found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuneopt.console.plain import loss, number, out, pairs, say, span, table


def study_plan(plan: Mapping[str, Any]) -> None:
    """Show the cost of a study by phase and optimizer, and whether it fits."""
    rows = [(part.get("optimizer", "all optimizers"), part)
            for part in (*plan["optimizers"], *plan["phases"])]  # fmt: skip
    table(
        ("phase", "optimizer", "trials", "tokens", "FLOPs", "device-hours"),
        [
            (part["name"], name, number(part["trials"]), number(part["tokens"]), f"{part['flops']:.2e}",
             _hours(part["device_hours"]))
            for name, part in rows
        ],
    )  # fmt: skip
    whole = plan["total"]
    out.print()
    pairs(
        {
            "in all": f"about {number(whole['trials'])} trials ({plan['in_ledger']} in the ledger), "
            f"{number(whole['tokens'])} tokens, {whole['flops']:.2e} FLOPs, "
            f"{_hours(whole['device_hours'])} device-hours",
            "on": f"{plan['slots']} slots; throughput {plan['throughput_from']}",
            "largest trial": f"{_size(plan['peak_bytes'])} of memory ({plan['peak_trial']['optimizer']} at "
            f"{plan['peak_trial']['scale']})",
            "memory by scale": ", ".join(map(_scale_memory, plan["scales"]))
            + ("" if plan["device_bytes"] is None else f"; a device has {_size(plan['device_bytes'])}"),
            "disk": _size(plan["disk_bytes"]),
            "limits": _limits(plan["limits"]),
            "fits": "yes" if plan["fits"] else f"NO: {plan['why']}",
        }
    )
    for warning in plan["warnings"]:
        say(f"warning: {warning}")


def study_status(status: Mapping[str, Any]) -> None:
    """Show where a study stands and what it found."""
    table(
        ("phase", "sweeps", "certificates", "trials ended", "of about"),
        [
            (part["name"], part["regimes"], part["certificates"], part["ended"], part["trials"])
            for part in status["phases"]
        ],
    )
    out.print()
    held = [result for result in status["results"] if result["best"]["select_loss"] is not None]
    if held:
        table(
            ("optimizer", "phase", "regime", "select loss", "report loss", "certificate", "distance"),
            [
                (result["optimizer"], result["phase"], f"{result['scale']}/{result['ratio']:g}x",
                 loss(result["best"]["select_loss"]), loss(result["best"]["report_loss"]),
                 "complete" if result["certificate"]["complete"] else "not yet",
                 loss(result["distance"]))
                for result in held
            ],
        )  # fmt: skip
        out.print()
    for finding in status["findings"]:
        if finding["verdicts"]:
            names = ", ".join(finding["sensitive"]) or "none"
            out.print(f"{finding['optimizer']} scaling-sensitive: {names}", markup=False)
    out.print()
    trials, eta = status["trials"], status["eta_seconds"]
    pairs(
        {
            "phase": status["phase"],
            "trials": f"{trials['ended']} of about {trials['expected']} ended, {trials['running']} running, "
            f"{trials['reused']} reused, {trials['diverged']} diverged",
            "spent": f"{_hours(status['device_hours'])} device-hours; limits: {_limits(status['limits'])}",
            "under way": ", ".join(map(_running, status["running"])) or "nothing",
            "left": "nothing"
            if status["finished"]
            else f"about {_hours(status['remaining_device_hours'])} device-hours"
            + (f", about {span(eta)} at the present rate" if eta is not None else ""),
        }
    )
    if "simulation" in status:
        _simulation(status["simulation"])
    if status.get("stopped"):
        say(f"stopped at {status['stopped']}; raise it and run the study again to go on")


def study_spent(status: Mapping[str, Any]) -> None:
    """Show what each optimizer and coordinate has cost."""
    table(
        ("optimizer", "phase", "spent on", "trials", "diverged", "tokens", "device-hours"),
        [
            (row["optimizer"], row["phase"], row["coordinate"], row["trials"], row["diverged"], number(row["tokens"]),
             _hours(row["device_seconds"] / 3600))
            for row in status["budget"]
        ],
    )  # fmt: skip


def _running(trial: Mapping[str, Any]) -> str:
    """One running trial."""
    what = "launched ahead"
    if trial["optimizer"] is not None:
        what = f"{trial['optimizer']} {trial['scale']}/{trial['ratio']:g}x"
    return f"{what} {trial['fraction']:.0%}"


def _scale_memory(part: Mapping[str, Any]) -> str:
    """The peak of one scale, with the ranks that it has or would need."""
    text = f"{part['scale']} {_size(part['peak_bytes'])}"
    if part["ranks"] > 1:
        text += f" on each of {part['ranks']} ranks, ZeRO {part['zero']}"
    enough = part["enough"]
    if enough is not None:
        text += f" (or {_size(enough['peak_bytes'])} on each of {enough['ranks']} ranks, ZeRO {enough['zero']})"
    return text


def _simulation(plain: Mapping[str, Any]) -> None:
    pairs(
        {
            "simulated": f"{plain['slots']} slots, utilisation {plain['utilisation']:.3f}, "
            f"{plain['seconds'] / 3600:,.0f} fake hours in {span(plain['cpu_seconds'])} of computing",
            "surfaces": "; ".join(
                f"{name}: " + ", ".join(f"{count} from a {origin}" for origin, count in counts.items())
                for name, counts in plain["surfaces"].items()
            ),
        }
    )


def _hours(hours: float | None) -> str:
    return "unknown" if hours is None else f"{hours:,.1f}" if hours >= 0.1 or hours == 0 else f"{hours:.2g}"


def _limits(limits: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {most:g}" for name, most in limits.items() if most is not None) or "none"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
