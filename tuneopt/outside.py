"""Code from outside tuneopt: files that a user names, and entry points of installed packages.

Running a file runs whatever is in it. Only files and packages that the user asked for are run, and a file is known by
the SHA-256 of its content, so that nobody can mistake one version for another. The digest stands in the name of an
optimizer (``Lion@0123456789ab``), and so in the ids of its trials; workers get the text and not the path.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import linecache
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from tuneopt.errors import in_words, of_system
from tuneopt.modules import (
    LARGEST_SOURCE,
    contents,
    imported,
    in_work,
    is_beside,
    is_loose,
    is_of,
    loose_modules,
    module_files,
    opened,
    source_file,
)
from tuneopt.paths import read_plain
from tuneopt.spec import InputError, OwnModel, TrialSpec, nearest
from tuneopt.streams import open_closed

DIGITS = 12
"""Hexadecimal digits of a digest that stand in names."""


SOURCES: dict[str, tuple[str, str]] = {}
"""Digest -> (text, file name for people) of the files that this process was given."""


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
    except OSError as error:
        raise InputError(f"the {what} {of_system(error, path)}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"the {what} {path} cannot be read: {in_words(error)}") from None


def take_source(path: Path, what: str) -> str:
    """The digest of a file, whose text is kept for `source_of`; no code is run.

    Raises `InputError` for a missing file, and for one that imports what its digest would not cover.
    """
    text = read_source(path, what)
    mend = "which a trial's id would not cover; write both into one file or install them as a package"
    neighbours = sorted(name for name in imported(text) if is_beside(path.parent, name))
    if neighbours:
        raise InputError(f"{path} imports {' and '.join(neighbours)} beside it, {mend}")
    loose = loose_modules(text)
    if loose:
        places = " and ".join(f"{name} from {place.parent}" for name, place in loose.items())
        raise InputError(f"{path} imports {places}, {mend}")
    return take_text(text, str(path))


def take_text(text: str, shown: str) -> str:
    """The digest of a text that is run as a file, and kept for `source_of`; ``shown`` is its name for people."""
    name = _digest_of(text)
    SOURCES[name] = (text, shown)
    return name


def _digest_of(text: str) -> str:
    """The digest of a file's text, and of the packages that it imports from where people edit them."""
    content = text.encode()
    return digest(content + b"".join(sorted(contents(module_files(name)) for name in in_work(content))))


def source_of(name: str) -> str:
    """The text that a machine without the file needs to run ``Name@digest``; empty where it needs none."""
    return SOURCES.get(name.partition("@")[2], ("", ""))[0]


def adopt(name: str, text: str) -> None:
    """Take over the text of ``name`` from another machine; raises `InputError` when it is not what the name says."""
    if not text:
        return
    if _digest_of(text) != name.partition("@")[2]:
        raise InputError(
            f"the source that came with {name} is another one, or a package that it imports is another one here; start "
            "the sweep again from its file, with one version everywhere"
        )
    SOURCES.setdefault(name.partition("@")[2], (text, f"the file of {name}"))


def sources_of(spec: TrialSpec) -> dict[str, str]:
    """The texts that a machine needs for a trial, by what they are called: of its optimizer, and of its model."""
    scale = spec.regime.scale
    names = (spec.optimizer, *((scale.model,) if isinstance(scale, OwnModel) else ()))
    return {name: text for name in names if (text := source_of(name))}


def adopt_all(texts: Mapping[str, str]) -> None:
    """`adopt` each text of `sources_of`."""
    for name, text in texts.items():
        adopt(name, text)


def attribute_of(name: str, what: str, kind: str = "class") -> Any:
    """What a file that this process was given calls ``Name``, for ``Name@digest``; the file is run.

    ``what`` it is for and the ``kind`` of thing that is looked for are named in errors. Raises `InputError` where the
    file is not at hand or has no such name.
    """
    word, _, place = name.partition("@")
    if place not in SOURCES:
        raise InputError(f"the source of {name} is not at hand; give the file that it comes from as PATH.py:{word}")
    text, shown = SOURCES[place]
    with covered(name):
        module = run_source(text, shown, what)
    if not hasattr(module, word):
        names = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise InputError(f"{shown} has no {kind} {word!r}; {nearest(word, names) if names else 'define one'}")
    return getattr(module, word)


@contextlib.contextmanager
def covered(name: str) -> Iterator[None]:
    """Refuse what code of ``Name@digest`` reads in the block and its digest does not cover, whatever way it takes.

    That is code which nobody installed (imported by a name that is put together, run from a path, taken from an
    archive), and files beside its own or in the working folder. Raises `InputError` at the end of the block. On other
    machines, which have the text alone, nothing is looked at.
    """
    shown = Path(SOURCES.get(name.partition("@")[2], ("", ""))[1])
    if not shown.is_file():
        yield
        return
    with opened() as read:
        try:
            yield
        finally:
            open_closed()  # it may have closed them
    loose = sorted({path for path in map(source_file, read) if is_loose(path, shown)})
    if loose:
        for key, module in list(sys.modules.items()):  # who asks next must hear it too
            if key.startswith("_tuneopt_outside_") or any(is_of(module, path) for path in loose):
                del sys.modules[key]
        raise InputError(
            f"{shown} reads {' and '.join(map(str, loose[:3]))}, which a trial's id would not cover; write it into the "
            "file or install both as a package"
        )


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
        if isinstance(error, InputError | KeyboardInterrupt):
            raise
        raise InputError(f"the {what} {shown} cannot be run: {in_words(error)}") from error
    return module


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
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a package may raise anything, what is no Exception too
        raise InputError(
            f"the {what} {point.name!r} of {origin(point)} cannot be imported: {in_words(error)}; mend or remove it"
        ) from error


def package_digest(point: importlib.metadata.EntryPoint) -> str:
    """The digest of an installed package: its name and version, and every Python file of the module or package named.

    So an edit in an editable installation counts although the version stays. What its files import from places where
    nothing is installed (`loose_modules`) counts as well. Imports nothing. Raises `InputError` when the module is not
    there.
    """
    top = point.module.partition(".")[0]
    homes = module_files(top)
    if not homes:
        raise InputError(f"{point.name!r} of {origin(point)} cannot be imported: there is no module {top!r}")
    return digest(f"{origin(point)}\n".encode() + contents(homes, top))
