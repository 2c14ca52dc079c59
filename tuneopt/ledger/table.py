"""Trial records as one flat table: a row per trial, a column per fact, ``hp_<name>`` per hyperparameter.

A table holds the column ``data_seed`` where a trial in it has a data order of its own; null there means that of its
seed. Tables without such trials do without the column, also compacted ones.

A hyperparameter column is float64 where all its values are numbers, bool where all are switches, else string.
Counts of FLOPs are float64, because they exceed 64-bit integers at the largest scales.

Three users: `tuneopt ledger export`, the compacted file that makes large ledgers quick to read
(`tuneopt.ledger.compaction`), and the analysis, which reads an exported table back (`tuneopt.analysis.columns`). So
columns may be added and are never renamed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tuneopt.ledger.record import SECONDS, TrialRecord
from tuneopt.paths import replacing
from tuneopt.spec import InputError, Value

MOST_DIGITS = 8
"""No trial has a hundred million devices; a longer number is damage."""


def devices(record: TrialRecord) -> int:
    """How many devices the trial held: the ``ranks`` (or ``devices``) of its environment; 1 where that says nothing."""
    said = str(record.environment.get("ranks", record.environment.get("devices", 1)))
    return max(int(said), 1) if said.isascii() and said.isdigit() and len(said) < MOST_DIGITS else 1


def _seconds_of(part: str) -> Callable[[TrialRecord], float]:
    return lambda record: record.seconds[part]


_COLUMNS: dict[str, tuple[pa.DataType, Callable[[TrialRecord], Any]]] = {
    "trial": (pa.string(), lambda record: record.trial),
    "status": (pa.string(), lambda record: record.status),
    "optimizer": (pa.string(), lambda record: record.spec.optimizer),
    "scale": (pa.string(), lambda record: record.spec.regime.scale.name),
    "ladder": (pa.string(), lambda record: record.spec.regime.scale.ladder),
    "parameters": (pa.int64(), lambda record: record.spec.regime.scale.parameters),
    "ratio": (pa.float64(), lambda record: record.spec.regime.ratio),
    "corpus": (pa.string(), lambda record: record.spec.regime.corpus.name),
    "corpus_fingerprint": (pa.string(), lambda record: record.spec.regime.corpus.fingerprint),
    "vocab_size": (pa.int64(), lambda record: record.spec.regime.corpus.vocab_size),
    "seed": (pa.int64(), lambda record: record.spec.seed),
    "precision": (pa.string(), lambda record: record.spec.precision),
    "compile": (pa.bool_(), lambda record: record.spec.compile),
    "micro_batch": (pa.int64(), lambda record: record.spec.micro_batch),
    "semantics": (pa.int64(), lambda record: record.spec.semantics),
    # What was asked for and what was trained: they differ where a trial diverged.
    "budget_tokens": (pa.int64(), lambda record: record.spec.regime.tokens),
    "tokens": (pa.int64(), lambda record: record.tokens),
    "steps": (pa.int64(), lambda record: record.steps),
    "epochs": (pa.float64(), lambda record: record.epochs),
    "flops": (pa.float64(), lambda record: record.flops),
    # Losses in nats per token; null where the trial diverged.
    "select_loss": (pa.float64(), lambda record: record.select_loss),
    "report_loss": (pa.float64(), lambda record: record.report_loss),
    "initial_loss": (pa.float64(), lambda record: record.initial_loss),
    **{f"seconds_{part}": (pa.float64(), _seconds_of(part)) for part in SECONDS},
    "tokens_per_second": (pa.float64(), lambda record: record.tokens_per_second),
    "devices": (pa.int64(), devices),
    "peak_bytes": (pa.int64(), lambda record: record.peak_bytes),
    "checkpoint_bytes": (pa.int64(), lambda record: record.checkpoint_bytes),
    "optimizer_state_bytes": (pa.int64(), lambda record: record.optimizer_state_bytes),
    "proof_passed": (pa.bool_(), lambda record: record.proof_passed),
    "comparable": (pa.bool_(), lambda record: record.comparable),
    "resumes": (pa.int64(), lambda record: record.resumes),
    "started": (pa.string(), lambda record: record.started),
    "ended": (pa.string(), lambda record: record.ended),
    "notes": (pa.string(), lambda record: "; ".join(record.notes)),
    # The report loss once more, in bits per byte of text: by it corpora of different tokenizers compare.
    "report_bits_per_byte": (pa.float64(), lambda record: record.spec.regime.bits_per_byte(record.report_loss)),
}
"""Each column: its type, and how it is read from a record. The order is that of every table ever exported."""

FIXED = pa.schema([(name, kind) for name, (kind, _) in _COLUMNS.items()])
"""The columns that every table has, before the hyperparameters; null where a fact was not measured."""

ORDER = "data_seed"
"""A column that only those tables have in which it is not null everywhere."""

POINT = pa.struct(
    [
        ("step", pa.int64()),
        ("tokens", pa.int64()),
        ("fraction", pa.float64()),
        ("learning_rate", pa.float64()),
        ("train_loss", pa.float64()),
        ("select_loss", pa.float64()),
        ("report_loss", pa.float64()),
        ("seconds", pa.float64()),
    ]
)
"""One curve point; ``fraction`` is the step over all steps of the budget, also for a diverged trial."""

CURVES = pa.schema([("trial", pa.string()), *((field.name, field.type) for field in POINT)])
"""Columns of `Ledger.curves`."""


def row(record: TrialRecord) -> dict[str, Any]:
    """A record as one row: the columns of `FIXED`, `ORDER` and ``hp_<name>`` for each hyperparameter."""
    fixed = {name: read(record) for name, (_, read) in _COLUMNS.items()}
    return fixed | {ORDER: record.spec.data_seed} | {f"hp_{name}": value for name, value in record.spec.hyperparameters}


def points(record: TrialRecord) -> list[dict[str, Any]]:
    """A record's curve as `POINT` values."""
    steps = record.spec.steps
    measured = [field for field in POINT if field.name != "fraction"]  # which it does not hold itself
    return [
        {"fraction": point.step / steps}
        | {field.name: _real(getattr(point, field.name), field.type) for field in measured}
        for point in record.curve
    ]


def build(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """A table of rows, ordered as they come; hyperparameter columns are sorted by name."""
    columns = [pa.array([_real(row[field.name], field.type) for row in rows], field.type) for field in FIXED]
    fields = list(FIXED)
    if any(row[ORDER] is not None for row in rows):
        columns.append(pa.array([row[ORDER] for row in rows], pa.int64()))
        fields.append(pa.field(ORDER, pa.int64()))
    for name in sorted({name for row in rows for name in row if name.startswith("hp_")}):
        column = hyperparameter_column([row.get(name) for row in rows])
        columns.append(column)
        fields.append(pa.field(name, column.type))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _real(value: Any, kind: pa.DataType) -> Any:
    """A value for a column; whole numbers may be larger than 64 bits where the column is of real numbers."""
    return float(value) if kind == pa.float64() and value is not None else value


def hyperparameter_column(values: Sequence[Value | None]) -> pa.Array:
    """The narrowest of bool, float64 and string that holds all values; None becomes null."""
    kinds = {_kind(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds <= {float}:
        return pa.array([None if value is None else float(value) for value in values], pa.float64())
    return pa.array([None if value is None else word(value) for value in values], pa.string())


def _kind(value: Value) -> type:
    # A switch is an int to Python, so it is asked for first.
    return bool if isinstance(value, bool) else str if isinstance(value, str) else float


def word(value: Value) -> str:
    """A hyperparameter's value as text: ``true``, ``0.001``, ``cosine``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(float(value)).removesuffix(".0")


def join(tables: Iterable[pa.Table]) -> pa.Table:
    """Tables of `build` on top of each other; a column missing in one is null there, differing kinds become text."""
    parts = list(tables)
    # A hyperparameter may be a number in one table and a word in another (an optimizer's own schedule, say).
    kinds: dict[str, set[pa.DataType]] = {}
    for part in parts:
        for field in part.schema:
            kinds.setdefault(field.name, set()).add(field.type)
    mixed = [name for name, types in kinds.items() if len(types) > 1]
    for name in mixed:
        for index, part in enumerate(parts):
            at = part.schema.get_field_index(name)
            if at >= 0:
                values = part.column(at).to_pylist()
                texts = pa.array([None if value is None else word(value) for value in values], pa.string())
                parts[index] = part.set_column(at, name, texts)
    joined = pa.concat_tables(parts, promote_options="default")
    # Tables bring their hyperparameters in the order of their trials: sorted, so that the same trials give the same
    # file.
    tuned = sorted(name for name in joined.column_names if name.startswith("hp_"))
    order = [ORDER] if ORDER in joined.column_names else []
    return joined.select([*FIXED.names, *order, *tuned])


def flatten_curves(trials: pa.Array, curves: pa.Array) -> pa.Table:
    """`CURVES` from one list of `POINT` values per trial."""
    parents = pc.list_parent_indices(curves)  # for each point the place of its trial
    values = pc.list_flatten(curves)
    columns = [trials.take(parents), *(pc.struct_field(values, field.name) for field in POINT)]
    return pa.Table.from_arrays(columns, schema=CURVES)


def export(table: pa.Table, path: Path, inputs: Iterable[Path] = ()) -> int:
    """Write a table to ``.parquet`` or ``.csv`` by the suffix, whole or not at all; returns the number of rows.

    ``inputs`` are places that it may not take (`tuneopt.paths.check_output`).

    In CSV a text that a spreadsheet would run as a formula gets an apostrophe in front.
    """
    import pyarrow.csv
    import pyarrow.parquet

    writers = {
        ".parquet": lambda target: pyarrow.parquet.write_table(table, target, compression="zstd"),
        ".csv": lambda target: pyarrow.csv.write_csv(_harmless(table), target),
    }
    if path.suffix.lower() not in writers:
        raise InputError(f"cannot export to {path.name!r}: name a file that ends in {' or '.join(writers)}")
    if not path.parent.is_dir():
        raise InputError(f"cannot export to {path}: the folder {path.parent} is not there; make it first")
    with replacing(path, "the table", inputs) as temporary:
        writers[path.suffix.lower()](str(temporary))
    return int(table.num_rows)


def _harmless(table: pa.Table) -> pa.Table:
    """Texts that begin like a formula, with an apostrophe in front: a spreadsheet would run them."""
    for place, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            texts = pc.replace_substring_regex(table.column(place), r"^([=+\-@\t\r])", r"'\1")
            table = table.set_column(place, field.name, texts)
    return table
