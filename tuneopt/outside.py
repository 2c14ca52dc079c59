"""Code from outside tuneopt: files that a user names, and entry points of installed packages.

Running a file runs whatever is in it. Only files and packages that the user asked for are run, and a file is known by
the SHA-256 of its content, so that nobody can mistake one version for another. The digest stands in the name of an
optimizer (``Lion@0123456789ab``), and so in the ids of its trials; workers get the text and not the path.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import linecache
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from tuneopt.paths import read_plain
from tuneopt.spec import InputError

LARGEST_SOURCE = 4 << 20
"""Bytes of a Python file; one of ten thousand lines has a tenth of it."""

DIGITS = 12
"""Hexadecimal digits of a digest that stand in names."""


def digest(content: bytes) -> str:
    """The first `DIGITS` hexadecimal digits of the SHA-256 of ``content``."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def read_source(path: Path, what: str) -> str:
    """The text of a Python file; raises `InputError`, naming it as ``what``, when there is none or it is no text."""
    if not path.exists() or path.is_dir():
        raise InputError(f"there is no {what} at {path}; give the path of a Python file")
    if path.suffix != ".py":
        raise InputError(f"{path} is not a Python file; give a {what} in a file that ends in .py")
    try:
        return read_plain(path, LARGEST_SOURCE).decode("utf-8")
    except InputError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"the {what} {path} cannot be read: {reason(error)}") from None


def run_source(text: str, shown: str, what: str) -> ModuleType:
    """The module that ``text`` makes, run once per process and content, under a private name that replaces no other.

    ``shown`` is the file name for people. Raises `InputError` in one sentence for text that cannot be run.
    """
    content = text.encode()
    name = f"_tuneopt_outside_{digest(content)}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = place = f"<{shown} {digest(content)}>"
    # Tracebacks, inspect and torch.compile ask for the lines; a worker has no file to read them from.
    linecache.cache[place] = (len(text), None, text.splitlines(keepends=True), place)
    sys.modules[name] = module
    try:
        exec(compile(content, place, "exec"), module.__dict__)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, InputError) or not isinstance(error, Exception | SystemExit):
            raise
        raise InputError(f"the {what} {shown} cannot be run: {reason(error)}") from error
    return module


def reason(error: BaseException) -> str:
    """An exception as one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")


@cache
def installed(group: str) -> Mapping[str, tuple[importlib.metadata.EntryPoint, ...]]:
    """The entry points of a group by name; more than one where several packages claim a name. Imports nothing."""
    found: dict[str, tuple[importlib.metadata.EntryPoint, ...]] = {}
    for point in sorted(importlib.metadata.entry_points(group=group), key=lambda point: (point.name, origin(point))):
        claims = found.get(point.name, ())
        # An editable installation can show one package twice.
        if all((point.value, origin(point)) != (claim.value, origin(claim)) for claim in claims):
            found[point.name] = (*claims, point)
    return found


def claimed(group: str, name: str, what: str, built_in: bool) -> importlib.metadata.EntryPoint | None:
    """The one entry point of that name, or None; raises `InputError` for a name that two packages, or we, also have."""
    claims = installed(group).get(name, ())
    owners = [*(["tuneopt itself"] if built_in and claims else []), *map(origin, claims)]
    if len(owners) > 1:
        raise InputError(f"the {what} {name!r} is claimed by {' and by '.join(owners)}; rename it in the package")
    return claims[0] if claims else None


def origin(point: importlib.metadata.EntryPoint) -> str:
    """The package that declares an entry point, with its version."""
    return f"package {point.dist.name} {point.dist.version}" if point.dist else "a package without a name"


def load(point: importlib.metadata.EntryPoint, what: str) -> Any:
    """What an entry point stands for; raises `InputError` in one sentence when it cannot be imported."""
    try:
        return point.load()
    except (Exception, SystemExit) as error:
        raise InputError(
            f"the {what} {point.name!r} of {origin(point)} cannot be imported: {reason(error)}; mend or remove it"
        ) from error


def package_digest(point: importlib.metadata.EntryPoint) -> str:
    """The digest of an installed package: its name and version, and every Python file of the module or package named.

    So an edit in an editable installation counts although the version stays. Imports nothing. Raises `InputError` when
    the module is not there.
    """
    top = point.module.partition(".")[0]
    found = importlib.util.find_spec(top)
    if found is None or not found.origin:
        raise InputError(f"{point.name!r} of {origin(point)} cannot be imported: there is no module {top!r}")
    home = Path(found.origin)
    files = sorted(home.parent.rglob("*.py")) if home.name == "__init__.py" else [home]
    content = hashlib.sha256(f"{origin(point)}\n".encode())
    for file in files:
        content.update(f"{file.relative_to(home.parent).as_posix()}\n".encode())
        content.update(hashlib.sha256(file.read_bytes()).digest())
    return content.hexdigest()[:DIGITS]
