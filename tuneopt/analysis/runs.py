"""One form for every source of results: a ledger's table, or rows from elsewhere, become frozen `Run` values.

A ledger's table brings trials with two losses, a proof and a configuration. Any other table needs an optimizer, a
scale (or its non-embedding parameters), a ratio (or tokens) and a final loss; seed, sigma, corpus and the
hyperparameters (an object ``config``, or columns ``hp_<name>``) are optional.
Units: nats per token, tokens, non-embedding parameters.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tuneopt.spec import SCALES, TOKENS_PER_PARAMETER, InputError, TrialSpec, Value, nearest

if TYPE_CHECKING:
    import pyarrow as pa

Rows = Iterable[Mapping[str, Any]]

ALIASES = {"params": "parameters", "n": "parameters", "name": "optimizer", "chinchilla": "ratio", "final_loss": "loss"}
"""Other names that columns of foreign tables go by, in lower case."""


class RegimeKey(NamedTuple):
    """What results are compared in: corpus, scale name, data-to-model ratio."""

    corpus: str
    scale: str
    ratio: float

    @property
    def label(self) -> str:
        """Short text for people, such as ``130m/1x``, with the corpus in front where there is one."""
        place = f"{self.scale}/{self.ratio:g}x"
        return f"{self.corpus} {place}" if self.corpus else place


@dataclass(frozen=True, slots=True)
class Run:
    """One training run as analysis sees it.

    ``status`` is ``completed``, ``diverged`` or ``unproven`` (completed, but without a passed proof); only completed
    runs have losses that may be compared. ``variant`` holds what else tells runs of one configuration apart
    (precision, compilation, micro batch, semantics). ``sigma`` is a noise given with the row, else None.
    """

    trial: str
    optimizer: str
    regime: RegimeKey
    parameters: int | None
    tokens: float
    config: tuple[tuple[str, Value], ...]
    seed: int
    status: str
    select_loss: float | None
    report_loss: float | None
    sigma: float | None = None
    variant: tuple[Any, ...] = ()


def read_runs(source: pa.Table | Rows) -> tuple[Run, ...]:
    """Runs of a ledger's table, or of any table or rows with the columns above.

    Raises `InputError` naming the row and column that is missing or no number. A loss that is null, NaN or infinite
    makes a diverged run. Without a ``seed`` column every row counts as a configuration of its own.
    """
    rows: list[Mapping[str, Any]] = source.to_pylist() if hasattr(source, "to_pylist") else list(source)
    if rows and "trial" in rows[0] and "comparable" in rows[0]:
        return _from_ledger(rows)
    runs = tuple(_from_row(number, row) for number, row in enumerate(rows, start=1))
    seen: dict[tuple[Any, ...], int] = {}
    for number, run in enumerate(runs, start=1):
        key = (run.optimizer, run.regime, run.config, run.seed, run.variant)
        if seen.setdefault(key, number) != number:
            raise InputError(
                f"rows {seen[key]} and {number} of the results are the same optimizer, regime and seed; "
                f"tell them apart by hp_ columns, or drop the column seed to compare the best of them"
            )
    return runs


def _from_ledger(rows: list[Mapping[str, Any]]) -> tuple[Run, ...]:
    fingerprints = {(row["corpus"], row["corpus_fingerprint"]) for row in rows}
    contents = Counter(name for name, _ in fingerprints)
    names = {(name, content): f"{name}@{content[:8]}" if contents[name] > 1 else name for name, content in fingerprints}
    return tuple(
        Run(
            trial=row["trial"],
            optimizer=row["optimizer"],
            regime=RegimeKey(names[row["corpus"], row["corpus_fingerprint"]], row["scale"], row["ratio"]),
            parameters=row["parameters"],
            tokens=float(row["budget_tokens"]),
            config=tuple(
                (name.removeprefix("hp_"), row[name])
                for name in sorted(row)
                if name.startswith("hp_") and row[name] is not None
            ),
            seed=row["seed"],
            status="unproven" if row["status"] == "completed" and not row["comparable"] else row["status"],
            select_loss=row["select_loss"],
            report_loss=row["report_loss"],
            variant=(row["precision"], row["compile"], row["micro_batch"], row["semantics"]),
        )
        for row in rows
    )


def _from_row(number: int, raw: Mapping[str, Any]) -> Run:
    row = {ALIASES.get(str(name).strip().lower(), str(name).strip().lower()): value for name, value in raw.items()}
    optimizer = row.get("optimizer")
    if not isinstance(optimizer, str) or not optimizer.strip():
        found = ", ".join(map(str, raw)) or "no column"
        raise InputError(f"row {number} of the results names no optimizer (found {found}); add a column optimizer")
    scale, parameters = _scale(number, row)
    tokens, ratio = _number(number, row, "tokens"), _number(number, row, "ratio")
    if tokens is None and ratio is not None and parameters is not None:
        tokens = TOKENS_PER_PARAMETER * parameters * ratio
    if ratio is None and tokens is not None and parameters is not None:
        ratio = tokens / (TOKENS_PER_PARAMETER * parameters)
    if tokens is None or ratio is None or tokens <= 0 or ratio <= 0:
        raise InputError(
            f"row {number} of the results ({optimizer}) does not say its token budget; add a positive ratio for a "
            f"known scale or with parameters, or tokens with parameters"
        )
    if "loss" not in row:
        raise InputError(f"row {number} of the results has no column loss; {nearest('loss', map(str, raw))}")
    loss = _number(number, row, "loss", finite=False)
    config = dict(row["config"]) if isinstance(row.get("config"), Mapping) else {}
    config |= {name.removeprefix("hp_"): value for name, value in row.items() if name.startswith("hp_")}
    frozen = TrialSpec.freeze({name: value for name, value in config.items() if value is not None})
    seed = _number(number, row, "seed")
    return Run(
        trial=str(row.get("trial") or f"row {number}"),
        optimizer=optimizer.strip(),
        regime=RegimeKey(str(row.get("corpus") or ""), scale, float(f"{ratio:.6g}")),
        parameters=parameters,
        tokens=tokens,
        config=frozen,
        seed=0 if seed is None else int(seed),
        status="diverged" if loss is None else "completed",
        select_loss=loss,
        report_loss=loss,
        sigma=_number(number, row, "sigma"),
        variant=() if seed is not None else (number,),
    )


def _scale(number: int, row: Mapping[str, Any]) -> tuple[str, int | None]:
    parameters = _number(number, row, "parameters")
    name = row.get("scale")
    if name is not None and str(name).strip():
        word = str(name).strip()
        known = SCALES.get(word.lower())
        if known is not None and parameters is None:
            return known.name, known.parameters
        return (known.name if known else word), None if parameters is None else int(parameters)
    if parameters is None or parameters <= 0:
        raise InputError(f"row {number} of the results says no model size; add a column scale or parameters")
    match = [scale.name for scale in SCALES.values() if scale.parameters == int(parameters)]
    return (match[0] if match else f"{parameters / 1e6:.4g}m"), int(parameters)


def _number(number: int, row: Mapping[str, Any], name: str, finite: bool = True) -> float | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        amount = float(value)
    except (TypeError, ValueError):
        raise InputError(f"row {number} of the results: {name} must be a number, not {value!r}") from None
    if not math.isfinite(amount):
        if finite:
            raise InputError(f"row {number} of the results: {name} must be a finite number, not {value!r}")
        return None
    return amount
