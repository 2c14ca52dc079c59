"""The documents of sources that `datasets` finds, streamed: nothing is copied to this machine as a whole.

A shard is what `datasets` makes of one file. Of Parquet only the column of the text is read, and JSON is read line by
line as files of this machine are, because `datasets` would cast all columns of all files to those of the first.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from tuneopt.data.readers import TEXT_COLUMN, document, jsonl_stream, kind_of
from tuneopt.data.recipe.hub import builder, unreachable
from tuneopt.data.recipe.recipe import Hub, SourceRecipe
from tuneopt.spec import InputError


def shards(source: SourceRecipe) -> int:
    """How many shards the data set has."""
    data = _opened(source)
    return len(data) if isinstance(data, list) else int(data.num_shards)


def read_shard(source: SourceRecipe, number: int) -> Iterator[str]:
    """The documents of one shard; rows without text are skipped."""
    data = _opened(source)
    hub = source.hub
    assert hub is not None
    try:
        if isinstance(data, list):
            yield from _lines(data[number], source.text)
        else:
            yield from _rows(data.shard(num_shards=data.num_shards, index=number), source, hub)
    except InputError:
        raise
    except Exception as error:  # the errors of every format and file system there is
        raise InputError(unreachable("data set", hub.name, error)) from None


def _lines(path: str, column: str | None) -> Iterator[str]:
    from datasets.utils.file_utils import xopen  # tries again where a connection breaks

    with xopen(path, "rb") as stream:
        yield from jsonl_stream(stream, path, column)


def _rows(data: Any, source: SourceRecipe, hub: Hub) -> Iterator[str]:
    column = source.text or TEXT_COLUMN
    row: dict[str, Any]
    for row in data:
        if column not in row:
            raise InputError(
                f"data set {hub.name!r} has no column {column!r} among {', '.join(map(repr, row))}; "
                f"say text: COLUMN for source {source.name}"
            )
        text = row[column]
        if text is not None and not isinstance(text, str):
            raise InputError(
                f"column {column!r} of data set {hub.name!r} holds {kind_of(text)}, not a string; name the column "
                f"of the text for source {source.name}"
            )
        if text is not None:
            yield from document([text])


def _opened(source: SourceRecipe) -> Any:
    assert source.hub is not None
    return _load(source.hub, source.text or TEXT_COLUMN, os.getpid())


def forget() -> None:
    """Look for files anew: what this process knows of them may be of an earlier corpus."""
    _load.cache_clear()


@lru_cache(maxsize=64)
def _load(hub: Hub, column: str, process: int) -> Any:
    """Paths of JSON lines, or a streaming data set; kept for the process: listing the files of a large one takes long.

    Raises `InputError` when it cannot be had.
    """
    from datasets.packaged_modules.json.json import Json

    try:
        found = builder(hub)
        if isinstance(found, Json):
            files = found.config.data_files
            if hub.split not in files:
                raise ValueError(f"no split {hub.split!r} among {', '.join(map(repr, map(str, files)))}")
            return list(files[hub.split])
        if hasattr(found.config, "columns"):
            found.config.columns = [column]
        data = found.as_streaming_dataset(split=hub.split)
    except Exception as error:
        raise InputError(unreachable("data set", hub.name, error)) from None
    if data.features is not None and column not in data.features:
        raise InputError(f"data set {hub.name!r} has no column {column!r}; say text: COLUMN for its source")
    return data
