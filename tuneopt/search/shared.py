"""Coordinates that many search spaces have in common, so that each module shows only what is its own.

Each function declares one coordinate: its unit, meaning and bounds are given here, its grids and starts by the caller,
by ladder. Where a grid or start is the usual one, the caller leaves that ladder out.
"""

from __future__ import annotations

from tuneopt.search.coordinate import Bound, Coordinate, Grids, Values

STUDY = "Wen, Hall, Ma, Liang, arXiv 2509.02046"
"""The study whose published figures the built-in search spaces hold."""

STUDY_TABLES = f"paper ladder and published points: {STUDY}, appendix tables; start: its 130m, ratio 1"
"""What a built-in search space names as its source."""


def learning_rate(grids: Grids, starts: Values, meaning: str = "peak of the schedule") -> Coordinate:
    """The peak learning rate."""
    return Coordinate(
        "learning_rate", "scale-free", "weight per unit update", meaning, grids, starts, low=1e-6, high=10.0
    )


def weight_decay(grids: Grids | None = None, starts: Values | None = None) -> Coordinate:
    """Decoupled weight decay; usually 0, 0.1 or 0.2."""
    return Coordinate(
        "weight_decay",
        "scale-free",
        "per unit learning rate",
        "decoupled decay, multiplied by the learning rate; norms and embeddings are spared",
        {"paper": (0, 0.1, 0.2), "nano": (0, 0.1, 0.2), **(grids or {})},
        {"paper": 0.1, "nano": 0.1, **(starts or {})},
        low=0,
        high=10.0,
        off=0,
    )


def average(name: str, meaning: str, grids: Grids, starts: Values) -> Coordinate:
    """The decay of an exponential average, such as a beta or a momentum; its grid goes on in 1 - value."""
    return Coordinate(
        name, "scale-free", "1", meaning, grids, starts, low=0, high=0.9999, extend="complement", off=0
    )  # fmt: skip


def epsilon(
    grids: Grids,
    starts: Values,
    meaning: str = "added to the root of the second moment; 1e-25 vanishes beside any gradient in fp32",
    low: Bound = 1e-25,
    high: Bound = 1e-5,
) -> Coordinate:
    """A small number in a denominator, in units of the gradient."""
    return Coordinate("epsilon", "scale-free", "gradient", meaning, grids, starts, low=low, high=high)


def max_grad_norm(
    meaning: str = "global norm that gradients are clipped to; 0 is no clipping",
    grids: Grids | None = None,
    starts: Values | None = None,
) -> Coordinate:
    """Where gradients are clipped; usually not at all, or to a norm of 1 or 2."""
    return Coordinate(
        "max_grad_norm",
        "scale-free",
        "gradient norm",
        meaning,
        {"paper": (0, 1.0, 2.0), "nano": (0, 1.0, 2.0), **(grids or {})},
        {"paper": 1.0, "nano": 1.0, **(starts or {})},
        low=0,
        high=1000.0,
        off=0,
    )


def train_batch_size(grids: Grids | None = None, starts: Values | None = None) -> Coordinate:
    """Sequences per optimizer step; usually 128 to 1024 on the paper ladder, 8 to 32 on the nano ladder."""
    return Coordinate(
        "train_batch_size",
        "scale-free",
        "sequences",
        "sequences per optimizer step; the token budget stays, so twice the batch is half the steps",
        {"paper": (128, 256, 512, 1024), "nano": (8, 16, 32), **(grids or {})},
        {"paper": 128, "nano": 8, **(starts or {})},
        low={"paper": 16, "nano": 8},
        high={"paper": 8192, "nano": 512},
    )


def warmup(grids: Grids | None = None, starts: Values | None = None) -> Coordinate:
    """Steps in which the learning rate rises; below 1 a fraction of all steps, as on the nano ladder."""
    return Coordinate(
        "warmup",
        "steps",
        "steps; below 1 a fraction of all steps",
        "linear rise of the learning rate to its peak; 0 is none",
        {"paper": (500, 1000, 2000, 4000), "nano": (0.05, 0.1, 0.2), **(grids or {})},
        {"paper": 2000, "nano": 0.1, **(starts or {})},
        low=0,
        high={"paper": 32000, "nano": 0.5},
        off=0,
    )


def block_size(grids: Grids, starts: Values) -> Coordinate:
    """The largest side of a block that has factors of its own."""
    return Coordinate(
        "block_size",
        "scale-free",
        "rows or columns",
        "largest side of a block with factors of its own; on the nano ladder 128 is the largest model width",
        grids,
        starts,
        low=8,
        high={"paper": 8192, "nano": 128},
    )
