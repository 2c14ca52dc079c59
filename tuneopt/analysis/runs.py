"""One form for every source of results: a ledger's table, or rows from elsewhere, become frozen `Run` values.

Units: nats per token, tokens, non-embedding parameters, seconds, FLOPs, bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tuneopt.ledger.record import SECONDS
from tuneopt.spec import Value

if TYPE_CHECKING:
    import pyarrow as pa

Rows = Iterable[Mapping[str, Any]]


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
    (precision, compilation, micro batch, semantics). ``sigma`` is a noise given with the row, else None. ``tokens``
    is the budget, ``trained`` what was trained of it. ``seconds`` are device-seconds of training, ``device_seconds``
    those of the whole trial. ``curve`` holds (fraction of the run, loss) where a row brought it; a ledger's curves
    come as a table of their own.
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
    trained: float | None = None
    seconds: float | None = None
    device_seconds: float | None = None
    flops: float | None = None
    peak_bytes: float | None = None
    checkpoint_bytes: float | None = None
    curve: tuple[tuple[float, float], ...] = ()


def read_runs(source: pa.Table | Rows | Iterable[Run]) -> tuple[Run, ...]:
    """Runs of a ledger's table, of any table or rows with the columns of `tuneopt.analysis.columns`, or runs as is.

    Raises `InputError` naming the row and what is wrong with it.
    """
    rows: list[Any] = source.to_pylist() if hasattr(source, "to_pylist") else list(source)
    if rows and all(isinstance(row, Run) for row in rows):
        return tuple(rows)
    if is_ledger(rows):
        return _from_ledger(rows)
    from tuneopt.analysis.columns import parse

    return parse(rows)


def is_ledger(rows: list[Mapping[str, Any]]) -> bool:
    """Whether rows have the columns of a ledger's table."""
    return bool(rows) and {"trial", "comparable", "budget_tokens"} <= rows[0].keys()


def _from_ledger(rows: list[Mapping[str, Any]]) -> tuple[Run, ...]:
    fingerprints = {(row["corpus"], row["corpus_fingerprint"]) for row in rows}
    contents = Counter(name for name, _ in fingerprints)
    names = {(name, content): f"{name}@{content[:8]}" if contents[name] > 1 else name for name, content in fingerprints}
    columns = [(name, name.removeprefix("hp_")) for name in sorted(rows[0]) if name.startswith("hp_")]
    return tuple(
        Run(
            trial=str(row["trial"]),
            optimizer=row["optimizer"],
            regime=RegimeKey(names[row["corpus"], row["corpus_fingerprint"]], row["scale"], row["ratio"]),
            parameters=row["parameters"],
            tokens=float(row["budget_tokens"]),
            config=tuple((name, row[column]) for column, name in columns if row[column] is not None),
            seed=row["seed"],
            status="unproven" if row["status"] == "completed" and not row["comparable"] else row["status"],
            select_loss=row["select_loss"],
            report_loss=row["report_loss"],
            variant=(row["precision"], row["compile"], row["micro_batch"], row["semantics"]),
            trained=float(row["tokens"]),
            seconds=row["devices"] * row["seconds_train"],
            device_seconds=sum(row["devices"] * row[f"seconds_{part}"] for part in SECONDS),
            flops=row["flops"],
            peak_bytes=row["peak_bytes"],
            checkpoint_bytes=row["checkpoint_bytes"],
        )
        for row in rows
    )
