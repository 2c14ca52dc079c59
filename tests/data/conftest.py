"""Shared corpora: real prose from the head of the embedded text, small enough to prepare in about a second."""

from __future__ import annotations

import itertools
import logging
import os
from pathlib import Path

import pytest
from hypothesis import settings

from tuneopt.data import Corpus, load_corpus
from tuneopt.data.sources import EmbeddedSource

os.environ.setdefault("RAYON_NUM_THREADS", "1")
settings.register_profile("steady", deadline=None)  # how long an example takes is up to the other work of the machine
settings.load_profile("steady")

VOCAB = 300


@pytest.fixture(scope="session")
def prose() -> tuple[str, ...]:
    """A hundred documents of about 6,000 characters."""
    return tuple(itertools.islice(EmbeddedSource().documents(), 100))


@pytest.fixture(scope="session")
def text_folder(prose: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prose in two text files with separators."""
    folder = tmp_path_factory.mktemp("texts") / "two-files"
    folder.mkdir()
    for name, part in (("a.txt", prose[:60]), ("b.txt", prose[60:])):
        (folder / name).write_text("\n<|endoftext|>\n".join(part) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def corpus(text_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """The text folder, prepared."""
    return load_corpus(str(text_folder), vocab_size=VOCAB, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("TUNEOPT_CACHE", str(tmp_path / "default-cache"))
    caplog.set_level(logging.INFO)
