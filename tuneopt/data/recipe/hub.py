"""Sources that `datasets` finds: a data set of the hub, a folder of one, or a format with ``data_files``.

A data set of the hub is fixed by its revision, files by their sizes and times. Documents are streamed: nothing is
copied to this machine as a whole. A shard is what `datasets` makes of one file. Of Parquet only the column of the text
is read, and JSON is read line by line as files of this machine are, because `datasets` would cast all columns of all
files to those of the first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tuneopt.data.readers import TEXT_COLUMN, document, jsonl_stream, kind_of
from tuneopt.data.recipe.recipe import FORMATS, Hub, SourceRecipe
from tuneopt.data.tokenizer import read_tokenizer
from tuneopt.spec import InputError


@contextmanager
def _reaching(what: str, name: str) -> Iterator[None]:
    """One sentence for whatever goes wrong between here and there: every format and file system has its own errors."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"the {what} {name!r} cannot be read through Hugging Face ({reason}); check its name, your "
            "connection and your access, or give files of your own"
        ) from None


def pinned(source: SourceRecipe) -> SourceRecipe:
    """The source at a fixed revision, so that the text cannot change between two runs.

    Files, and folders of this machine, have none; `units.stamp` tells whether they changed.
    Raises `InputError` when the hub does not answer or does not know the data set.
    """
    hub = source.hub
    if hub is None or source.files or hub.folder is not None:
        return source
    from huggingface_hub import HfApi

    with _reaching("data set", hub.name):
        revision = HfApi().dataset_info(hub.name, revision=hub.revision).sha
    return replace(source, hub=replace(hub, revision=revision))


def files(hub: Hub) -> list[list[str]]:
    """What tells the files of a source from other ones: name, size and time, or the mark that a server gives them.

    Empty for a data set of the hub, which is told by its revision. Raises `InputError` for files that cannot be found.
    """
    if hub.folder is None:
        return []
    listing = []
    with _reaching("data set", hub.name):
        for split, paths in builder(hub).config.data_files.items():
            local = [Path(path) for path in paths if "://" not in path]
            for path in local:
                status = path.stat()
                listing.append([str(split), path.name, str(status.st_size), str(status.st_mtime_ns)])
            if len(local) < len(paths):
                listing.append([str(split), *paths, str(paths.origin_metadata)])  # ETags, or what the server has
    return listing


def tokenizer_text(name: str, revision: str | None) -> str:
    """The ``tokenizer.json`` of a name on the hub; raises `InputError` when it cannot be had."""
    from huggingface_hub import hf_hub_download

    with _reaching("tokenizer", name):
        path = hf_hub_download(name, "tokenizer.json", revision=revision)
    return read_tokenizer(Path(path))


def builder(hub: Hub) -> Any:
    """What `datasets.load_dataset` streams from; raises what goes wrong between here and the files.

    Three cases: a format and files; the files of a data set, read as a format; a data set as it describes itself.
    """
    import datasets

    datasets.disable_progress_bars()

    def below(root: str, pattern: str) -> str:
        return pattern if "://" in pattern or Path(pattern).is_absolute() else f"{root}/{pattern}"

    name, revision, data_files = str(hub.folder or hub.name), hub.revision, list(hub.data_files)
    if hub.name in FORMATS:
        name, data_files = hub.name, [below(str(hub.folder), pattern) for pattern in data_files]
    elif hub.format is not None:
        root = name if hub.folder else f"hf://datasets/{name}" + (f"@{quote(revision, safe='')}" if revision else "")
        name, revision, data_files = hub.format, None, [below(root, pattern) for pattern in data_files]
    made = datasets.load_dataset_builder(name, hub.config, revision=revision, data_files=data_files or None)
    if not any((made.config.data_files or {}).values()):
        raise FileNotFoundError(f"there is no file {' or '.join(data_files)}".rstrip())
    return made


def shards(source: SourceRecipe) -> int:
    """How many shards the data set has: as many as files, for the formats that are read as streams."""
    data = _opened(source)
    return len(data) if isinstance(data, list) else int(data.num_shards)


def read_shard(source: SourceRecipe, number: int) -> Iterator[str]:
    """The documents of one shard; rows without text are skipped."""
    data = _opened(source)
    assert source.hub is not None
    with _reaching("data set", source.hub.name):
        if isinstance(data, list):
            from datasets.utils.file_utils import xopen  # tries again where a connection breaks

            with xopen(data[number], "rb") as stream:
                yield from jsonl_stream(stream, data[number], source.text)
            return
        column = source.text or TEXT_COLUMN
        row: dict[str, Any]
        for row in data.shard(num_shards=data.num_shards, index=number):
            if column not in row:
                raise InputError(
                    f"data set {source.hub.name!r} has no column {column!r} among {', '.join(map(repr, row))}; "
                    f"say text: COLUMN for source {source.name}"
                )
            text = row[column]
            if text is not None and not isinstance(text, str):
                raise InputError(
                    f"column {column!r} of data set {source.hub.name!r} holds {kind_of(text)}, not a string; name "
                    f"the column of the text for source {source.name}"
                )
            if text is not None:
                yield from document([text])


def _opened(source: SourceRecipe) -> Any:
    """What this process reads a source's shards from: a list of JSON files, or a streaming data set."""
    assert source.hub is not None
    return _load(source.hub, source.text or TEXT_COLUMN, os.getpid())


def forget() -> None:
    """Look for files anew: what this process knows of them may be of an earlier corpus."""
    _load.cache_clear()


@lru_cache(maxsize=64)
def _load(hub: Hub, column: str, process: int) -> Any:
    """Paths of JSON lines, or a streaming data set; kept for the process: listing the files of a large one takes long.

    ``process`` is a part of the key because a forked child must not use its parent's connections. Raises `InputError`
    when it cannot be had.
    """
    from datasets.packaged_modules.json.json import Json

    with _reaching("data set", hub.name):
        made = builder(hub)
        if isinstance(made, Json):  # paths alone: `readers` reads the lines
            paths = made.config.data_files
            if hub.split not in paths:
                raise ValueError(f"no split {hub.split!r} among {', '.join(map(repr, map(str, paths)))}")
            return list(paths[hub.split])
        if hasattr(made.config, "columns"):  # Parquet: the other columns are never downloaded
            made.config.columns = [column]
        data = made.as_streaming_dataset(split=hub.split)
    if data.features is not None and column not in data.features:
        raise InputError(f"data set {hub.name!r} has no column {column!r}; say text: COLUMN for its source")
    return data
