"""Damaged shards: found when a process opens the corpus, rebuilt where the text is known, else said in one sentence."""

import os
import shutil
from pathlib import Path

import pytest

from tuneopt.data import Corpus, load_corpus, manifest, open_corpus
from tuneopt.data.manifest import DamagedCorpusError


def shard(corpus: Corpus, split: str = "train") -> Path:
    return corpus.folder / corpus.manifest.splits[split].shards[0].file


@pytest.fixture
def prepared(text_folder: Path, tmp_path: Path) -> Corpus:
    return load_corpus(str(text_folder), vocab_size=300, cache_dir=tmp_path / "cache")


def overwrite(path: Path) -> None:
    """The same size and another token, as a failing disk makes it."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("harm", [overwrite, truncate, Path.unlink])
def test_a_damaged_shard_is_found_and_built_again(prepared: Corpus, text_folder: Path, tmp_path: Path, harm) -> None:
    expected, before = shard(prepared).read_bytes(), prepared.id
    harm(shard(prepared))
    with pytest.raises(DamagedCorpusError, match=r"is damaged \(train-00000\.arrow .*prepare it again"):
        open_corpus(prepared.folder)
    again = load_corpus(str(text_folder), vocab_size=300, cache_dir=tmp_path / "cache")
    assert again.id == before and shard(again).read_bytes() == expected and again.verify() == []


def test_a_file_is_read_once_per_process_and_change(prepared: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole = manifest.file_sha256
    monkeypatch.setattr(manifest, "file_sha256", lambda path: read.append(path.name) or whole(path))
    open_corpus(prepared.folder)
    open_corpus(prepared.folder)
    assert "train-00000.arrow" not in read, "the process that prepared it has read it already"
    os.utime(shard(prepared))
    open_corpus(prepared.folder)
    assert read.count("train-00000.arrow") == 1


def test_large_corpora_go_by_size(prepared: Corpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(prepared.folder, copy)
    monkeypatch.setattr(manifest, "CHECKED_BYTES", 10)
    overwrite(copy / shard(prepared).name)
    assert open_corpus(copy).verify() != []
    truncate(copy / shard(prepared).name)
    with pytest.raises(DamagedCorpusError, match="bytes"):
        open_corpus(copy)
