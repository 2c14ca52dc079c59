"""The columns of a results table from elsewhere: their names and synonyms, and what each value must be.

A table needs an optimizer, a scale (or its non-embedding parameters), a ratio (or tokens) and a final loss. The rest
is optional. Names are read without regard to case, spaces, dashes and underscores.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tuneopt import checked
from tuneopt.analysis.runs import RegimeKey, Run
from tuneopt.analysis.spaces import axes
from tuneopt.constants import TOKENS_PER_PARAMETER
from tuneopt.search.axis import Axis, is_number
from tuneopt.spec import SCALES, InputError, TrialSpec, Value, nearest

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
LARGEST_CURVE = 10_000

ALWAYS_NUMBERS = ("learning_rate", "train_batch_size", "warmup")
"""Hyperparameters that are numbers for every optimizer."""

UNSEEDED = -1
"""The seed of a row that names none."""

_WORDS = {word: column for column, others in COLUMNS.items() for word in (column, *others)}
_MEANING = {word.replace("_", ""): column for word, column in _WORDS.items()} | dict.fromkeys(ASIDE, "")


def parse(rows: list[Mapping[str, Any]]) -> tuple[Run, ...]:
    """Runs of rows; without a ``seed`` rows of one configuration count as different ones, of which the best stands.

    A row whose loss is empty, or whose status says ``diverged``, is a diverged run. Raises `InputError` naming the row
    (counted from 1) for an unknown, doubled or missing column, a value of the wrong kind, a loss that is no positive
    finite number, a budget that is not positive, two rows of one optimizer, regime, configuration and seed, and a
    table of more than `LARGEST_ROWS` rows.
    """
    check_rows(len(rows))
    names: dict[tuple[str, ...], dict[str, str]] = {}
    runs = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, Mapping):
            raise InputError(f"row {number} of the results is no object; give one with optimizer, scale, ratio, loss")
        found = tuple(map(str, row))
        if found not in names:
            names[found] = _names(number, found)
        runs.append(_run(number, {names[found][str(name)]: value for name, value in row.items()}, found))
    _refuse_doubles(runs)
    return tuple(_told_apart(runs))


def check_rows(count: int) -> None:
    """Raise `InputError` for more rows than a table may have."""
    if count > LARGEST_ROWS:
        raise InputError(f"the results hold {count:,} rows, over the limit of {LARGEST_ROWS:,}; split the table")


def _names(number: int, found: tuple[str, ...]) -> dict[str, str]:
    """What each column of a row means."""
    meant: dict[str, str] = {}
    for name in found:
        plain = name.strip().lower().replace("-", "_").replace(" ", "_")
        meaning = plain if plain.startswith("hp_") else _MEANING.get(plain.replace("_", ""))
        if meaning is None:
            hint = nearest(plain, _WORDS)
            hint = hint if hint.startswith("did") else "name a hyperparameter hp_<name>, or drop the column"
            raise InputError(f"row {number} of the results has an unknown column {name!r}; {hint}")
        if meaning and meaning in meant.values():
            other = next(key for key, value in meant.items() if value == meaning)
            raise InputError(f"row {number} of the results says {meaning} twice, as {other!r} and {name!r}; keep one")
        meant[name] = meaning
    return meant


def _run(number: int, row: Mapping[str, Any], found: tuple[str, ...]) -> Run:
    optimizer = row.get("optimizer")
    if not isinstance(optimizer, str) or not optimizer.strip():
        listed = ", ".join(found[:12]) or "no column"
        raise InputError(f"row {number} of the results names no optimizer (found {listed}); add a column optimizer")
    optimizer = _word(number, row, "optimizer")
    scale, parameters = _scale(number, row)
    tokens, ratio = _budget(number, row, optimizer, parameters)
    status, loss = _loss(number, row, found)
    select = _positive(number, row, "select_loss")
    seed = _number(number, row, "seed")
    seconds = _positive(number, row, "seconds", zero=True)
    finished = status == "completed"
    return Run(
        trial=_word(number, row, "trial") or f"row {number}",
        optimizer=optimizer,
        regime=RegimeKey(_word(number, row, "corpus"), scale, float(f"{ratio:.6g}")),
        parameters=parameters,
        tokens=tokens,
        config=_config(number, row, axes(optimizer, scale) or {}),
        seed=UNSEEDED if seed is None else int(seed),
        status=status,
        select_loss=(loss if select is None else select) if finished else None,
        report_loss=loss if finished else None,
        sigma=_positive(number, row, "sigma"),
        trained=tokens if finished else None,
        seconds=seconds,
        device_seconds=seconds,
        flops=_positive(number, row, "flops", zero=True),
        peak_bytes=_positive(number, row, "peak_bytes", zero=True),
        checkpoint_bytes=_positive(number, row, "checkpoint_bytes", zero=True),
        curve=_curve(number, row.get("curve")),
    )


def _scale(number: int, row: Mapping[str, Any]) -> tuple[str, int | None]:
    parameters = _positive(number, row, "parameters")
    word = _word(number, row, "scale")
    if word:
        known = SCALES.get(word.lower())
        if known is not None and parameters is None:
            return known.name, known.parameters
        return (known.name if known else word), None if parameters is None else int(parameters)
    if parameters is None:
        raise InputError(f"row {number} of the results says no model size; add a column scale or parameters")
    match = [scale.name for scale in SCALES.values() if scale.parameters == int(parameters)]
    return (match[0] if match else f"{parameters / 1e6:.4g}m"), int(parameters)


def _budget(number: int, row: Mapping[str, Any], optimizer: str, parameters: int | None) -> tuple[float, float]:
    tokens, ratio = _positive(number, row, "tokens"), _positive(number, row, "ratio")
    if tokens is None and ratio is not None and parameters is not None:
        tokens = TOKENS_PER_PARAMETER * parameters * ratio
    if ratio is None and tokens is not None and parameters is not None:
        ratio = tokens / (TOKENS_PER_PARAMETER * parameters)
    if tokens is None or ratio is None:
        raise InputError(
            f"row {number} of the results ({optimizer}) does not say its token budget; add a positive ratio for a "
            f"known scale or with parameters, or tokens with parameters"
        )
    return tokens, ratio


def _loss(number: int, row: Mapping[str, Any], found: tuple[str, ...]) -> tuple[str, float | None]:
    if "loss" not in row:
        raise InputError(f"row {number} of the results has no column loss; {nearest('loss', found)}")
    said = str(row.get("status") or "").strip().lower()
    if said not in ("", "completed", "diverged"):
        raise InputError(f"row {number} of the results: status must be completed or diverged, not {said!r}")
    if said == "diverged":
        return "diverged", None
    loss = row["loss"]
    if isinstance(loss, float) and not math.isfinite(loss):
        raise InputError(f"row {number} of the results: loss is {loss}; leave it empty where a run diverged")
    value = _positive(number, row, "loss")
    if value is None and said == "completed":
        raise InputError(f"row {number} of the results is completed and has no loss; give it, or say diverged")
    return ("diverged" if value is None else "completed"), value


def _config(number: int, row: Mapping[str, Any], known: Mapping[str, Axis]) -> tuple[tuple[str, Value], ...]:
    given = row.get("config")
    if isinstance(given, str) and given.strip():
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            raise InputError(f"row {number} of the results: config is no JSON object; write {{name: value}}") from None
    if given not in (None, "") and not isinstance(given, Mapping):
        said = checked.shown(given)
        raise InputError(f"row {number} of the results: config must be an object of hyperparameters, not {said}")
    config = dict(given or {}) | {name[3:]: value for name, value in row.items() if name.startswith("hp_")}
    try:
        frozen = TrialSpec.freeze({str(name): value for name, value in config.items() if value not in (None, "")})
    except InputError as error:
        raise InputError(f"row {number} of the results: {error}") from None
    for name, value in frozen:
        if not is_number(value) and (name in ALWAYS_NUMBERS or (name in known and known[name].numeric)):
            raise InputError(f"row {number} of the results: {name} must be a number, not {checked.shown(value)}")
        if is_number(value) and not checked.is_usual(value):
            raise InputError(f"row {number} of the results: {name} is beyond anything tuned, {checked.shown(value)}")
    return frozen


def _curve(number: int, given: Any) -> tuple[tuple[float, float], ...]:
    if given is None or given == "":
        return ()
    hint = "a curve is a list of [fraction of the run, loss] with fractions in (0, 1]"
    try:
        points = json.loads(given) if isinstance(given, str) else list(given)
        pairs = [(point["fraction"], point["loss"]) if isinstance(point, Mapping) else tuple(point) for point in points]
        curve = tuple(sorted((float(at), float(loss)) for at, loss in pairs if loss is not None))
    except (TypeError, ValueError, KeyError, OverflowError, RecursionError):
        raise InputError(f"row {number} of the results has a curve that cannot be read; {hint}") from None
    if len(curve) > LARGEST_CURVE:
        raise InputError(f"row {number} of the results has a curve of {len(curve):,} points; thin it to 10,000")
    if not all(0 < at <= 1 and math.isfinite(loss) for at, loss in curve):
        raise InputError(f"row {number} of the results has a curve with a bad point; {hint}, finite losses")
    return curve


def _positive(number: int, row: Mapping[str, Any], name: str, zero: bool = False) -> float | None:
    value = _number(number, row, name)
    if value is not None and (value < 0 or (value == 0 and not zero)):
        raise InputError(f"row {number} of the results: {name} must be positive, not {value:g}")
    return value


def _number(number: int, row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    said = checked.shown(value)
    try:
        amount = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        raise InputError(f"row {number} of the results: {name} must be a number, not {said}") from None
    except OverflowError:
        amount = math.inf
    if not math.isfinite(amount):
        raise InputError(f"row {number} of the results: {name} must be a finite number, not {said}")
    if not checked.is_usual(amount):
        raise InputError(f"row {number} of the results: {name} is beyond anything measured, {said}; check its unit")
    return amount


def _word(number: int, row: Mapping[str, Any], name: str) -> str:
    """A name in a row, one line of text; empty where the row has none."""
    value = row.get(name)
    try:
        return checked.text(name, "" if value is None else str(value)).strip()
    except InputError as error:
        raise InputError(f"row {number} of the results: {error}") from None


def _refuse_doubles(runs: list[Run]) -> None:
    seen: dict[tuple[Any, ...], int] = {}
    trials: dict[str, int] = {}
    for number, run in enumerate(runs, start=1):
        key = (run.optimizer, run.regime, run.config, run.seed)
        if run.seed != UNSEEDED and seen.setdefault(key, number) != number:
            raise InputError(
                f"rows {seen[key]} and {number} of the results are the same optimizer, regime and seed; "
                f"tell them apart by hp_ columns, or drop the column seed to compare the best of them"
            )
        if trials.setdefault(run.trial, number) != number:
            raise InputError(f"rows {trials[run.trial]} and {number} of the results are both called {run.trial!r}")


def _told_apart(runs: list[Run]) -> Iterable[Run]:
    """Rows without a seed and of one configuration become variants, so that none passes for another's replicate."""
    counts: Counter[tuple[Any, ...]] = Counter()
    for run in runs:
        key = (run.optimizer, run.regime, run.config)
        yield replace(run, variant=(counts[key],)) if run.seed == UNSEEDED else run
        counts[key] += run.seed == UNSEEDED
