from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tuneopt.data import Corpus
from tuneopt.data.manifest import MANIFEST_FILE, DamagedCorpusError, Manifest
from tuneopt.spec import InputError


@pytest.fixture
def plain(corpus: Corpus) -> dict[str, Any]:
    return json.loads((corpus.folder / MANIFEST_FILE).read_text())


def test_json_and_back_is_the_same(corpus: Corpus, plain: dict[str, Any], tmp_path: Path) -> None:
    assert Manifest.from_dict(plain).to_dict() == corpus.manifest.to_dict()
    corpus.manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == Manifest.read(corpus.folder)


def test_the_manifest_states_counts_rule_and_checksums(
    corpus: Corpus, plain: dict[str, Any], prose: tuple[str, ...]
) -> None:
    entries = plain["splits"]
    assert plain["schema"] == 1
    assert sum(entry["documents"] for entry in entries.values()) == len(prose)
    assert sum(entry["bytes"] for entry in entries.values()) == sum(len(text.encode()) for text in prose)
    assert plain["tokenizer"]["training_bytes"] == entries["train"]["bytes"]
    assert "SHA-256" in plain["split_rule"]
    assert all(len(shard["sha256"]) == 64 for entry in entries.values() for shard in entry["shards"])


def test_the_fingerprint_covers_content_and_nothing_else(corpus: Corpus) -> None:
    manifest = corpus.manifest
    same = [
        {"corpus": "other"},
        {"versions": {}},
        {"tokenizer": dataclasses.replace(manifest.tokenizer, sha256="0" * 64)},
    ]
    for change in same:
        assert dataclasses.replace(manifest, **change).fingerprint == manifest.fingerprint
    splits = {**manifest.splits, "report": dataclasses.replace(manifest.splits["report"], sha256="0" * 64)}
    tokenizer = dataclasses.replace(manifest.tokenizer, content_sha256="0" * 64)
    other = [{"splits": splits}, {"tokenizer": tokenizer}, {"split_rule": "another"}, {"vocab_size": 301}]
    prints = {dataclasses.replace(manifest, **change).fingerprint for change in other}
    assert len(prints | {manifest.fingerprint}) == 5


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema": 99}, "schema 99"),
        ({"fingerprint": "0" * 16}, "fingerprint"),
        ({"surprise": 1}, "surprise"),
        ({"splits": {}}, "splits"),
        ({"tokenizer": None}, "manifest.json"),
    ],
)
def test_a_manifest_that_is_none_says_why(
    plain: dict[str, Any], tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    (tmp_path / MANIFEST_FILE).write_text(json.dumps({**plain, **change}))
    with pytest.raises(DamagedCorpusError, match="delete that folder") as error:
        Manifest.read(tmp_path)
    assert why in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "{", '"text"', "null", "[" * 100_000])
def test_other_text_is_no_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(text)
    with pytest.raises(InputError, match="damaged"):
        Manifest.read(tmp_path)


def test_shards_that_do_not_add_up_are_noticed(plain: dict[str, Any], tmp_path: Path) -> None:
    plain["splits"]["train"]["tokens"] += 1
    (tmp_path / MANIFEST_FILE).write_text(json.dumps(plain))
    with pytest.raises(DamagedCorpusError, match="do not add up"):
        Manifest.read(tmp_path)
