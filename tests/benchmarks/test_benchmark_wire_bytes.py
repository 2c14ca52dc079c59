"""What ranks send each other, counted without anybody to send it to."""

import importlib
from pathlib import Path

import pytest

from tuneopt.spec import Scale

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCALE = Scale("small", "paper", layers=4, d_model=64, d_ff=256, heads=1, seq_len=64)
VOCABULARY = 1024


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("wire_bytes")


@pytest.mark.parametrize("name", ["muon", "soap"])
def test_owners_hand_out_every_weight_once(bench, name: str) -> None:
    optimizer, whole = bench.built(name, SCALE, VOCABULARY), 4 * SCALE.total_parameters(VOCABULARY)
    assert bench.dealt_bytes(optimizer, 1) == whole, "a rank alone owns all"
    assert whole / 4 <= bench.dealt_bytes(optimizer, 4) < whole / 2
    assert 0.25 <= bench.fullest(optimizer, 4) < 0.5


def test_pieces_lie_on_one_rank_each_and_travel_there_and_back(bench) -> None:
    optimizer, ranks = bench.built("adamw", SCALE, VOCABULARY), 4
    for extents in (bench.flat_extents(optimizer, ranks), bench.piece_extents(optimizer, ranks)):
        assert sum(count for own in extents for _, count in own.values()) == SCALE.total_parameters(VOCABULARY)
        most = bench.sharded_bytes(optimizer, ranks, extents)
        # To owners and back: less than two copies of what a rank holds, which is what no owner of its own would send.
        assert 0 < most <= 2 * 2 * 4 * SCALE.total_parameters(VOCABULARY) / ranks


def test_dealing_out_takes_work_off_and_adds_what_is_handed_out(bench) -> None:
    before, dealt, *stages = bench.rows("muon", SCALE, VOCABULARY, 8)
    assert before["work"] == 1 > dealt["work"] and before["open"] == 0 < dealt["open"]
    assert [row["way"] for row in stages] == ["ZeRO 1", "ZeRO 2", "ZeRO 3"]
    assert "as before" not in "".join(row["way"] for row in bench.rows("adamw", SCALE, VOCABULARY, 8))
