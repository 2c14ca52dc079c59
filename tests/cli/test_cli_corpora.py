"""`tuneopt data prepare` and `inspect` as users run them, and training on what they made."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tuneopt.cli import main
from tuneopt.data.sources import EmbeddedSource


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["tuneopt", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("recipes")
    texts = list(itertools.islice(EmbeddedSource().documents(), 150))
    (root / "web.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts[:140]))
    (root / "held.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts[120:]))
    (root / "recipe.yaml").write_text(
        "name: small\ntokenizer: {train: 400}\nsources:\n  web: {files: web.jsonl, weight: 1}\n"
        "evaluation: {sources: {held: {files: held.jsonl}}}\nguard: {ngram: 0}\nshard_tokens: 100000\n"
    )
    return root


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Path:
    from tuneopt import api

    api.prepare_corpus(folder / "recipe.yaml", folder / "corpora" / "small", workers=0)
    return folder / "corpora" / "small"


def test_prepare_puts_a_corpus_where_the_recipe_says_and_is_done_the_second_time(
    folder: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    code, out, err = run(capsys, monkeypatch, "data", "prepare", "recipe.yaml", "--workers", "0", "--json")
    document = json.loads(out)
    assert code == 0 and err == ""
    assert document["reused"] is True and Path(document["folder"]) == prepared
    code, out, _ = run(
        capsys, monkeypatch, "data", "prepare", "recipe.yaml", "--workers", "0", "--out", "other", "--set", "tokens=5e4"
    )
    assert code == 0 and "50000 tokens were reached" in out
    assert (folder / "other" / "manifest.json").is_file()


def test_inspect_shows_counts_mixture_guard_and_samples(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, monkeypatch, "data", "inspect", str(prepared), "--json")
    document: dict[str, Any] = json.loads(out)
    assert code == 0
    splits = {entry["split"]: entry for entry in document["splits"]}
    assert splits["train"]["documents"] == 120 and splits["train"]["shards"] >= 3
    assert splits["select"]["documents"] + splits["report"]["documents"] == 30
    assert document["guard"]["kept_out_equal"] == 20
    assert document["mixture"][0]["source"] == "web" and document["mixture"][0]["share"] == 1.0
    assert document["tokens_per_byte"] == pytest.approx(1 / document["bytes_per_token"], rel=1e-3)
    assert {sample["split"] for sample in document["samples"]} == {"train", "select", "report"}
    assert all(sample["text"] and sample["source"] in ("web", "held") for sample in document["samples"])
    code, out, _ = run(capsys, monkeypatch, "data", "inspect", str(prepared))
    assert code == 0
    assert "kept out of training: 20 equal, 0 sharing" in out and "train ended: source web ran out" in out
    head = out.split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in head][:2] == ["corpus", "fingerprint"]
    assert all(line == line.rstrip() for line in head), "padded to the width of the longest value"


def test_a_folder_of_text_is_inspected_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, monkeypatch, "data", "inspect", str(folder / "web.jsonl"), "--json")
    document = json.loads(out)
    assert code == 0 and document["mixture"] == [] and document["guard"] is None
    assert [sample["source"] for sample in document["samples"]] == [None] * 3


@pytest.mark.slow
def test_a_trial_trains_on_a_prepared_corpus(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tuneopt.data import open_corpus
    from tuneopt.ledger import open_ledger

    code, _, err = run(
        capsys, monkeypatch, "train", "--optimizer", "lion", "--corpus", str(prepared), "--ratio", "0.03",
        "--ledger", str(tmp_path / "ledger"), "--no-compile",
    )  # fmt: skip
    assert code == 0, err
    (record,) = open_ledger(str(tmp_path / "ledger")).records()
    assert record.spec.regime.corpus == open_corpus(prepared).id
    assert record.spec.regime.corpus.vocab_size == 400
    assert record.select_loss is not None and record.select_loss < 6.0


@pytest.mark.slow
def test_a_sweep_runs_on_a_prepared_corpus(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(
        capsys, monkeypatch, "tune", "--optimizer", "lion", "--corpus", str(prepared), "--ratio", "0.03",
        "--no-compile", "--replicates", "1", "--ledger", str(tmp_path / "ledger"), "--json",
        *(word for name in ("learning_rate=0.004", "weight_decay=0.1", "warmup=0.1", "beta1=0.9", "beta2=0.95")
          for word in ("--set", name)),
    )  # fmt: skip
    assert code in (0, 3), err
    document = json.loads(out)
    assert document["regime"]["corpus"] == "small" and document["trials"]["run"] >= 1


def test_an_unfinished_corpus_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "half" / ".preparing").mkdir(parents=True)
    code, out, err = run(capsys, monkeypatch, "data", "inspect", str(tmp_path / "half"))
    assert (code, out) == (2, "")
    assert "is not finished" in err and len(err.splitlines()) == 1
