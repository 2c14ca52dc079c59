"""What the command line shows to people: tables on stdout, progress and notes on stderr."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A note on stderr."""
    err.print(text, markup=False)


def number(value: float, unit: str = "") -> str:
    """A count in the form people read: 1,310,720 below a million or so, 2.68e+09 beyond."""
    text = f"{value:,.0f}" if abs(value) < 1e8 else f"{value:.3g}"
    return f"{text} {unit}".strip()


def span(seconds: float) -> str:
    """A duration such as 42 s, 7 min 30 s, 3 h 12 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def loss(value: float | None) -> str:
    """A loss in nats per token, four decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.4f}"


def table(headings: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """Print a plain table."""
    grid = Table(*headings, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        grid.add_row(*("" if cell is None else str(cell) for cell in row))
    out.print(grid, markup=False)


def pairs(mapping: Mapping[str, Any]) -> None:
    """Print names and values in two columns."""
    grid = Table.grid(padding=(0, 2))
    for name, value in mapping.items():
        grid.add_row(name, str(value))
    out.print(grid, markup=False)


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
        say(f"trial {trial} failed: {error}")


def report_summary(summary: Mapping[str, Any], path: Any) -> None:
    """Show the rankings and speedups of a report, and where it is."""
    for ranking in summary["rankings"]:
        out.print(f"{ranking['scale']}, ratio {ranking['ratio']:g}: {' < '.join(ranking['order'])}", markup=False)
    table(
        ("optimizer", "scale", "ratio", "speedup", "low", "high", "tie group"),
        [
            (row["optimizer"], row["scale"], f"{row['ratio']:g}", *(_times(row[key]) for key in ("speedup", "low", "high")),
             row["tie_group"])
            for row in summary["speedups"]
        ],
    )  # fmt: skip
    for warning in summary["warnings"]:
        say(f"warning: {warning}")
    out.print(f"report: {path}", markup=False)


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def optimizers(entries: Sequence[Mapping[str, Any]]) -> None:
    """Show the optimizers that there are."""
    table(
        ("optimizer", "family", "fallback", "state bytes/parameter", "source"),
        [
            (entry["name"], entry["family"], entry["fallback"] or "-", entry["state_bytes_per_parameter"], entry["source"])
            for entry in entries
        ],
    )


def space(plain: Mapping[str, Any]) -> None:
    """Show a search space with the grids of both ladders and the published tuned values."""
    for ladder in plain["ladders"]:
        rows = []
        for entry in plain["coordinates"]:
            if ladder not in entry["grid"]:
                continue
            start = entry["start"][ladder]
            grid = " ".join(f"[{value}]" if value == start else f"{value}" for value in entry["grid"][ladder])
            rows.append((entry["name"], grid, entry["unit"], entry["kind"], entry["meaning"]))
        table(("coordinate", "grid, start in brackets", "unit", "kind", "meaning"), rows, f"{plain['optimizer']}, {ladder} ladder")
        fixed = plain["fixed"].get(ladder, {})
        if fixed:
            out.print("fixed: " + ", ".join(f"{name}={value}" for name, value in fixed.items()), markup=False)
        out.print()
    varying = [entry["name"] for entry in plain["coordinates"]]
    table(
        ("scale", "ratio", "loss", *varying),
        [
            (point["scale"], f"{point['ratio']:g}", loss(point["loss"]), *(point["config"].get(name) for name in varying))
            for point in plain["published"]
        ],
        f"published tuned points: {plain['source']}",
    )


def findings(found: Sequence[Mapping[str, Any]]) -> None:
    """Show what the doctor found."""
    marks = {"ok": "ok", "note": "note", "missing": "MISSING"}
    table(
        ("", "", "", ""),
        [(marks[entry["status"]], entry["subject"], entry["detail"], entry["mend"]) for entry in found],
    )


def trials(rows: Sequence[Mapping[str, Any]]) -> None:
    """Show recorded trials, a row each."""
    if not rows:
        say("no trials yet")
        return
    table(tuple(rows[0]), [[_cell(name, value) for name, value in row.items()] for row in rows])


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
            "proof": "none" if proof is None else "passed" if proof["passed"] else "FAILED",
            "ended": f"{plain['ended']}, resumed {plain['resumes']} times",
        }
    )
    if proof:
        table(
            ("check", "", "measured", "expected"),
            [(c["name"], "ok" if c["passed"] else "FAILED", c["measured"], c["expected"]) for c in proof["checks"]],
        )
    table(
        ("parameter", "shape", "rule", "decay", "reason"),
        [(r["parameter"], "x".join(map(str, r["shape"])), r["rule"], r["decay"], r["reason"]) for r in plain["routing"]],
    )


def corpus(plain: Mapping[str, Any]) -> None:
    """Show a prepared corpus."""
    pairs({name: value for name, value in plain.items() if name not in ("splits", "warning")})
    table(
        ("split", "documents", "tokens", "bytes", "bytes/token"),
        [
            (split["split"], number(split["documents"]), number(split["tokens"]), number(split["bytes"]),
             f"{split['bytes'] / max(1, split['tokens']):.3f}")
            for split in plain["splits"]
        ],
    )  # fmt: skip
    if plain["warning"]:
        say(f"warning: {plain['warning']}")
