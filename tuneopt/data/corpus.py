"""A prepared corpus: three splits of tokens in memory-mapped shards, with a content fingerprint.

`load_corpus` prepares a corpus once per cache and opens it afterwards. `open_corpus` opens a prepared folder as it is.
Opening reads the manifest and maps the shards; tokens are read from the page cache, so many trials on one machine share
one copy of a corpus. Nothing writes into a prepared folder: what is damaged is removed as a whole and prepared again.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuneopt.data.batches import Windows
from tuneopt.data.cache import discard, only_process, publish, remove_leftovers
from tuneopt.data.manifest import MANIFEST_FILE, SCHEMA, TOKENIZER_FILE, DamagedCorpusError, Manifest, file_sha256
from tuneopt.data.shards import Documents, map_shard
from tuneopt.data.sources import EMBEDDED, FileSource, Source, find_source
from tuneopt.data.splits import SPLITS
from tuneopt.errors import why
from tuneopt.paths import CACHE_VARIABLE, cache_folder
from tuneopt.spec import CorpusId, InputError, canonical_json, nearest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

UNFINISHED = ".preparing"
"""The folder inside a corpus that holds what is not finished yet."""

CHEAP_EPOCHS = 4.0
"""Up to here repeated text is worth nearly as much as new text (Muennighoff et al., arXiv 2305.16264)."""

_log = logging.getLogger(__name__)


class TokenSplit:
    """The tokens of one split, memory-mapped. ``bytes`` counts the text in UTF-8, separators not included.

    ``tokens`` counts ids, the end of text after each document included.
    """

    def __init__(self, folder: Path, manifest: Manifest, name: str) -> None:
        entry = manifest.splits[name]
        self.name = name
        self.corpus = manifest.corpus
        self.documents: int = entry.documents
        self.tokens: int = entry.tokens
        self.bytes: int = entry.bytes
        self._folder, self._shards = folder, entry.shards
        self._views = [view for shard in entry.shards for view in map_shard(folder, shard)]

    def documents_of(self) -> Documents:
        """Its documents by number; raises `InputError` for a corpus that keeps no boundaries."""
        return Documents(self._folder, self._shards)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text per token; divides a loss per token into one per byte."""
        return self.bytes / self.tokens

    @property
    def last_token(self) -> int:
        """The token that ends the last document, and so every one."""
        return int(self._views[-1][-1])  # every document is followed by it, the last one too

    def windows(self, seq_len: int) -> Windows:
        """Non-overlapping windows of ``seq_len`` tokens and the one after; raises `InputError` when none fits."""
        windows = Windows(self._views, seq_len)
        if not len(windows):
            raise InputError(
                f"split {self.name!r} of corpus {self.corpus!r} holds {self.tokens} tokens, fewer than one window of "
                f"{seq_len + 1}; give more text or a scale with shorter sequences"
            )
        return windows


class Corpus:
    """A prepared corpus in a folder. Pickles as its path, so a copy in another process maps the same files.

    Raises `DamagedCorpusError` where the files are not what the manifest says, as far as that is cheap to see.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = Manifest.read(folder)
        self.manifest.check(folder)  # sizes, and checksums of what is small; `verify` reads all bytes
        self._splits = {name: TokenSplit(folder, self.manifest, name) for name in SPLITS}

    def __reduce__(self) -> tuple[type[Corpus], tuple[Path]]:
        return Corpus, (self.folder,)

    @property
    def id(self) -> CorpusId:
        """Name, content fingerprint and vocabulary size."""
        return CorpusId(self.manifest.corpus, self.manifest.fingerprint, self.manifest.vocab_size)

    def split(self, name: str) -> TokenSplit:
        """The split of that name: ``train``, ``select`` or ``report``; raises `InputError` for another."""
        if name not in self._splits:
            raise InputError(f"unknown split {name!r}; {nearest(name, SPLITS)}")
        return self._splits[name]

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes of text per token over all splits."""
        splits = self.manifest.splits.values()
        return sum(split.bytes for split in splits) / sum(split.tokens for split in splits)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, read from the folder."""
        from tuneopt.data.tokenizer import load_tokenizer  # opening a corpus should not cost the tokenizers import

        return load_tokenizer(self.folder / TOKENIZER_FILE)

    def verify(self) -> list[str]:
        """Read every file in full; one sentence per file that does not match its checksum, none when all is well."""
        expected = {part.file: part.sha256 for part in self.manifest.parts}
        expected[TOKENIZER_FILE] = self.manifest.tokenizer.sha256
        return [
            f"{self.folder / name} does not match its checksum; delete the folder and prepare the corpus again"
            for name, sha256 in expected.items()
            if file_sha256(self.folder / name) != sha256
        ]


@dataclass(frozen=True, slots=True)
class Epochs:
    """A budget against a corpus: tokens of both, passes over the train split, and a warning or None."""

    budget_tokens: int
    train_tokens: int
    epochs: float
    warning: str | None


def describe(corpus: Corpus, budget_tokens: int) -> Epochs:
    """Passes that a budget of tokens makes over the train split, with a warning above `CHEAP_EPOCHS`."""
    tokens = corpus.split("train").tokens
    epochs = budget_tokens / tokens
    warning = None
    if epochs > CHEAP_EPOCHS:
        warning = (
            f"a budget of {budget_tokens} tokens repeats the {tokens} training tokens of corpus "
            f"{corpus.id.name!r} {epochs:.1f} times; above {CHEAP_EPOCHS:g} epochs repeated text is worth clearly less "
            "than new text (Muennighoff et al., arXiv 2305.16264), so compare with care or use a larger corpus"
        )
    return Epochs(budget_tokens, tokens, epochs, warning)


def open_corpus(folder: Path) -> Corpus:
    """Open a prepared corpus; raises `DamagedCorpusError` (an `InputError`) when files are missing or not whole."""
    return Corpus(folder)


def load_corpus(name_or_path: str = EMBEDDED, *, vocab_size: int, cache_dir: Path | None = None) -> Corpus:
    """The corpus of that name or path, prepared in the cache if it is not there, or is there but not whole.

    A folder that `tuneopt data prepare` made is opened as it is; its tokenizer has the vocabulary that it has.
    Several processes may ask at once: one prepares, the others wait for it. Raises `InputError` for a corpus that
    cannot be found, read or split, and for a cache that cannot be written.
    """
    if name_or_path != EMBEDDED and (prepared := _prepared(name_or_path)):
        return Corpus(prepared)
    source = find_source(name_or_path)
    folder = cache_folder(cache_dir) / "corpora" / _folder_name(source, vocab_size)
    try:
        return Corpus(folder)  # without a lock: what has its place is whole, or was damaged since
    except DamagedCorpusError:
        pass
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with only_process(folder) as locked:
            return _build(source, vocab_size, folder, locked)
    except OSError as error:
        raise InputError(
            f"cannot write the corpus cache {folder.parent}: {why(error)}; "
            f"set {CACHE_VARIABLE} to a folder with space that you may write to"
        ) from None


def _prepared(path: str) -> Path | None:
    """The folder at a path, if it is a prepared corpus; raises `InputError` for one that is not finished."""
    try:
        folder = Path(path).expanduser().resolve()
        if (folder / MANIFEST_FILE).is_file():
            return folder
        unfinished = (folder / UNFINISHED).is_dir()
    except (OSError, ValueError, RuntimeError):
        return None  # who looks for text there says what is wrong with the path
    if unfinished:
        raise InputError(f"the corpus in {folder} is not finished; run its `tuneopt data prepare` again, it goes on")
    return None


def _build(source: Source, vocab_size: int, folder: Path, locked: bool) -> Corpus:
    """Prepare a corpus in its folder, or find that another process has; ``locked`` says whether this one is alone."""
    from tuneopt.data.prepare import prepare  # only here: a cached corpus should not cost the tokenizers import

    if locked:
        remove_leftovers(folder)
    try:
        return Corpus(folder)  # another process may have prepared it while this one waited
    except DamagedCorpusError as damage:
        if folder.exists():
            _log.warning("preparing the corpus in %s again, because it is damaged: %s", folder, damage.why)
        discard(folder)
    # Said when the text is prepared, and not each time that the corpus is opened.
    if isinstance(source, FileSource) and (left_out := source.left_out()):
        _log.warning("%s", left_out)
    publish(folder, lambda temporary: prepare(source, vocab_size, temporary))
    return Corpus(folder)


def _folder_name(source: Source, vocab_size: int) -> str:
    """A name in the cache for all that the tokens depend on: a change of any of it gives a folder of its own."""
    key = canonical_json([SCHEMA, source.name, vocab_size, source.stamp()])
    return f"{source.name}-{vocab_size}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
