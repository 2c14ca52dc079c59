"""Corpora by name or recipe: prepare one, look into one, and make the regimes that run on one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tuneopt.api.own_models import scale_named
from tuneopt.constants import VOCAB_SIZES
from tuneopt.data import Corpus, describe, load_corpus
from tuneopt.data.manifest import MANIFEST_FILE
from tuneopt.errors import why
from tuneopt.paths import expanded, replacing
from tuneopt.spec import CorpusId, InputError, Regime, Scale, ratio_of

if TYPE_CHECKING:
    from tuneopt.data.recipe.run import PreparationProgress
    from tuneopt.data.sources import Source

Texts: TypeAlias = str | Path | Corpus | Iterable[str] | Iterable[Mapping[str, Any]]
"""What a corpus may be in Python: a name, a path, a prepared corpus, a `datasets.Dataset`, or an iterable of texts."""

SPLITS = ("train", "select", "report")

FEW_BYTES = 1 << 28
"""Bytes of text files below which documents may be so few that the usual splits have none; counting them takes a
second."""

SAMPLES = 2
"""Documents of each split that a look into a corpus shows."""
SAMPLE_CHARACTERS = 200
"""Characters of each sample."""


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """What one split of a corpus holds; ``bytes`` counts UTF-8 text, not token files."""

    split: str
    documents: int
    tokens: int
    bytes: int
    shards: int


@dataclass(frozen=True, slots=True)
class CorpusSample:
    """The beginning of a document, or of a split's text where documents are not kept apart (``source`` None)."""

    split: str
    source: str | None
    tokens: int
    text: str


@dataclass(frozen=True, slots=True)
class CorpusAccount:
    """What a prepared corpus holds, and what is known of where it came from."""

    corpus: str
    fingerprint: str
    vocabulary: int
    bytes_per_token: float
    tokens_per_byte: float
    folder: str
    split_rule: str
    splits: tuple[SplitCounts, ...]
    mixture: Sequence[Mapping[str, Any]]
    """One row for each source of a recipe, as its manifest states it; empty for a plain folder of text."""
    ended: Mapping[str, str]
    """Why each phase of a recipe's mixing ended."""
    guard: Mapping[str, Any] | None
    """What kept evaluation documents out of the training split; None without a recipe."""

    @classmethod
    def of(cls, corpus: Corpus) -> CorpusAccount:
        """Read the account off a loaded corpus; reads its manifest, no tokens."""
        manifest, recipe = corpus.manifest, corpus.manifest.recipe or {}
        return cls(
            corpus=corpus.id.name,
            fingerprint=corpus.id.fingerprint,
            vocabulary=corpus.id.vocab_size,
            bytes_per_token=round(corpus.bytes_per_token, 4),
            tokens_per_byte=round(1 / corpus.bytes_per_token, 4),
            folder=str(corpus.folder.absolute()),
            split_rule=manifest.split_rule,
            splits=tuple(
                SplitCounts(name, split.documents, split.tokens, split.bytes, len(manifest.splits[name].shards))
                for name, split in ((name, corpus.split(name)) for name in SPLITS)
            ),
            mixture=recipe.get("mixture", []),
            ended=recipe.get("ended", {}),
            guard=recipe.get("guard"),
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON shape of ``data prepare`` and ``data inspect``."""
        return {**asdict(self), "splits": [asdict(split) for split in self.splits]}


@dataclass(frozen=True, slots=True)
class PreparedCorpus:
    """A corpus that a recipe made: now, or (``reused``) in an earlier run."""

    corpus: Corpus
    reused: bool


@dataclass(frozen=True, slots=True)
class CorpusLook:
    """A corpus seen from a regime: its account, samples, and how often its budget goes through the training split."""

    account: CorpusAccount
    budget_tokens: int
    epochs: float
    warning: str | None
    samples: tuple[CorpusSample, ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON shape of ``data inspect``."""
        return {
            **self.account.to_dict(),
            "budget_tokens": self.budget_tokens,
            "epochs": round(self.epochs, 4),
            "warning": self.warning,
            "samples": [asdict(sample) for sample in self.samples],
        }


def prepare_corpus(
    recipe: str | Path,
    out: str | Path | None = None,
    *,
    changes: Sequence[str] = (),
    workers: int | None = None,
    address: str | None = None,
    progress: Callable[[PreparationProgress], None] = lambda _: None,
) -> PreparedCorpus:
    """Make token shards of a recipe's sources; what an earlier run finished is not made again.

    ``recipe`` is a file, or the name of one that ships with tuneopt; ``changes`` are as `read_recipe` takes them.
    ``out`` defaults to ``corpora/NAME``. ``workers`` processes encode (default: one for each core), or with ``address``
    a Ray cluster does. The bytes are the same. Raises `InputError`.
    """
    from tuneopt.data.recipe.file import find_recipe, read_recipe
    from tuneopt.data.recipe.run import local_pool, prepare_recipe

    # The recipe is read in full before anything is written or a cluster is asked: its mistakes are named by line.
    read = read_recipe(find_recipe(str(recipe)), changes)
    folder = expanded(out) if out is not None else Path("corpora") / read.name
    if address is None:
        # The cores that this process may use, not those of the machine: containers and batch systems give a part.
        count = len(os.sched_getaffinity(0)) if workers is None else workers
        if count < 0:
            raise InputError(f"workers must be at least 0, not {count}; 0 is this process alone")
        return PreparedCorpus(*prepare_recipe(read, folder, local_pool(count), progress))
    from tuneopt.cluster.session import connect

    with connect(address):
        from tuneopt.cluster.preparation import RayPool

        return PreparedCorpus(*prepare_recipe(read, folder, RayPool, progress))


def corpus_named(corpus: Texts) -> str:
    """The name or path by which the rest of tuneopt, workers included, finds a corpus.

    The texts of a `datasets.Dataset` or another iterable are written into the cache first, into a file that is named by
    their content: the same texts are the same corpus, and are prepared once. Raises `InputError` for anything else.
    """
    from tuneopt.data.sources import keep_texts
    from tuneopt.paths import CACHE_VARIABLE, cache_folder

    if isinstance(corpus, Corpus):
        return str(corpus.folder)
    if isinstance(corpus, str | Path):
        return str(corpus)
    folder = cache_folder() / "texts"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return str(keep_texts(corpus, folder))
    except OSError as error:
        raise InputError(
            f"the texts of the corpus cannot be kept: {why(error)}; set {CACHE_VARIABLE} to a folder with space that "
            "you may write to"
        ) from error


def encoded_corpus(corpus: Texts, tokenizer: str | Path | None) -> str:
    """The path of a corpus of text, encoded into the cache by a tokenizer of the user's own; without one ``corpus``.

    What `tuneopt data prepare` does with a recipe of one source. Raises `InputError` for what is no text or tokenizer.
    """
    corpus = corpus_named(corpus)
    if tokenizer is None:
        return corpus
    from tuneopt.data.sources import EMBEDDED, FileSource, find_source
    from tuneopt.data.tokenizer import parse_tokenizer, read_tokenizer
    from tuneopt.outside import digest
    from tuneopt.paths import cache_folder

    if corpus == EMBEDDED or (expanded(corpus) / MANIFEST_FILE).is_file():
        raise InputError(f"the corpus {corpus} has its tokenizer; give --tokenizer with a folder or a file of text")
    source, file = find_source(corpus), expanded(tokenizer)
    assert isinstance(source, FileSource), "the embedded text is refused above"
    text = read_tokenizer(file)
    own = digest(text.encode())
    # Text or tokenizer changed: another folder, so that nothing in the cache is mistaken for it. The recipe names a
    # copy of the tokenizer: at the user's own path another one may stand when an interrupted preparation goes on.
    folder = cache_folder() / "corpora" / f"{source.name}-{own}-{digest(str(source.stamp()).encode())}"
    copy, written = folder.with_name(f"tokenizer-{own}.json"), folder.with_suffix(".recipe.yaml")
    if not _holds(copy, text):
        parse_tokenizer(text, str(file))  # a file that is none is named as the user gave it
        _keep(copy, text, "the tokenizer")
    recipe = {
        "name": source.name,
        "tokenizer": {"file": str(copy.absolute())},
        "sources": {"text": {"files": [str(source.root)], "weight": 1}},
    }
    evaluation = _evaluation_of(written, recipe) or {"held_out": _held_out(source)}
    stated = json.dumps({**recipe, "evaluation": evaluation}, indent=1)  # YAML reads JSON
    if not _holds(written, stated):
        _keep(written, stated, "the recipe")
    prepare_corpus(written, folder)
    return str(folder)


def _holds(path: Path, text: str) -> bool:
    """Whether a file of the cache is there and whole: what a crash or somebody else left of it is no ground."""
    return path.is_file() and path.read_bytes() == text.encode()


def _keep(path: Path, text: str, what: str) -> None:
    with replacing(path, what, make_folder=True) as place:
        place.write_text(text, encoding="utf-8", newline="")


def _evaluation_of(written: Path, recipe: Mapping[str, Any]) -> Any:
    """What a kept recipe says of evaluation, which takes a pass over the text to know; None where the rest differs."""
    try:
        kept = json.loads(written.read_bytes())
        evaluation = kept.pop("evaluation", None)
    except (OSError, ValueError, AttributeError):
        return None
    return evaluation if kept == recipe else None


def _held_out(source: Source) -> float:
    """The share of the documents for each evaluation split of a corpus without a recipe of its own."""
    from tuneopt.data.recipe.guard import fingerprint
    from tuneopt.data.recipe.recipe import HELD_OUT
    from tuneopt.data.sources import FileSource
    from tuneopt.data.splits import BUCKETS, common_share

    if not isinstance(source, FileSource) or sum(path.stat().st_size for path in source.paths) > FEW_BYTES:
        return HELD_OUT
    weights = np.zeros(BUCKETS, np.int64)
    for text in source.documents():
        weights[int.from_bytes(fingerprint(text)[:2], "big")] += len(text.encode())
    return common_share(weights, HELD_OUT, source.name)


def inspect_corpus(
    corpus: Texts, scale: str | Scale = "nano-65k", ratio: float | None = None, *, tokens: int | None = None
) -> CorpusLook:
    """Counts of a corpus, its splits and sources, samples, and the epochs that the budget of a regime takes.

    The budget is a ``ratio`` at a scale (1 where nothing is said), or ``tokens``.
    """
    if ratio is not None and tokens is not None:
        raise InputError("give --ratio or --tokens, not both: each is a budget")
    shape = scale_named(scale)
    regime, loaded = regime_on(shape, ratio_of(shape, tokens) if tokens else 1.0 if ratio is None else ratio, corpus)
    epochs = describe(loaded, regime.tokens)
    samples = tuple(sample for name in SPLITS for sample in _samples(loaded, name))
    return CorpusLook(CorpusAccount.of(loaded), epochs.budget_tokens, epochs.epochs, epochs.warning, samples)


def _samples(corpus: Corpus, name: str) -> list[CorpusSample]:
    """The first documents of a split where a recipe kept them apart; else the beginning of its text."""
    split, recipe = corpus.split(name), corpus.manifest.recipe
    texts: list[tuple[str | None, Any]]
    if recipe is None:
        head = split.windows(1).take(range(min(SAMPLE_CHARACTERS, split.tokens - 1)))[:, 0]
        texts = [(None, head)]
    else:
        documents = split.documents_of()
        texts = [
            (recipe["mixture"][documents.source(number)]["source"], documents.tokens(number))
            for number in range(min(SAMPLES, len(documents)))
        ]
    decode = corpus.tokenizer.decode
    # A token is at least one character, so as many tokens as characters are always enough to decode.
    return [
        CorpusSample(name, source, len(tokens), decode(tokens[:SAMPLE_CHARACTERS].tolist())[:SAMPLE_CHARACTERS])
        for source, tokens in texts
    ]


def regime_on(scale: str | Scale, ratio: float, corpus: Texts) -> tuple[Regime, Corpus]:
    """A regime by its names, with the prepared corpus it runs on; raises `InputError` for what there is not."""
    shape = scale_named(scale)
    Regime(shape, ratio, CorpusId("unread", "", 0))  # a bad ratio is answered before any text is tokenized
    loaded = load_corpus(corpus_named(corpus), vocab_size=VOCAB_SIZES[shape.ladder])
    return Regime(shape, ratio, loaded.id), loaded
