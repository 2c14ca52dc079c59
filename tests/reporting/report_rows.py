"""A table of results from elsewhere that fills every chapter: stars, curves that cross, seconds, bytes, blind runs."""

from __future__ import annotations

import math
from typing import Any

BEST = {
    "adamw": {"learning_rate": 0.008, "weight_decay": 0.1, "beta1": 0.9},
    "muon": {"learning_rate": 0.016, "weight_decay": 0.2, "momentum": 0.95},
    "soap": {"learning_rate": 0.016, "weight_decay": 0.1, "beta1": 0.95},
}
FACTOR = {"adamw": 1.0, "muon": 1.3, "soap": 1.35}
SECONDS = {"adamw": 1.0, "muon": 1.1, "soap": 1.6}
FLOOR = {"130m": 3.0, "300m": 2.8}
CHINCHILLA = {"130m": 2.68e9, "300m": 6.04e9}
OTHERS = {"learning_rate": (6e-4, 0.004, 0.032), "weight_decay": (0.0, 0.1, 0.2), "beta1": (0.8,), "momentum": (0.9,)}
SIGMA = 0.0012


def loss_of(optimizer: str, scale: str, ratio: float) -> float:
    """On one law with a factor per optimizer, which is 1.35 for soap."""
    tokens = CHINCHILLA[scale] * ratio * FACTOR[optimizer]
    return FLOOR[scale] + 900.0 * tokens**-0.35


def curve_of(optimizer: str, end: float) -> list[list[float]]:
    """Soap starts behind the others and passes them late, so that a cut in mid-training would lose it."""
    late = {"soap": 0.5, "muon": 0.15, "adamw": 0.1}[optimizer]
    return [[x / 10, end + late * (1 - x / 10) + 2.0 * math.exp(-x)] for x in range(1, 11)]


def table_rows(names: dict[str, str] | None = None, curves: bool = True, stars: bool = True) -> list[dict[str, Any]]:
    """One row per run; ``names`` renames optimizers, as a hostile table would."""
    rows: list[dict[str, Any]] = []
    for optimizer, config in BEST.items():
        for scale in FLOOR:
            for ratio in (1, 2, 4):
                best = loss_of(optimizer, scale, ratio)
                configs = [(config, best)]
                for name in config if stars else ():
                    for number, value in enumerate(OTHERS[name]):
                        cost = 0.004 + 0.012 * number + (0.05 if value == 6e-4 else 0.0)
                        if value != config[name]:
                            configs.append(({**config, name: value}, best + cost))
                if stars and optimizer == "adamw":
                    taken = {name: BEST["soap"][name] for name in config}
                    configs.append((taken, best + 0.02))
                for number, (own, loss) in enumerate(configs):
                    rows.append({
                        "optimizer": (names or {}).get(optimizer, optimizer), "scale": scale, "ratio": ratio,
                        "loss": None if own.get("learning_rate") == 0.032 and optimizer == "muon" else loss,
                        "sigma": SIGMA, "config": own, "seconds": SECONDS[optimizer] * 100 * ratio,
                        "peak_bytes": 4e9 * SECONDS[optimizer], "checkpoint_bytes": 1e9,
                        **({"curve": curve_of(optimizer, loss)} if curves and number == 0 else {}),
                    })  # fmt: skip
    return rows
