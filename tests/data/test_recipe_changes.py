"""What changes, is damaged or stands in the way while a corpus is prepared: noticed, and told in one sentence."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from recipe_world import digests, jsonl, write_recipe

from tuneopt.data import Corpus
from tuneopt.data.recipe import rounds as claim_module
from tuneopt.data.recipe import run as run_module
from tuneopt.data.recipe.file import read_recipe
from tuneopt.data.recipe.recipe import Recipe
from tuneopt.data.recipe.rounds import Rounds, claim
from tuneopt.data.recipe.run import local_pool, prepare_recipe
from tuneopt.data.recipe.units import is_whole
from tuneopt.data.recipe.workers import Here
from tuneopt.data.tokenizer import train_tokenizer
from tuneopt.spec import InputError

RECIPE = """\
name: small
tokenizer: {file: tokenizer.json}
shuffle: false
sources:
  web: {files: [a.jsonl, b.jsonl], weight: 1}
evaluation:
  sources: {held: {files: held.jsonl}}
shard_tokens: 5000
"""


@pytest.fixture(scope="module")
def texts(prose: tuple[str, ...]) -> list[str]:
    return [text[at : at + 1000] for text in prose[:50] for at in (0, 1000, 2000)]


@pytest.fixture
def world(texts: list[str], prose: tuple[str, ...], tmp_path: Path) -> Path:
    """Two files to train on, one to evaluate on; ten training documents share half of an evaluation document."""
    train_tokenizer(prose[:5], 300).save(str(tmp_path / "tokenizer.json"))
    leaked = [f"before {text[200:700]} after" for text in texts[100:110]]
    jsonl(tmp_path / "a.jsonl", [*leaked, *texts[:40]])
    jsonl(tmp_path / "b.jsonl", texts[40:80])
    jsonl(tmp_path / "held.jsonl", texts[100:150])
    write_recipe(tmp_path, RECIPE)
    return tmp_path


def recipe_of(world: Path, *changes: str) -> Recipe:
    return read_recipe(world / "recipe.yaml", changes)


class StopError(Exception):
    pass


def stop_behind_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make preparations end behind the last round of evaluation text."""
    commit = Rounds.commit

    def interrupted(self: Rounds, phase: str, standing: object, ended: str = "") -> None:
        commit(self, phase, standing, ended)  # type: ignore[arg-type]
        if phase == "evaluation" and ended:
            raise StopError

    monkeypatch.setattr(Rounds, "commit", interrupted)


def kept_out(corpus: Corpus) -> int:
    assert corpus.manifest.recipe is not None
    return int(corpus.manifest.recipe["guard"]["kept_out_shared"])


def test_a_file_that_changes_while_it_is_read_is_told(world: Path, texts: list[str]) -> None:
    class Meanwhile(Here):
        def collect(self) -> object:  # type: ignore[override]
            path = self._waiting[0].path
            if path is not None and path.name == "b.jsonl":
                jsonl(world / "b.jsonl", texts[60:80])
            return super().collect()

    with pytest.raises(InputError, match=r"recipe small changed while it was prepared; delete .*out and run"):
        prepare_recipe(recipe_of(world), world / "out", Meanwhile)
    assert not (world / "out" / "manifest.json").exists()
    shutil.rmtree(world / "out")
    corpus, reused = prepare_recipe(recipe_of(world), world / "out", local_pool(0))
    assert not reused and 55 < corpus.split("train").documents <= 60


def test_evaluation_files_that_change_are_told_before_training_text_is_encoded(
    world: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Rounds.commit

    def meanwhile(self: Rounds, phase: str, *arguments: object) -> None:
        commit(self, phase, *arguments)  # type: ignore[arg-type]
        jsonl(world / "held.jsonl", texts[110:150])

    monkeypatch.setattr(Rounds, "commit", meanwhile)
    with pytest.raises(InputError, match="changed while it was prepared"):
        prepare_recipe(recipe_of(world), world / "out", local_pool(0))
    assert not list((world / "out").glob("**/train-*"))


@pytest.mark.parametrize(
    ("kind", "damage"), [("runs", "shorter"), ("runs", "empty"), ("runs", "changed"), ("documents", "gone")]
)
def test_damaged_hashes_of_evaluation_text_are_made_again(
    world: Path, monkeypatch: pytest.MonkeyPatch, kind: str, damage: str
) -> None:
    whole, _ = prepare_recipe(recipe_of(world), world / "whole", local_pool(0))
    assert kept_out(whole) >= 10
    with monkeypatch.context() as patch:
        stop_behind_evaluation(patch)
        with pytest.raises(StopError):
            prepare_recipe(recipe_of(world), world / "out", local_pool(0))
    path = world / "out" / ".preparing" / f"{kind}-000000.npy"
    hashes = np.load(path)
    assert len(hashes) > 2
    if damage == "gone":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "shorter":
        np.save(path, hashes[:2])
    else:
        np.save(path, hashes + np.uint64(1))
    corpus, _ = prepare_recipe(recipe_of(world), world / "out", local_pool(0))
    assert digests(corpus.folder) == digests(whole.folder)


def test_hashes_are_on_the_disk_before_their_entry(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tuneopt.data.recipe import rounds

    flushed: list[str] = []
    flush = rounds._flush
    monkeypatch.setattr(rounds, "_flush", lambda path: (flushed.append(path.name), flush(path)))
    prepare_recipe(recipe_of(world), world / "out", local_pool(0))
    first = flushed.index("round.part")
    assert {"documents-000000.part", "runs-000000.part"} <= set(flushed[:first])


def test_an_empty_evaluation_split_is_told_before_training_and_can_be_mended(world: Path) -> None:
    with pytest.raises(InputError, match=r"no document for the split (select|report); give more text to evaluate on"):
        prepare_recipe(recipe_of(world, "evaluation.tokens=1"), world / "out", local_pool(0))
    assert not list((world / "out").glob("**/*.arrow"))
    corpus, _ = prepare_recipe(recipe_of(world), world / "out", local_pool(0))
    assert corpus.split("select").documents and corpus.split("report").documents


@pytest.mark.parametrize("out", ["afile", "afile/below", "/proc/nowhere"])
def test_a_folder_that_cannot_be_written_is_one_sentence(world: Path, out: str) -> None:
    (world / "afile").write_text("precious")
    with pytest.raises(InputError, match=r"cannot write to .*; give another folder with --out"):
        prepare_recipe(recipe_of(world), world / out, local_pool(0))
    assert (world / "afile").read_text() == "precious"


def test_what_a_kill_behind_the_manifest_leaves_is_removed(world: Path) -> None:
    prepare_recipe(recipe_of(world), world / "out", local_pool(0))
    (world / "out" / ".preparing" / "train").mkdir(parents=True)
    corpus, reused = prepare_recipe(recipe_of(world), world / "out", local_pool(0))
    assert reused and digests(corpus.folder)


def test_a_process_that_comes_late_finds_the_other_ones_corpus(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looked for the manifest before the other process was done, and for the folder afterwards."""
    recipe = recipe_of(world)
    prepare_recipe(recipe, world / "out", local_pool(0))
    answers = [False]
    see = claim_module.is_finished
    monkeypatch.setattr(run_module, "is_finished", lambda folder: answers.pop() if answers else see(folder))
    corpus, reused = prepare_recipe(recipe, world / "out", local_pool(0))
    assert reused and not answers and digests(corpus.folder)


@pytest.mark.parametrize("source", ["sources.web", "evaluation.sources.held"])
def test_every_source_is_opened_before_anything_is_encoded(world: Path, source: str) -> None:
    (world / "bad.jsonl").write_text(json.dumps({"text": 5}) + "\n")
    changes = [f"{source}={{files: {world / 'bad.jsonl'}, weight: 1}}"]
    if source == "evaluation.sources.held":
        changes = [change.replace(", weight: 1", "") for change in changes]

    def never(job: object, folder: Path) -> Here:
        raise AssertionError("encoding began")

    with pytest.raises(InputError, match=r"bad\.jsonl:1: 'text' holds a number, not a string"):
        prepare_recipe(recipe_of(world, *changes), world / "out", never)  # type: ignore[arg-type]


def test_a_fifo_among_the_unfinished_is_not_waited_for(tmp_path: Path) -> None:
    work = tmp_path / ".preparing"
    work.mkdir()
    for name in ("identity", "unit-0123456789abcdef.rows"):
        os.mkfifo(work / name)
    assert not is_whole(work / "unit-0123456789abcdef.rows")
    claim(work, "mine", tmp_path)
    assert (work / "identity").read_text() == "mine"
