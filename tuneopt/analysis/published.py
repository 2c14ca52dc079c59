"""The published study (Wen, Hall, Ma, Liang, arXiv 2509.02046) as a table of results, from the search-space modules.

A first look needs no training: each module carries the tuned points of its optimizer, one per regime.
"""

from __future__ import annotations

from tuneopt.analysis.inputs import Inputs, from_rows
from tuneopt.search.space import load_space, space_names

SOURCE = "the published study (arXiv 2509.02046)"

NOTES = (
    "the published tables give one tuned run per optimizer and regime, with one seed: noise is assumed, not measured",
    "the published tables hold no learning curves, seconds, memory or untuned trials, so flips during training, costs, "
    "sensitivity, blind transfer and the under-tuned baseline are shown only as far as tuned points coincide",
)


def published() -> Inputs:
    """The study's tuned points: loss (nats per token) and configuration of each optimizer in each regime."""
    rows = [
        {
            "optimizer": name,
            "scale": point.scale,
            "ratio": point.ratio,
            "loss": point.loss,
            "config": point.config,
            "trial": f"published {name} {point.scale}/{point.ratio:g}x",
        }
        for name in space_names()
        for point in load_space(name).published
    ]
    return from_rows(rows, source=SOURCE, notes=NOTES)
