"""What a sweep will cost, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuneopt.console.plain import loss, number, pairs, say, span


def cost(plan: Mapping[str, Any]) -> None:
    """Show what a sweep will cost before it starts."""
    trials, budget = plan["trials"], plan["per_trial"]
    pairs(
        {
            "sweep": f"{plan['optimizer']} at {plan['regime']['scale']}, ratio {plan['regime']['ratio']:g}, "
            f"corpus {plan['regime']['corpus']}",
            "first wave": f"{trials['first_wave']} trials (the start, its other seeds, its star); "
            f"{trials['in_ledger']} of them in the ledger",
            "expected in all": f"about {trials['expected']} trials",
            "per trial": f"{number(budget['tokens'], 'tokens')}, {number(budget['steps'], 'steps')}, "
            f"{budget['flops']:.2e} FLOPs, {budget['epochs']:.2f} epochs of the corpus",
            "throughput": _throughput(plan),
            "expected time": f"{span(plan['seconds'])} on {plan['slots']} slots" if plan["seconds"] else "unknown",
        }
    )
    for warning in plan["warnings"]:
        say(f"warning: {warning}")


def _throughput(plan: Mapping[str, Any]) -> str:
    rate = plan["tokens_per_second"]
    return f"{number(rate, 'tokens/s')} per slot ({plan['throughput_from']})" if rate else "not measured yet"


def sweep_summary(summary: Mapping[str, Any]) -> None:
    """Show how a sweep ended."""
    best, certificate, trials = summary["best"], summary["certificate"], summary["trials"]
    state = "complete" if certificate["complete"] else "NOT complete"
    edges = f"; on an edge: {', '.join(certificate['edges'])}" if certificate["edges"] else ""
    use = summary["utilisation"]
    pairs(
        {
            "best": f"select loss {loss(best['select_loss'])}, report loss {loss(best['report_loss'])} nats/token "
            f"(trial {best['trial']})",
            "config": ", ".join(f"{name}={value}" for name, value in (best["config"] or {}).items()),
            "certificate": f"{state}, tolerance {certificate['tolerance']:.4f} nats{edges}",
            "trials": f"{trials['run']} run, {trials['reused']} reused, {trials['diverged']} diverged, "
            f"{trials['failed']} failed, in {summary['waves']} waves and {span(summary['seconds'])}",
            "slot utilisation": "nothing ran" if use is None else f"{use:.2f}",
            "report": summary["report"],
        }
    )
    for trial, error in summary["errors"].items():
        say(f"trial {trial} failed: {error}; see `tuneopt ledger logs {trial}`")
