"""Tables from elsewhere: the names and synonyms of columns, what each value must be, and rows as typed runs.

A table needs an optimizer, a scale (or its non-embedding parameters), a ratio (or tokens) and a final loss. The rest
is optional. Names are read without regard to case, spaces, dashes and underscores. An unknown column is an error, so
that a misspelt one is not silently left out; every error names the row and says how to mend it.

`tuneopt.analysis.inputs` reads files into rows; from here on they are `TrainingRun` values like those of a ledger. A
table is somebody else's, so nothing of it is guessed: what follows from other columns (tokens from ratio, a scale from
its parameters) is filled in only where it follows exactly.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuneopt import checked
from tuneopt.analysis.runs import Config, CurveSample, RegimeKey, TrainingRun, corpus_names, own_order
from tuneopt.analysis.spaces import axes
from tuneopt.constants import TOKENS_PER_PARAMETER
from tuneopt.ledger.record import SECONDS
from tuneopt.search.axis import is_number
from tuneopt.spec import SCALES, InputError, TrialSpec, nearest

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "optimizer": ("optimiser", "method", "algorithm", "name"),
    "scale": ("model", "model_size", "size"),
    "parameters": ("params", "n", "n_params", "num_params", "non_embedding_parameters"),
    "ratio": ("chinchilla", "chinchilla_ratio", "data_ratio"),
    "tokens": ("d", "n_tokens", "train_tokens", "token_budget", "budget_tokens"),
    "loss": ("final_loss", "eval_loss", "val_loss", "validation_loss", "report_loss"),
    "select_loss": (),
    "sigma": ("std", "loss_std", "noise"),
    "seed": ("random_seed",),
    "corpus": ("data", "dataset"),
    "status": (),
    "seconds": ("device_seconds", "train_seconds", "wall_seconds", "wall_time", "time"),
    "flops": ("total_flops",),
    "peak_bytes": ("peak_memory", "peak_memory_bytes", "memory_bytes"),
    "checkpoint_bytes": ("checkpoint_size",),
    "curve": ("loss_curve", "history"),
    "config": ("hyperparameters", "hparams"),
    "trial": ("id", "run", "run_id"),
}
"""Each column that is read, and its synonyms; ``hp_<name>`` columns are hyperparameters."""

ASIDE = ("family", "note", "notes", "comment", "source", "url", "date")
"""Columns that may stand in a table and are not read."""

LARGEST_ROWS = 1_000_000
"""Rows that a table may have: as Python values each takes about a kilobyte."""

LARGEST_CURVE = 10_000
"""Points that a learning curve may have; curves are read at ten fractions, so a hundred would do."""

ALWAYS_NUMBERS = ("learning_rate", "train_batch_size", "warmup")
"""Hyperparameters that are numbers for every optimizer, also one without a declared space: figures sort by them."""

UNSEEDED = -1
"""The seed of a row that names none: no trial has it, so such a row is never taken for a replicate."""

EXPORTED = {"trial", "comparable", "budget_tokens"}
"""Columns by which the exported table of a ledger is known; it is read whole, by its own names."""

# Every spelling and the column it stands for; `_MEANING` also knows them without underscores, and columns left unread
# as "".
_WORDS = {word: column for column, others in COLUMNS.items() for word in (column, *others)}
_MEANING = {word.replace("_", ""): column for word, column in _WORDS.items()} | dict.fromkeys(ASIDE, "")


def parse(rows: Sequence[Mapping[str, Any]]) -> tuple[TrainingRun, ...]:
    """Runs of rows; without a ``seed`` rows of one configuration count as different ones, of which the best stands.

    A row whose loss is empty, or whose status says ``diverged``, is a diverged run. Raises `InputError` naming the row
    (counted from 1) for an unknown, doubled or missing column, a value of the wrong kind, a loss that is no positive
    finite number, a budget that is not positive, two rows of one optimizer, regime, configuration and seed, and a
    table of more than `LARGEST_ROWS` rows.
    """
    check_rows(len(rows))
    if rows and isinstance(rows[0], Mapping) and rows[0].keys() >= EXPORTED:
        return _from_export(rows)
    meanings: dict[tuple[str, ...], dict[str, str]] = {}  # most rows of a table have the same columns
    runs = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise InputError(f"row {number} of the results is no object; give one with optimizer, scale, ratio, loss")
        columns = tuple(map(str, row))
        if columns not in meanings:
            meanings[columns] = _meanings(number, columns)
        cells = {meanings[columns][str(name)]: value for name, value in row.items()}
        runs.append(_Row(number, columns, cells).run())
    _refuse_doubles(runs)
    return tuple(_told_apart(runs))


def check_rows(count: int) -> None:
    """Raise `InputError` for more rows than a table may have."""
    if count > LARGEST_ROWS:
        raise InputError(f"the results hold {count:,} rows, over the limit of {LARGEST_ROWS:,}; split the table")


def _meanings(number: int, columns: tuple[str, ...]) -> dict[str, str]:
    """What each column of a row means: a key of `COLUMNS`, ``hp_<name>``, or nothing where it is not read."""
    meant: dict[str, str] = {}
    for name in columns:
        plain = name.strip().lower().replace("-", "_").replace(" ", "_")
        meaning = plain if plain.startswith("hp_") else _MEANING.get(plain.replace("_", ""))
        if meaning is None:
            # Where no known name is close ("did you mean"), a list of fifty would not help.
            hint = nearest(plain, _WORDS)
            hint = hint if hint.startswith("did") else "name a hyperparameter hp_<name>, or drop the column"
            raise InputError(f"row {number} of the results has an unknown column {name!r}; {hint}")
        if meaning and meaning in meant.values():
            other = next(key for key, value in meant.items() if value == meaning)
            raise InputError(f"row {number} of the results says {meaning} twice, as {other!r} and {name!r}; keep one")
        meant[name] = meaning
    return meant


@dataclass(frozen=True, slots=True)
class _Row:
    """One row: its number (from 1), the columns as they were spelled, and the cells by meaning."""

    number: int
    columns: tuple[str, ...]
    cells: Mapping[str, Any]

    def run(self) -> TrainingRun:
        optimizer = self.cells.get("optimizer")
        if not isinstance(optimizer, str) or not optimizer.strip():
            listed = ", ".join(self.columns[:12]) or "no column"  # of a wide table the first ones: one line of error
            raise self.error(f" names no optimizer (found {listed}); add a column optimizer")
        optimizer = self.word("optimizer")
        scale, parameters = self.scale()
        tokens, ratio = self.budget(optimizer, parameters)
        loss = self.loss()
        select = self.positive("select_loss")  # most tables have one loss, which then chooses and reports
        seed = self.amount("seed")
        seconds = self.positive("seconds", zero=True)
        return TrainingRun(
            trial=self.word("trial") or f"row {self.number}",
            optimizer=optimizer,
            regime=RegimeKey(self.word("corpus"), scale, float(f"{ratio:.6g}")),  # equal ratios in spite of rounding
            parameters=parameters,
            tokens=tokens,
            config=self.config(optimizer, scale),
            seed=UNSEEDED if seed is None else int(seed),
            status="diverged" if loss is None else "completed",
            select_loss=loss if loss is None or select is None else select,
            report_loss=loss,
            sigma=self.positive("sigma"),
            trained=None if loss is None else tokens,  # a table does not say how far a diverged run came
            seconds=seconds,  # nor on how many devices: its seconds are taken for device seconds
            device_seconds=seconds,
            flops=self.positive("flops", zero=True),
            peak_bytes=self.positive("peak_bytes", zero=True),
            checkpoint_bytes=self.positive("checkpoint_bytes", zero=True),
            curve=self.curve(),
        )

    def error(self, fault: str) -> InputError:
        """An error about this row; ``fault`` goes on where "row 3 of the results" ends."""
        return InputError(f"row {self.number} of the results{fault}")

    def scale(self) -> tuple[str, int | None]:
        """The scale's name and its non-embedding parameters; each is looked up by the other where it is missing."""
        parameters, word = self.positive("parameters"), self.word("scale")
        if word:
            known = SCALES.get(word.lower())
            if known is not None and parameters is None:
                return known.name, known.parameters
            return (known.name if known else word), None if parameters is None else int(parameters)
        if parameters is None:
            raise self.error(" says no model size; add a column scale or parameters")
        # Only an exact count is taken for a scale of the ladders: a rounded one may be another model.
        match = [scale.name for scale in SCALES.values() if scale.parameters == int(parameters)]
        return (match[0] if match else f"{parameters / 1e6:.4g}m"), int(parameters)

    def budget(self, optimizer: str, parameters: int | None) -> tuple[float, float]:
        """Tokens and ratio; each follows from the other where the number of parameters is known."""
        tokens, ratio = self.positive("tokens"), self.positive("ratio")
        # Where a row says both, both are taken as they are: papers round the ratio, and some count other parameters.
        if tokens is None and ratio is not None and parameters is not None:
            tokens = TOKENS_PER_PARAMETER * parameters * ratio
        if ratio is None and tokens is not None and parameters is not None:
            ratio = tokens / (TOKENS_PER_PARAMETER * parameters)
        if tokens is None or ratio is None:
            raise self.error(
                f" ({optimizer}) does not say its token budget; add a positive ratio for a known scale or with "
                "parameters, or tokens with parameters"
            )
        return tokens, ratio

    def loss(self) -> float | None:
        """The final loss in nats per token; None where the run diverged."""
        if "loss" not in self.cells:
            raise self.error(f" has no column loss; {nearest('loss', self.columns)}")
        status, loss = str(self.cells.get("status") or "").strip().lower(), self.cells["loss"]
        if status not in ("", "completed", "diverged"):
            raise self.error(f": status must be completed or diverged, not {status!r}")
        if status == "diverged":
            return None
        # NaN is a number that a broken export writes. Only an empty cell says that a run diverged.
        if isinstance(loss, float) and not math.isfinite(loss):
            raise self.error(f": loss is {loss}; leave it empty where a run diverged")
        value = self.positive("loss")
        if value is None and status == "completed":
            raise self.error(" is completed and has no loss; give it, or say diverged")
        return value

    def config(self, optimizer: str, scale: str) -> Config:
        """Hyperparameters: those of the column config, then the columns ``hp_<name>``, which win where both name one.

        Numbers are asked for where figures need an order: in `ALWAYS_NUMBERS`, and where a declared space has them.
        """
        given = self.cells.get("config")
        if isinstance(given, str) and given.strip():
            try:
                given = json.loads(given)
            except (ValueError, RecursionError):
                raise self.error(": config is no JSON object; write {name: value}") from None
        if given not in (None, "") and not isinstance(given, Mapping):
            raise self.error(f": config must be an object of hyperparameters, not {checked.shown(given)}")
        named = {name[3:]: value for name, value in self.cells.items() if name.startswith("hp_")}
        config = {str(name): value for name, value in {**(given or {}), **named}.items() if value not in (None, "")}
        try:
            frozen = TrialSpec.freeze(config)
        except InputError as error:
            raise self.error(f": {error}") from None
        known = axes(optimizer, scale) or {}
        for name, value in frozen:
            if not is_number(value) and (name in ALWAYS_NUMBERS or (name in known and known[name].numeric)):
                raise self.error(f": {name} must be a number, not {checked.shown(value)}")
            if is_number(value) and not checked.is_usual(value):
                raise self.error(f": {name} is beyond anything tuned, {checked.shown(value)}")
        return frozen

    def curve(self) -> tuple[CurveSample, ...]:
        """The learning curve; a table has one loss for each point, which stands for both splits."""
        given = self.cells.get("curve")
        if given is None or given == "":
            return ()
        hint = "a curve is a list of [fraction of the run, loss] with fractions in (0, 1]"
        try:
            points = json.loads(given) if isinstance(given, str) else list(given)
            pairs = [(one["fraction"], one["loss"]) if isinstance(one, Mapping) else tuple(one) for one in points]
            curve = sorted((float(fraction), float(loss)) for fraction, loss in pairs if loss is not None)
        except (TypeError, ValueError, KeyError, OverflowError, RecursionError):
            raise self.error(f" has a curve that cannot be read; {hint}") from None
        if len(curve) > LARGEST_CURVE:
            raise self.error(f" has a curve of {len(curve):,} points; thin it to {LARGEST_CURVE:,}")
        if not all(0 < fraction <= 1 and math.isfinite(loss) for fraction, loss in curve):
            raise self.error(f" has a curve with a bad point; {hint}, finite losses")
        return tuple(CurveSample(fraction, loss, loss) for fraction, loss in curve)

    def positive(self, name: str, zero: bool = False) -> float | None:
        """A positive number, or not negative with ``zero``; None where the row has none."""
        value = self.amount(name)
        if value is not None and (value < 0 or (value == 0 and not zero)):
            raise self.error(f": {name} must be positive, not {value:g}")
        return value

    def amount(self, name: str) -> float | None:
        """A finite number, also from text such as ``5e6``; None where the row has none.

        A switch is no number, though Python says so: a column of true and false has another meaning than 1 and 0.
        """
        value = self.cells.get(name)
        if value is None or value == "":
            return None
        shown = checked.shown(value)  # cut, with control characters spelt out: it is printed on a terminal
        try:
            amount = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            raise self.error(f": {name} must be a number, not {shown}") from None
        except OverflowError:
            amount = math.inf
        if not math.isfinite(amount):
            raise self.error(f": {name} must be a finite number, not {shown}")
        if not checked.is_usual(amount):
            raise self.error(f": {name} is beyond anything measured, {shown}; check its unit")
        return amount

    def word(self, name: str) -> str:
        """A name, one line of text; empty where the row has none."""
        value = self.cells.get(name)
        try:
            return checked.text(name, "" if value is None else str(value)).strip()
        except InputError as error:
            raise self.error(f": {error}") from None


def _refuse_doubles(runs: Sequence[TrainingRun]) -> None:
    """Raise `InputError` for two rows of one setting and seed, of which one would silently be lost, and equal names."""
    seen: dict[tuple[Any, ...], int] = {}  # setting and seed -> row
    trials: dict[str, int] = {}  # trial -> row
    for number, run in enumerate(runs, start=1):
        if run.seed != UNSEEDED and seen.setdefault((run.setting, run.seed), number) != number:
            raise InputError(
                f"rows {seen[run.setting, run.seed]} and {number} of the results are the same optimizer, regime and "
                f"seed; tell them apart by hp_ columns, or drop the column seed to compare the best of them"
            )
        if trials.setdefault(run.trial, number) != number:
            raise InputError(f"rows {trials[run.trial]} and {number} of the results are both called {run.trial!r}")


def _told_apart(runs: Iterable[TrainingRun]) -> Iterable[TrainingRun]:
    """Rows without a seed and of one configuration become variants, so that none passes for another's replicate."""
    # The number of a row among its equals is its variant, so each is a setting of its own.
    counts: Counter[tuple[Any, ...]] = Counter()
    for run in runs:
        yield replace(run, variant=(counts[run.setting],)) if run.seed == UNSEEDED else run
        counts[run.setting] += run.seed == UNSEEDED


def _from_export(rows: Sequence[Mapping[str, Any]]) -> tuple[TrainingRun, ...]:
    """Runs of the rows of `tuneopt.ledger.table`; the same as `from_records` gives, but without learning curves."""
    # Two corpora of one name are told apart by their fingerprints, which a table from elsewhere does not have.
    names = corpus_names((row["corpus"], row["corpus_fingerprint"]) for row in rows)
    columns = [(name, name.removeprefix("hp_")) for name in sorted(rows[0]) if name.startswith("hp_")]
    return tuple(
        TrainingRun(
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
            # No column, or null in it: the order of the data is the seed's.
            variant=(
                row["precision"],
                row["compile"],
                row["micro_batch"],
                row["semantics"],
                *own_order(row["seed"], row.get("data_seed")),
            ),
            trained=float(row["tokens"]),
            seconds=row["devices"] * row["seconds_train"],
            device_seconds=sum(row["devices"] * row[f"seconds_{part}"] for part in SECONDS),
            flops=row["flops"],
            peak_bytes=row["peak_bytes"],
            checkpoint_bytes=row["checkpoint_bytes"],
        )
        for row in rows
    )
