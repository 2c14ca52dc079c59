"""Optimizers from outside tuneopt: a class in a user's file, or an entry point of an installed package.

Trials name them ``Name@digest``. For a file the digest is the SHA-256 of its content, for a package that of its version
and sources, so that a trial's id names what ran: an edited file gives new trials, and old ones are not taken for them.
The text of a file travels with the trial to whoever runs it; nothing is pickled. This module imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from tuneopt import outside
from tuneopt.optim.info import BUILT_IN, GROUP, names
from tuneopt.paths import expanded
from tuneopt.spec import InputError, nearest

_SOURCES: dict[str, tuple[str, str]] = {}
"""Digest -> (text, file name for people) of the files that this process was given."""


def resolve(word: str) -> str:
    """The name under which trials run what a user calls ``word``; no code is run.

    ``word`` is a name that `info` lists, or ``PATH.py:Class``. Raises `InputError` for a name that nobody or more than
    one has, a missing file, and a file that imports a neighbour, which its digest would not cover.
    """
    if "/" in word or ".py" in word:
        path, colon, name = word.rpartition(":")
        if not colon or not name.isidentifier():
            raise InputError(f"{word!r} names no class; write the file and the class as PATH.py:Class")
        return _read(expanded(path), name)
    name, at, _ = word.partition("@")
    if at:
        if not _at_hand(word):
            _missing(word)
        return word
    built_in = name in {entry.name for entry in BUILT_IN}
    point = outside.claimed(GROUP, name, "optimizer", built_in)
    if point is not None:
        return f"{name}@{outside.package_digest(point)}"
    return name if built_in else _unknown(name)


def load(name: str) -> Any:
    """What stands behind ``Name@digest``, or behind the bare name of an installed optimizer; its code is run.

    Raises `InputError` when it is not at hand here, is another version than the name says, or cannot be run.
    """
    word, at, digest = name.partition("@")
    if digest in _SOURCES:
        text, shown = _SOURCES[digest]
        module = outside.run_source(text, shown, "optimizer")
        if not hasattr(module, word):
            classes = [key for key, value in vars(module).items() if isinstance(value, type)]
            raise InputError(f"{shown} has no class {word!r}; {nearest(word, classes)}")
        return getattr(module, word)
    point = outside.claimed(GROUP, word, "optimizer", False)
    if point is None and at:
        _missing(name)
    if point is None:
        _unknown(name)
    if at and (here := outside.package_digest(point)) != digest:
        raise InputError(
            f"the optimizer {word!r} of {outside.origin(point)} is {here} on this machine, and the trial names "
            f"{digest}; install one version everywhere"
        )
    return outside.load(point, "optimizer")


def source_of(name: str) -> str:
    """The text that a machine without the file needs to run ``name``; empty where it needs none."""
    return _SOURCES.get(name.partition("@")[2], ("", ""))[0]


def account(name: str) -> dict[str, str]:
    """What the ledger keeps of a class from a file, so that its trials can be read and repeated; else nothing."""
    text = source_of(name)
    return {"optimizer_source": text} if text else {}


def adopt(name: str, text: str) -> None:
    """Take over the text of ``name`` from another machine; raises `InputError` when it is not what the name says."""
    if not text:
        return
    if outside.digest(text.encode()) != name.partition("@")[2]:
        raise InputError(f"the source that came with {name} is another one; start the sweep again from its file")
    _SOURCES.setdefault(name.partition("@")[2], (text, f"the file of {name}"))


def _read(path: Path, name: str) -> str:
    text = outside.read_source(path, "optimizer")
    if name in {entry.name for entry in BUILT_IN}:
        raise InputError(f"the class {name!r} of {path} has the name of a built-in optimizer; rename it")
    mend = "which a trial's id would not cover; write both into one file or install them as a package"
    neighbours = sorted(name for name in outside.imported(text) if _is_beside(path.parent, name))
    if neighbours:
        raise InputError(f"{path} imports {' and '.join(neighbours)} beside it, {mend}")
    loose = outside.loose_modules(text)
    if loose:
        places = " and ".join(f"{name} from {place.parent}" for name, place in loose.items())
        raise InputError(f"{path} imports {places}, {mend}")
    digest = outside.digest(text.encode())
    _SOURCES[digest] = (text, str(path))
    return f"{name}@{digest}"


def _is_beside(folder: Path, name: str) -> bool:
    """Whether a module lies next to a file; a folder of Python files is a package without ``__init__.py`` too."""
    if name in ("tuneopt", "search_spaces"):  # its own checkout
        return False
    return (folder / f"{name}.py").is_file() or any((folder / name).glob("**/*.py"))


def _at_hand(name: str) -> bool:
    word, _, digest = name.partition("@")
    return digest in _SOURCES or word in outside.installed(GROUP)


def _unknown(name: str) -> NoReturn:
    raise InputError(f"unknown optimizer {name!r}; {nearest(name, names())}")


def _missing(name: str) -> NoReturn:
    word = name.partition("@")[0]
    raise InputError(f"the source of {name} is not at hand; give the file that it comes from as PATH.py:{word}")
