"""Recipe files: YAML, read strictly; every mistake is one sentence with its line.

    name: mixture
    tokenizer: {train: 32768}            # or {file: tokenizer.json}, or {hub: meta-llama/Meta-Llama-3-8B}
    tokens: 2e9                          # of the train split; left out: all there is
    when_exhausted: stop                 # or repeat, or leave
    sources:
      web: {hub: mlfoundations/dclm-baseline-1.0, weight: 3.8}
      code: {files: [code/*.parquet], text: content, weight: 0.25}
    evaluation:
      sources:
        c4: {hub: allenai/c4, config: en, split: validation}

docs/corpora.md explains every key. What a file leaves out has the default of `Recipe`, and none is stated here. Files
and patterns become lists of paths at once, so that a pattern without a match is told with its line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from importlib.resources import files
from pathlib import Path
from typing import Any

from tuneopt.data.readers import ending
from tuneopt.data.recipe.recipe import EXHAUSTED, FORMATS, NGRAM, REPEAT, Hub, Recipe, SourceRecipe, TokenizerRecipe
from tuneopt.data.sources import files_below
from tuneopt.data.tokenizer import SMALLEST_VOCABULARY
from tuneopt.declared import Node, in_words, mapping, number, parse_yaml, read_yaml, sequence, switch, whole, word
from tuneopt.errors import why
from tuneopt.paths import expanded
from tuneopt.spec import InputError, nearest

Readers = Mapping[str, Callable[[Node, str], Any]]
"""How to read the value of a key: a function of the value and of what it is called in errors, the key itself."""

KEYS = (
    "name", "sources", "tokenizer", "tokens", "when_exhausted", "evaluation", "guard", "shard_tokens", "shuffle",
    "seed",
)  # fmt: skip
"""The keys of a recipe."""

# Keys of a source and of the tokenizer.
SOURCE_KEYS = ("files", "hub", "config", "split", "revision", "data_files", "format", "text", "weight")
TOKENIZER_KEYS = ("file", "hub", "revision", "train", "end_of_text")
MOST_SOURCES = 250
"""Their numbers have three digits in the names of encoded units; the paper's mixture has three sources."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def built_in() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(entry.name[:-5] for entry in files("tuneopt.data").joinpath("recipes").iterdir())


def find_recipe(name_or_path: str) -> Path:
    """The file of a recipe that ships with the package, or the path as it is; raises `InputError` for neither.

    A path goes first, and one that ends as YAML does is taken for a path even if there is nothing: reading it says so.
    """
    path = expanded(name_or_path)
    if (path.exists() and not path.is_dir()) or path.suffix in (".yaml", ".yml"):
        return path
    names = built_in()
    if name_or_path not in names:
        raise InputError(
            f"no recipe {name_or_path!r}, neither a file nor a known name ({nearest(name_or_path, names)})"
        )
    return Path(str(files("tuneopt.data").joinpath("recipes", f"{name_or_path}.yaml")))


def read_recipe(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe in a YAML file, with changes such as ``sources.web.files=here/*.jsonl`` or ``tokens=1e6``.

    Paths in the file are relative to the file, paths in changes to the current folder. Raises `InputError` as
    ``FILE:LINE: what is wrong``.
    """
    path = expanded(path)
    root = read_yaml(path, "recipe", "docs/corpora.md")
    for change in changes:
        _change(root, change)
    return _recipe(root, path.parent)


def _change(root: Node, change: str) -> None:
    """Put the value of ``a.b.c=VALUE`` (YAML) into the tree, before anything is checked.

    So a change may give what the file lacks, and is checked as if it stood there. Raises `InputError` for one that
    changes nothing that there can be, and for what another change gives: one of the two would be lost.
    """
    key, equals, text = change.partition("=")
    if not equals or not key or not text.strip():
        raise InputError(f"--set {change!r} must be KEY=VALUE, such as sources.web.files=here/*.jsonl or tokens=1e6")
    *above, last = key.split(".")
    node = root
    for name in above:
        if not isinstance(node.plain, dict):
            raise InputError(f"--set {change!r}: {name!r} is below something that is no mapping; name a whole value")
        if name not in node.plain:
            raise InputError(f"--set {change!r}: there is no {name!r} in the recipe; {nearest(name, node.plain)}")
        node = node.plain[name]
    if not isinstance(node.plain, dict):
        raise InputError(f"--set {change!r}: {last!r} is below something that is no mapping; name a whole value")
    if last in node.plain and (other := _given_by(node.plain[last])):
        raise InputError(f"--set {change!r}: {other} gives that as well; keep one of them")
    node.plain[last] = parse_yaml(text, f"--set {key}", "docs/corpora.md")
    node.keys[last] = node.line


def _given_by(node: Node) -> str:
    """The change of the command line that gave a value or a part of it; empty where the file alone did."""
    if _is_change(node):
        return node.path
    parts = node.plain.values() if isinstance(node.plain, dict) else node.plain if isinstance(node.plain, list) else ()
    return next(filter(None, map(_given_by, parts)), "")


def _is_change(node: Node) -> bool:
    return node.path.startswith("--set ")


def _recipe(root: Node, folder: Path) -> Recipe:
    """The whole recipe, and what no single key can say: that its parts fit together."""
    keys = mapping(root, "a recipe", KEYS)
    for key in ("name", "sources", "tokenizer"):
        if key not in keys:
            root.fail(f"a recipe needs the key {key!r}; docs/corpora.md shows one")
    sources = _sources(keys["sources"], folder, weighed=True)
    evaluation = _evaluation(keys["evaluation"], folder) if "evaluation" in keys else {}
    settings = _given(
        keys,
        {
            "tokens": _count,
            "when_exhausted": lambda node, what: word(node, what, EXHAUSTED),
            "shard_tokens": lambda node, what: _count(node, what, 1000, 2**31),
            "shuffle": switch,
            "seed": whole,
        },
    )
    recipe = Recipe(
        name=_name(keys["name"], "name"),
        sources=sources,
        tokenizer=_tokenizer(keys["tokenizer"], folder),
        ngram=_guard(keys["guard"]) if "guard" in keys else NGRAM,
        **settings,
        **evaluation,
    )
    if recipe.when_exhausted == REPEAT and recipe.tokens is None:
        keys["when_exhausted"].fail("sources that repeat have no end; say how many tokens there shall be")
    listed: dict[Path, str] = {}
    for source in sources:
        for path in source.files:
            if (other := listed.setdefault(path.resolve(), source.name)) != source.name:
                keys["sources"].fail(
                    f"{path.name} is in two sources, {other} and {source.name}, and would be drawn twice as often; "
                    "keep one, and give it both weights"
                )
    known = {source.name for source in sources}
    for source in recipe.evaluation:
        if source.name in known:
            keys["evaluation"].fail(
                f"{source.name!r} names a source of training and of evaluation; give it another name"
            )
    return recipe


def _given(keys: Mapping[str, Node], readers: Readers) -> dict[str, Any]:
    """The values of those keys that the file has."""
    return {name: read(keys[name], name) for name, read in readers.items() if name in keys}


def _name(node: Node, what: str, text: str | None = None, line: int | None = None) -> str:
    """A name that may stand in the names of files; the node's own text, or a key's (``text``, in ``line``)."""
    name = word(node, what) if text is None else text
    if not _NAME.fullmatch(name):
        node.fail(f"{what} {name[:80]!r} must be of letters, digits, '.', '_' and '-', 64 at most", line)
    return name


def _count(node: Node, what: str, least: int = 1, most: int = 10**15, example: str = "2e9") -> int:
    """A whole number, which may be written as 2e9: YAML reads that as a text or a float."""
    value = number(node, what, least=least, example=example)
    if value != int(value) or value > most:
        node.fail(f"{what} must be a whole number of up to {most}, not {in_words(node)}")
    return int(value)


def _sources(node: Node, folder: Path, weighed: bool) -> tuple[SourceRecipe, ...]:
    """Sources in the order of the file, which breaks ties of the mixture; ``weighed`` ones need a weight."""
    if not isinstance(node.plain, dict) or not node.plain:
        node.fail(f"sources must be a mapping of names to sources, not {in_words(node)}; try web: {{files: [*.txt]}}")
    if len(node.plain) > MOST_SOURCES:
        node.fail(f"{len(node.plain)} sources are more than {MOST_SOURCES}; put files of one kind into one source")
    return tuple(_source(node, name, entry, folder, weighed) for name, entry in node.items())


def _source(above: Node, name: str, node: Node, folder: Path, weighed: bool) -> SourceRecipe:
    _name(above, "the source", name, above.keys[name])
    parts = mapping(node, f"source {name}", SOURCE_KEYS)
    text = word(parts["text"], "text") if "text" in parts else None
    if weighed and "weight" not in parts:
        node.fail(f"source {name} needs a weight: its share of the tokens, in any unit, such as weight: 3.8")
    weight = _weight(parts["weight"], name) if "weight" in parts else Fraction(1)
    hub = _hub(parts, folder) if "hub" in parts else None
    for key in ("config", "split", "revision", "data_files", "format"):
        if key in parts and hub is None:
            node.fail(f"{key!r} belongs to a data set of the hub, and source {name} names none", node.keys[key])
    if hub is None and "files" not in parts:
        node.fail(f"source {name} needs files, or hub: the name of a data set")
    return SourceRecipe(name, weight, text, _files(parts["files"], folder) if "files" in parts else (), hub)


def _hub(parts: Mapping[str, Node], folder: Path) -> Hub:
    """What `datasets` is asked for; raises where it could only fail later, or read what no revision fixes."""
    node = parts["hub"]
    name = word(node, "hub")
    given = _given(
        parts,
        {
            "data_files": _words,
            "config": word,
            "split": word,
            "revision": word,
            "format": lambda node, what: word(node, what, FORMATS),
        },
    )
    data_files = given.get("data_files", ())
    if ("format" in parts or name in FORMATS) and not data_files:
        node.fail(f"{name!r} needs data_files: the paths or patterns of the files to read")
    if any(pattern.startswith("hf://") for pattern in data_files):
        parts["data_files"].fail(
            "data_files of the hub need their data set's name, so that its revision can be fixed; "
            "say hub: OWNER/NAME and format: json"
        )
    return Hub(name=name, folder=_home(parts, name, folder), **given)


def _words(node: Node, what: str) -> tuple[str, ...]:
    return tuple(word(entry, f"an entry of {what}") for entry in sequence(node, what))


def _home(parts: Mapping[str, Node], name: str, folder: Path) -> Path | None:
    """The folder of a data set that is on this machine, or of a format's files; None for a data set of the hub.

    Absolute: workers run in other folders. Raises for a name that could be neither.
    """
    node = parts["data_files" if name in FORMATS else "hub"]
    base = _base(node, folder)
    if name in FORMATS:
        return base.absolute()
    for place in (base / expanded(name), Path(name)):  # `datasets` looks in the current folder
        if place.is_dir():
            return place.absolute()
    if not re.fullmatch(r"[\w.-]*\w[\w.-]*/[\w.-]+", name):
        node.fail(f"{name!r} is no folder here, no data set (OWNER/NAME), and no format ({', '.join(FORMATS)})")
    return None


def _weight(node: Node, name: str) -> Fraction:
    """A weight as it is written: 0.1 is one tenth and not the nearest float, so that no machine differs."""
    number(node, f"the weight of {name}", above=True, example="3.8")
    try:
        weight = Fraction(Decimal(str(node.plain)))
    except InvalidOperation:
        node.fail(f"the weight of {name} must be a number, not {in_words(node)}; try 3.8")
    if not Fraction(1, 10**18) <= weight <= 10**18:
        node.fail(f"the weight of {name} must lie between 1e-18 and 1e18, not {in_words(node)}")
    return weight


def _files(node: Node, folder: Path) -> tuple[Path, ...]:
    """The files that paths and patterns name, in the order of the list, each entry's sorted by path.

    The order is a part of the corpus, so it must not be the file system's. Raises for an entry that names no file, or
    one that no reader knows: what was meant to be in the corpus is never left out silently.
    """
    paths: dict[Path, Path] = {}  # a file that two entries name counts once, by whatever folders they lead there
    base = _base(node, folder)
    for entry in sequence(node, "files"):
        pattern = word(entry, "a file")
        try:
            matches = _matches(base, pattern)
        except (OSError, ValueError, RuntimeError, NotImplementedError) as error:
            reason = why(error) if isinstance(error, OSError) else error
            entry.fail(f"{pattern!r} cannot be looked up ({reason}); give a path, or a pattern such as data/*.jsonl")
        unknown = [match.name for match in matches if not ending(match)]
        if unknown:
            entry.fail(
                f"{pattern!r} names {unknown[0]!r}, which no reader knows ({len(unknown)} such files); "
                f"give .txt, .jsonl or .parquet, or these as .zst or .gz, or a pattern without it"
            )
        if not matches:
            entry.fail(
                f"no file that can be read at {pattern!r}; give .txt, .jsonl or .parquet, or these as .zst or .gz"
            )
        for match in matches:
            paths.setdefault(match.parent.resolve() / match.name, match)
    return tuple(paths.values())


def _base(node: Node, folder: Path) -> Path:
    """What paths are relative to: the recipe's folder; the current one in changes of the command line."""
    return Path() if _is_change(node) else folder


def _matches(base: Path, pattern: str) -> list[Path]:
    """The files that a path or pattern names, and of the folders that it names what can be read.

    Hidden files, and files in hidden folders, are left out unless the pattern spells their names.
    """

    def visible(paths: Iterable[Path], spelt: Sequence[str]) -> set[Path]:
        return {path for path in paths if not any(part.startswith(".") and part not in spelt for part in path.parts)}

    path = expanded(pattern)
    path = path if path.is_absolute() else (base / path).absolute()
    if path.exists():  # first: a name may hold the signs of a pattern
        matches = {path}
    else:
        matches = visible(Path(path.anchor).glob(str(path.relative_to(path.anchor))), path.parts)
    files = {match for match in matches if not match.is_dir()}
    for folder in matches - files:
        files.update(files_below(folder))
    return sorted(files)


def _evaluation(node: Node, folder: Path) -> dict[str, Any]:
    """The fields of `Recipe` that say what is evaluated on: sources of its own, or a share of the documents."""
    parts = mapping(node, "evaluation", ("sources", "tokens", "held_out"))
    if ("sources" in parts) == ("held_out" in parts):
        node.fail("evaluation needs either sources of its own or held_out: a share of the documents, such as 0.02")
    if "sources" in parts:
        tokens = _count(parts["tokens"], "tokens") if "tokens" in parts else None
        return {"evaluation": _sources(parts["sources"], folder, weighed=False), "evaluation_tokens": tokens}
    if "tokens" in parts:
        node.fail("tokens belongs to evaluation sources; held_out says how much is kept out", node.keys["tokens"])
    share = number(parts["held_out"], "held_out", above=True, example="0.02")
    if not 1 / 65536 <= share <= 0.25:
        parts["held_out"].fail(f"held_out must lie between 1/65536 and 0.25, not {share:g}; try 0.02")
    return {"held_out": share}


def _guard(node: Node) -> int:
    """Words in a row that training and evaluation may not share; fewer than 5 are common in any text."""
    parts = mapping(node, "guard", ("ngram",))
    ngram = whole(parts["ngram"], "ngram") if "ngram" in parts else NGRAM
    if ngram and not 5 <= ngram <= 100:
        parts["ngram"].fail(f"ngram must lie between 5 and 100 words, or be 0 for none, not {ngram}; try 13")
    return ngram


def _tokenizer(node: Node, folder: Path) -> TokenizerRecipe:
    """Exactly one of file, hub and train, and of the other keys those that belong to it."""
    parts = mapping(node, "tokenizer", TOKENIZER_KEYS)
    given = [key for key in ("file", "hub", "train") if key in parts]
    if len(given) != 1:
        node.fail("the tokenizer needs one of file: tokenizer.json, hub: NAME, train: ENTRIES of the vocabulary")
    if "revision" in parts and given != ["hub"]:
        node.fail("revision belongs to a tokenizer of the hub", node.keys["revision"])
    if "end_of_text" in parts and given == ["train"]:
        node.fail("a tokenizer that is trained here brings its own end of text", node.keys["end_of_text"])
    return TokenizerRecipe(
        **_given(
            parts,
            {
                "file": lambda entry, what: _base(entry, folder) / expanded(word(entry, what)),
                "hub": word,
                "revision": word,
                "train": lambda entry, what: _count(entry, what, SMALLEST_VOCABULARY, 2**20, "32768"),
                "end_of_text": word,
            },
        )
    )
