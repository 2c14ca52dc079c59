"""Synthetic studies whose truth is known, and the published results where they lie beside the clone."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tuneopt.analysis.noise import Noise, NoiseModel
from tuneopt.analysis.results import read_file
from tuneopt.analysis.rows import ParsedTable, parse
from tuneopt.analysis.runs import Curves, CurveSample, RegimeKey
from tuneopt.analysis.winner import Winner

PARAMETERS = 134_217_728
RATIOS = (1, 2, 4, 8)
ALPHA, EXPONENT, BETA = 19421.6, 0.495, 3.1113
"""A law close to that of AdamW at the study's smallest scale; D in tokens."""


def law(tokens: float | np.ndarray) -> float | np.ndarray:
    return ALPHA * tokens**-EXPONENT + BETA


def result(name: str, ratio: float, loss: float, runs: int = 1, scale: str = "130m", n: int = PARAMETERS) -> Winner:
    regime = RegimeKey("", scale, float(ratio))
    return Winner(name, regime, n, 20.0 * n * ratio, loss, loss, runs, (), (f"{name}-{scale}-{ratio:g}",))


def study(speeds: dict[str, float], ratios: Iterable[float] = RATIOS, noise: Any = None) -> list[Winner]:
    """Results of optimizers that are exactly ``speeds`` times as fast as the law, plus ``noise()`` nats each."""
    return [
        result(name, ratio, float(law(20 * PARAMETERS * ratio * speed)) + (noise() if noise else 0.0))
        for ratio in ratios
        for name, speed in speeds.items()
    ]


DENSE = np.linspace(0.05, 1, 20)
"""Fractions of training at which the curves of `curves_of` are known."""


def curves_of(curves: dict[str, np.ndarray]) -> Curves:
    """Curves by trial at `DENSE`, with one loss for both splits."""
    return Curves(
        {
            trial: [CurveSample(float(at), float(loss), float(loss)) for at, loss in zip(DENSE, losses, strict=True)]
            for trial, losses in curves.items()
        }
    )


def known_noise(sigma: float, results: Iterable[Winner], freedom: int | None = None) -> NoiseModel:
    return NoiseModel({item.regime: Noise(sigma, freedom, "given", "everywhere") for item in results})


def public_table(name: str) -> Path:
    """A public table of results that nobody here made; a test that needs one skips where it is absent."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "shared" / "tables" / name).exists():
            return folder / "shared" / "tables" / name
    pytest.skip(f"the public tables ({name}) do not lie beside this clone")


def published(name: str) -> Any:
    path = Path(__file__).resolve().parents[3] / "shared" / "paper" / name
    if not path.exists():
        pytest.skip(f"the published figures ({path.name}) do not lie beside this clone")
    return json.loads(path.read_text())


def load_table(
    folder: Path, name: str, content: str | bytes | pa.Table, columns: dict[str, str] | None = None
) -> ParsedTable:
    """The runs of a file of that name and content."""
    path = folder / name
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    read = read_file(path)
    return parse(read.rows, columns, read.semicolons)


def losses(table: ParsedTable) -> dict[str, float | None]:
    return {run.optimizer: run.report_loss for run in table.runs}
