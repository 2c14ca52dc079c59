"""A ledger in one file: what a finished study leaves for a repository, an archive or a mail.

Every document stands in the file as it is, in Parquet, with a seal over all of them. The documents keep their own
seals, so that what comes out is read and verified as any ledger is. A packed ledger is read where it lies, unfolded
once into the cache; nothing is recorded in it, because the next reader of the file would not see that.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tuneopt.checked import shown
from tuneopt.ledger.damage import PREVIOUS, document_names, is_document, key, odd_names
from tuneopt.ledger.durable import NoPlainFileError
from tuneopt.ledger.files import Files, LocalFiles
from tuneopt.ledger.place import MARKER, check_marker
from tuneopt.ledger.seal import seal, unseal
from tuneopt.paths import cache_folder
from tuneopt.spec import InputError

FOLDERS = ("trials", "sweeps", "runs", "comparisons")
"""What a report reads, and with it what is packed: logs, leases, weights and checkpoints stay behind."""

LARGEST_UNPACKED = 8 << 30
"""Bytes of the documents of a packed ledger: those of a quarter of a million trials."""

_SEAL_KEY = b"tuneopt_seal"


def pack(files: Files, only: Collection[str] | None = None) -> tuple[bytes, int]:
    """A ledger's documents as one Parquet file, the same bytes each time, and how many there are.

    ``only`` names those that are packed, as ``trials/<id>.json``; None packs all of them.
    """
    inside = (name for folder in FOLDERS for name in document_names(files, folder))
    names = [name for name in inside if is_document(name) and (only is None or name in only)]
    pairs = sorted(files.read_all([MARKER, *names]))
    if only is not None:
        pairs = list(_chained(pairs))
    table = pa.table({"name": [name for name, _ in pairs], "text": [data.decode() for _, data in pairs]})
    table = table.replace_schema_metadata({_SEAL_KEY: _digest(table).encode()})
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", compression_level=19)
    return sink.getvalue(), len(pairs)


def _chained(pairs: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    """Documents in the order of their names, each account of a run after the one before it that is still there."""
    before = ""
    for name, data in pairs:
        if name.startswith("runs/"):
            plain, _ = unseal(name, data, "JSON")
            data = seal(name, json.dumps({**plain, PREVIOUS: before}, sort_keys=True, allow_nan=False))
            before = key(name)
        yield name, data


def unpack(path: Path, folder: Path) -> int:
    """Unfold a packed ledger into ``folder``, which is made; returns how many documents it holds.

    An interrupted call leaves no marker, and the same call goes on where it stood. Raises `InputError` for a file that
    is not what was packed, and for a folder with other documents.
    """
    documents = _documents(path, path.read_bytes())
    files = LocalFiles(folder)
    for inside in FOLDERS:
        for name in document_names(files, inside) + odd_names(files, inside):
            if name not in documents or _bytes_of(files, name) != documents[name]:
                raise InputError(f"{folder} holds {name}, which is not of {path}; give another folder")
    _write(files, documents)
    return len(documents)


def unfolded(path: Path) -> Path:
    """The folder in the cache with the ledger of a packed file, under the digest of the file.

    Disks and people damage caches too: what is not as it was packed is written anew, and what was not packed goes.
    Raises `InputError` for a file that is not what was packed.
    """
    data = path.read_bytes()
    documents = _documents(path, data)
    folder = cache_folder() / "ledgers" / hashlib.sha256(data).hexdigest()[:16]
    files = LocalFiles(folder)
    for inside in FOLDERS:
        if (folder / inside).is_symlink() or not (folder / inside).is_dir():
            files.delete(inside)  # a file in the folder's place, or a link, through which others' files would go
        for name in odd_names(files, inside):
            files.delete_tree(name)  # a file is not renamed over a folder, as it is over everything else
        for name in document_names(files, inside) + odd_names(files, inside):
            if name not in documents:
                files.delete(name)
    _write(files, documents)
    return folder


def _write(files: LocalFiles, documents: Mapping[str, bytes]) -> None:
    """Write what is missing or different, each file whole; the marker last, so that only a whole ledger is one."""
    for name in sorted(documents, key=MARKER.__eq__):
        if _bytes_of(files, name) != documents[name]:
            files.replace(name, documents[name])


def _bytes_of(files: LocalFiles, name: str) -> bytes | None:
    """The bytes of a file; None where there is none, or no plain file."""
    try:
        return files.read(name)
    except (FileNotFoundError, NoPlainFileError):
        return None


def _documents(path: Path, data: bytes) -> dict[str, bytes]:
    """What stands in a packed file, by name; raises `InputError` for a file that is not what was packed.

    A seal can be made by anybody. So each name must be a document's, or a file from elsewhere could be written anywhere
    on the disk, and the marker must be there and be of this release.
    """
    try:
        table = _table(path, data)
        columns = [table[name].to_pylist() for name in table.column_names]
    except InputError:
        raise
    except (pa.ArrowException, OSError, ValueError):
        raise InputError(f"{path} is no packed ledger, or damaged; take another copy of it") from None
    seal = (table.schema.metadata or {}).get(_SEAL_KEY)
    if seal is None or table.column_names != ["name", "text"]:
        raise InputError(f"{path} is no packed ledger; `tuneopt ledger pack` makes one of a ledger")
    names, texts = columns
    if set(table.schema.types) != {pa.string()} or None in names or None in texts:
        raise InputError(f"{path} was altered: not all of its names and documents are texts; take another copy of it")
    if seal != _digest(table).encode():
        raise InputError(f"{path} is damaged: its seal does not fit; take another copy of it")
    for name, count in Counter(names).items():
        if name != MARKER and not is_document(name):
            raise InputError(f"{path} was altered: {shown(name)} is no document of a ledger; take another copy of it")
        if count > 1:
            raise InputError(f"{path} was altered: it holds {shown(name)} twice; take another copy of it")
    if MARKER not in names:
        raise InputError(f"{path} was altered: it lacks {MARKER}; take another copy of it")
    documents = {name: text.encode() for name, text in zip(names, texts, strict=True)}
    check_marker(documents[MARKER], str(path))
    return documents


def _table(path: Path, data: bytes) -> pa.Table:
    """The table of a packed file; raises `InputError` for one that unpacks to more than `LARGEST_UNPACKED`.

    A few bytes of Parquet can stand for a text that a million rows repeat. Texts stay in their dictionaries until it is
    known how much they are together.
    """
    table = pq.read_table(io.BytesIO(data), read_dictionary=["name", "text"])
    size = 0
    for column in table.columns:
        for chunk in column.chunks:
            if pa.types.is_dictionary(chunk.type):
                size += pc.sum(pc.take(pc.binary_length(chunk.dictionary), chunk.indices)).as_py() or 0
    if size > LARGEST_UNPACKED:
        raise InputError(f"{path} unpacks to more than {LARGEST_UNPACKED >> 30} GiB, and is no packed ledger")
    return table.cast(pa.schema([pa.field(field.name, pa.string()) if pa.types.is_dictionary(field.type) else field
                                 for field in table.schema], table.schema.metadata))  # fmt: skip


def _digest(table: pa.Table) -> str:
    whole = hashlib.sha256()
    for name, text in zip(table["name"].to_pylist(), table["text"].to_pylist(), strict=True):
        whole.update(f"{name}\0{text}\0".encode())
    return f"sha256:{whole.hexdigest()}"
