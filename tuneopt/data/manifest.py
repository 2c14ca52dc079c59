"""The manifest beside the token shards: what they hold, how it was split, and checksums of all of it.

The fingerprint covers content alone (tokenizer, tokens of each split, split rule), so it is the same on every machine,
under every path, and whatever library version wrote the files. It stands in the id of every trial on the corpus.

``manifest.json`` is written last, whole, by the process that prepares: a folder without it is no corpus. Readers check
its own consistency (schema, sums, fingerprint), the size of every file, and the checksums of corpora that are small
enough (`CHECKED_BYTES`); whatever fails is a `DamagedCorpusError`, and the corpus is prepared again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from tuneopt import checked
from tuneopt.data.cache import write_whole
from tuneopt.data.splits import SPLITS
from tuneopt.errors import lasting, why
from tuneopt.paths import read_plain
from tuneopt.spec import InputError, canonical_json

SCHEMA = 1
"""Version of the manifest; a corpus of another version is prepared again."""

MANIFEST_FILE = "manifest.json"
CHECKED_BYTES = 1 << 28
"""Shards of up to 256 MiB in sum are read in full when a process opens them: 0.2 seconds. Larger ones go by size."""

TOKENIZER_FILE = "tokenizer.json"
_SHARD_NAME = re.compile(r"[a-z]{1,20}-\d{5,9}\.arrow")
_BOUNDARIES_NAME = re.compile(r"[a-z]{1,20}-\d{5,9}\.documents\.arrow")

LARGEST_MANIFEST = 64 << 20
"""Bytes of a manifest: a shard of 512 MiB takes some 200 bytes in it."""

LARGEST_TOKENIZER = 256 << 20
"""Bytes of a tokenizer file; one of 200,000 entries has some 15 million."""


class DamagedCorpusError(InputError):
    """A prepared corpus whose files are not what its manifest says; ``why`` says what is wrong, without the mend."""

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(f"the prepared corpus in {folder} is damaged ({why}); delete that folder and prepare it again")
        self.why = why


@dataclass(frozen=True, slots=True)
class Boundaries:
    """The Arrow file beside a shard that says where its documents end, and how many there are."""

    file: str
    documents: int
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not isinstance(self.file, str) or not _BOUNDARIES_NAME.fullmatch(self.file):
            raise InputError(
                f"a file of boundaries must have a name such as train-00000.documents.arrow, "
                f"not {checked.shown(self.file)}"
            )
        checked.whole("a shard's documents", self.documents, least=1)
        checked.whole("the bytes of boundaries", self.bytes, least=1)
        checked.sha256("the checksum of boundaries", self.sha256)


@dataclass(frozen=True, slots=True)
class Shard:
    """One Arrow file: its name, tokens, size in bytes, and SHA-256 of its bytes.

    Shards that were prepared from a recipe begin and end with documents, and have ``boundaries``. Names are checked
    because a manifest may be from elsewhere: ``../`` in one must not lead out of the folder.
    """

    file: str
    tokens: int
    bytes: int
    sha256: str
    boundaries: Boundaries | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.file, str) or not _SHARD_NAME.fullmatch(self.file):
            raise InputError(
                f"a shard's file must have a name such as train-00000.arrow, not {checked.shown(self.file)}"
            )
        checked.whole("a shard's tokens", self.tokens, least=1)
        checked.whole("a shard's bytes", self.bytes, least=1)
        checked.sha256("a shard's checksum", self.sha256)

    @property
    def parts(self) -> tuple[Shard | Boundaries, ...]:
        """The files on disk: its own, and that of its documents where it has one."""
        return (self,) if self.boundaries is None else (self, self.boundaries)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Shard:
        """A shard from plain data; raises TypeError or `InputError` for anything else."""
        boundaries = plain.get("boundaries")
        return cls(**{**plain, "boundaries": None if boundaries is None else Boundaries(**boundaries)})


@dataclass(frozen=True, slots=True)
class SplitEntry:
    """One split. ``bytes`` counts its text in UTF-8; ``sha256`` covers its tokens, little-endian, in stored width.

    ``tokens`` is the sum over its shards. The checksum does not depend on where shards are cut.
    """

    documents: int
    bytes: int
    tokens: int
    sha256: str
    shards: tuple[Shard, ...]

    def __post_init__(self) -> None:
        for name in ("documents", "bytes", "tokens"):
            checked.whole(f"a split's {name}", getattr(self, name))
        checked.sha256("a split's checksum", self.sha256)


@dataclass(frozen=True, slots=True)
class TokenizerEntry:
    """The tokenizer: SHA-256 of its file and of its entries and merges, and the bytes of text it was trained on.

    The first tells damage; the second, which the fingerprint covers, is the same whatever version wrote the file.
    """

    sha256: str
    content_sha256: str
    training_bytes: int

    def __post_init__(self) -> None:
        checked.sha256("the tokenizer's checksum", self.sha256)
        checked.sha256("the checksum of the tokenizer's content", self.content_sha256)
        checked.whole("the tokenizer's training_bytes", self.training_bytes)


@dataclass(frozen=True, slots=True)
class Manifest:
    """All that is known about a prepared corpus. ``versions`` names the libraries that wrote it, for people only."""

    corpus: str
    vocab_size: int
    split_rule: str
    tokenizer: TokenizerEntry
    splits: Mapping[str, SplitEntry]
    versions: Mapping[str, str]
    schema: int = SCHEMA
    recipe: Mapping[str, Any] | None = None
    """What a recipe's preparation counted, for people: sources, mixture, guard. Plain data, no part of the content."""

    def __post_init__(self) -> None:
        checked.text("the corpus's name", self.corpus, empty=False)
        checked.text("the split rule", self.split_rule)
        if self.recipe is not None and not isinstance(self.recipe, Mapping):
            raise InputError("the recipe of a manifest must be a mapping")
        checked.whole("vocab_size", self.vocab_size, least=1, most=2**31)
        for name, version in self.versions.items():
            checked.text("a library", name)
            checked.text("a library's version", version)

    @property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that identify the content."""
        content = {
            "vocab_size": self.vocab_size,
            "tokenizer": self.tokenizer.content_sha256,
            "split_rule": self.split_rule,
            "splits": {name: self.splits[name].sha256 for name in SPLITS},
        }
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, the fingerprint included; what a corpus without a recipe lacks is left out."""
        plain = dataclasses.asdict(self)
        if plain["recipe"] is None:
            del plain["recipe"]
        for entry in plain["splits"].values():
            entry["shards"] = [
                {key: value for key, value in shard.items() if value is not None} for shard in entry["shards"]
            ]
        return {"fingerprint": self.fingerprint, **plain}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Manifest:
        """Inverse of `to_dict`; raises TypeError, KeyError or ValueError for anything else."""
        fields = dict(plain)
        fingerprint = fields.pop("fingerprint")
        if fields["schema"] != SCHEMA:
            raise ValueError(f"schema {fields['schema']!r} instead of {SCHEMA}")
        splits = {
            name: SplitEntry(**{**entry, "shards": tuple(map(Shard.from_dict, entry["shards"]))})
            for name, entry in fields.pop("splits").items()
        }
        if set(splits) != set(SPLITS):
            raise ValueError(f"splits {sorted(splits)}")
        manifest = cls(tokenizer=TokenizerEntry(**fields.pop("tokenizer")), splits=splits, **fields)
        # Two tests that a manifest edited by hand, or put together from two, does not pass.
        if manifest.fingerprint != fingerprint:
            raise ValueError("its fingerprint does not match its checksums")
        for name, entry in splits.items():
            if sum(shard.tokens for shard in entry.shards) != entry.tokens:
                raise ValueError(f"the shards of {name} do not add up")
        return manifest

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into the folder, whole or not at all."""
        write_whole(folder / MANIFEST_FILE, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read ``manifest.json``; raises `DamagedCorpusError` when it is missing or is not a manifest."""
        try:
            return cls.from_dict(json.loads(read_plain(folder / MANIFEST_FILE, LARGEST_MANIFEST)))
        except FileNotFoundError:
            raise DamagedCorpusError(folder, f"no {MANIFEST_FILE}") from None
        except OSError as error:
            if not lasting(error):
                raise
            raise DamagedCorpusError(folder, f"{MANIFEST_FILE}: {why(error)}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise DamagedCorpusError(folder, f"{MANIFEST_FILE}: {error}") from None

    def check(self, folder: Path) -> None:
        """The files against what is said of them; raises `DamagedCorpusError`.

        Sizes of all, the checksum of the small tokenizer, and the checksums of the shards of corpora up to
        `CHECKED_BYTES`, each read once per process and change. Of a larger corpus `Corpus.verify` alone reads every
        byte.
        """
        for part in self.parts:
            if (size := file_size(folder / part.file)) != part.bytes:
                raise DamagedCorpusError(folder, f"{part.file} has {size} of {part.bytes} bytes")
        if file_size(folder / TOKENIZER_FILE) > LARGEST_TOKENIZER:
            raise DamagedCorpusError(folder, f"{TOKENIZER_FILE} has more than {LARGEST_TOKENIZER >> 20} MiB")
        if file_sha256(folder / TOKENIZER_FILE) != self.tokenizer.sha256:
            raise DamagedCorpusError(folder, f"{TOKENIZER_FILE} does not match its checksum")
        for part in self.parts if sum(part.bytes for part in self.parts) <= CHECKED_BYTES else ():
            facts = (folder / part.file).stat()
            if _sum_of(folder / part.file, facts.st_ino, facts.st_size, facts.st_mtime_ns) != part.sha256:
                raise DamagedCorpusError(folder, f"{part.file} does not match its checksum")

    @property
    def parts(self) -> tuple[Shard | Boundaries, ...]:
        """The files of all shards of all splits."""
        return tuple(part for entry in self.splits.values() for shard in entry.shards for part in shard.parts)


@lru_cache(4096)
def _sum_of(path: Path, inode: int, size: int, changed: int) -> str:
    """A file's SHA-256, remembered until the file changes: many trials of one process open the same corpus."""
    return file_sha256(path)


def file_size(path: Path) -> int:
    """Size in bytes; 0 for a file that is not there, which no shard has."""
    return path.stat().st_size if path.is_file() else 0


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes; empty for a file that is not there."""
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
