"""Optimizers from outside tuneopt: of a user's file, of any installed library, or an entry point of a package.

Trials name them ``Name@digest``. For a file the digest is the SHA-256 of its content, for a package that of its version
and sources, so that a trial's id names what ran: an edited file gives new trials, and old ones are not taken for them.
A class of a library (``torch:NAdam``) is the file that imports it from the version that is installed and from no other.
The text of a file travels with the trial to whoever runs it; nothing is pickled. This module imports no torch.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import Any, NoReturn

from tuneopt import outside
from tuneopt.optim.info import BUILT_IN, GROUP, names
from tuneopt.paths import expanded
from tuneopt.spec import InputError, nearest

HOMES = {"torch": "torch.optim"}
"""Where a library keeps its optimizers, if not at its top."""

LIBRARY_TEXT = '''"""{name} of {distribution} {version}."""

from importlib.metadata import version

if version("{distribution}") != "{version}":
    raise ImportError("the trial names {distribution} {version}, here is " + version("{distribution}"))

from {home} import {name}  # noqa: E402, F401
'''
"""The file that stands for a class of a library; its digest covers the version."""


def of_library(word: str) -> bool:
    """Whether ``word`` names a class of an installed library, as ``torch:NAdam`` does."""
    return ":" in word and "/" not in word and ".py" not in word


def resolve(word: str) -> str:
    """The name under which trials run what a user calls ``word``; no code is run.

    ``word`` is a name that `info` lists, ``PATH.py:Class``, or ``LIBRARY:Class``. Raises `InputError` for a name that
    nobody or more than one has, a missing file or library, and a file that imports a neighbour, which its digest would
    not cover.
    """
    if of_library(word):
        return _library(word)
    if "/" in word or ".py" in word:
        path, colon, name = word.rpartition(":")
        if not colon or not name.isidentifier():
            raise InputError(f"{word!r} names no class; write the file and the class (or function) as PATH.py:Class")
        return _read(expanded(path), name)
    name, at, _ = word.partition("@")
    # A name with a digest comes from a record or a study: what it means is settled, and it is looked up as it is.
    if at:
        if not _at_hand(word):
            _missing(word)
        return word
    # A package must not take the name of a built-in optimizer: trials of both would go by one name.
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
    if digest in outside.SOURCES:
        return outside.attribute_of(name, "optimizer")
    point = outside.claimed(GROUP, word, "optimizer", False)
    if point is None and at:
        _missing(name)
    if point is None:
        _unknown(name)
    # A bare name takes what is installed; one with a digest wants exactly that.
    if at and (here := outside.package_digest(point)) != digest:
        raise InputError(
            f"the optimizer {word!r} of {outside.origin(point)} is {here} on this machine, and the trial names "
            f"{digest}; install one version everywhere"
        )
    return outside.load(point, "optimizer")


def account(name: str) -> dict[str, str]:
    """What the ledger keeps of a class from a file, so that its trials can be read and repeated; else nothing."""
    text = outside.source_of(name)
    return {"optimizer_source": text} if text else {}


def _library(word: str) -> str:
    library, _, name = word.partition(":")
    if not (name.isidentifier() and all(part.isidentifier() for part in library.split("."))):
        raise InputError(f"{word!r} names no class; write the library and the class as torch:NAdam")
    if name in {entry.name for entry in BUILT_IN}:
        raise InputError(f"{name!r} of {library} has the name of a built-in optimizer; import it in a file of yours")
    top = library.partition(".")[0]
    if importlib.util.find_spec(top) is None:
        raise InputError(f"{word} needs the library {top!r}, which is not installed here; pip install it")
    # The text that stands for the class has the version in it, so that another version is another optimizer.
    distributions = importlib.metadata.packages_distributions().get(top, [])
    if not distributions:
        raise InputError(f"{top!r} belongs to no installed package; name its file, as PATH.py:{name}")
    version = importlib.metadata.version(distributions[0])
    home = HOMES.get(library, library)
    text = LIBRARY_TEXT.format(name=name, distribution=distributions[0], version=version, home=home)
    return f"{name}@{outside.take_text(text, word)}"


def _read(path: Path, name: str) -> str:
    if name in {entry.name for entry in BUILT_IN}:
        raise InputError(f"{name!r} of {path} has the name of a built-in optimizer; rename it")
    return f"{name}@{outside.take_source(path, 'optimizer')}"


def _at_hand(name: str) -> bool:
    word, _, digest = name.partition("@")
    return digest in outside.SOURCES or word in outside.installed(GROUP)


def _unknown(name: str) -> NoReturn:
    raise InputError(f"unknown optimizer {name!r}; {nearest(name, names())}")


def _missing(name: str) -> NoReturn:
    word = name.partition("@")[0]
    raise InputError(f"the source of {name} is not at hand; give the file that it comes from as PATH.py:{word}")
