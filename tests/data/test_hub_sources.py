"""Sources that `datasets` finds, from folders and formats of this machine: no network, the same path as the hub's."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from recipe_world import digests, jsonl, write_recipe

from tuneopt.data.recipe import hub as hub_module
from tuneopt.data.recipe.file import find_recipe, read_recipe
from tuneopt.data.recipe.hub import pinned, read_shard, shards
from tuneopt.data.recipe.recipe import Hub, Recipe, SourceRecipe
from tuneopt.data.recipe.rounds import Rounds
from tuneopt.data.recipe.run import local_pool, prepare_recipe
from tuneopt.data.recipe.units import stamp
from tuneopt.data.tokenizer import train_tokenizer
from tuneopt.spec import InputError

pytestmark = pytest.mark.slow  # `datasets` takes seconds to import

RECIPE = """\
name: streamed
tokenizer: {file: tokenizer.json}
shuffle: false
sources:
  web: {hub: json, data_files: ["*.jsonl"], weight: 1}
evaluation: {held_out: 0.1}
shard_tokens: 5000
"""


@pytest.fixture
def texts(prose: tuple[str, ...]) -> list[str]:
    return [text[at : at + 1000] for text in prose[:40] for at in (0, 1000, 2000)]


@pytest.fixture
def world(texts: list[str], prose: tuple[str, ...], tmp_path: Path) -> Path:
    train_tokenizer(prose[:5], 300).save(str(tmp_path / "tokenizer.json"))
    jsonl(tmp_path / "a.jsonl", texts[:60])
    jsonl(tmp_path / "b.jsonl", texts[60:])
    write_recipe(tmp_path, RECIPE)
    return tmp_path


def recipe_of(world: Path) -> Recipe:
    return read_recipe(world / "recipe.yaml")


def source(home: Path, name: str = "there", text: str | None = None, **more: object) -> SourceRecipe:
    return SourceRecipe("web", text=text, hub=Hub(name, folder=home, **more))  # type: ignore[arg-type]


def documents(wanted: SourceRecipe) -> list[str]:
    return [text for number in range(shards(wanted)) for text in read_shard(wanted, number)]


def test_paths_are_relative_to_the_recipe_and_changed_files_are_noticed(
    world: Path, texts: list[str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    corpus, _ = prepare_recipe(recipe_of(world), world / "out", local_pool(0))
    assert sum(corpus.split(name).documents for name in ("train", "select", "report")) == 120
    assert corpus.manifest.recipe is not None
    assert corpus.manifest.recipe["mixture"][0]["origin"] == "json train *.jsonl"
    assert prepare_recipe(recipe_of(world), world / "out", local_pool(0))[1]
    jsonl(world / "c.jsonl", texts[:30], more="another file")
    with pytest.raises(InputError, match="or of files that changed since"):
        prepare_recipe(recipe_of(world), world / "out", local_pool(0))
    corpus, _ = prepare_recipe(recipe_of(world), world / "other", local_pool(0))
    assert sum(corpus.split(name).documents for name in ("train", "select", "report")) >= 140


def test_files_that_change_between_two_attempts_are_not_mixed(
    world: Path, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = Rounds.commit

    def interrupted(self: Rounds, *arguments: object) -> None:
        commit(self, *arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Rounds, "commit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare_recipe(recipe_of(world), world / "out", local_pool(0))
    jsonl(world / "b.jsonl", texts[60:70])
    with pytest.raises(InputError, match="unfinished corpus of another recipe, or of files that changed"):
        prepare_recipe(recipe_of(world), world / "out", local_pool(0))


def test_a_folder_of_a_data_set_is_told_by_its_files(world: Path, texts: list[str]) -> None:
    home = world / "there"
    home.mkdir()
    jsonl(home / "train.jsonl", texts[:5])
    before = stamp(source(home))
    assert before == stamp(source(home)) and documents(source(home)) == [text.strip("\n") for text in texts[:5]]
    jsonl(home / "train.jsonl", texts[:6])
    assert stamp(source(home)) != before
    with pytest.raises(InputError, match="no split 'test' among 'train'"):
        documents(source(home, split="test"))


def test_the_same_text_gives_the_same_bytes_through_files_and_through_datasets(world: Path) -> None:
    streamed, _ = prepare_recipe(recipe_of(world), world / "streamed", local_pool(0))
    files = read_recipe(world / "recipe.yaml", [f"sources.web={{files: {world}/*.jsonl, weight: 1}}"])
    read, _ = prepare_recipe(files, world / "read", local_pool(0))
    assert streamed.id == read.id
    assert {name: sum for name, sum in digests(read.folder).items() if name != "manifest.json"} == {
        name: sum for name, sum in digests(streamed.folder).items() if name != "manifest.json"
    }


def test_columns_besides_the_text_may_differ_from_file_to_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"stars": [1, 2], "content": ["x = 1", None]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"content": ["y = 2"], "commit": ["abc"]}), tmp_path / "b.parquet")
    for name, more in (("there", {}), ("parquet", {"data_files": ("*.parquet",)})):
        assert documents(source(tmp_path, name, "content", **more)) == ["x = 1", "y = 2"]
    with pytest.raises(InputError, match="no column 'body'; say text: COLUMN"):
        documents(source(tmp_path, text="body"))


def test_json_lines_may_differ_in_all_but_the_text(tmp_path: Path) -> None:
    """`datasets` alone refuses this: it casts every file to what it found in the first one."""
    jsonl(tmp_path / "a.jsonl.zst", ["one"], meta={"id": "a", "yymm": "01"})
    jsonl(tmp_path / "b.json.gz", ["two"], meta={"id": 3})
    jsonl(tmp_path / "c.jsonl", ["three"], meta="none", language="c")
    assert documents(source(tmp_path, "json", data_files=("[ab].*", "c.jsonl"))) == ["one", "two", "three"]


def test_compressed_lines_of_several_frames_are_read_to_the_end(tmp_path: Path) -> None:
    one, two = jsonl(tmp_path / "one.zst", ["one"]), jsonl(tmp_path / "two.zst", ["two"])
    whole = one.read_bytes() + two.read_bytes()
    (tmp_path / "both.jsonl.zst").write_bytes(whole)
    (tmp_path / "cut.jsonl.zst").write_bytes(whole[:-4])
    assert documents(source(tmp_path, "json", data_files=("both.jsonl.zst",))) == ["one", "two"]
    with pytest.raises(InputError, match=r"cut\.jsonl\.zst.*get the file again"):
        documents(source(tmp_path, "json", data_files=("cut.jsonl.zst",)))


def test_files_of_a_data_set_are_asked_for_at_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the hub would be asked: no test asks it."""
    import datasets
    import huggingface_hub

    class Known:
        def dataset_info(self, name: str, revision: str | None) -> object:
            return type("Info", (), {"sha": f"sha-of-{name.rpartition('/')[2]}-{revision}"})

    asked = []

    def builder(*arguments: object, **named: object) -> object:
        asked.append((arguments, named))
        return type("Builder", (), {"config": type("Config", (), {"data_files": {"train": ["one"]}})})

    monkeypatch.setattr(huggingface_hub, "HfApi", Known)
    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    dclm, starcoder, proofpile = map(pinned, read_recipe(find_recipe("paper")).sources)
    for each in (dclm, starcoder, proofpile):
        assert each.hub is not None
        hub_module.builder(each.hub)
    assert asked == [
        (("mlfoundations/dclm-baseline-1.0", None), {"revision": "sha-of-dclm-baseline-1.0-None", "data_files": None}),
        (("bigcode/starcoderdata", None), {"revision": "sha-of-starcoderdata-None", "data_files": None}),
        (("json", None), {"revision": None, "data_files": [
            "hf://datasets/EleutherAI/proof-pile-2@sha-of-proof-pile-2-None/*/train/*.jsonl.zst"]}),
    ]  # fmt: skip
    assert proofpile.origin.endswith("train */train/*.jsonl.zst as json at sha-of-proof-pile-2-None")


@pytest.mark.parametrize("changes", [[], ["sources={w: {hub: json, data_files: 'https://no.invalid/a', weight: 1}}"]])
def test_without_a_network_the_first_source_is_told_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: list[str]
) -> None:
    from huggingface_hub import HfApi

    def refuse(*_: object, **__: object) -> object:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(HfApi, "dataset_info", refuse)
    recipe = read_recipe(find_recipe("paper"), changes)
    with pytest.raises(InputError, match=r"^the data set '.*' cannot be read .*; check its name") as error:
        prepare_recipe(recipe, tmp_path / "out", local_pool(0))
    assert "\n" not in str(error.value)


def test_what_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    for pattern in ("none.jsonl", "none*.jsonl"):
        with pytest.raises(InputError, match=r"(there is no file|Unable to find) .*none") as error:
            stamp(source(tmp_path, "json", data_files=(pattern,)))
        assert "\n" not in str(error.value)
    pq.write_table(pa.table({"text": [5]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="holds a number, not a string"):
        documents(source(tmp_path, "parquet", data_files=("a.parquet",)))
