from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tuneopt.data import Corpus, load_corpus, open_corpus
from tuneopt.data import prepare as module
from tuneopt.data.manifest import DamagedCorpusError
from tuneopt.data.sources import find_source
from tuneopt.data.splits import SPLITS
from tuneopt.spec import InputError

VOCAB = 300


def _decoded(corpus: Corpus, name: str) -> list[str]:
    """The documents of a split, back from its tokens."""
    tokens = corpus.split(name).windows(1).take(np.arange(corpus.split(name).tokens - 1))
    stream = np.append(tokens[:, 0], tokens[-1, 1])
    assert stream[-1] == 0
    ends = np.flatnonzero(stream == 0)
    tokenizer = corpus.tokenizer
    return [
        tokenizer.decode(part.tolist()) for part in np.split(stream[:-1], ends[:-1] + 1) for part in [part[part != 0]]
    ]


def test_every_document_is_in_one_split_and_whole(corpus: Corpus, prose: tuple[str, ...]) -> None:
    splits = {name: _decoded(corpus, name) for name in SPLITS}
    assert sorted(text for texts in splits.values() for text in texts) == sorted(prose)
    assert [len(splits[name]) for name in SPLITS] == [corpus.split(name).documents for name in SPLITS]
    assert set(splits["train"]).isdisjoint(splits["select"] + splits["report"])
    assert set(splits["select"]).isdisjoint(splits["report"])
    assert splits["train"] == [text for text in prose if text in set(splits["train"])]


def test_identical_documents_share_a_split(prose: tuple[str, ...], tmp_path: Path) -> None:
    rows = [{"text": text} for text in prose[:25] * 3]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    corpus = load_corpus(str(tmp_path), vocab_size=VOCAB)
    splits = [_decoded(corpus, name) for name in SPLITS]
    assert sum(map(len, splits)) == 75
    assert sum(len(set(texts)) for texts in splits) == 25


def test_counts_agree_with_the_tokens(corpus: Corpus, prose: tuple[str, ...]) -> None:
    total = sum(corpus.split(name).tokens for name in SPLITS)
    assert corpus.bytes_per_token == pytest.approx(sum(len(text.encode()) for text in prose) / total)
    assert 1.2 < corpus.split("select").bytes_per_token < 2
    assert corpus.id.name == "two-files"
    assert corpus.id.vocab_size == VOCAB
    assert corpus.id.fingerprint == corpus.manifest.fingerprint


def test_the_tokenizer_learns_from_the_train_split_alone(
    corpus: Corpus, prose: tuple[str, ...], tmp_path: Path
) -> None:
    held_out = {*_decoded(corpus, "select"), *_decoded(corpus, "report")}
    from tuneopt.data.tokenizer import content_sha256, train_tokenizer

    alone = train_tokenizer([text for text in prose if text not in held_out], VOCAB)
    assert content_sha256(alone) == corpus.manifest.tokenizer.content_sha256
    assert content_sha256(train_tokenizer(prose, VOCAB)) != content_sha256(alone)


def test_a_bounded_tokenizer_sample_is_counted(corpus: Corpus, text_folder: Path, tmp_path: Path) -> None:
    manifest = module.prepare(find_source(str(text_folder)), VOCAB, tmp_path, training_bytes=50_000)
    assert 50_000 <= manifest.tokenizer.training_bytes < 90_000
    assert manifest.split_rule == corpus.manifest.split_rule
    assert manifest.fingerprint != corpus.manifest.fingerprint


def test_the_fingerprint_does_not_depend_on_file_form_or_place(
    corpus: Corpus, prose: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    pq.write_table(pa.table({"text": list(prose)}), tmp_path / "elsewhere" / "all.parquet", row_group_size=7)
    again = load_corpus(str(tmp_path / "elsewhere"), vocab_size=VOCAB)
    assert again.id.fingerprint == corpus.id.fingerprint
    assert again.folder != corpus.folder


def test_a_second_load_prepares_nothing(
    corpus: Corpus, text_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("prepared again")

    monkeypatch.setattr(module, "prepare", never)
    cache = corpus.folder.parents[1]
    assert load_corpus(str(text_folder), vocab_size=VOCAB, cache_dir=cache).folder == corpus.folder
    monkeypatch.setenv("TUNEOPT_CACHE", str(cache))
    assert load_corpus(str(text_folder), vocab_size=VOCAB).folder == corpus.folder
    with pytest.raises(AssertionError):
        load_corpus(str(text_folder), vocab_size=VOCAB, cache_dir=tmp_path)  # the argument wins


def test_changed_text_and_another_vocabulary_are_other_corpora(prose: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n<|endoftext|>\n".join(prose[:20]))
    ids = [load_corpus(str(path), vocab_size=VOCAB).id, load_corpus(str(path), vocab_size=VOCAB + 1).id]
    path.write_text("\n<|endoftext|>\n".join(prose[:21]))
    ids.append(load_corpus(str(path), vocab_size=VOCAB).id)
    assert len({found.fingerprint for found in ids}) == 3


def test_a_sound_corpus_verifies_and_a_flipped_byte_is_found(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert corpus.verify() == []
    monkeypatch.setattr("tuneopt.data.manifest.CHECKED_BYTES", 10)  # opening reads larger corpora not in full
    folder = tmp_path / "copy"
    shutil.copytree(corpus.folder, folder)
    path = folder / "train-00000.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (problem,) = open_corpus(folder).verify()
    assert str(path) in problem
    assert "prepare the corpus again" in problem


DAMAGE = {
    "cut": lambda folder: (folder / "train-00000.arrow").write_bytes(b"short"),
    "gone": lambda folder: (folder / "select-00000.arrow").unlink(),
    "garbage": lambda folder: (folder / "report-00000.arrow").write_bytes(
        b"x" * (folder / "report-00000.arrow").stat().st_size
    ),
    "manifest": lambda folder: (folder / "manifest.json").write_text("{"),
    "tokenizer": lambda folder: (folder / "tokenizer.json").write_text("{}"),
    "empty": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_an_error_on_open_and_mended_in_the_cache(
    corpus: Corpus, text_folder: Path, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache"
    folder = cache / "corpora" / corpus.folder.name
    shutil.copytree(corpus.folder, folder)
    DAMAGE[kind](folder)
    with pytest.raises(DamagedCorpusError, match="delete that folder and prepare it again"):
        open_corpus(folder)
    mended = load_corpus(str(text_folder), vocab_size=VOCAB, cache_dir=cache)
    assert mended.id == corpus.id
    assert mended.verify() == []
    assert "damaged" in caplog.text


def test_a_killed_preparation_leaves_nothing_that_counts(corpus: Corpus, text_folder: Path, tmp_path: Path) -> None:
    leftover = tmp_path / "corpora" / f".{corpus.folder.name}.building-0123"
    leftover.mkdir(parents=True)
    (leftover / "train-00000.arrow").write_bytes(b"half")
    assert load_corpus(str(text_folder), vocab_size=VOCAB, cache_dir=tmp_path).id == corpus.id
    assert not leftover.exists()


def test_a_failed_preparation_leaves_no_folder(text_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"only .* entries"):
        load_corpus(str(text_folder), vocab_size=1 << 20, cache_dir=tmp_path)
    assert [path.name for path in (tmp_path / "corpora").iterdir() if path.is_dir()] == []


@pytest.mark.slow
def test_processes_that_prepare_at_once_agree(corpus: Corpus, text_folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys, logging; logging.basicConfig(level=logging.INFO)\n"
        "from pathlib import Path; from tuneopt.data import load_corpus\n"
        "print(load_corpus(sys.argv[1], vocab_size=300, cache_dir=Path(sys.argv[2])).id.fingerprint)"
    )
    command = [sys.executable, "-c", code, str(text_folder), str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    results = [process.communicate(timeout=60) for process in running]
    assert [out.strip() for out, _ in results] == [corpus.id.fingerprint] * 3
    assert sum("preparing corpus" in log for _, log in results) == 1
    assert len([path for path in (tmp_path / "corpora").iterdir() if path.is_dir()]) == 1


def test_a_source_that_changes_meanwhile_is_noticed(
    prose: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n<|endoftext|>\n".join(prose[:20]))
    train = module.train_tokenizer

    def edit_and_train(documents: object, vocab_size: int) -> object:
        path.write_text("\n<|endoftext|>\n".join(prose[:19]))
        return train(documents, vocab_size)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "train_tokenizer", edit_and_train)
    with pytest.raises(InputError, match="changed while it was prepared"):
        load_corpus(str(path), vocab_size=VOCAB)


def test_a_cache_that_cannot_be_written_says_which_variable_helps(text_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"cannot write the corpus cache .* TUNEOPT_CACHE"):
        load_corpus(str(text_folder), vocab_size=VOCAB, cache_dir=tmp_path / "file")


def test_a_corpus_travels_as_its_path(corpus: Corpus) -> None:
    data = pickle.dumps(corpus)
    assert len(data) < 1000
    assert pickle.loads(data).id == corpus.id


def test_unknown_splits_and_too_long_windows_are_bad_input(corpus: Corpus) -> None:
    with pytest.raises(InputError, match="did you mean 'select'"):
        corpus.split("selekt")
    with pytest.raises(InputError, match=r"split 'report' .* fewer than one window of 10000001"):
        corpus.split("report").windows(10_000_000)


def test_opening_needs_neither_torch_nor_ray_nor_tokenizers(corpus: Corpus) -> None:
    code = (
        "import sys; from pathlib import Path; from tuneopt.data import open_corpus\n"
        "open_corpus(Path(sys.argv[1])).split('train').windows(8).take([0])\n"
        "print([name for name in ('torch', 'ray', 'tokenizers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(corpus.folder)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_text_is_encoded_by_a_tokenizer_of_ones_own_without_a_recipe(tmp_path, monkeypatch):
    from tuneopt import api
    from tuneopt.spec import InputError

    monkeypatch.setenv("TUNEOPT_CACHE", str(tmp_path / "cache"))
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(120):
        (texts / f"{number}.txt").write_text(f"Chapter {number}. " + "The sea was dark and the ship was white. " * 20)
    trained = load_corpus(str(texts), vocab_size=300)
    own = tmp_path / "mine.json"
    own.write_bytes((trained.folder / "tokenizer.json").read_bytes())
    path = api.encoded_corpus(str(texts), own)
    corpus = load_corpus(path, vocab_size=1024)
    assert corpus.id.vocab_size == trained.id.vocab_size and corpus.id.name == trained.id.name
    assert api.encoded_corpus(str(texts), own) == path and api.encoded_corpus("embedded", None) == "embedded"
    (texts / "more.txt").write_text("Another chapter.")
    assert api.encoded_corpus(str(texts), own) != path
    (texts / "last.txt").write_text("The last chapter.")
    kept = sorted((tmp_path / "cache").rglob("*"))
    with pytest.raises(InputError, match="unknown optimizer"):
        api.plan("adamww", corpus=str(texts), tokenizer=own)
    assert sorted((tmp_path / "cache").rglob("*")) == kept, "nothing is encoded for what cannot run"
    _, loaded = api.plan("adamw", corpus=str(texts), tokenizer=own)
    assert loaded.id.vocab_size == trained.id.vocab_size
    for asked, tokenizer in (("embedded", own), (path, own), (str(texts), tmp_path / "none.json")):
        with pytest.raises(InputError, match=r"has its tokenizer|there is no tokenizer file"):
            api.encoded_corpus(asked, tokenizer)
