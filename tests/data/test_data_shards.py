from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneopt.data.manifest import DamagedCorpusError, Shard, file_sha256
from tuneopt.data.shards import ShardWriter, map_shard


def _write(folder: Path, parts: list[np.ndarray], dtype: type, batch: int, shard: int) -> tuple[str, tuple[Shard, ...]]:
    with ShardWriter(folder, "train", np.dtype(dtype), batch, shard) as writer:
        for part in parts:
            writer.append(part)
        return writer.finish()


@given(
    st.lists(st.lists(st.integers(0, 60_000), max_size=40), max_size=8),
    st.integers(1, 20),
    st.integers(1, 60),
    st.sampled_from([np.uint16, np.uint32]),
)
def test_tokens_come_back_whatever_the_layout(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]], batch: int, shard: int, dtype: type
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    arrays = [np.array(part, dtype) for part in parts]
    checksum, shards = _write(folder, arrays, dtype, batch, shard)
    everything = np.concatenate([np.array([], dtype), *arrays])
    views = [view for entry in shards for view in map_shard(folder, entry)]
    assert np.array_equal(np.concatenate([np.array([], dtype), *views]), everything)
    assert checksum == hashlib.sha256(everything.tobytes()).hexdigest()
    assert [entry.file for entry in shards] == [f"train-{number:05d}.arrow" for number in range(len(shards))]
    assert all(entry.tokens <= max(batch, shard) for entry in shards)
    assert all(entry.sha256 == file_sha256(folder / entry.file) for entry in shards)
    assert all(entry.bytes == (folder / entry.file).stat().st_size for entry in shards)


def test_the_file_is_arrow_with_one_column(tmp_path: Path) -> None:
    _, (shard,) = _write(tmp_path, [np.arange(10, dtype=np.uint16)], np.uint16, 4, 100)
    with pa.OSFile(str(tmp_path / shard.file)) as source:
        table = pa.ipc.open_file(source).read_all()
    assert table.schema == pa.schema([pa.field("tokens", pa.uint16(), nullable=False)])
    assert table["tokens"].to_pylist() == list(range(10))


def test_views_are_the_map_itself_and_read_only(tmp_path: Path) -> None:
    _, (shard,) = _write(tmp_path, [np.zeros(1 << 20, np.uint16)], np.uint16, 1 << 18, 1 << 22)
    before = pa.total_allocated_bytes()
    views = map_shard(tmp_path, shard)
    assert [len(view) for view in views] == [1 << 18] * 4
    assert pa.total_allocated_bytes() == before
    assert not any(view.flags.owndata or view.flags.writeable for view in views)


def test_a_map_outlives_its_file(tmp_path: Path) -> None:
    _, (shard,) = _write(tmp_path, [np.arange(1000, dtype=np.uint16)], np.uint16, 1000, 1000)
    (view,) = map_shard(tmp_path, shard)
    (tmp_path / shard.file).unlink()
    assert int(view.sum()) == 499_500


def test_a_writer_that_fails_leaves_no_open_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), ShardWriter(tmp_path, "train", np.dtype(np.uint16), 2) as writer:
        writer.append(np.arange(3, dtype=np.uint16))
        raise RuntimeError("stop")
    assert writer._writer is None


@pytest.mark.parametrize("damage", ["gone", "cut", "garbage", "fewer"])
def test_a_damaged_shard_says_so(tmp_path: Path, damage: str) -> None:
    _, (shard,) = _write(tmp_path, [np.arange(1000, dtype=np.uint16)], np.uint16, 100, 1000)
    path = tmp_path / shard.file
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "garbage":
        path.write_bytes(b"x" * shard.bytes)
    else:
        shard = Shard(shard.file, 999, shard.bytes, shard.sha256)
    with pytest.raises(DamagedCorpusError, match="delete that folder and prepare it again") as error:
        map_shard(tmp_path, shard)
    assert shard.file in str(error.value)
    assert "\n" not in str(error.value)


def test_an_error_of_the_disk_is_said_in_the_systems_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, (shard,) = _write(tmp_path, [np.arange(9, dtype=np.uint16)], np.uint16, 9, 9)

    def unreadable(path: str) -> None:
        raise OSError(5, f"Failed to open local file '{path}'. Detail: [errno 5] Input/output error")

    monkeypatch.setattr(pa, "memory_map", unreadable)
    with pytest.raises(DamagedCorpusError, match=r"damaged \(train-00000.arrow: input/output error\); delete"):
        map_shard(tmp_path, shard)
