"""Preparing a corpus on Ray Data: the same bytes as from this process, and its errors in one sentence."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import pytest

from tuneopt import api
from tuneopt.data.sources import EmbeddedSource
from tuneopt.spec import InputError


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_a_cluster_writes_the_same_bytes_and_says_what_is_wrong(tmp_path: Path) -> None:
    texts = list(itertools.islice(EmbeddedSource().documents(), 120))
    for name, part in (("web", texts[:80]), ("code", texts[80:110]), ("held", texts[110:])):
        lines = [json.dumps({"text": text}) for text in part]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "empty.jsonl").write_text("\n")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: small\ntokenizer: {train: 400}\n"
        "sources:\n  web: {files: [web.jsonl, empty.jsonl], weight: 3}\n  code: {files: code.jsonl, weight: 1}\n"
        "evaluation: {sources: {held: {files: held.jsonl}}}\nshard_tokens: 50000\n"
    )
    here = api.prepare_corpus(recipe, tmp_path / "here", workers=0).corpus
    there = api.prepare_corpus(recipe, tmp_path / "there", address="local").corpus
    assert digests(there.folder) == digests(here.folder)
    with (tmp_path / "code.jsonl").open("a") as stream:
        stream.write("\n{")
    with pytest.raises(InputError, match=r"code\.jsonl:31: not valid JSON"):
        api.prepare_corpus(recipe, tmp_path / "bad", address="local")
