"""The rows of somebody's table as typed runs, like those of a ledger.

A table is somebody else's, so nothing of it is guessed: what follows from other columns (tokens from ratio, a scale
from its parameters) is filled in only where it follows exactly, and what contradicts itself is refused. Every error
names the row and says how to mend it. What is decided for a table (its decimal mark, the spelling of a name, which
budgets are one) is decided once, from all of its rows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuneopt import checked
from tuneopt.analysis import cells, trackers
from tuneopt.analysis.columns import headings, missing
from tuneopt.analysis.regimes import one_spelling, one_value, settled
from tuneopt.analysis.row import ALWAYS_NUMBERS, COUNTS, UNSEEDED, Row
from tuneopt.analysis.row_doubts import row_doubts
from tuneopt.analysis.runs import RegimeKey, TrainingRun, corpus_names, own_order
from tuneopt.analysis.targets import TargetTrial
from tuneopt.analysis.vocabulary import NUMBERS
from tuneopt.ledger.record import SECONDS, STATUSES
from tuneopt.search.space import space_names
from tuneopt.spec import InputError

LARGEST_ROWS = 1_000_000
"""Rows that a table may have: as Python values each takes about a kilobyte."""

EXPORTED = {"trial", "comparable", "budget_tokens"}
"""Columns by which the exported table of a ledger is known; it is read whole, by its own names."""

NEVER_NULL = ("trial", "status", "optimizer", "scale", "parameters", "ratio", "corpus", "seed", "comparable", "tokens",
              "budget_tokens", "devices", *(f"seconds_{part}" for part in SECONDS))  # fmt: skip
MAY_BE_NULL = ("select_loss", "report_loss", "steps", "flops", "peak_bytes", "checkpoint_bytes")
"""Columns of an exported table that the analysis reads."""

ABOVE_ZERO = frozenset({"parameters", "ratio", "budget_tokens", "devices", "select_loss", "report_loss"})
"""Columns of an exported table whose numbers are never 0; none is below it."""

LATER = frozenset({"report_bits_per_byte"})
"""Columns that exported tables of earlier releases lack, and that nobody reads."""

OPTIONAL = LATER | {"data_seed"}
"""Columns that not every exported table has."""

MANY_TIMES = 16.0
"""Ratios from here on, without tokens to check them by, may be tokens per parameter; a note says how they were read."""


SUMMARIES = frozenset(
    ("total", "totals", "grandtotal", "subtotal", "sum", "average", "avg", "mean", "median", "std", "stdev", "min",
     "max", "overall")
)  # fmt: skip
"""Names that stand in the column of the optimizer where a row sums up those above it."""


@dataclass(frozen=True)
class ParsedTable:
    """The runs of a table, in its order, and sentences on what it does not say or what was left out of it.

    ``doubts`` are those of the sentences that a reader must know before quoting any number.
    ``trials`` are those of a log that says when a target was reached, in place of runs; ``targets`` the target losses
    (nats) that the rows of runs name.
    """

    runs: tuple[TrainingRun, ...]
    notes: tuple[str, ...] = ()
    trials: tuple[TargetTrial, ...] = ()
    targets: tuple[float, ...] = ()
    doubts: tuple[str, ...] = ()


def parse(
    rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str] | None = None, semicolons: bool = False
) -> ParsedTable:
    """Runs of rows; without a ``seed`` rows of one configuration count as different ones, of which the best stands.

    ``columns`` maps names (`tuneopt.analysis.columns.headings`); ``semicolons`` says that cells were parted by them, as
    where a comma is the decimal mark. A row whose loss is empty, or whose status says ``diverged``, is a diverged run.
    Raises `InputError` naming the row (counted from 1) for an unknown, doubled or missing column, a value of the wrong
    kind, a loss that is no positive finite number, a budget that is not positive or contradicts itself, two rows of one
    optimizer, regime, configuration and seed, and a table of more than `LARGEST_ROWS` rows.
    """
    check_rows(len(rows))
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise InputError(f"row {number} of the results is no object; give one with optimizer, scale, ratio, loss")
    if rows and rows[0].keys() >= EXPORTED:
        if columns:
            raise InputError("the results are a table of `tuneopt ledger export`, whose columns have names; leave "
                             "--columns out")  # fmt: skip
        return ParsedTable(*_from_export(rows))
    rows = [trackers.lifted(number, row, columns or {}) for number, row in enumerate(rows, start=1)]
    known = headings(rows, columns)
    read = [(number, known.cells(row)) for number, row in enumerate(rows, start=1)]
    read, notes = trackers.of_runs(read, known)
    doubts: list[str] = []
    if unread := known.unread_targets:
        what = f"{' and '.join(unread)} {'is' if len(unread) == 1 else 'are'} not read"
        notes.append(f"rows with a budget and a loss are runs, and {what}; say --target")
    comma = _decimal_comma([cell for _, cell in read], semicolons)
    if semicolons and comma is None:
        _refuse_points(read)
    typed = [Row(number, tuple(map(str, rows[number - 1])), cell, comma) for number, cell in read]
    lacking = known.lacking("scale" not in known.meanings.values() or typed[0].is_sized) if typed else []
    if lacking and lacking != ["parameters"]:  # what a row says of its own scale is a better cure
        raise missing(lacking, known.meanings)
    if not known.is_race and (doubt := known.check_loss(rows)):
        doubts.append(doubt)
    spelled = cells.one_spelling((_optimizer(row) for row in typed), space_names())
    if known.is_race:
        trials = _races([row.target_trial(spelled) for row in typed], [row.number for row in typed])
        return ParsedTable((), (*notes, *doubts), trials, doubts=tuple(doubts))
    runs = one_value(one_spelling([row.run(spelled) for row in typed]))
    if lost := sum(row.is_lost() for row in typed):
        what = "1 run that finished without a loss is" if lost == 1 else f"{lost} runs that finished without a loss are"
        doubts.append(f"{what} counted as diverged")
    runs = settled(runs, [row.stated_ratio() for row in typed])
    _refuse_doubles(runs, [row.number for row in typed])
    doubts += row_doubts(runs)
    ratios = {run.regime.ratio for run in runs}
    if "ratio" in known.meanings.values() and "tokens" not in known.meanings.values() and min(ratios) >= MANY_TIMES:
        doubts.append(
            f"the column ratio ({min(ratios):g} to {max(ratios):g}) is read as multiples of 20 tokens per parameter; "
            "name it tokens_per_parameter if it is that"
        )
    targets = sorted({target for row in typed if (target := row.positive("target")) is not None})
    return ParsedTable(tuple(_told_apart(runs)), (*notes, *doubts), targets=tuple(targets), doubts=tuple(doubts))


def _optimizer(row: Row) -> str:
    """The optimizer of a row; a row that sums up others has none (`InputError`)."""
    name = row.optimizer()
    if cells.folded(name) in SUMMARIES:
        raise row.error(f" is called {checked.shown(name)}, as what sums up other rows is; leave it out")
    return name


def check_rows(count: int) -> None:
    """Raise `InputError` for more rows than a table may have."""
    if count > LARGEST_ROWS:
        raise InputError(f"the results hold {count:,} rows, over the limit of {LARGEST_ROWS:,}; split the table")


def _decimal_comma(rows: Sequence[Mapping[str, Any]], semicolons: bool) -> bool | None:
    """Whether a comma is the decimal mark of a table, by the cells that came as text (`cells.decimal_comma`).

    Columns of numbers say it before hyperparameters do: ``30,60`` beside a loss of ``3.53`` is a list of two.
    """
    numbers = [value for row in rows for name, value in row.items() if name in NUMBERS and isinstance(value, str)]
    said = cells.decimal_comma(numbers)
    if said is not None or not numbers:
        return said
    own = [value for row in rows for name, value in row.items() if name.startswith("hp_") and isinstance(value, str)]
    return cells.decimal_comma([*numbers, *own], usual=semicolons)


def _refuse_points(read: Iterable[trackers.Read]) -> None:
    """Raise `InputError` for a count such as ``5.000`` beside semicolons and no comma: is it 5 or 5,000?"""
    for number, row in read:
        for name in COUNTS & row.keys():
            if isinstance(row[name], str) and cells.may_be_grouped(row[name]):
                raise InputError(
                    f"row {number} of the results: {name} is {checked.shown(row[name])}, and no cell says whether a "
                    "point groups digits; write the count without it"
                )


def _refuse_doubles(runs: Sequence[TrainingRun], numbers: Sequence[int]) -> None:
    """Raise `InputError` for two rows of one setting and seed, of which one would silently be lost, and equal names."""
    seen: dict[tuple[Any, ...], tuple[int, TrainingRun]] = {}  # setting and seed -> row
    trials: dict[str, tuple[int, float | None]] = {}  # trial -> row, steps
    seeded = any(run.seed != UNSEEDED for run in runs)
    for number, run in zip(numbers, runs, strict=True):
        first, same = seen.setdefault((run.setting, run.seed), (number, run))
        if first != number and seeded:
            cure = "tell them apart by hp_ columns, or drop the column seed to compare the best of them"
            if same.steps != run.steps:
                cure = f"they are at {same.steps or 0:g} and {run.steps or 0:g} steps: of each run keep the last row"
            elif same.tokens != run.tokens:  # of a log, or nearly one budget
                cure = f"they are at {same.tokens:.5g} and {run.tokens:.5g} tokens: of each run keep the last row"
            elif run.seed == UNSEEDED:  # the best of these would be compared with the mean of the others
                cure = "they have none, and other rows do: give every row its seed, or drop the column"
            raise InputError(
                f"rows {first} and {number} of the results are the same optimizer, regime and seed; {cure}"
            )
        other = trials.setdefault(run.trial, (number, run.steps))
        if other[0] != number:
            cure = "; give each run its name, or drop the column"
            if run.steps != other[1]:  # a log of training, with a row for each moment of a run
                cure = f", at {other[1] or 0:g} and {run.steps or 0:g} steps: of each run keep the last row"
            raise InputError(f"rows {other[0]} and {number} of the results are both called {run.trial!r}{cure}")


def _races(trials: Sequence[TargetTrial], numbers: Sequence[int]) -> tuple[TargetTrial, ...]:
    """The trials of a log with one name for each corpus and task; ``numbers`` are those of their rows.

    Raises `InputError` for one without a target where others of its task name theirs: it would be a race of its own.
    So it does for two rows of one trial with other times: the faster one would silently stand for both.
    """
    spelled = [cells.one_spelling(names, ()) for names in zip(*((one.corpus, one.task) for one in trials), strict=True)]
    trials = [replace(one, corpus=spelled[0][one.corpus], task=spelled[1][one.task]) for one in trials]
    targets = {(one.corpus, one.task): one.target for one in trials if one.target is not None}
    seen: dict[TargetTrial, tuple[int, TargetTrial]] = {}  # a trial without its times -> its first row
    for number, one in zip(numbers, trials, strict=True):
        first, same = seen.setdefault(replace(one, steps=None, seconds=None), (number, one))
        if one.trial and one != same:
            raise InputError(
                f"rows {first} and {number} of the results are the same trial ({one.trial} of {one.optimizer} at "
                f"{one.task}) with different times to the target; keep one of them, or name the trial or study of each"
            )
        if one.target is None and (other := targets.get((one.corpus, one.task))) is not None:
            raise InputError(
                f"row {number} of the results names no target, and other rows of {one.task} do ({other:g}); fill it in"
            )
    return tuple(trials)


def _told_apart(runs: Iterable[TrainingRun]) -> Iterable[TrainingRun]:
    """Rows without a seed and of one configuration become variants, so that none passes for another's replicate."""
    # The number of a row among its equals is its variant, so each is a setting of its own.
    counts: Counter[tuple[Any, ...]] = Counter()
    for run in runs:
        yield replace(run, variant=(counts[run.setting],)) if run.seed == UNSEEDED else run
        counts[run.setting] += run.seed == UNSEEDED


def _exported(number: int, row: Mapping[str, Any], kinds: Mapping[str, str]) -> dict[str, Any]:
    """A row of an exported table as it was exported; ``kinds`` are the types of its columns.

    Raises `InputError` for a row that lacks a column, whose cell is of another kind or beyond its bounds, or whose
    losses do not fit its status: the table may have been changed since.
    """
    lacking = [name for name in kinds if name not in row and name not in OPTIONAL]
    if lacking:
        raise InputError(
            f"row {number} of the results has the columns {', '.join(sorted(EXPORTED))} of `tuneopt ledger export` "
            f"and lacks its {', '.join(lacking[:5])}{', ...' if lacking[5:] else ''}; export it again, or rename those"
        )
    typed = {name: _as_exported(value, kinds.get(name, "")) for name, value in row.items()}
    for name in NEVER_NULL + MAY_BE_NULL:
        value, kind = typed[name], kinds[name]
        if kind in ("string", "bool"):
            fits = value in STATUSES if name == "status" else isinstance(value, str if kind == "string" else bool)
        else:
            fits = checked.is_usual(value) and value >= 0 and (value > 0 or name not in ABOVE_ZERO)
            fits = fits and (kind != "int64" or isinstance(value, int))
        if not fits and not (value is None and name in MAY_BE_NULL):
            shown = checked.shown(value)
            raise InputError(f"row {number} of the results: {name} is not as it was exported, {shown}; export it again")
    for name in (f"hp_{name}" for name in ALWAYS_NUMBERS):
        if typed.get(name) is not None and not (checked.is_usual(typed[name]) and typed[name] >= 0):
            shown = checked.shown(typed[name])
            raise InputError(f"row {number} of the results: {name} is not as it was exported, {shown}; export it again")
    for name in ("select_loss", "report_loss"):
        if (typed[name] is None) != (typed["status"] == "diverged"):
            has = f"{typed['status']} and has {'no' if typed[name] is None else 'a'} {name}"
            raise InputError(f"row {number} of the results: the trial {has}; export it again")
    return typed


def _as_exported(value: Any, kind: str) -> Any:
    """A cell as it was exported: pandas makes the counts of a column real numbers where one is null, and null NaN."""
    if kind == "int64" and isinstance(value, str):
        try:
            value = int(value) if value.isdecimal() else float(value or "nan")
        except ValueError:  # no number
            return value
    if isinstance(value, float):
        if math.isnan(value):
            return None
        if kind == "int64" and value.is_integer():
            return int(value)
    return value


def _each_once(rows: Iterable[dict[str, Any]], known: Collection[str]) -> tuple[list[dict[str, Any]], int]:
    """The rows without repetitions, and how many there were: overlapping exports may have been put together.

    Raises `InputError` for two rows of one trial that differ in a column of the export (``known``, and ``hp_``).
    """
    seen: dict[str, tuple[int, dict[str, Any]]] = {}
    repeated = 0
    for number, row in enumerate(rows, start=1):
        first, other = seen.setdefault(str(row["trial"]), (number, row))
        if first == number:
            continue
        differing = [name for name in {**other, **row} if other.get(name) != row.get(name) and name not in LATER
                     and (name in known or name.startswith("hp_"))]  # fmt: skip
        if differing:
            both = f"are both the trial {checked.shown(row['trial'])} and differ in {checked.shown(differing[0])}"
            raise InputError(f"rows {first} and {number} of the results {both}; export it again")
        repeated += 1
    return [row for _, row in seen.values()], repeated


def _from_export(rows: Sequence[Mapping[str, Any]]) -> tuple[tuple[TrainingRun, ...], tuple[str, ...]]:
    """Runs of the rows of `tuneopt.ledger.table`, and notes; the same as `from_records` gives, but without curves."""
    from tuneopt.ledger.table import FIXED, ORDER  # with pyarrow, which a table of rows alone does without

    kinds = {field.name: str(field.type) for field in FIXED} | {ORDER: "int64"}
    rows, repeated = _each_once((_exported(number, row, kinds) for number, row in enumerate(rows, start=1)), kinds)
    notes = (f"rows that repeat another one are counted once ({repeated})",) if repeated else ()
    # Two corpora of one name are told apart by their fingerprints, which a table from elsewhere does not have.
    names = corpus_names((row["corpus"], row["corpus_fingerprint"]) for row in rows)
    columns = [(name, name.removeprefix("hp_")) for name in sorted(rows[0]) if name.startswith("hp_")]
    runs = tuple(
        TrainingRun(
            trial=str(row["trial"]),
            optimizer=row["optimizer"],
            regime=RegimeKey(names[row["corpus"], row["corpus_fingerprint"]], row["scale"], row["ratio"]),
            parameters=row["parameters"],
            tokens=float(row["budget_tokens"]),
            # A CSV writes a null text as an empty one.
            config=tuple((name, row[column]) for column, name in columns if row.get(column) not in (None, "")),
            seed=row["seed"],
            status="unproven" if row["status"] == "completed" and not row["comparable"] else row["status"],
            select_loss=row["select_loss"],
            report_loss=row["report_loss"],
            # No column, or null in it: the order of the data is the seed's.
            variant=(
                row["precision"],
                row["compile"],
                row["micro_batch"],
                row["semantics"],
                *own_order(row["seed"], row.get("data_seed")),
            ),
            steps=None if row.get("steps") is None else float(row["steps"]),
            trained=float(row["tokens"]),
            seconds=row["devices"] * row["seconds_train"],
            device_seconds=sum(row["devices"] * row[f"seconds_{part}"] for part in SECONDS),
            flops=row["flops"],
            peak_bytes=row["peak_bytes"],
            checkpoint_bytes=row["checkpoint_bytes"],
            fingerprint=row["corpus_fingerprint"] or "",
        )
        for row in rows
    )
    return runs, notes
