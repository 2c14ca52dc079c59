"""Preparing from a recipe: the same bytes whoever encodes and whatever is killed, and text kept where it belongs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recipe_world import digests, jsonl, write_recipe

from tuneopt.data import Corpus, SampleOrder, batch, load_corpus
from tuneopt.data.recipe import units as units_module
from tuneopt.data.recipe.file import read_recipe
from tuneopt.data.recipe.rounds import Rounds
from tuneopt.data.recipe.run import local_pool, prepare_recipe
from tuneopt.data.splits import SPLITS
from tuneopt.data.tokenizer import train_tokenizer
from tuneopt.spec import InputError

RECIPE = """\
name: small
tokenizer: {file: tokenizer.json}
sources:
  web: {files: [web.jsonl], weight: 3}
  code: {files: [code.parquet], text: content, weight: 1}
evaluation:
  sources:
    held: {files: held.txt}
guard: {ngram: 13}
shard_tokens: 20000
"""


@pytest.fixture(scope="module")
def texts(prose: tuple[str, ...]) -> dict[str, list[str]]:
    """Documents of about 1,500 characters: 200 of web, 100 of code, 30 to evaluate on; they share no document."""
    short = [text[at : at + 1500] for text in prose for at in range(0, 6000, 1500) if len(text) >= at + 1500]
    return {"web": short[:200], "code": short[200:300], "held": short[300:330]}


@pytest.fixture(scope="module")
def world(texts: dict[str, list[str]], prose: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    train_tokenizer(prose[:30], 400).save(str(folder / "tokenizer.json"))
    leaked = [texts["held"][0].upper(), "before " + " ".join(texts["held"][1].split()[5:40]) + " after"]
    jsonl(folder / "web.jsonl", [*texts["web"][:50], *leaked, *texts["web"][50:]])
    pq.write_table(pa.table({"content": texts["code"]}), folder / "code.parquet", row_group_size=20)
    (folder / "held.txt").write_text("\n<|endoftext|>\n".join(texts["held"]))
    write_recipe(folder, RECIPE)
    return folder


@pytest.fixture(scope="module", autouse=True)
def _small_units() -> Iterator[None]:
    """Several units from small files, in this process."""
    before, units_module.UNIT_BYTES = units_module.UNIT_BYTES, 1 << 15
    yield
    units_module.UNIT_BYTES = before


@pytest.fixture(scope="module")
def prepared(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    out = tmp_path_factory.mktemp("prepared") / "small"
    corpus, reused = prepare_recipe(read_recipe(world / "recipe.yaml"), out, local_pool(0))
    assert not reused
    return corpus


def decoded(corpus: Corpus, split: str) -> list[tuple[int, str]]:
    documents = corpus.split(split).documents_of()
    tokenizer = corpus.tokenizer
    found = []
    for number in range(len(documents)):
        tokens = documents.tokens(number)
        assert tokens[-1] == 0 and 0 not in tokens[:-1]
        found.append((documents.source(number), tokenizer.decode(tokens[:-1].tolist())))
    return found


def test_documents_are_whole_mixed_by_tokens_and_in_their_splits(prepared: Corpus, texts: dict[str, list[str]]) -> None:
    train = decoded(prepared, "train")
    # Prose shares runs of words with itself: what is there is a part of the source, in its order.
    for source, name in enumerate(("web", "code")):
        mine = [text for number, text in train if number == source]
        left = iter(text.strip("\n") for text in texts[name])
        assert all(text in left for text in mine) and len(mine) > 50
    evaluation = [text for split in ("select", "report") for source, text in decoded(prepared, split) if source == 2]
    assert sorted(evaluation) == sorted(text.strip("\n") for text in texts["held"])
    rows = {row["source"]: row for row in prepared.manifest.recipe["mixture"]}  # type: ignore[index]
    assert rows["web"]["share"] == pytest.approx(0.75, abs=0.01)
    assert rows["web"]["splits"]["train"]["documents"] == sum(number == 0 for number, _ in train)
    assert prepared.verify() == []


def test_leaked_evaluation_text_is_kept_out_and_counted(prepared: Corpus, texts: dict[str, list[str]]) -> None:
    recipe = prepared.manifest.recipe
    assert recipe is not None
    assert recipe["guard"]["kept_out_equal"] == 1
    assert recipe["guard"]["kept_out_shared"] >= 1
    assert recipe["guard"]["evaluation_documents"] == 30
    train = "\n".join(text for _, text in decoded(prepared, "train"))
    assert texts["held"][0].upper() not in train
    assert "before " + " ".join(texts["held"][1].split()[5:40]) not in train
    kept_out = recipe["mixture"][0]["kept_out"]
    assert kept_out["equal"]["documents"] == 1 and kept_out["shared"]["documents"] >= 1


def test_without_runs_of_words_only_equal_documents_are_kept_out(world: Path, tmp_path: Path) -> None:
    recipe = read_recipe(world / "recipe.yaml", ["guard.ngram=0"])
    corpus, _ = prepare_recipe(recipe, tmp_path / "out", local_pool(0))
    assert corpus.manifest.recipe is not None
    guard = corpus.manifest.recipe["guard"]
    assert (guard["kept_out_equal"], guard["kept_out_shared"], guard["evaluation_runs"]) == (1, 0, 0)


def test_bytes_do_not_depend_on_units(world: Path, prepared: Corpus, tmp_path: Path) -> None:
    units_module.UNIT_BYTES, before = 1 << 22, units_module.UNIT_BYTES
    try:
        corpus, _ = prepare_recipe(read_recipe(world / "recipe.yaml"), tmp_path / "out", local_pool(0))
    finally:
        units_module.UNIT_BYTES = before
    assert digests(corpus.folder) == digests(prepared.folder)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_bytes_do_not_depend_on_workers(world: Path, prepared: Corpus, tmp_path: Path, workers: int) -> None:
    corpus, _ = prepare_recipe(read_recipe(world / "recipe.yaml"), tmp_path / "out", local_pool(workers))
    assert digests(corpus.folder) == digests(prepared.folder)


def test_shards_end_with_documents_and_hold_what_was_asked_for(prepared: Corpus) -> None:
    shards = prepared.manifest.splits["train"].shards
    assert len(shards) >= 4
    longest = max(len(prepared.split("train").documents_of().tokens(number)) for number in range(20))
    for shard in shards[:-1]:
        assert 20_000 <= shard.tokens < 20_000 + 2 * longest
    assert [shard.file for shard in shards] == [f"train-{number:05d}.arrow" for number in range(len(shards))]


class StopError(Exception):
    pass


def test_a_stop_at_any_round_is_made_up_for(
    world: Path, prepared: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt ends right behind its first round, half of them before the round's entry is written."""
    recipe, out = read_recipe(world / "recipe.yaml"), tmp_path / "out"
    commit, attempts = Rounds.commit, 0

    def interrupted(self: Rounds, *arguments: object) -> None:
        if attempts % 2:
            monkeypatch.setattr(Rounds, "_entry", lambda self, number: self._work / "lost" / "entry")
        commit(self, *arguments)  # type: ignore[arg-type]
        raise StopError

    entry = Rounds._entry
    while attempts < 40:
        attempts += 1
        monkeypatch.setattr(Rounds, "_entry", entry)
        monkeypatch.setattr(Rounds, "commit", interrupted)
        with pytest.raises((StopError, FileNotFoundError)):
            prepare_recipe(recipe, out, local_pool(0))
        with pytest.raises(InputError, match="is not finished"):
            load_corpus(str(out), vocab_size=1)
        monkeypatch.setattr(Rounds, "_entry", entry)
        if any(json.loads(path.read_text())["ended"] and "train" in path.read_text()
               for path in (out / ".preparing").glob("round-*.json")):  # fmt: skip
            break
    monkeypatch.setattr(Rounds, "commit", commit)
    corpus, _ = prepare_recipe(recipe, out, local_pool(0))
    assert attempts >= 5
    assert digests(corpus.folder) == digests(prepared.folder)


def test_a_finished_shard_is_not_encoded_again_and_a_damaged_one_is(
    world: Path, prepared: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = read_recipe(world / "recipe.yaml"), tmp_path / "out"
    commit = Rounds.commit
    written: list[int] = []
    last = 3

    def counted(self: Rounds, *arguments: object) -> None:
        if len(self.entries) == last:
            raise StopError
        written.append(len(self.entries))
        commit(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Rounds, "commit", counted)
    for expected in ([0, 1, 2], [], [2]):
        if expected == [2]:  # round 2 wrote the training split's second shard
            damaged = out / "train-00001.arrow"
            damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
        written.clear()
        with pytest.raises(StopError):
            prepare_recipe(recipe, out, local_pool(0))
        assert written == expected
    last = 99
    corpus, _ = prepare_recipe(recipe, out, local_pool(0))
    assert digests(corpus.folder) == digests(prepared.folder)


COMMAND = "import sys; from tuneopt.cli import main; sys.argv = ['tuneopt', 'data', 'prepare', *sys.argv[1:]]; main()"


@pytest.mark.slow
def test_kill_9_in_the_middle_loses_no_shard_and_leaves_no_process(
    prose: tuple[str, ...], world: Path, tmp_path: Path
) -> None:
    jsonl(tmp_path / "web.jsonl", list(prose) * 15)
    tokenizer = world / "tokenizer.json"
    sources = "{w: {files: web.jsonl, weight: 1}}"
    head = f"name: k\ntokenizer: {{file: {tokenizer}}}\nsources: {sources}\n"
    text = head + "evaluation: {held_out: 0.1}\nshard_tokens: 200000\n"
    recipe = write_recipe(tmp_path, text)
    command = [sys.executable, "-c", COMMAND, str(recipe), "--workers", "2", "--out"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([*command, str(tmp_path / "whole")], check=True, **quiet)  # type: ignore[call-overload]
    out = tmp_path / "killed"
    kills = 0
    for wanted in (1, 3, 6):
        process = subprocess.Popen([*command, str(out)], start_new_session=True, **quiet)  # type: ignore[call-overload]
        while process.poll() is None and len(list(out.glob(".preparing/round-*.json"))) < wanted:
            time.sleep(0.01)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
        until = time.monotonic() + 30
        while _group(process.pid) and time.monotonic() < until:
            time.sleep(0.05)
        assert not _group(process.pid), "workers outlive their parent"
    assert kills >= 1
    subprocess.run([*command, str(out)], check=True, **quiet)  # type: ignore[call-overload]
    assert digests(out) == digests(tmp_path / "whole")


def _group(leader: int) -> list[int]:
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.Error):
            continue
    return found


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_a_deadly_unit_is_named(world: Path, prepared: Corpus, tmp_path: Path) -> None:
    import psutil

    from tuneopt.data.recipe.workers import Workers

    made: list[Workers] = []

    def pool(job: object, folder: Path) -> Workers:
        made.append(Workers(job, folder, 1))  # type: ignore[arg-type]
        psutil.Process(made[-1]._workers[0].process.pid).kill()
        return made[-1]

    corpus, _ = prepare_recipe(read_recipe(world / "recipe.yaml"), tmp_path / "out", pool)
    assert len(made) == 2
    assert digests(corpus.folder) == digests(prepared.folder)

    class Cursed(Workers):
        def _feed(self) -> None:
            super()._feed()
            for worker in self._workers:
                worker.process.kill()

    with pytest.raises(InputError, match=r"3 workers that read .*held\.txt were killed"):
        prepare_recipe(read_recipe(world / "recipe.yaml"), tmp_path / "no", lambda job, folder: Cursed(job, folder, 1))


def test_a_finished_corpus_is_left_alone_and_another_recipe_refused(
    world: Path, prepared: Corpus, tmp_path: Path
) -> None:
    recipe = read_recipe(world / "recipe.yaml")
    before = digests(prepared.folder)
    corpus, reused = prepare_recipe(recipe, prepared.folder, local_pool(0))
    assert reused and corpus.id == prepared.id
    with pytest.raises(InputError, match="holds a corpus of another recipe"):
        prepare_recipe(read_recipe(world / "recipe.yaml", ["seed=5"]), prepared.folder, local_pool(0))
    assert digests(prepared.folder) == before
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="is not empty"):
        prepare_recipe(recipe, tmp_path, local_pool(0))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_changed_files_and_two_at_once_are_refused(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from filelock import FileLock

    text = RECIPE.replace("web.jsonl", str(tmp_path / "own.jsonl")).replace("shard_tokens: 20000", "shard_tokens: 3000")
    for name in ("tokenizer.json", "code.parquet", "held.txt"):
        text = text.replace(name, str(world / name))
    own = jsonl(tmp_path / "own.jsonl", ["one text", "two texts"] * 300)
    path, out = write_recipe(tmp_path, text), tmp_path / "out"
    commit = Rounds.commit

    def interrupted(self: Rounds, *arguments: object) -> None:
        commit(self, *arguments)  # type: ignore[arg-type]
        raise StopError

    monkeypatch.setattr(Rounds, "commit", interrupted)
    with pytest.raises(StopError):
        prepare_recipe(read_recipe(path), out, local_pool(0))
    with FileLock(out / ".preparing" / "lock"), pytest.raises(InputError, match="another process prepares"):
        prepare_recipe(read_recipe(path), out, local_pool(0))
    jsonl(own, ["another text"] * 300)
    with pytest.raises(InputError, match="unfinished corpus of another recipe, or of files that changed"):
        prepare_recipe(read_recipe(path), out, local_pool(0))


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        (["tokens=20000"], lambda m: 20_000 <= m.splits["train"].tokens < 23_000),
        (["when_exhausted=leave"], lambda m: m.recipe["ended"]["train"] == "every source was read to its end"),
        (["when_exhausted=repeat", "tokens=250000"], lambda m: m.recipe["mixture"][0]["epochs"] >= 2),
        (["evaluation.tokens=9000"], lambda m: 9000 <= m.splits["select"].tokens + m.splits["report"].tokens < 12_000),
        (["evaluation={held_out: 0.1}"], lambda m: 10 < m.splits["select"].documents < 60),
        (["shuffle=false"], lambda m: m.splits["train"].documents > 100),
        (["tokenizer={train: 300}"], lambda m: m.vocab_size == 300 and m.tokenizer.training_bytes > 400_000),
    ],
)
def test_a_recipe_gets_what_it_asks_for(
    world: Path, tmp_path: Path, changes: list[str], check: Callable[[object], bool]
) -> None:
    corpus, _ = prepare_recipe(read_recipe(world / "recipe.yaml", changes), tmp_path / "out", local_pool(0))
    assert check(corpus.manifest), corpus.manifest.recipe
    assert corpus.verify() == []


def test_a_mistake_in_the_text_can_be_mended_before_the_first_shard(
    world: Path, prepared: Corpus, tmp_path: Path
) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text((world / "web.jsonl").read_text() + "{\n")
    recipe, out = world / "recipe.yaml", tmp_path / "out"
    changes = [f"sources.web.files={own}", "shard_tokens=100000000", "evaluation={held_out: 0.1}"]
    with pytest.raises(InputError, match=r"own\.jsonl:\d+: not valid JSON"):
        prepare_recipe(read_recipe(recipe, changes), out, local_pool(0))
    own.write_text((world / "web.jsonl").read_text())
    corpus, reused = prepare_recipe(read_recipe(recipe, changes), out, local_pool(0))
    assert not reused and corpus.verify() == []


def test_held_out_documents_never_train(world: Path, tmp_path: Path) -> None:
    recipe = read_recipe(
        world / "recipe.yaml", ["evaluation={held_out: 0.1}", "when_exhausted=repeat", "tokens=300000"]
    )
    corpus, _ = prepare_recipe(recipe, tmp_path / "out", local_pool(0))
    found = {split: {text for _, text in decoded(corpus, split)} for split in SPLITS}
    assert len(decoded(corpus, "train")) > len(found["train"])  # repeated
    assert len(decoded(corpus, "select")) == len(found["select"])  # evaluation text is not
    assert not (
        found["train"] & found["select"] or found["train"] & found["report"] or found["select"] & found["report"]
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (["sources.code.text=nothing"], r"code\.parquet: no string column 'nothing'"),
        (["tokenizer.end_of_text=missing"], "no token 'missing'"),
        (["tokenizer.file=web.jsonl"], "no tokenizer file"),
        (["evaluation.tokens=1"], "no document for the split (select|report)"),
        (["sources={web: {files: held.txt, weight: 1}}"], "no document for the split train"),
    ],
)
def test_what_cannot_be_prepared_says_why(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: list[str], why: str
) -> None:
    monkeypatch.chdir(world)
    with pytest.raises(InputError, match=why):
        prepare_recipe(read_recipe(world / "recipe.yaml", changes), tmp_path / "out", local_pool(0))


@pytest.mark.slow
def test_a_data_set_is_streamed_through_datasets(world: Path, prepared: Corpus, tmp_path: Path) -> None:
    """The same text as a data set of Hugging Face's `datasets`: the format's own builder needs no network."""
    changes = [f"sources.web={{hub: json, data_files: ['{world / 'web.jsonl'}'], text: text, weight: 3}}"]
    corpus, _ = prepare_recipe(read_recipe(world / "recipe.yaml", changes), tmp_path / "out", local_pool(0))
    assert corpus.id.fingerprint == prepared.id.fingerprint
    with pytest.raises(InputError, match="no string column 'body' among 'text'"):
        changes = [changes[0].replace("text: text", "text: body")]
        prepare_recipe(read_recipe(world / "recipe.yaml", changes), tmp_path / "no", local_pool(0))


def test_the_order_of_tokens_is_the_same_for_every_number_of_ranks(prepared: Corpus) -> None:
    """Windows run over the seams of shards; ranks that take parts of a batch together take the batch."""
    split = prepared.split("train")
    stream = np.concatenate([split.documents_of().tokens(number) for number in range(split.documents)])
    windows = split.windows(64)
    straight = windows.take(np.arange(len(windows)))
    assert np.array_equal(straight[:, :-1].ravel(), stream[: len(windows) * 64])
    order = SampleOrder(len(windows), 3)
    for step in range(4):
        whole, _ = batch(windows, order, step, 12)
        for ranks in (1, 2, 3, 4, 6):
            share = 12 // ranks
            parts = [windows.take(order.indices(step * 12 + rank * share, share))[:, :-1] for rank in range(ranks)]
            assert np.array_equal(np.concatenate(parts), whole)


def test_long_windows_and_a_copy_elsewhere(prepared: Corpus, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(prepared.folder, copy)
    corpus = load_corpus(str(copy), vocab_size=32_768)  # the corpus's own vocabulary counts
    assert corpus.id == prepared.id and corpus.id.vocab_size == 400
    windows = corpus.split("train").windows(4096)
    assert windows.take([0, len(windows) - 1]).shape == (2, 4097)
