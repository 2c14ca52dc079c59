"""The auditor under mutation: few corruptions here, and that a reader which does not look would be found out."""

import importlib
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from tuneopt.ledger import Ledger, damage

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def auditor(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("auditor")


def total(counts: dict) -> Counter:
    return sum(counts.values(), Counter())


def test_the_whole_ledger_is_whole_and_has_every_kind_of_file(auditor: ModuleType, tmp_path: Path) -> None:
    ledger = auditor.whole(tmp_path / "ledger")
    assert auditor.api.verify(ledger).problems == [] and auditor.api.verify(ledger).unsealed == []
    assert all((tmp_path / "ledger" / target).exists() for target in auditor.TARGETS)
    assert auditor.figures(ledger) == auditor.figures(Ledger(ledger.uri))


def test_almost_everything_that_matters_is_caught_and_every_flipped_bit(auditor: ModuleType) -> None:
    kinds = sum(map(len, auditor.TARGETS.values()))
    counts = auditor.audit(2 * kinds, seed=5)
    assert len(counts) == kinds and total(counts)["planted"] == 2 * kinds
    assert {key for key, row in counts.items() if row["missed"]} == set()
    assert all(row["named"] == row["planted"] for (_, kind), row in counts.items() if kind == "bit")


def test_the_same_seed_plants_the_same(auditor: ModuleType) -> None:
    assert auditor.audit(30, seed=1) == auditor.audit(30, seed=1)


def test_an_auditor_that_trusts_every_seal_is_found_out(auditor: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    real = damage.unseal
    monkeypatch.setattr(damage, "unseal", lambda *given: (real(*given)[0], "sealed"))
    monkeypatch.setattr("tuneopt.ledger.compaction._fits_seal", lambda data: True)
    counts = auditor.audit(2 * sum(map(len, auditor.TARGETS.values())), seed=5)
    assert total(counts)["missed"] > 5


def test_the_table_has_a_row_for_each_kind(auditor: ModuleType) -> None:
    counts = {("trials", "bit"): Counter(planted=3, named=3, matter=2, caught=1, missed=1)}
    assert auditor.markdown(counts).splitlines()[-1] == "| trials | bit | 3 | 3 | 2 | 1 | 1 |"
