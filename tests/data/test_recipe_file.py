from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from recipe_world import jsonl, write_recipe

from tuneopt.data.recipe.file import built_in, find_recipe, read_recipe
from tuneopt.data.recipe.recipe import NGRAM, Hub
from tuneopt.spec import InputError

GOOD = """\
name: small
tokenizer: {train: 400}
tokens: 2e6
when_exhausted: repeat
sources:
  web:
    files: [web/*.jsonl, more.txt]
    weight: 3.8
  code: {hub: some/code, config: python, revision: abc, text: content, weight: 0.25}
evaluation:
  sources:
    held: {files: [held.jsonl.zst]}
  tokens: 1e5
guard: {ngram: 8}
shard_tokens: 50000
shuffle: false
seed: 7
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "web").mkdir()
    for name in ("b.jsonl", "a.jsonl", ".hidden"):
        jsonl(tmp_path / "web" / name, ["text"])
    (tmp_path / "more.txt").write_text("text")
    jsonl(tmp_path / "held.jsonl.zst", ["text"])
    return tmp_path


def test_every_key_is_read(folder: Path) -> None:
    recipe = read_recipe(write_recipe(folder, GOOD))
    web, code = recipe.sources
    assert [path.name for path in web.files] == ["a.jsonl", "b.jsonl", "more.txt"]
    assert (web.weight, code.weight) == (Fraction(19, 5), Fraction(1, 4))  # decimals are exact
    assert code.hub == Hub("some/code", "python", "train", "abc")
    assert (code.text, recipe.tokens, recipe.when_exhausted) == ("content", 2_000_000, "repeat")
    assert [source.name for source in recipe.evaluation] == ["held"]
    assert (recipe.evaluation_tokens, recipe.ngram, recipe.shard_tokens) == (100_000, 8, 50_000)
    assert (recipe.shuffle, recipe.seed, recipe.tokenizer.train) == (False, 7, 400)


def test_what_is_left_out_has_its_default(folder: Path) -> None:
    text = "name: a\ntokenizer: {train: 400}\nsources: {web: {files: more.txt, weight: 1}}\n"
    recipe = read_recipe(write_recipe(folder, text))
    assert (recipe.tokens, recipe.when_exhausted, recipe.ngram, recipe.held_out) == (None, "stop", NGRAM, 0.02)
    assert recipe.evaluation == () and recipe.shuffle


def test_changes_replace_values_and_their_paths_are_those_of_the_caller(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recipe(folder, GOOD)
    (folder / "mine").mkdir()
    jsonl(folder / "mine" / "a.jsonl", ["text"])
    monkeypatch.chdir(folder / "mine")
    recipe = read_recipe(path, ["sources.code.files=a.jsonl", "tokens=5e6", "evaluation={held_out: 0.1}", "seed=9"])
    assert recipe.sources[1].files == (folder / "mine" / "a.jsonl",)
    assert recipe.sources[1].origin == "1 files, in place of some/code"
    assert (recipe.tokens, recipe.held_out, recipe.evaluation, recipe.seed) == (5_000_000, 0.1, (), 9)


def files_of(folder: Path, pattern: str) -> list[str]:
    text = f"name: a\ntokenizer: {{train: 400}}\nsources: {{web: {{files: '{pattern}', weight: 1}}}}\n"
    (source,) = read_recipe(write_recipe(folder, text)).sources
    return [str(path.relative_to(folder)) for path in source.files]


def test_hidden_files_are_left_out_and_folders_are_read_whole(folder: Path) -> None:
    (folder / "web" / "below").mkdir()
    (folder / "web" / ".cache").mkdir()
    for name in ("below/c.txt", ".cache/d.txt", ".e.txt"):
        (folder / "web" / name).write_text("text")
    (folder / "web" / "README.md").write_text("no text of the corpus")
    every = ["web/a.jsonl", "web/b.jsonl", "web/below/c.txt"]
    assert files_of(folder, "web") == files_of(folder, "we*") == every
    (folder / "web" / "README.md").unlink()
    assert files_of(folder, "web/*") == files_of(folder, "web/**/*") == every
    assert files_of(folder, "web/.e.txt") == ["web/.e.txt"]
    assert files_of(folder, "web/.cache/*") == ["web/.cache/d.txt"]


@pytest.mark.parametrize(
    ("name", "pattern"), [("c.jsonl.xz", "web/*"), ("b.json", "web/*.json*"), ("n.md", "web/n.md")]
)
def test_a_pattern_that_names_what_nobody_reads_is_refused(folder: Path, name: str, pattern: str) -> None:
    (folder / "web" / name).write_text("{}")
    with pytest.raises(InputError, match=rf"names '{name}', which no reader knows \(1 such files\)"):
        files_of(folder, pattern)


def test_data_files_are_relative_to_where_they_are_given(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_recipe(folder, GOOD.replace("hub: some/code, config: python,", "hub: json, data_files: '*.jsonl',"))
    monkeypatch.chdir(folder / "web")
    for changes, home in (([], folder), (["sources.code.data_files=a.jsonl"], folder / "web")):
        hub = read_recipe(path, changes).sources[1].hub
        assert hub is not None and hub.folder == home
    hub = read_recipe(path, ["sources.code.hub=../web"]).sources[1].hub
    assert hub is not None and hub.folder is not None and hub.folder.resolve() == folder / "web"


def test_a_file_counts_once_by_whatever_folders_it_is_named(folder: Path) -> None:
    (folder / "link").symlink_to(folder / "web")
    named = f"[web/a.jsonl, link/../web/a.jsonl, ../{folder.name}/web/a.jsonl, link/a.jsonl, link/b.jsonl]"
    text = f"name: a\ntokenizer: {{train: 400}}\nsources: {{web: {{files: {named}, weight: 1}}}}\n"
    (source,) = read_recipe(write_recipe(folder, text)).sources
    assert source.files == (folder / "web" / "a.jsonl", folder / "link" / "b.jsonl")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["tokens=1e6", "tokens=2e6"], "--set 'tokens=2e6': --set tokens gives that as well; keep one of them"),
        (["tokenizer={train: 300}", "tokenizer.train=500"], "--set tokenizer gives that as well"),
        (["tokenizer.train=500", "tokenizer={train: 300}"], "--set tokenizer.train gives that as well"),
    ],
)
def test_two_changes_of_one_value_are_refused(folder: Path, changes: list[str], words: str) -> None:
    path = write_recipe(folder, GOOD)
    with pytest.raises(InputError) as refused:
        read_recipe(path, changes)
    assert words in str(refused.value)
    more = [f"evaluation={{sources: {{e: {{files: {folder / 'web'}}}}}}}", "evaluation.tokens=5"]
    assert read_recipe(path, more).evaluation_tokens == 5


MISTAKES = [
    ("name: small", "name: a b", 1, "must be of letters"),
    ("name: small", "nam: small", 1, "did you mean 'name'"),
    ("{train: 400}", "{train: 20}", 2, "at least 257"),
    ("{train: 400}", "{train: 400, file: x}", 2, "needs one of"),
    ("{train: 400}", "{train: 400, end_of_text: x}", 2, "brings its own"),
    ("{train: 400}", "{file: x, revision: y}", 2, "belongs to a tokenizer of the hub"),
    ("{train: 400}", "{}", 2, "needs one of"),
    ("{train: 400}", "{train: 100}", 2, "try 32768"),
    ("tokens: 2e6", "tokens: many", 3, "must be a number"),
    ("tokens: 2e6", "tokens: 1.5", 3, "whole number"),
    ("tokens: 2e6", "tokens: 1e30", 3, "whole number of up to"),
    ("tokens: 2e6\n", "", 3, "say how many tokens"),
    ("when_exhausted: repeat", "when_exhausted: repeet", 4, "did you mean 'repeat'"),
    ("    weight: 3.8\n", "", 7, "needs a weight"),
    ("weight: 3.8", "weight: 0", 8, "must be above 0"),
    ("weight: 3.8", "weight: heavy", 8, "must be a number"),
    ("weight: 3.8", "weight: 1e-30", 8, "must lie between"),
    ("weight: 3.8", "wieght: 3.8", 8, "did you mean 'weight'"),
    ("more.txt]", "less.txt]", 7, "no file that can be read at 'less.txt'"),
    ("more.txt]", "'../**/\\0']", 7, "no file|cannot be looked up"),
    ("hub: some/code, ", "", 9, "belongs to a data set of the hub"),
    ("hub: some/code, config: python, revision: abc, ", "", 9, "needs files, or hub"),
    ("some/code", "code", 9, "no folder here, no data set"),
    ("some/code", "./code/here", 9, "no folder here, no data set"),
    ("some/code", "json", 9, "needs data_files"),
    ("config: python", "format: json", 9, "needs data_files"),
    ("config: python", "format: jsn, data_files: a", 9, "did you mean 'json'"),
    ("config: python", "data_files: 'hf://datasets/a/b/c.parquet'", 9, "say hub: OWNER/NAME and format"),
    (
        "  code: {",
        "  twin: {files: [web/../more.txt], weight: 1}\n  code: {",
        6,
        "more.txt is in two sources, web and twin",
    ),
    ("  code: {", "  'c/o': {", 9, "must be of letters"),
    ("held: {", "web: {", 11, "names a source of training and of evaluation"),
    ("  tokens: 1e5", "  held_out: 0.1", 11, "either sources of its own or held_out"),
    ("{ngram: 8}", "{ngram: 2}", 14, "between 5 and 100"),
    ("{ngram: 8}", "{gram: 8}", 14, "did you mean 'ngram'"),
    ("shard_tokens: 50000", "shard_tokens: 5", 15, "at least 1000"),
    ("shuffle: false", "shuffle: 3", 16, "true or false"),
    ("seed: 7", "seed: -1", 17, "at least 0"),
    ("seed: 7", "seed: 7\nseed: 8", 18, "given twice"),
    ("seed: 7", "seed: !!python/name:os.system x", 17, "seed must be|not YAML|quotes"),
    ("seed: 7", "seed: [", 18, "not YAML"),
]


@pytest.mark.parametrize(("old", "new", "line", "why"), MISTAKES)
def test_a_mistake_is_one_sentence_with_its_line(folder: Path, old: str, new: str, line: int, why: str) -> None:
    assert GOOD.count(old) == 1
    path = write_recipe(folder, GOOD.replace(old, new))
    with pytest.raises(InputError, match=why) as error:
        read_recipe(path)
    assert str(error.value).startswith(f"{path}:{line}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("tokens", "KEY=VALUE"),
        ("=5", "KEY=VALUE"),
        ("tokens=", "KEY=VALUE"),
        ("sources.wob.weight=1", "did you mean 'web'"),
        ("tokens.more=1", "no mapping"),
        ("seed.a.b=1", "no mapping"),
        ("sources.web.weight=none", "--set sources.web.weight:1: the weight"),
        ("tokens=[", "--set tokens:1: not YAML"),
    ],
)
def test_a_change_that_cannot_be_made_says_so(folder: Path, change: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        read_recipe(write_recipe(folder, GOOD), [change])


def test_recipes_of_the_package_are_found_and_sound() -> None:
    assert "paper" in built_in()
    for name in built_in():
        recipe = read_recipe(find_recipe(name))
        assert recipe.name == name
        assert [source.name for source in recipe.sources] == ["dclm", "starcoder", "proofpile"]
        total = sum(source.weight for source in recipe.sources)
        shares = [float(source.weight / total) for source in recipe.sources]
        # 3.8, 0.25 and 0.055 trillion tokens (arXiv 2509.02046, mixed by token count)
        assert shares == pytest.approx([0.92570, 0.06090, 0.01340], abs=1e-5)
    with pytest.raises(InputError, match="did you mean 'paper'"):
        find_recipe("papre")
    with pytest.raises(InputError, match="no recipe file at"):
        read_recipe(find_recipe("nowhere.yaml"))


def test_the_papers_budgets_fit_its_recipe() -> None:
    from tuneopt.scale_files import find_scale
    from tuneopt.spec import CorpusId, Regime

    recipe = read_recipe(find_recipe("paper"))
    assert recipe.tokens is not None
    largest = Regime(find_scale("1.2b"), 8, CorpusId("none", "", 1)).tokens
    assert largest <= recipe.tokens
