"""Sources that `datasets` finds: a data set of the hub, a folder of one, or a format with ``data_files``.

A data set of the hub is fixed by its revision, files by their sizes and times. `stream` reads them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tuneopt.data.recipe.recipe import FORMATS, Hub, SourceRecipe
from tuneopt.spec import InputError


def pinned(source: SourceRecipe) -> SourceRecipe:
    """The source at a fixed revision, so that the text cannot change between two runs.

    Raises `InputError` when the hub does not answer or does not know the data set.
    """
    hub = source.hub
    if hub is None or source.files or hub.folder is not None:
        return source
    from huggingface_hub import HfApi

    try:
        revision = HfApi().dataset_info(hub.name, revision=hub.revision).sha
    except Exception as error:  # whatever goes wrong between here and there
        raise InputError(unreachable("data set", hub.name, error)) from None
    return replace(source, hub=replace(hub, revision=revision))


def files(source: SourceRecipe) -> list[list[str]]:
    """What tells the files of a source from other ones: name, size and time, or the mark that a server gives them.

    Empty for a data set of the hub, which is told by its revision. Raises `InputError` for files that cannot be found.
    """
    hub = source.hub
    if hub is None or hub.folder is None:
        return []
    try:
        listing = []
        for split, paths in builder(hub).config.data_files.items():
            local = [Path(path) for path in paths if "://" not in path]
            listing += [[str(split), path.name, *map(str, _size_and_time(path))] for path in local]
            if len(local) < len(paths):
                listing.append([str(split), *paths, str(paths.origin_metadata)])
    except Exception as error:
        raise InputError(unreachable("data set", hub.name, error)) from None
    return listing


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def tokenizer_text(name: str, revision: str | None) -> str:
    """The ``tokenizer.json`` of a name on the hub; raises `InputError` when it cannot be had."""
    from huggingface_hub import hf_hub_download

    from tuneopt.data.tokenizer import read_tokenizer

    try:
        path = hf_hub_download(name, "tokenizer.json", revision=revision)
    except Exception as error:
        raise InputError(unreachable("tokenizer", name, error)) from None
    return read_tokenizer(Path(path))


def builder(hub: Hub) -> Any:
    """What `datasets.load_dataset` streams from; raises what goes wrong between here and the files."""
    import datasets

    datasets.disable_progress_bars()
    name, revision, data_files = str(hub.folder or hub.name), hub.revision, list(hub.data_files)
    if hub.name in FORMATS:
        name, data_files = hub.name, [_below(str(hub.folder), each) for each in data_files]
    elif hub.format is not None:
        root = name if hub.folder else f"hf://datasets/{name}" + (f"@{quote(revision, safe='')}" if revision else "")
        name, revision, data_files = hub.format, None, [_below(root, each) for each in data_files]
    found = datasets.load_dataset_builder(name, hub.config, revision=revision, data_files=data_files or None)
    if not any((found.config.data_files or {}).values()):
        raise FileNotFoundError(f"there is no file {' or '.join(data_files)}".rstrip())
    return found


def _below(root: str, pattern: str) -> str:
    """A path or pattern relative to ``root``; a URL as it is."""
    return pattern if "://" in pattern or Path(pattern).is_absolute() else f"{root}/{pattern}"


def unreachable(what: str, name: str, error: Exception) -> str:
    """One sentence for whatever went wrong between here and there."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return (
        f"the {what} {name!r} cannot be read through Hugging Face ({reason}); check its name, your "
        "connection and your access, or give files of your own"
    )
