"""What a preparation counted: documents, bytes and tokens of every source by split, and what the guard kept out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuneopt.data.recipe.guard import Guard
from tuneopt.data.recipe.mixture import Standing
from tuneopt.data.recipe.recipe import Recipe, SourceRecipe
from tuneopt.data.recipe.rounds import Entry
from tuneopt.data.recipe.rows import EQUAL, SHARED
from tuneopt.data.splits import SPLITS


def account(recipe: Recipe, entries: Sequence[Entry], guard: Guard | None) -> dict[str, Any]:
    """Plain data for the manifest: the recipe, how its phases ended, the mixture, and the guard's counts."""
    last = {entry.phase: entry for entry in entries}
    rows = []
    weights = sum(source.weight for source in recipe.sources)
    for phase, sources in (("train", recipe.sources), ("evaluation", recipe.evaluation)):
        if sources:
            for source, standing in zip(sources, last[phase].standing, strict=True):
                share = float(source.weight / weights) if phase == "train" else None
                rows.append(_row(source, standing, phase, share))
    total = sum(row["splits"]["train"]["tokens"] for row in rows)
    for row in rows:
        if row["phase"] == "train":
            row["share"] = row["splits"]["train"]["tokens"] / total if total else 0.0
    return {
        "said": recipe.describe(),
        "ended": {phase: entry.ended for phase, entry in last.items()},
        "mixture": rows,
        "guard": {
            "ngram": recipe.ngram if guard else 0,
            "evaluation_documents": 0 if guard is None else len(guard.documents),
            "evaluation_runs": 0 if guard is None else len(guard.runs),
            "kept_out_equal": sum(row["kept_out"]["equal"]["documents"] for row in rows),
            "kept_out_shared": sum(row["kept_out"]["shared"]["documents"] for row in rows),
        },
    }


def _row(source: SourceRecipe, standing: Standing, phase: str, weight: float | None) -> dict[str, Any]:
    names = ("documents", "bytes", "tokens")
    counted = {int(fate): dict(zip(names, each, strict=True)) for fate, each in standing.counts.items()}
    none = dict.fromkeys(names, 0)
    kept_out = {"equal": counted.get(EQUAL, none), "shared": counted.get(SHARED, none)}
    return {
        "source": source.name,
        "phase": phase,
        "origin": source.origin,
        "weight": weight,
        "epochs": standing.epoch + 1,
        "splits": {split: counted.get(fate, none) for fate, split in enumerate(SPLITS)},
        "kept_out": {name: {key: each[key] for key in ("documents", "bytes")} for name, each in kept_out.items()},
    }
