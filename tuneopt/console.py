"""What the command line shows to people: tables on stdout, progress and notes on stderr."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
_wide = Console(highlight=False, width=10_000)  # never cuts a cell; a narrow terminal wraps the lines itself


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
    """Print a plain table at its full width: nothing is cut, a narrow terminal wraps the lines."""
    grid = Table(*headings, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        grid.add_row(*("" if cell is None else str(cell) for cell in row))
    _wide.print(grid, markup=False)


def pairs(mapping: Mapping[str, Any]) -> None:
    """Print names and values in two columns."""
    grid = Table.grid(padding=(0, 2))
    for name, value in mapping.items():
        grid.add_row(name, str(value))
    _wide.print(grid, markup=False)


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
            (
                row["optimizer"],
                row["scale"],
                f"{row['ratio']:g}",
                *(_times(row[key]) for key in ("speedup", "low", "high")),
                row["tie_group"],
            )
            for row in summary["speedups"]
        ],
    )
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
            tuple(entry[key] for key in ("name", "family", "fallback", "state_bytes_per_parameter", "source"))
            for entry in entries
        ],
    )


def space(plain: Mapping[str, Any]) -> None:
    """Show a search space with the grids of both ladders and the published tuned values."""
    for ladder, fixed in plain["fixed"].items():
        table(
            ("coordinate", "start", "grid", "unit", "kind"),
            [
                (
                    entry["name"],
                    entry["start"][ladder],
                    " ".join(map(str, entry["grid"][ladder])),
                    entry["unit"],
                    entry["kind"],
                )
                for entry in plain["coordinates"]
                if ladder in entry["grid"]
            ],
            f"{plain['optimizer']}, {ladder} ladder",
        )
        held = ", ".join(f"{name}={value}" for name, value in fixed.items())
        out.print(f"fixed: {held or 'nothing'}", markup=False)
        out.print()
    table(
        ("published tuned points", *(f"{point['scale']}/{point['ratio']:g}x" for point in plain["published"])),
        [
            ("loss, nats/token", *(loss(point["loss"]) for point in plain["published"])),
            *(
                (entry["name"], *(point["config"].get(entry["name"], "-") for point in plain["published"]))
                for entry in plain["coordinates"]
            ),
        ],
    )
    out.print()
    pairs({entry["name"]: entry["meaning"] for entry in plain["coordinates"]})
    out.print()
    pairs({"source": plain["source"], "nano ladder": plain["found"]})


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
        [
            (route["parameter"], "x".join(map(str, route["shape"])), route["rule"], route["decay"], route["reason"])
            for route in plain["routing"]
        ],
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
