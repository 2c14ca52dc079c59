from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tuneopt.data import Corpus
from tuneopt.data.manifest import Boundaries, DamagedCorpusError, Shard, file_sha256
from tuneopt.data.shards import Documents, ShardWriter, map_boundaries
from tuneopt.spec import InputError

KIND = pa.schema([pa.field("end", pa.uint64(), nullable=False), pa.field("source", pa.uint16(), nullable=False)])


def shard(folder: Path, number: int, lengths: list[int], first: int) -> Shard:
    """A shard of documents of those lengths with tokens first, first + 1, ..., in batches of 7."""
    with ShardWriter(
        folder, "train", np.dtype(np.uint16), batch_tokens=7, shard_tokens=1 << 40, first=number
    ) as writer:
        writer.append(np.arange(first, first + sum(lengths), dtype=np.uint16))
        (plain,) = writer.finish()[1]
    name = plain.file.replace(".arrow", ".documents.arrow")
    write(folder / name, np.cumsum(lengths).astype(np.uint64))
    bounds = Boundaries(name, len(lengths), (folder / name).stat().st_size, file_sha256(folder / name))
    return Shard(plain.file, plain.tokens, plain.bytes, plain.sha256, bounds)


def write(path: Path, ends: np.ndarray) -> None:
    sources = np.arange(len(ends)).astype(np.uint16)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, KIND) as writer:
        writer.write_batch(pa.record_batch([pa.array(ends), pa.array(sources)], schema=KIND))


def test_documents_are_found_by_number_over_shards_and_batches(tmp_path: Path) -> None:
    lengths = [[3, 20, 1], [5], [9, 9]]
    shards, first = [], 0
    for number, each in enumerate(lengths):
        shards.append(shard(tmp_path, number, each, first))
        first += sum(each)
    documents = Documents(tmp_path, shards)
    assert len(documents) == 6
    flat = [length for each in lengths for length in each]
    starts = np.concatenate([[0], np.cumsum(flat)])
    for number in reversed(range(6)):
        assert documents.tokens(number).tolist() == list(range(starts[number], starts[number + 1]))
    assert [documents.source(number) for number in range(6)] == [0, 1, 2, 0, 0, 1]
    for number in (-1, 6):
        with pytest.raises(IndexError, match=r"0\.\.5"):
            documents.tokens(number)


@pytest.mark.parametrize("ends", [[3, 23], [3, 2, 24], [3, 3, 24], [3, 23, 25]])
def test_boundaries_that_do_not_fit_are_damage(tmp_path: Path, ends: list[int]) -> None:
    bounds = shard(tmp_path, 0, [3, 20, 1], 0).boundaries
    assert bounds is not None
    assert map_boundaries(tmp_path, bounds, 24)[0].tolist() == [3, 23, 24]
    write(tmp_path / bounds.file, np.array(ends, np.uint64))
    with pytest.raises(DamagedCorpusError, match="does not hold the ends of 3 documents"):
        map_boundaries(tmp_path, bounds, 24)


def test_a_corpus_without_boundaries_says_so(corpus: Corpus) -> None:
    with pytest.raises(InputError, match="keeps no boundaries"):
        corpus.split("train").documents_of()


@pytest.mark.parametrize(
    "name", ["../x-00000.documents.arrow", "/etc/passwd", "train-00000.arrow", ".documents.arrow", 3]
)
def test_names_of_boundaries_are_plain(name: object) -> None:
    with pytest.raises(InputError, match="must have a name such as"):
        Boundaries(name, 1, 1, "0" * 64)  # type: ignore[arg-type]
