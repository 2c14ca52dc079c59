"""Data that others wrote: single fields of the right type and within bounds, and JSON read strictly.

Specifications, records, tables and manifests are checked field by field with these functions, so that everything above
may rely on types and finite numbers. Each failure is one `InputError` sentence. The bounds are far beyond anything that
can be trained. They keep sums and products within what a table can hold, and hostile data from costing time or memory.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tuneopt.errors import InputError, nearest

LARGEST_COUNT = 2**63 - 1
"""Largest count of anything: what a 64-bit column holds."""

LARGEST_NUMBER = 1e300
"""Largest magnitude of a real number: products of a few ordinary ones with it stay finite or are refused as such."""

LARGEST_USUAL = 1e30
"""Largest magnitude of anything that was measured or tuned; the inverse is the smallest."""

LONGEST_TEXT = 4096
"""Characters of a name or word."""

DEEPEST = 50
"""Levels of nesting in the free parts of JSON data; the proof in a record has four."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class NewerSchemaError(InputError):
    """Data that a newer release wrote: whole, but not for this one to read, move or write again."""


def text(name: str, value: Any, *, empty: bool = True) -> str:
    """A line of printable text; raises `InputError` for other types, control characters and half surrogates.

    Names end up in terminals, file names and pages: what is no printable character has no place in any of them.
    """
    if not isinstance(value, str):
        raise InputError(f"{name} must be a text, not {shown(value)}")
    if not value.isprintable() or len(value) > LONGEST_TEXT:
        raise InputError(f"{name} must be one line of up to {LONGEST_TEXT} printable characters, not {shown(value)}")
    if not (value or empty):
        raise InputError(f"{name} must not be empty")
    return value


def whole(name: str, value: Any, *, least: int = 0, most: int = LARGEST_COUNT) -> int:
    """A whole number within bounds; switches are none. Raises `InputError` otherwise."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name} must be a whole number, not {shown(value)}")
    if not least <= value <= most:
        raise InputError(f"{name} must lie between {least} and {most}, not {shown(value)}")
    return int(value)


def switch(name: str, value: Any) -> bool:
    """True or false; raises `InputError` for anything else, numbers included."""
    if not isinstance(value, bool):
        raise InputError(f"{name} must be true or false, not {shown(value)}")
    return value


def sha256(name: str, value: Any) -> str:
    """64 lower-case hexadecimal digits; raises `InputError` otherwise."""
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise InputError(f"{name} must be a SHA-256 in hexadecimal digits, not {shown(value)}")
    return value


def is_number(value: Any) -> bool:
    """Whether ``value`` is a real number that arithmetic can bear: no switch, not NaN, not huge."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST_NUMBER <= value <= LARGEST_NUMBER


def is_usual(value: Any) -> bool:
    """Whether ``value`` is 0 or a number of a magnitude that logarithms and squares can bear."""
    return is_number(value) and (value == 0 or 1 / LARGEST_USUAL <= abs(value) <= LARGEST_USUAL)


def shown(value: Any) -> str:
    """A value for an error's sentence, cut where it is long."""
    if isinstance(value, int) and abs(value) > LARGEST_COUNT:
        return f"a number of {value.bit_length()} bits"
    words = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return words if len(words) <= 80 else words[:79] + "\u2026"


def parse_object(data: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object without NaN, infinities or repeated keys; raises `InputError` naming ``what`` otherwise.

    Python's `json` reads all three, and other readers do not: what is damaged or ambiguous is refused here, once.
    """

    def no_constant(word: str) -> None:
        raise InputError(f"{what} may not hold {word}; the data is damaged")

    def no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        plain = dict(pairs)
        if len(plain) != len(pairs):  # Python's json would silently keep the last of two equal keys
            raise InputError(f"{what} holds a key twice; the data is damaged")
        return plain

    try:
        tree = json.loads(data, parse_constant=no_constant)
        if _keys_of(tree) != _keys_in(data):
            tree = json.loads(data, parse_constant=no_constant, object_pairs_hook=no_repeats)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"not {what}: truncated or not JSON ({error})") from None
    if not isinstance(tree, dict):
        raise InputError(f"not {what}: a JSON object is needed, not {type(tree).__name__}")
    # JSON can spell out half of a surrogate pair, which no file can be written with. Encoding everything finds it, and
    # only texts with such an escape need that.
    if (b"\\ud" if isinstance(data, bytes) else "\\ud") in data.lower():  # type: ignore[operator]
        try:
            json.dumps(tree, ensure_ascii=False).encode()
        except (UnicodeEncodeError, RecursionError):
            raise InputError(f"{what} holds half of a surrogate pair, which is no text; the data is damaged") from None
    return tree


def _keys_of(tree: Any) -> int:
    """The keys of an object, of objects in it, and of those in their lists; what lies deeper is not counted."""
    if type(tree) is not dict:
        return 0
    count = len(tree)
    for value in tree.values():
        if type(value) is dict:
            count += _keys_of(value)
        elif type(value) is list:
            count += sum([len(each) for each in value if type(each) is dict])
    return count


_LOOSE_QUOTE = re.compile(rb'"\s')


def _keys_in(data: str | bytes) -> int | None:
    """The keys of all objects in a JSON text, counted in the text; None where that cannot be.

    Without escapes and without white space after a quote each key ends in ``":``, and so may texts. So there are at
    most as many keys as such ends, and where what was read kept as many (`_keys_of`), none was lost: that is known
    sooner than by looking at all pairs of every object.
    """
    raw = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    return None if b"\\" in raw or _LOOSE_QUOTE.search(raw) else raw.count(b'":')


def known_schema(version: Any, newest: int, what: str) -> None:
    """Raises `NewerSchemaError` for a schema of a later release, `InputError` for one that no release wrote."""
    if isinstance(version, int) and not isinstance(version, bool) and version > newest:
        raise NewerSchemaError(
            f"this {what} has schema {version} and this tuneopt reads up to {newest}; upgrade tuneopt to read it"
        )
    if version != newest or isinstance(version, bool):
        raise InputError(f"this {what} names no known schema (found {version!r}, known: {newest})")


def exact_keys(plain: Any, names: Iterable[str], what: str) -> None:
    """Raises `InputError` unless ``plain`` is an object with exactly the keys ``names``; ``what`` is a noun."""
    known = list(names)
    if type(plain) is not dict and not isinstance(plain, Mapping):
        raise InputError(f"a {what} must be an object, not {type(plain).__name__}")
    if list(plain) == known or plain.keys() == set(known):  # the usual case, and 20 times faster than looking
        return
    for name in plain:
        if name not in known:
            raise InputError(f"a {what} has no field {name!r}; {nearest(str(name), known)}")
    missing = [name for name in known if name not in plain]
    raise InputError(f"a {what} lacks the field{'s' if missing[1:] else ''} {', '.join(missing)}")


def plain_tree(tree: Any, where: str, depth: int = 0) -> Any:
    """JSON data as dicts and lists; numbers that are not finite become words, so that no NaN is ever written.

    Raises `InputError`, naming ``where``, for what is no JSON data, is nested too deeply, or is beyond every float.
    """
    kind = type(tree)  # a record holds hundreds of values, nearly all of these kinds
    if kind is str:
        return whole_text(tree)
    if kind is bool or tree is None or (kind is int and -LARGEST_NUMBER <= tree <= LARGEST_NUMBER):
        return tree
    if depth <= DEEPEST:  # beyond it only what is nested further is refused
        if kind is dict:
            return {
                name if type(name) is str and name.isascii() else whole_text(str(name)): (
                    value  # as plain_tree would give it, without a call
                    if (type(value) is str and value.isascii()) or type(value) is bool
                    else plain_tree(value, where, depth + 1)
                )
                for name, value in tree.items()
            }
        if kind is list:
            return [plain_tree(value, where, depth + 1) for value in tree]
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


SUFFIXES = {"k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
"""Letters behind a count."""


def count(name: str, value: Any) -> int:
    """A count as people write it, such as ``50M``, ``2e6`` or ``2_000``; raises `InputError` for what is none."""
    plain = str(value).strip().lower().replace("_", "").replace(",", "")
    factor = SUFFIXES.get(plain[-1:], 1)
    try:
        number = float(plain[:-1] if factor > 1 else plain) * factor
        nearest_whole = round(number)
    except (ValueError, OverflowError):
        raise InputError(f"{name} must be a count such as 50M or 2000, not {shown(value)}") from None
    if isinstance(value, bool) or not 1 <= nearest_whole <= 2**62 or abs(number - nearest_whole) > 1e-6 * nearest_whole:
        raise InputError(f"{name} must be a whole number of at least 1, not {shown(value)}")
    return nearest_whole
