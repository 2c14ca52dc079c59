"""Sources of the Hugging Face hub, through `datasets`, streamed: nothing is copied to this machine as a whole.

What `datasets.load_dataset` takes as a name is taken here: a data set of the hub, a folder, or a format such as
``json`` with ``data_files``. A shard is what `datasets` makes of one file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tuneopt.data.readers import document
from tuneopt.data.recipe.recipe import Hub, SourceRecipe
from tuneopt.spec import InputError


def pinned(source: SourceRecipe) -> SourceRecipe:
    """The source at a fixed revision, so that the text cannot change between two runs.

    Raises `InputError` when the hub does not answer or does not know the data set.
    """
    hub = source.hub
    if hub is None or source.files or hub.name.count("/") != 1 or Path(hub.name).exists():
        return source
    from huggingface_hub import HfApi

    try:
        revision = HfApi().dataset_info(hub.name, revision=hub.revision).sha
    except Exception as error:  # whatever goes wrong between here and there
        raise InputError(_unreachable("data set", hub.name, error)) from None
    return replace(source, hub=replace(hub, revision=revision))


def shards(source: SourceRecipe) -> int:
    """How many shards the data set has."""
    return int(_opened(source).num_shards)


def read_shard(source: SourceRecipe, number: int) -> Iterator[str]:
    """The documents of one shard; rows without text are skipped."""
    data = _opened(source)
    column = source.text or "text"
    hub = source.hub
    assert hub is not None
    row: dict[str, Any]
    try:
        for row in data.shard(num_shards=data.num_shards, index=number):
            if column not in row:
                raise InputError(
                    f"data set {hub.name!r} has no column {column!r} among {', '.join(map(repr, row))}; "
                    f"say text: COLUMN for source {source.name}"
                )
            text = row[column]
            if text is not None and not isinstance(text, str):
                raise InputError(f"column {column!r} of data set {hub.name!r} holds no text; name another")
            if text is not None:
                yield from document([text])
    except InputError:
        raise
    except Exception as error:  # the errors of every format and file system there is
        raise InputError(_unreachable("data set", hub.name, error)) from None


def tokenizer_text(name: str, revision: str | None) -> str:
    """The ``tokenizer.json`` of a name on the hub; raises `InputError` when it cannot be had."""
    from huggingface_hub import hf_hub_download

    from tuneopt.data.tokenizer import read_tokenizer

    try:
        path = hf_hub_download(name, "tokenizer.json", revision=revision)
    except Exception as error:
        raise InputError(_unreachable("tokenizer", name, error)) from None
    return read_tokenizer(Path(path))


def _opened(source: SourceRecipe) -> Any:
    assert source.hub is not None
    return _load(source.hub, os.getpid())


@lru_cache(maxsize=64)
def _load(hub: Hub, process: int) -> Any:
    """A streaming data set, kept for the process: listing the files of a large one takes seconds."""
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(
            hub.name,
            hub.config,
            split=hub.split,
            revision=hub.revision,
            data_files=list(hub.data_files) or None,
            streaming=True,
        )
    except Exception as error:
        raise InputError(_unreachable("data set", hub.name, error)) from None


def _unreachable(what: str, name: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return (
        f"the {what} {name!r} cannot be read through Hugging Face ({reason}); check its name and your access, "
        "or give files of your own"
    )
