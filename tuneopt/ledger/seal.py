"""Seals: a checksum in every JSON document of a ledger, by which it is known whether anybody touched the file.

A sealed file is a JSON object on one line whose last entry is the seal, and a line feed:

    {...,"seal":"<SHA-256>"}

The SHA-256 is that of the file's name in its ledger (``trials/<id>.json``), a line feed, and the object as it was
before the seal was added, byte for byte. So a changed bit anywhere is found, white space included, and so is a file
that was copied over another one. `seal` makes the bytes of any object and `unseal` reads them: whoever adds a kind of
document to a ledger needs these two (or `Ledger.put_sweep` and `Ledger.put_run`, which call them), and an entry in
`tuneopt.ledger.damage.DECODERS`.

The plan of a comparison is YAML, whose remarks begin with ``#``: there the seal is the last line, ``# seal: <SHA-256>``
of the name and all lines before it (`seal_lines`, `unseal_lines`).

Files of releases before seals have none and are read as they are; `SealedState` tells. A seal protects against
accidents, not against people: it holds no secret.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Literal

from tuneopt.checked import parse_object
from tuneopt.errors import InputError

KEY = "seal"
"""The entry that holds the seal; readers never see it among a document's own."""

SealedState = Literal["sealed", "unsealed", "broken"]
"""Whether a document's seal fits it, is not there, or is there and does not fit."""

BROKEN = "its seal does not fit: the file was changed after it was written"

_TAIL = re.compile(rb',?"seal":"([0-9a-f]{64})"\}\n\Z')
_MAIMED_TAIL = re.compile(rb'"[^"]{1,8}":"[0-9a-f]{64}"\}\s*\Z')
"""What a seal looks like whose own name was damaged; without it the document would pass for one of an older release."""


_LAST_LINE = re.compile(rb"# seal: ([0-9a-f]{64})\n\Z")
_REMAINS = re.compile(rb"^#|[0-9a-f]{16}")

_LONGEST_TAIL = 160
"""Bytes at the end of a file that a seal is looked for in: it takes 80, and what damage may add to it is little."""


def seal(name: str, text: str) -> bytes:
    """The bytes of the file ``name`` that holds the JSON object ``text``, sealed."""
    assert text[0] == "{" and text[-1] == "}", "only objects are sealed"
    separator = "" if text == "{}" else ","
    return f'{text[:-1]}{separator}"{KEY}":"{_digest(name, text.encode())}"}}\n'.encode()


def unseal(name: str, data: bytes, what: str) -> tuple[dict[str, Any], SealedState]:
    """The object in the bytes of the file ``name``, without its seal, and whether that fits.

    Raises `InputError`, with ``what`` as the noun, for anything but a JSON object.
    """
    plain = parse_object(data, what)
    tail = _TAIL.search(data, max(0, len(data) - _LONGEST_TAIL))
    if KEY not in plain:
        return plain, "broken" if _MAIMED_TAIL.search(data, max(0, len(data) - _LONGEST_TAIL)) else "unsealed"
    del plain[KEY]
    if tail is None or tail[1].decode() != _digest(name, data[: tail.start()] + b"}"):
        return plain, "broken"
    return plain, "sealed"


def seal_lines(name: str, text: str) -> bytes:
    """The bytes of the file ``name`` that holds ``text``, in which ``#`` begins a remark, sealed by a last remark."""
    lines = text if text.endswith("\n") else text + "\n"
    return f"{lines}# {KEY}: {_digest(name, lines.encode())}\n".encode()


def unseal_lines(name: str, data: bytes, what: str) -> tuple[str, SealedState]:
    """The text in the bytes of the file ``name``, without its seal, and whether that fits; `InputError` for no text."""
    tail = _LAST_LINE.search(data)
    body = data[: tail.start()] if tail else data
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"not {what}: no text in UTF-8 ({error.reason})") from None
    if tail is None:
        # A plan of an earlier release is whole lines, and the last one is no remark: else it is what damage left.
        remains = not data.endswith(b"\n") or b"\0" in data or _REMAINS.search(data.rstrip().rpartition(b"\n")[2])
        return text, "broken" if remains else "unsealed"
    return text, "sealed" if tail[1].decode() == _digest(name, body) else "broken"


def _digest(name: str, content: bytes) -> str:
    return hashlib.sha256(name.encode() + b"\n" + content).hexdigest()


def has_seal(data: bytes) -> bool:
    """Whether the bytes of a file end in a seal, fitting or not; nothing else is read."""
    start = max(0, len(data) - _LONGEST_TAIL)
    return _TAIL.search(data, start) is not None or _LAST_LINE.search(data, start) is not None
