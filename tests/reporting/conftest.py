"""One ledger with a single sweep and one with a small study, built once; tests must not write into them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from report_rows import table_rows
from report_samples import make_sweep, run_sweep

from tuneopt.ledger import Ledger
from tuneopt.reporting.compare import Comparison, compare
from tuneopt.reporting.sources import Material, gather
from tuneopt.reporting.study import StudyView, SweepView, read_study


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    ledger = Ledger(tmp_path_factory.mktemp("single"))
    run_sweep(ledger, make_sweep("soap"))
    return ledger


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> Ledger:
    ledger = Ledger(tmp_path_factory.mktemp("several"))
    for ratio in (1, 2, 4):
        run_sweep(ledger, make_sweep("adamw", ratio=ratio))
    run_sweep(ledger, make_sweep("soap", ratio=1))
    run_sweep(ledger, make_sweep("soap", ratio=4))
    run_sweep(ledger, make_sweep("muon", ratio=4))
    return ledger


@pytest.fixture(scope="session")
def view(single: Ledger) -> SweepView:
    return read_study(single).views[0]


@pytest.fixture(scope="session")
def study(several: Ledger) -> StudyView:
    return read_study(several)


@pytest.fixture(scope="session")
def material(several: Ledger) -> Material:
    return gather(several)


@pytest.fixture(scope="session")
def comparison(material: Material) -> Comparison:
    return compare(material)


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "results.json"
    path.write_text(json.dumps(table_rows()))
    return path


@pytest.fixture(scope="session")
def foreign(table: Path) -> Comparison:
    """The comparison of a table that fills every chapter."""
    return compare(gather(results=table))


@pytest.fixture(scope="session")
def published() -> Comparison:
    return compare(gather(published=True))
