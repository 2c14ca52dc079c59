"""The paper's recipe, run on small files of the schemas that its data sets have on the hub: as files, and as data sets.

Nothing here asks the hub: what it answers, and whether its data sets are still as they were, no test can know.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recipe_world import jsonl, llama_like

from tuneopt.data import Corpus, SampleOrder, batch
from tuneopt.data.recipe.file import built_in, find_recipe, read_recipe
from tuneopt.data.recipe.run import local_pool, prepare_recipe

CODE = 'def f(x):\n    """Twice."""\n    return 2 * x\n\n\nclass A:\n    pass\n'


@pytest.fixture(scope="module")
def hub(prose: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four data sets and the tokenizer as files; columns as on the hub in 2026."""
    root = tmp_path_factory.mktemp("hub")
    for name in ("dclm", "starcoder", "proofpile", "c4"):
        (root / name).mkdir()
    for number in range(2):
        jsonl(
            root / "dclm" / f"shard_0000000{number}_processed.jsonl.zst", prose[20 * number : 20 * number + 20],
            bff_contained_ngram_count_before_dedupe=1, language_id_whole_page_fasttext={"en": 0.9},
            metadata={"Content-Type": "application/http"}, previous_word_count=900, url="https://a.example/",
            warcinfo="",
            fasttext_openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train_prob=0.2,
        )  # fmt: skip
    code = [f"# file {number}\n{CODE * 8}" for number in range(60)]
    columns = {
        "max_stars_repo_path": ["a.py"] * 60,
        "max_stars_repo_name": ["a/a"] * 60,
        "max_stars_count": [None, *range(59)],
        "id": [str(number) for number in range(60)],
        "content": code,
    }
    pq.write_table(pa.table(columns), root / "starcoder" / "train-00000-of-00001.parquet")
    jsonl(root / "proofpile" / "arXiv_000.jsonl.zst", prose[40:60], meta={"config": "arxiv"})
    jsonl(
        root / "c4" / "c4-validation.00000-of-00001.json.gz", prose[60:100], timestamp="2019-04-25T12:57:54Z",
        url="https://b.example/",
    )  # fmt: skip
    llama_like(prose[:30]).save(str(root / "tokenizer.json"))
    return root


@pytest.fixture(scope="module")
def paper(hub: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    changes = [f"sources.{name}.files={hub / name}" for name in ("dclm", "starcoder", "proofpile")]
    changes += [f"evaluation.sources.c4.files={hub / 'c4'}"]
    recipe = read_recipe(find_recipe("paper"), [*changes, "tokenizer={file: %s, end_of_text: <|end_of_text|>}" % (
        hub / "tokenizer.json"), "guard.ngram=30", "tokens=60000"])  # fmt: skip
    corpus, _ = prepare_recipe(recipe, tmp_path_factory.mktemp("paper") / "out", local_pool(0))
    return corpus


def test_the_mixture_is_the_papers(paper: Corpus) -> None:
    recipe = paper.manifest.recipe
    assert recipe is not None
    rows = {row["source"]: row for row in recipe["mixture"]}
    assert list(rows) == ["dclm", "starcoder", "proofpile", "c4"]
    for row in list(rows.values())[:3]:  # as near as documents of some 3,000 tokens allow
        assert row["share"] == pytest.approx(row["weight"], abs=0.06)
        assert row["splits"]["train"]["documents"] > 0
    assert rows["dclm"]["weight"] == pytest.approx(3.8 / 4.105)
    assert rows["starcoder"]["origin"] == "1 files, in place of bigcode/starcoderdata"
    assert rows["c4"]["splits"]["train"]["tokens"] == 0
    assert sum(rows["c4"]["splits"][split]["documents"] for split in ("select", "report")) == 40


def test_documents_end_as_llama_3_ends_them(paper: Corpus) -> None:
    end = paper.tokenizer.token_to_id("<|end_of_text|>")
    assert paper.manifest.recipe is not None
    assert paper.manifest.recipe["end_of_text"] == end == 1
    for split in ("train", "select", "report"):
        documents = paper.split(split).documents_of()
        for number in range(len(documents)):
            tokens = documents.tokens(number)
            assert tokens[-1] == end and end not in tokens[:-1]


def test_windows_of_the_papers_length_train(paper: Corpus) -> None:
    windows = paper.split("train").windows(4096)
    inputs, targets = batch(windows, SampleOrder(len(windows), 0), 0, 2)
    assert inputs.shape == targets.shape == (2, 4096)
    assert np.array_equal(inputs[:, 1:], targets[:, :-1])


def test_a_large_vocabulary_takes_four_bytes(hub: Path, tmp_path: Path) -> None:
    plain = json.loads((hub / "tokenizer.json").read_text())
    vocabulary = plain["model"]["vocab"]
    vocabulary |= {f"never {number}": number for number in range(len(vocabulary), 128_256)}
    (tmp_path / "tokenizer.json").write_text(json.dumps(plain))
    text = f"sources={{c4: {{files: {hub / 'c4'}, weight: 1}}}}"
    tokenizer = f"tokenizer={{file: {tmp_path / 'tokenizer.json'}, end_of_text: <|end_of_text|>}}"
    recipe = read_recipe(find_recipe("paper"), [text, tokenizer, "evaluation={held_out: 0.1}"])
    corpus, _ = prepare_recipe(recipe, tmp_path / "out", local_pool(0))
    assert corpus.id.vocab_size == 128_256
    assert corpus.split("train").documents_of().tokens(0).dtype == np.uint32
    assert corpus.split("train").windows(8).take([0]).dtype == np.int32


@pytest.fixture(scope="module")
def data_sets(hub: Path, prose: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as folders of data sets: columns differ between the parts of StarCoder and of ProofPile-2."""
    root = tmp_path_factory.mktemp("sets")
    shutil.copytree(hub / "dclm", root / "dclm" / "global-shard_01_of_10" / "local-shard_0_of_10")
    for part in ("starcoder/python", "starcoder/git-commits-cleaned", "c4/en"):
        (root / part).mkdir(parents=True)
    shutil.copy(hub / "starcoder" / "train-00000-of-00001.parquet", root / "starcoder" / "python")
    commits = {"commit_message": ["Mend"] * 20, "content": [f"+ {CODE * 8}{number}" for number in range(20)]}
    pq.write_table(pa.table(commits), root / "starcoder" / "git-commits-cleaned" / "train-00000-of-00001.parquet")
    metas = {"arxiv": {"arxiv_id": "a", "yymm": "01"}, "open-web-math": "{}", "algebraic-stack": {"size": 3}}
    for place, (part, meta) in enumerate(metas.items()):
        for split, texts in (("train", prose[40 + 5 * place : 45 + 5 * place]), ("test", prose[:3])):
            (root / "proofpile" / part / split).mkdir(parents=True)
            jsonl(root / "proofpile" / part / split / "0.jsonl.zst", texts, meta=meta)
    (root / "proofpile" / "proof-pile-2.py").write_text("raise RuntimeError('a script must not run')")
    shutil.copy(hub / "c4" / "c4-validation.00000-of-00001.json.gz", root / "c4" / "en")
    jsonl(root / "c4" / "en" / "c4-train.00000-of-01024.json.gz", prose[:3])
    (root / "c4" / "README.md").write_text(
        "---\nconfigs:\n- config_name: en\n  data_files:\n  - split: train\n    path: en/c4-train.*.json.gz\n"
        "  - split: validation\n    path: en/c4-validation.*.json.gz\n---\n"
    )
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", built_in())
def test_its_data_sets_are_read_as_data_sets(data_sets: Path, hub: Path, tmp_path: Path, name: str) -> None:
    """Every key of the recipe's sources but the name of the data set."""
    changes = [f"sources.{source}.hub={data_sets / source}" for source in ("dclm", "starcoder", "proofpile")]
    changes += [f"evaluation.sources.c4.hub={data_sets / 'c4'}", "when_exhausted=leave"]
    tokenizer = f"tokenizer={{file: {hub / 'tokenizer.json'}, end_of_text: <|end_of_text|>}}"
    corpus, _ = prepare_recipe(read_recipe(find_recipe(name), [*changes, tokenizer]), tmp_path / "out", local_pool(0))
    assert corpus.manifest.recipe is not None
    found = {}
    for row in corpus.manifest.recipe["mixture"]:
        counts = (*row["splits"].values(), *row["kept_out"].values())
        found[row["source"]] = sum(each["documents"] for each in counts)
    assert found == {"dclm": 40, "starcoder": 80, "proofpile": 15, "c4": 40}


def test_every_recipe_of_the_package_names_data_sets_that_can_be_replaced_by_files(hub: Path) -> None:
    for name in built_in():
        recipe = read_recipe(find_recipe(name), [f"sources.dclm.files={hub / 'dclm'}"])
        assert [len(source.files) for source in recipe.sources] == [2, 0, 0]
        assert all(source.hub is not None for source in (*recipe.sources, *recipe.evaluation))
