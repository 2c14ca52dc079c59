"""Modules that code from outside imports: where they are, who put them there, and which files it opens besides.

An id of a trial covers a file's own text, and packages by their versions. What else changes the results of such code is
told apart here: modules that nobody installed, and packages that are installed from where people edit them. Nothing is
imported or run.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import site
import sys
import sysconfig
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tuneopt.paths import read_plain

LARGEST_SOURCE = 4 << 20
"""Bytes of a Python file; one of ten thousand lines has a tenth of it."""

_INSTALLED = frozenset({*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()})
"""Folders that installers put modules into, and Python's own."""


def contents(homes: dict[str, Path], top: str = "") -> bytes:
    """Names and digests of the files of a module ``top``, and of those that they import and that no version covers."""
    content = b""
    counted: set[Path] = set()
    waiting = [homes]
    while waiting:
        for name, file in waiting.pop(0).items():
            if file not in counted:
                counted.add(file)
                source = read_plain(file, LARGEST_SOURCE)
                content += f"{name}\n".encode() + hashlib.sha256(source).digest()
                helpers = {*loose_modules(source), *in_work(source)} - {top}
                waiting += [module_files(helper) for helper in sorted(helpers)]
    return content


def module_files(name: str) -> dict[str, Path]:
    """The Python files of a top-level module or package by their names in it, sorted; none where there is no module.

    Of one in an archive it is the archive.
    """
    spec = _spec(name)
    if spec is None:
        return {}
    if spec.origin is not None and not Path(spec.origin).exists():
        archive = next((place for place in Path(spec.origin).parents if place.is_file()), None)
        return {archive.name: archive} if archive else {}
    if spec.origin is not None and Path(spec.origin).name != "__init__.py":
        return {Path(spec.origin).name: Path(spec.origin)}
    folders = [Path(place) for place in spec.submodule_search_locations or ()]  # several where there is no __init__.py
    files = [(folder, file) for folder in folders for file in sorted(folder.rglob("*.py"))]
    return {file.relative_to(folder).as_posix(): file for folder, file in files if file.is_file()}


def loose_modules(source: str | bytes) -> dict[str, Path]:
    """Top-level modules that a source imports and that nobody installed, with the places where they are.

    They come through ``PYTHONPATH``, the current folder or a path file: an edit of one changes what runs, and neither
    the file's digest nor a package's version shows it. tuneopt's own checkout is not counted. Imports nothing.
    """
    return {name: place for name, place in _places(source).items() if not _is_installed(name, place.parent)}


def in_work(source: str | bytes) -> set[str]:
    """Top-level modules that a source imports and that are installed from where people edit them (``pip install -e``).

    Their versions stay as they are while their code changes.
    """
    fixed = tuple(map(str, _INSTALLED))
    outside = {name: place for name, place in _places(source).items() if not str(place).startswith(fixed)}
    return {
        name for name, place in outside.items()
        if _is_installed(name, place.parent) and not any(place.parent.glob("*.dist-info"))
    }  # fmt: skip


def _places(source: str | bytes) -> dict[str, Path]:
    """Where the top-level modules are that a source imports, sorted; without Python's own and tuneopt's."""
    names = sorted(imported(source) - sys.stdlib_module_names - {"tuneopt", "search_spaces"})
    return {name: place for name in names if (place := _place(name))}


def _place(name: str) -> Path | None:
    """The file or folder of a top-level module; None where there is none, and for a part of Python itself."""
    spec = _spec(name)
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    place = str(places[0] if places else spec.origin if spec is not None else "")
    return Path(place) if os.sep in place else None  # in an archive it is no file; a part of Python has a word


def imported(source: str | bytes) -> set[str]:
    """Names of the top-level modules that a source imports by statements, or by a call with the name as a text."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return set()  # running it says what is wrong
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module or "")
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                names.add(node.args[0].value)
    return {name.partition(".")[0] for name in names} - {""}


def is_beside(folder: Path, name: str) -> bool:
    """Whether a module lies next to a file; a folder of Python files is a package without ``__init__.py`` too."""
    if name in ("tuneopt", "search_spaces"):  # its own checkout
        return False
    endings = tuple(importlib.machinery.all_suffixes())
    beside = any((folder / f"{name}{ending}").is_file() for ending in endings)
    return beside or any(path.name.endswith(endings) for path in (folder / name).glob("**/*"))


def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a module that hides its own, as ``__main__`` does
        return None


def _is_installed(name: str, folder: Path) -> bool:
    """Whether an installer put a module into ``folder``, or (an editable installation) knows it by name."""
    if str(folder) in _INSTALLED or any(folder.glob("*.dist-info")) or any(folder.glob("*.egg-info")):
        return True
    return name in _distributed()


@cache
def _distributed() -> Iterable[str]:
    """Names of all top-level modules that installed packages say they bring; reading that takes tenths of a second."""
    return frozenset(importlib.metadata.packages_distributions())


_listening: list[tuple[int, set[Path]]] = []
"""Threads whose opened files are noted, each with where."""


@contextlib.contextmanager
def opened() -> Iterator[set[Path]]:
    """The files that this thread opens in the block, for reading or writing."""
    _install_hook()
    entry = threading.get_ident(), set[Path]()
    _listening.append(entry)
    try:
        yield entry[1]
    finally:
        _listening.remove(entry)


@cache
def _install_hook() -> None:
    """Hear of every file that is opened, by Python's own auditing; such a hook stays for the life of the process."""

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and _listening and isinstance(arguments[0], str | bytes):
            for thread, paths in _listening:
                if thread == threading.get_ident():
                    paths.add(Path(os.fsdecode(arguments[0])))

    sys.addaudithook(hear)


def source_file(path: Path) -> Path:
    """A file by its whole path; of what Python compiled and kept, the source."""
    if path.parent.name == "__pycache__":
        path = path.parent.parent / f"{path.name.partition('.')[0]}.py"
    return path.absolute()


def is_loose(path: Path, source: Path) -> bool:
    """Whether a file that code of ``source`` opened counts for what it does, and for no digest or version."""
    ours = Path(__file__).parent
    if any(path.is_relative_to(place) for place in (*map(Path, _INSTALLED), ours, ours.parent / "search_spaces")):
        return False
    if path.resolve() == source.resolve() or not path.is_file():
        return False
    if path.parent.suffix in (".egg-info", ".dist-info"):  # libraries list what is installed, a working folder's too
        return False
    if path.suffix in _CODE:
        tops = {name.partition(".")[0] for name, module in list(sys.modules.items()) if is_of(module, path)}
        return not any(_is_installed(top, place.parent) for top in tops if (place := _place(top)))
    return any(path.is_relative_to(folder.resolve()) for folder in (source.parent, Path.cwd()))


_CODE = (*importlib.machinery.all_suffixes(), ".zip", ".egg", ".whl")
"""Endings of what is run when it is read."""


def is_of(module: object, path: Path) -> bool:
    """Whether a loaded module came from that file."""
    return str(getattr(module, "__file__", "")) == str(path)
