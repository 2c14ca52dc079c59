"""Code from outside tuneopt: files that a user names, and entry points of installed packages.

Running a file runs whatever is in it. Only files and packages that the user asked for are run, and a file is known by
the SHA-256 of its content, so that nobody can mistake one version for another. The digest stands in the name of an
optimizer (``Lion@0123456789ab``), and so in the ids of its trials; workers get the text and not the path.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import linecache
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from tuneopt.errors import of_system
from tuneopt.paths import read_plain
from tuneopt.spec import InputError, OwnModel, TrialSpec, nearest

LARGEST_SOURCE = 4 << 20
"""Bytes of a Python file; one of ten thousand lines has a tenth of it."""

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
        raise InputError(f"the {what} {path} cannot be read: {reason(error)}") from None


def take_source(path: Path, what: str) -> str:
    """The digest of a file, whose text is kept for `source_of`; no code is run.

    Raises `InputError` for a missing file, and for one that imports what its digest would not cover.
    """
    text = read_source(path, what)
    mend = "which a trial's id would not cover; write both into one file or install them as a package"
    neighbours = sorted(name for name in imported(text) if _is_beside(path.parent, name))
    if neighbours:
        raise InputError(f"{path} imports {' and '.join(neighbours)} beside it, {mend}")
    loose = loose_modules(text)
    if loose:
        places = " and ".join(f"{name} from {place.parent}" for name, place in loose.items())
        raise InputError(f"{path} imports {places}, {mend}")
    name = digest(text.encode())
    SOURCES[name] = (text, str(path))
    return name


def source_of(name: str) -> str:
    """The text that a machine without the file needs to run ``Name@digest``; empty where it needs none."""
    return SOURCES.get(name.partition("@")[2], ("", ""))[0]


def adopt(name: str, text: str) -> None:
    """Take over the text of ``name`` from another machine; raises `InputError` when it is not what the name says."""
    if not text:
        return
    if digest(text.encode()) != name.partition("@")[2]:
        raise InputError(f"the source that came with {name} is another one; start the sweep again from its file")
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
    module = run_source(text, shown, what)
    if not hasattr(module, word):
        names = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise InputError(f"{shown} has no {kind} {word!r}; {nearest(word, names) if names else 'define one'}")
    return getattr(module, word)


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

    So an edit in an editable installation counts although the version stays. What its files import from places where
    nothing is installed (`loose_modules`) counts as well. Imports nothing. Raises `InputError` when the module is not
    there.
    """
    top = point.module.partition(".")[0]
    homes = module_files(top)
    if not homes:
        raise InputError(f"{point.name!r} of {origin(point)} cannot be imported: there is no module {top!r}")
    content = hashlib.sha256(f"{origin(point)}\n".encode())
    counted: set[Path] = set()
    waiting = [homes]
    while waiting:
        for name, file in waiting.pop(0).items():
            if file not in counted:
                counted.add(file)
                source = read_plain(file, LARGEST_SOURCE)
                content.update(f"{name}\n".encode())
                content.update(hashlib.sha256(source).digest())
                helpers = loose_modules(source)
                waiting += [module_files(helper) for helper in helpers if helper != top]
    return content.hexdigest()[:DIGITS]


def module_files(name: str) -> dict[str, Path]:
    """The Python files of a top-level module or package by their names in it, sorted; none where there is no module."""
    spec = _spec(name)
    if spec is None:
        return {}
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
    loose: dict[str, Path] = {}
    for name in sorted(imported(source) - sys.stdlib_module_names - {"tuneopt", "search_spaces"}):
        spec = _spec(name)
        places = [] if spec is None else list(spec.submodule_search_locations or ())
        place = places[0] if places else spec.origin if spec is not None else None
        if place is not None and Path(place).exists() and not _is_installed(name, Path(place).parent):
            loose[name] = Path(place)
    return loose


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


def _is_beside(folder: Path, name: str) -> bool:
    """Whether a module lies next to a file; a folder of Python files is a package without ``__init__.py`` too."""
    if name in ("tuneopt", "search_spaces"):  # its own checkout
        return False
    return (folder / f"{name}.py").is_file() or any((folder / name).glob("**/*.py"))


def _spec(name: str) -> importlib.machinery.ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a module that hides its own, as ``__main__`` does
        return None


def _is_installed(name: str, folder: Path) -> bool:
    """Whether an installer put a module into ``folder``, or (an editable installation) knows it by name."""
    places = {*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()}
    if str(folder) in places or any(folder.glob("*.dist-info")) or any(folder.glob("*.egg-info")):
        return True
    return name in _distributed()


@cache
def _distributed() -> Iterable[str]:
    """Names of all top-level modules that installed packages say they bring; reading that takes tenths of a second."""
    return frozenset(importlib.metadata.packages_distributions())
