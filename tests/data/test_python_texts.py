"""Texts that Python code holds, as a corpus: a `datasets.Dataset`, a generator, a list; kept once, named by content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tuneopt as to
from tuneopt import api
from tuneopt.api.corpora import corpus_named
from tuneopt.data import load_corpus
from tuneopt.spec import InputError

VOCAB = 300
SMALL = {"scale": "1x32,seq=64,ladder=nano", "ratio": 0.01, "compile": False, "overrides": {"train_batch_size": 8}}


@pytest.fixture
def texts(prose):
    return [*prose[:40], "", None, *prose[40:]]


def test_the_same_texts_are_one_corpus_however_they_come(texts):
    from datasets import Dataset, IterableDataset

    named = Dataset.from_dict({"id": list(range(len(texts))), "text": texts})
    other = Dataset.from_dict({"id": list(range(len(texts))), "prose": texts})
    stream = IterableDataset.from_generator(lambda: ({"text": text} for text in texts))
    forms = [texts, tuple(texts), (text for text in texts), ({"text": text} for text in texts), pd.Series(texts),
             np.array(texts, dtype=object), named, named["text"], other, stream]  # fmt: skip
    paths = {corpus_named(form) for form in forms}
    assert len(paths) == 1
    assert corpus_named(texts[1:]) not in paths and corpus_named(texts[::-1]) not in paths


def test_it_holds_what_a_file_of_the_texts_holds_and_is_prepared_once(texts, prose, tmp_path):
    path = corpus_named(texts)
    first = load_corpus(path, vocab_size=VOCAB)
    folder = tmp_path / "file"
    folder.mkdir()
    (folder / "a.txt").write_text("\n<|endoftext|>\n".join(prose) + "\n", encoding="utf-8")
    assert load_corpus(str(folder), vocab_size=VOCAB).id.fingerprint == first.id.fingerprint
    made = (first.folder / "manifest.json").stat()
    assert load_corpus(corpus_named(iter(texts)), vocab_size=VOCAB).folder == first.folder
    assert (first.folder / "manifest.json").stat().st_ctime_ns == made.st_ctime_ns
    assert [path.name for path in Path(path).parent.iterdir()] == [Path(path).name], "nothing is left behind"


def test_a_kept_file_that_was_damaged_is_written_again(texts):
    path = Path(corpus_named(texts))
    whole = path.read_bytes()
    for damaged in (whole.splitlines(keepends=True)[0], whole.swapcase(), b""):
        path.write_bytes(damaged)
        assert corpus_named(texts) == str(path) and path.read_bytes() == whole
    assert [path.name for path in path.parent.iterdir()] == [path.name], "nothing is left behind"


def test_names_paths_and_prepared_corpora_stand_for_themselves(corpus):
    assert corpus_named("embedded") == "embedded" and corpus_named(Path("texts")) == "texts"
    assert load_corpus(corpus_named(corpus), vocab_size=1).id == corpus.id


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (7, "not an int"),
        (None, "not a NoneType"),
        (b"text", "not a bytes"),
        ({"train": ["a"]}, r"not a dict.*corpus\['train'\]"),
        ({"a", "b"}, "not a set"),
        (pd.DataFrame({"text": ["a"]}), "not a DataFrame"),
        (["a", 3], "document 2 of the corpus is an int"),
        ([["a"]], "document 1 of the corpus is a list"),
        ([{"a": "x", "b": "y"}], r"no column 'text' but 'a', 'b'.*select_columns"),
        ([], "holds no text"),
        (["", " \n", None], "holds no text"),
        (["a \ud800"], "document 1 .*surrogate"),
    ],
)
def test_anything_else_is_refused_in_one_sentence_and_leaves_nothing(given, words, tmp_path):
    with pytest.raises(InputError, match=words) as refused:
        corpus_named(given)
    assert "\n" not in str(refused.value)
    assert not any((tmp_path / "default-cache" / "texts").glob("*"))


def test_an_open_file_is_refused_because_its_lines_are_no_documents(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    with (tmp_path / "a.txt").open() as stream, pytest.raises(InputError, match="not a TextIOWrapper"):
        corpus_named(stream)


def test_a_data_set_with_several_columns_of_text_asks_for_one():
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_dict({"title": ["a"], "body": ["b"]})
    with pytest.raises(InputError, match=r"no column 'text' but 'title', 'body'"):
        corpus_named(rows)
    with pytest.raises(InputError, match=r"not a DatasetDict.*corpus\['train'\]"):
        corpus_named(DatasetDict(train=rows))
    assert Path(corpus_named(rows.select_columns("body"))).read_text() == '{"text": "b"}\n'


@pytest.mark.slow
def test_a_trial_of_texts_is_that_of_the_same_texts_again(prose, tmp_path):
    record = to.train("adamw", (text for text in prose), tmp_path / "ledger", **SMALL)
    assert record.select_loss is not None and record.spec.regime.corpus.name.startswith("texts-")
    sweep, loaded = to.plan("adamw", corpus=list(prose), **SMALL)
    assert sweep.spec(sweep.space.start).id == record.spec.id
    assert to.train(record.spec, prose, tmp_path / "ledger").to_dict() == record.to_dict()
    assert to.train(record.spec, loaded, tmp_path / "ledger").to_dict() == record.to_dict()


@pytest.mark.slow
def test_a_sweep_and_a_comparison_take_them(prose, tmp_path):
    pins = {"train_batch_size": 8, "warmup": 0}
    result = to.tune("adamw", tmp_path / "ledger", corpus=list(prose), backend="inline", replicates=1, max_trials=2,
                     coordinates=["learning_rate"], **{**SMALL, "overrides": pins})  # fmt: skip
    assert len(result.run) == 2 and not result.failed
    answer = to.comparison_plan(["muon"], corpus=list(prose), scale="nano-65k", hours=1, tokens_per_second=50_000,
                                slots=2, ledger=tmp_path / "ledger")  # fmt: skip
    assert answer.question.corpus == corpus_named(prose) and answer.question.vocabulary == 1024
    assert "vocabulary: 1024" in answer.text


def test_a_study_takes_them_in_the_place_of_its_own(prose, tmp_path):
    study = to.load_study(Path(__file__).parents[2] / "studies" / "smoke.yaml", corpus=iter(prose))
    assert study.corpus == corpus_named(prose)
    assert to.study_status(study, tmp_path / "ledger")["trials"] is not None


def test_a_tokenizer_of_ones_own_encodes_them(prose, corpus, tmp_path):
    tokenizer = corpus.folder / "tokenizer.json"
    path = api.encoded_corpus(list(prose), tokenizer)
    assert load_corpus(path, vocab_size=1024).id.vocab_size == corpus.id.vocab_size
    assert api.encoded_corpus(iter(prose), tokenizer) == path
    plan = to.comparison_plan(["muon"], corpus=path, hours=1, tokens_per_second=50_000, slots=2, ledger=tmp_path)
    assert plan.question.vocabulary == corpus.id.vocab_size, "steps are counted with the head as it is"


def test_a_preparation_that_was_cut_off_goes_on_with_its_own_tokenizer(prose, tmp_path, monkeypatch):
    """The user's file is replaced by another tokenizer meanwhile, and the first one has moved."""
    from tuneopt.api import corpora
    from tuneopt.data.tokenizer import train_tokenizer

    file, moved = tmp_path / "mine.json", tmp_path / "moved.json"
    text = tmp_path / "prose.jsonl"
    text.write_text(Path(corpus_named(prose)).read_text(encoding="utf-8"), encoding="utf-8")
    train_tokenizer(prose[:5], 300).save(str(file))
    with monkeypatch.context() as cut:
        cut.setattr(corpora, "prepare_corpus", lambda recipe, folder: None)
        begun = Path(api.encoded_corpus(text, file))
    moved.write_bytes(file.read_bytes())
    train_tokenizer(prose[:5], 330).save(str(file))
    assert api.encoded_corpus(text, moved) == str(begun)
    assert load_corpus(str(begun), vocab_size=1).id.vocab_size == 300
    assert load_corpus(api.encoded_corpus(text, file), vocab_size=1).id.vocab_size == 330
    for kept in begun.parent.glob("*.*"):  # what was damaged is written again
        if kept.is_file():
            kept.write_bytes(kept.read_bytes()[:-9])
    assert api.encoded_corpus(text, moved) == str(begun)
    (tmp_path / "none.json").write_text("{}")
    with pytest.raises(InputError, match=r"none\.json is no tokenizer file"):
        api.encoded_corpus(text, tmp_path / "none.json")
