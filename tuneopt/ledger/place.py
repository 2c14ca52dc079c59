"""From what a user calls a ledger (a path or an address) to the files behind it, with errors that say the mend.

A ledger is known by its marker, ``ledger.json``: one line of JSON with the kind and the schema of the layout. It is
written before anything else, so a folder with files of another program is never taken for a ledger, and a ledger of a
newer release is never written to.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tuneopt.checked import NewerSchemaError, known_schema, parse_object
from tuneopt.errors import of_system
from tuneopt.ledger.files import Files, LocalFiles, RemoteFiles
from tuneopt.paths import expanded
from tuneopt.spec import InputError, nearest

SCHEMES = ("file", "s3", "gs")
"""Addresses that are tested; pyarrow knows more."""

MARKER = "ledger.json"
PACKED = "ledger.parquet"
"""A packed ledger's file in a folder without a marker (`tuneopt.ledger.packed`)."""

MARKER_SCHEMA = 1
"""Version of the layout. A ledger of a later one is neither read nor written."""

_log = logging.getLogger(__name__)

T = TypeVar("T")

ASKING = "asks an object store"
"""Name of the threads that wait for a store's answer."""

PATIENCE_VARIABLE = "TUNEOPT_STORE_SECONDS"

PATIENCE_SECONDS = 20.0
"""How long an object store may take for its first answer, unless the environment (``--timeout``) says another time:
pyarrow asks a store that is silent again and again, for minutes."""

_SECRET = re.compile(r"(^|&)[^&=]*(key|secret|token|password|credential)[^&=]*=", re.IGNORECASE)
"""Names of query parameters that would hold a secret."""


def resolve(uri: str | Path) -> tuple[str, Files]:
    """The absolute address of a ledger and its files; raises `InputError` for an address that cannot be one.

    Absolute, because workers run in other folders. Nothing is read or written, and no server is asked.
    """
    text = str(uri)
    if not text.strip():
        raise InputError("the ledger's address is empty; give a folder or an address such as s3://bucket/prefix")
    scheme, separator, rest = text.partition("://")
    if separator and scheme not in SCHEMES:
        raise InputError(f"a ledger cannot live at a {scheme}:// address; {nearest(scheme, SCHEMES)}")
    if not separator or scheme == "file":
        if separator and not rest.startswith("/"):
            raise InputError(f"{text!r} names another host; write file:///absolute/path or a plain path")
        root = expanded(rest if separator else text, "the ledger's address").absolute()
        return str(root), LocalFiles(root)
    user, at, _ = rest.partition("/")[0].rpartition("@")
    if (at and user != "anonymous") or _SECRET.search(rest.partition("?")[2]):
        raise InputError(
            "a ledger's address must not hold a key or password, which records, reports and process lists would show; "
            "put it into the environment, such as AWS_SECRET_ACCESS_KEY, or into the provider's configuration file"
        )
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem

    try:
        filesystem, prefix = _in_time(text, lambda: FileSystem.from_uri(text))  # it may ask for the bucket's region
    except InputError:
        raise
    except (ArrowException, OSError, ValueError) as error:
        raise InputError(f"cannot reach the ledger {text!r} ({_one_line(error)}); check the address") from None
    return text.rstrip("/"), RemoteFiles(filesystem, prefix)


@functools.cache
def marker_text() -> bytes:
    """What a new ledger's marker file holds."""
    return json.dumps({"kind": "tuneopt ledger", "schema": MARKER_SCHEMA}).encode() + b"\n"


def cut_short(data: bytes) -> bool:
    """Whether ``data`` is this release's own marker as a crash can leave it: a part of it, or zeros.

    A file system that orders its journal before its data can show a file at its full length with no content yet.
    """
    return data != marker_text() and (marker_text().startswith(data) or not data.strip(b"\0"))


def marker_cut_short(files: Files) -> bool:
    """Whether a ledger's marker is there and is only a part of it."""
    try:
        return cut_short(files.read(MARKER))
    except FileNotFoundError:
        return False


def check_marker(data: bytes, uri: str) -> None:
    """Raises `InputError` unless ``data`` marks a ledger that this release reads.

    Three different mends: restore the marker, choose another folder, upgrade.
    """
    if data == marker_text():  # the usual case, asked for before every first write of a process
        return
    try:
        plain = parse_object(data, "a ledger's marker")
        if plain.get("kind") == "tuneopt ledger":
            known_schema(plain.get("schema"), MARKER_SCHEMA, f"ledger {uri}")
            return
    except NewerSchemaError:
        raise
    except InputError as error:
        raise InputError(f"{uri}/{MARKER} is damaged ({error}); restore it or give another ledger") from None
    raise InputError(f"{uri}/{MARKER} belongs to another program; give another folder")


def refuse_packed(files: Files) -> None:
    """Raises `InputError` for a packed ledger, where something is to be written."""
    packed = packed_file(files)
    if packed is not None:
        raise InputError(
            f"{packed} is a packed ledger, which is only read; `tuneopt ledger unpack {packed} FOLDER` makes one that "
            "records"
        )


def packed_file(files: Files) -> Path | None:
    """The packed ledger at an address: the file itself, or the one in a folder that holds no other ledger."""
    if not isinstance(files, LocalFiles):
        return None
    try:
        if files.root.suffix == ".parquet" and files.root.is_file():
            return files.root
        inside = files.root / PACKED
        return inside if inside.is_file() and not (files.root / MARKER).exists() else None
    except OSError:  # `inspect` says what is wrong with the address
        return None


def inspect(uri: str, files: Files, must_exist: bool) -> None:
    """Raises `InputError` unless a ledger is at ``uri``, or (without ``must_exist``) can be made there.

    For what a user typed: a mistyped folder is answered before anything is trained. Nothing is written.
    """
    try:
        if isinstance(files, LocalFiles):
            root = files.root
            there = next((folder for folder in (root, *root.parents) if folder.exists()), root)
            if there.exists() and not there.is_dir():
                what = "is a file" if there == root else f"lies inside {there}, which is a file"
                raise InputError(f"the ledger {uri} {what}; give a folder")
            if not root.exists():
                if must_exist:
                    raise InputError(f"there is no ledger at {uri}; check the path, or tune something into it first")
                return
            next(root.iterdir(), None)  # an unreadable folder shows itself here
        there_is = (
            files.exists(MARKER) if isinstance(files, LocalFiles) else _in_time(uri, lambda: files.exists(MARKER))
        )
        if there_is:
            data = files.read(MARKER)
            if cut_short(data):  # the next write mends it
                _log.warning("%s/%s was cut short; `tuneopt ledger mend` writes it again", uri, MARKER)
            else:
                check_marker(data, uri)
        elif must_exist:
            raise InputError(f"{uri} is not a ledger (it has no {MARKER}); check the address")
    except PermissionError:
        raise InputError(f"the ledger {uri} cannot be read by this user; change its permissions") from None
    except OSError as error:
        if not isinstance(files, LocalFiles):  # a store's errors say what it answered
            raise InputError(f"the ledger {uri} cannot be read ({_one_line(error)}); check the address") from None
        raise InputError(f"the ledger {uri} cannot be read: {of_system(error)}") from None


def patience() -> float:
    """Seconds that a store may take for its first answer; raises `InputError` where the environment names no time."""
    text = os.environ.get(PATIENCE_VARIABLE) or str(PATIENCE_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise InputError(f"{PATIENCE_VARIABLE} must be a number of seconds above 0, not {text!r}; leave it out for 20")
    return seconds


def _in_time(uri: str, ask: Callable[[], T]) -> T:
    """What ``ask`` returns or raises; raises `InputError` where a store has not answered by then."""
    seconds = patience()
    results: list[T] = []
    errors: list[Exception] = []

    def look() -> None:
        try:
            results.append(ask())
        except Exception as error:
            errors.append(error)

    # A daemon, and known by its name: a store that never answers must not keep the command from ending (`tuneopt.cli`).
    thread = threading.Thread(target=look, name=ASKING, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise InputError(
            f"the ledger {uri} did not answer within {seconds:g} s; check the address and the connection, or give it "
            "more with --timeout"
        )
    return results[0]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
