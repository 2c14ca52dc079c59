"""Recorded trials: a list of them, or one whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tuneopt.console.plain import loss, number, out, pairs, say, span, table
from tuneopt.observe.describe import line


def trials(rows: Sequence[Mapping[str, Any]]) -> None:
    """Show recorded trials, a row each."""
    if not rows:
        say("no trials yet")
        return
    table(tuple(rows[0]), [[_cell(name, value) for name, value in row.items()] for row in rows])


def events(logged: Iterable[Mapping[str, Any]]) -> None:
    """Show the events of a trial's log, a line each."""
    for event in logged:
        out.print(line(event), markup=False)


def _unproven(proof: Mapping[str, Any]) -> str:
    """Why a trial's proof did not pass; records of older releases do not say."""
    if proof.get("status") == "not measurable":
        return f"not measurable: {proof['reason']}"
    return f"FAILED: {proof['reason']}" if proof.get("reason") else "FAILED"


def _cell(name: str, value: Any) -> str:
    if isinstance(value, float):
        return loss(value) if name.endswith("loss") else f"{value:g}"
    return "-" if value is None else str(value)


def record(plain: Mapping[str, Any]) -> None:
    """Show one trial whole."""
    spec = plain["spec"]
    regime, seconds = spec["regime"], plain["seconds"]
    proof = plain["proof"]
    pairs(
        {
            "trial": f"{plain['trial']} ({plain['status']})",
            "optimizer": spec["optimizer"],
            "regime": f"{regime['scale']['name']}, ratio {regime['ratio']:g}, corpus {regime['corpus']['name']}, "
            f"seed {spec['seed']}",
            "config": ", ".join(f"{name}={value}" for name, value in spec["hyperparameters"].items()),
            "loss": f"select {loss(plain['select_loss'])}, report {loss(plain['report_loss'])} nats/token "
            f"(untrained {loss(plain['initial_loss'])})",
            "cost": f"{number(plain['tokens'], 'tokens')} ({plain['epochs']:.2f} epochs), {plain['flops']:.2e} FLOPs, "
            f"{span(seconds['train'])} training, {span(seconds['eval'])} evaluation, "
            f"{number(plain['tokens_per_second'], 'tokens/s')}",
            "proof": "none" if proof is None else "passed" if proof["passed"] else _unproven(proof),
            "ended": f"{plain['ended']}, resumed {plain['resumes']} times",
            "log": plain["log"] or "none: recorded by a release that wrote no logs",
        }
    )
    if proof:
        table(
            ("check", "", "measured", "expected"),
            [(c["name"], "ok" if c["passed"] else "FAILED", c["measured"], c["expected"]) for c in proof["checks"]],
        )
    table(
        ("parameter", "shape", "rule", "decay", "reason"),
        [
            (route["parameter"], "x".join(map(str, route["shape"])), route["rule"], route["decay"], route["reason"])
            for route in plain["routing"]
        ],
    )
