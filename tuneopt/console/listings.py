"""Optimizers, search spaces, corpora, and what the doctor found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuneopt.console.plain import loss, out, pairs, table


def optimizers(entries: Sequence[Mapping[str, Any]]) -> None:
    """Show the optimizers that there are."""
    table(
        ("optimizer", "origin", "family", "fallback", "state bytes/parameter", "source"),
        [
            (
                entry["name"],
                entry["origin"],
                entry["family"] or "not declared",
                entry["fallback"],
                "not declared" if (size := entry["state_bytes_per_parameter"]) is None else f"{size:.4g}",
                entry["source"],
            )
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
