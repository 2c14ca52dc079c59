"""Where a command reads and where it writes, looked at together before it does either.

After hours of training it would be too late to find that the report has no place, or that it is the place of what was
read. Two outputs at one place would leave one of them. What is looked at is the place itself: links, ``./a`` and
``a/../a`` are followed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tuneopt.errors import InputError
from tuneopt.paths import check_output, check_way, expanded, same_place

FILES = {"output": "the report", "save": "the study file"}
"""Options that name a file to write, and what is written."""

GROWING = {"tensorboard": "event files", "figures": "the figures", "mlflow": "runs of MLflow"}
"""Options that name a folder, or a data base, to which more is added."""

FOLDERS = {"tensorboard", "figures"}
"""Those of them that are folders."""

_WHAT = {**FILES, **GROWING}

_PAGES = (".html", ".htm")


def check_places(given: Mapping[str, Any]) -> None:
    """Raise `InputError` where a command would write over what it reads, or twice to one place.

    ``given`` are the values of its options and arguments by name. What is no output may name something that is read. A
    ledger is read and written, and nothing else goes into the folders that it fills.
    """
    words = [word for name, value in given.items() if name not in {*_WHAT, "ledger"} for word in _texts(value)]
    places = {name: _place(given, name) for name in _WHAT}
    written = {name: place for name, place in places.items() if place is not None}
    own = _ledger_places(given.get("ledger")) if written or given.get("corpus") else []
    sources = [*_files(words), *own]
    for name, place in written.items():
        what = _WHAT[name]
        if name in FILES:
            check_output(place, what, sources)
        elif any(same_place(place, source) for source in sources) or any(_inside(place, source) for source in own):
            raise InputError(f"cannot write {what} to {place}: this command reads what is there; name another place")
        if own and same_place(place, own[0].parent):
            raise InputError(f"cannot write {what} to {place}: it is the ledger; name another place")
        check_way(place if name in FOLDERS else place.parent, place, what)
        _check_corpora(place, what, words)
        for other in (other for other in written if other < name and same_place(place, written[other])):
            raise InputError(f"{what} and {_WHAT[other]} would both go to {place}; name two places")
    page, figures = written.get("output"), written.get("figures")
    if page and figures and page.suffix.lower() not in _PAGES and _inside(page, figures):
        raise InputError(f"cannot write the report to {page}, among the figures; name it with the ending .html")
    if own:  # its logs are lines of JSON, as text may be
        _check_corpora(own[0].parent / "logs" / "trial.jsonl", "the ledger", _texts(given.get("corpus")))


def _files(words: Iterable[str]) -> list[Path]:
    """What words of a command line name of files that are read.

    A word is a path, ``PATH.py:Class``, or ``NAME=PATH``; most are names of built-in things, and name no file.
    """
    named: list[Path] = []
    for word in filter(None, words):
        for end in (word, word.rpartition(":")[0], word.partition("=")[2]):
            with contextlib.suppress(OSError, InputError):  # no path at all: who reads it says so
                named += [path for path in [expanded(end)] if path.is_file()]
    return named


def _ledger_places(ledger: str | None) -> list[Path]:
    """The marker and the folders of a ledger on this machine."""
    from tuneopt.ledger import Ledger

    far = ledger is None or ("://" in ledger and not ledger.startswith("file://"))  # nobody is asked here
    return [] if ledger is None or far else Ledger(ledger).own_places


def _check_corpora(place: Path, what: str, words: Iterable[str]) -> None:
    """Raise `InputError` where ``what`` would become text of a corpus, or a file in a prepared one."""
    from tuneopt.data.manifest import MANIFEST_FILE
    from tuneopt.data.readers import ending

    for word in filter(None, words):
        try:
            folder = expanded(word)
            taken = folder.is_dir() and _inside(place, folder)
            taken = taken and (bool(ending(place)) or (folder / MANIFEST_FILE).is_file())
        except (OSError, InputError):
            continue  # who reads it says so
        if taken:
            raise InputError(f"cannot write {what} inside of {word}, whose files are read; name a place outside of it")


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list | tuple) else [value]
    return [str(one) for one in values if isinstance(one, str | Path)]


def _place(given: Mapping[str, Any], name: str) -> Path | None:
    """Where an option writes, or None; MLflow also takes addresses of servers."""
    value = given.get(name)
    if name == "mlflow" and value is not None:
        value = value.removeprefix("sqlite:///") if value.startswith("sqlite:///") else None
    return None if not value else expanded(value, f"--{name}")


def _inside(place: Path, folder: Path) -> bool:
    return Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder))
