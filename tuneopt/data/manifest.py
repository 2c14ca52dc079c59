"""The manifest beside the token shards: what they hold, how it was split, and checksums of all of it.

The fingerprint covers content alone (tokenizer, tokens of each split, split rule), so it is the same on every machine,
under every path, and whatever library version wrote the files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneopt.data.splits import SPLITS
from tuneopt.spec import InputError, canonical_json

SCHEMA = 1
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"


class DamagedCorpusError(InputError):
    """A prepared corpus whose files are not what its manifest says."""

    def __init__(self, folder: Path, why: str) -> None:
        super().__init__(f"the prepared corpus in {folder} is damaged ({why}); delete that folder and prepare it again")
        self.why = why


@dataclass(frozen=True, slots=True)
class Shard:
    """One Arrow file: its name, tokens, size in bytes, and SHA-256 of its bytes."""

    file: str
    tokens: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SplitEntry:
    """One split. ``bytes`` counts its text in UTF-8; ``sha256`` covers its tokens, little-endian, in stored width."""

    documents: int
    bytes: int
    tokens: int
    sha256: str
    shards: tuple[Shard, ...]


@dataclass(frozen=True, slots=True)
class TokenizerEntry:
    """The tokenizer: SHA-256 of its file and of its entries and merges, and the bytes of text it was trained on."""

    sha256: str
    content_sha256: str
    training_bytes: int


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
        """Plain data for JSON, the fingerprint included."""
        return {"fingerprint": self.fingerprint, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Manifest:
        """Inverse of `to_dict`; raises TypeError, KeyError or ValueError for anything else."""
        fields = dict(plain)
        fingerprint = fields.pop("fingerprint")
        if fields["schema"] != SCHEMA:
            raise ValueError(f"schema {fields['schema']!r} instead of {SCHEMA}")
        splits = {
            name: SplitEntry(**{**entry, "shards": tuple(Shard(**shard) for shard in entry["shards"])})
            for name, entry in fields.pop("splits").items()
        }
        if set(splits) != set(SPLITS):
            raise ValueError(f"splits {sorted(splits)}")
        manifest = cls(tokenizer=TokenizerEntry(**fields.pop("tokenizer")), splits=splits, **fields)
        if manifest.fingerprint != fingerprint:
            raise ValueError("its fingerprint does not match its checksums")
        for name, entry in splits.items():
            if sum(shard.tokens for shard in entry.shards) != entry.tokens:
                raise ValueError(f"the shards of {name} do not add up")
        return manifest

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` into the folder."""
        (folder / MANIFEST_FILE).write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read ``manifest.json``; raises `DamagedCorpusError` when it is missing or is not a manifest."""
        try:
            return cls.from_dict(json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise DamagedCorpusError(folder, f"no {MANIFEST_FILE}") from None
        except (ValueError, TypeError, KeyError, AttributeError, OSError, RecursionError) as error:
            raise DamagedCorpusError(folder, f"{MANIFEST_FILE}: {error}") from None

    def check_sizes(self, folder: Path) -> None:
        """Cheap check of every file: shards by size, the small tokenizer by checksum. Raises `DamagedCorpusError`."""
        for shard in self.shards:
            size = file_size(folder / shard.file)
            if size != shard.bytes:
                raise DamagedCorpusError(folder, f"{shard.file} has {size} of {shard.bytes} bytes")
        if file_sha256(folder / TOKENIZER_FILE) != self.tokenizer.sha256:
            raise DamagedCorpusError(folder, f"{TOKENIZER_FILE} does not match its checksum")

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards of all splits."""
        return tuple(shard for entry in self.splits.values() for shard in entry.shards)


def file_size(path: Path) -> int:
    """Size in bytes; 0 for a file that is not there."""
    return path.stat().st_size if path.is_file() else 0


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes; empty for a file that is not there."""
    if not path.is_file():
        return ""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
