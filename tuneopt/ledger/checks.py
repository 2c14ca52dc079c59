"""Strict checks of record data: types, finite numbers, exact keys. Every failure is one `InputError` sentence."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tuneopt.checked import LARGEST_COUNT, LARGEST_NUMBER, shown
from tuneopt.checked import text as line
from tuneopt.spec import InputError, TrialSpec, nearest

if TYPE_CHECKING:
    from tuneopt.ledger.record import TrialRecord

SCHEMA = 1
"""Version of the record's JSON form; raised when a field is added, renamed or changes its meaning."""

STATUSES = ("completed", "diverged")

SECONDS = ("train", "eval", "startup", "checkpoint")
"""What the wall time of a trial is divided into."""

LARGEST = sys.float_info.max

DEEPEST = 50
"""Levels of nesting in a record's free parts; a proof has four."""


def finite(value: float | None) -> float | None:
    """The value as a float, or None where it is missing, NaN or infinite: the form losses are recorded in."""
    return float(value) if value is not None and math.isfinite(value) else None


def parse_object(text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object without NaN, infinities or repeated keys; raises `InputError` naming ``what`` otherwise."""

    def no_constant(word: str) -> None:
        raise InputError(f"{what} may not hold {word}; the data is damaged")

    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        plain = dict(pairs)
        if len(plain) != len(pairs):
            raise InputError(f"{what} holds a key twice; the data is damaged")
        return plain

    try:
        tree = json.loads(text, parse_constant=no_constant, object_pairs_hook=no_repeats)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"not {what}: truncated or not JSON ({error})") from None
    if not isinstance(tree, dict):
        raise InputError(f"not {what}: a JSON object is needed, not {type(tree).__name__}")
    if (b"\\ud" if isinstance(text, bytes) else "\\ud") in text.lower():  # type: ignore[operator]
        try:
            json.dumps(tree, ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError):
            raise InputError(f"{what} holds half of a surrogate pair, which is no text; the data is damaged") from None
    return tree


class NewerSchemaError(InputError):
    """Data that a newer release wrote: whole, but not for this one to read, move or write again."""


def known_schema(version: Any, newest: int, what: str) -> None:
    """Raises `InputError` unless ``version`` is a schema this release reads."""
    if isinstance(version, int) and not isinstance(version, bool) and version > newest:
        raise NewerSchemaError(
            f"this {what} has schema {version} and this tuneopt reads up to {newest}; upgrade tuneopt to read it"
        )
    if version != newest or isinstance(version, bool):
        raise InputError(f"this {what} names no known schema (found {version!r}, known: {newest})")


def exact_keys(plain: Any, names: Iterable[str], what: str) -> None:
    """Raises `InputError` unless ``plain`` is an object with exactly the keys ``names``."""
    wanted = list(names)
    if not isinstance(plain, Mapping):
        raise InputError(f"a {what} must be an object, not {type(plain).__name__}")
    if list(plain) == wanted or plain.keys() == set(wanted):  # the usual case, and 20 times faster than looking
        return
    for name in plain:
        if name not in wanted:
            raise InputError(f"a {what} has no field {name!r}; {nearest(str(name), wanted)}")
    missing = [name for name in wanted if name not in plain]
    if missing:
        raise InputError(f"a {what} lacks the field{'s' if missing[1:] else ''} {', '.join(missing)}")


def plain_tree(tree: Any, where: str, depth: int = 0) -> Any:
    """JSON data as dicts and lists; numbers that are not finite become words, so that no NaN is ever written."""
    if tree is None or isinstance(tree, bool):
        return tree
    if isinstance(tree, str):
        return whole_text(tree)
    if isinstance(tree, int) and -LARGEST_NUMBER <= tree <= LARGEST_NUMBER:
        return int(tree)
    if isinstance(tree, float):
        return float(tree) if math.isfinite(tree) else str(float(tree))
    if depth > DEEPEST:
        raise InputError(f"{where} is nested more than {DEEPEST} deep; the data is damaged")
    if isinstance(tree, Mapping):
        return {whole_text(str(key)): plain_tree(value, where, depth + 1) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [plain_tree(value, where, depth + 1) for value in tree]
    raise InputError(f"{where} must hold plain JSON data, not {shown(tree)}")


def whole_text(text: str) -> str:
    """``text`` with a question mark for each half of a surrogate pair: such halves come from undecodable file names."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def number(name: str, value: Any, *, low: float = 0) -> float:
    """A finite number from ``low`` up; raises `InputError` naming ``name`` otherwise."""
    if type(value) is float and low <= value <= LARGEST:  # the usual case: hundreds of these in every record
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST <= value <= LARGEST:
        raise InputError(
            f"{name} must be a finite number, not {shown(value)}; a loss that is not finite is recorded as None"
        )
    if value < low:
        raise InputError(f"{name} must be at least {low:g}, not {value!r}")
    return int(value) if isinstance(value, int) else float(value)


def count(name: str, value: Any) -> int:
    """A whole number from 0 up; raises `InputError` naming ``name`` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_COUNT:
        raise InputError(f"{name} must be a whole number from 0 up, not {shown(value)}")
    return int(value)


def _moment(name: str, text: Any) -> None:
    try:
        moment = datetime.fromisoformat(line(name, text))
    except (TypeError, ValueError):
        raise InputError(f"{name} must be an ISO-8601 time such as 2026-01-31T12:00:00+00:00, not {text!r}") from None
    if moment.utcoffset() != timedelta(0):
        raise InputError(f"{name} must be in UTC, such as 2026-01-31T12:00:00+00:00, not {text!r}")


def normalised(record: TrialRecord) -> dict[str, Any]:
    """The record's fields that need one plain form, after checking all of them; raises `InputError`."""
    known_schema(record.schema, SCHEMA, "trial record")
    if not isinstance(record.spec, TrialSpec):
        raise InputError("a trial record's spec must be a TrialSpec")
    expected = record.spec.id
    if record.trial != expected:
        raise InputError(f"the record's trial id {record.trial!r} is not its specification's hash {expected!r}")
    if record.status not in STATUSES:
        raise InputError(f"unknown trial status {record.status!r}; {nearest(str(record.status), STATUSES)}")
    if "train_batch_size" not in record.spec.config:
        raise InputError("a trial record's specification needs the hyperparameter train_batch_size")
    record.spec.regime.steps(count("train_batch_size", record.spec.config["train_batch_size"]))
    diverged = record.status == "diverged"
    for name in ("select_loss", "report_loss"):
        value = getattr(record, name)
        if diverged != (value is None):
            raise InputError(f"a {record.status} trial {'has no' if diverged else 'needs a'} {name}, not {value!r}")
        if value is not None:
            number(name, value, low=-LARGEST)
    if record.initial_loss is None and not diverged:
        raise InputError("a completed trial needs an initial_loss, not None")
    if record.initial_loss is not None:
        number("initial_loss", record.initial_loss, low=-LARGEST)
    for name in ("tokens", "steps", "resumes"):
        count(name, getattr(record, name))
    for name in ("peak_bytes", "checkpoint_bytes", "optimizer_state_bytes"):
        if getattr(record, name) is not None:
            count(name, getattr(record, name))
    for name in ("epochs", "flops", "tokens_per_second"):
        number(name, getattr(record, name))
    exact_keys(record.seconds, SECONDS, "record's seconds")
    for name in ("started", "ended"):
        _moment(name, getattr(record, name))
    for name, kind in (("proof", Mapping | None), ("environment", Mapping), ("routing", list | tuple)):
        if not isinstance(getattr(record, name), kind):
            raise InputError(f"a trial record's {name} has the wrong type, {type(getattr(record, name)).__name__}")
    if not all(isinstance(route, Mapping) for route in record.routing):
        raise InputError("a trial record's routing must hold one object per parameter")
    if not isinstance(record.notes, list | tuple) or not all(isinstance(note, str) for note in record.notes):
        raise InputError("a trial record's notes must be a list of texts")
    return {
        "curve": tuple(record.curve),
        "seconds": {name: number(f"seconds {name}", record.seconds[name]) for name in SECONDS},
        "proof": plain_tree(record.proof, "proof"),
        "routing": tuple(plain_tree(route, "routing") for route in record.routing),
        "environment": plain_tree(record.environment, "environment"),
        "notes": tuple(map(whole_text, record.notes)),
    }
