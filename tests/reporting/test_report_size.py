"""A large study stays a small file: 10,000 trials with 20-point curves, under 15 MB."""

import resource
import time

import pytest
from report_samples import make_sweep, run_sweep

from tuneopt.ledger import Ledger
from tuneopt.reporting import write_report


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_thousand_trials_make_a_file_below_15_megabytes(tmp_path):
    ledger = Ledger(tmp_path / "ledger")
    ratio, trials = 1.0, 0
    while trials < 10_000:
        for optimizer in ("adamw", "muon", "soap"):
            run_sweep(ledger, make_sweep(optimizer, ratio=ratio))
        ratio += 0.25
        trials = len(ledger.ids())
    began = time.perf_counter()
    summary = write_report(ledger, tmp_path / "report.html")
    spent = time.perf_counter() - began
    size = (tmp_path / "report.html").stat().st_size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{trials} trials in {len(summary['sweeps'])} sweeps: {size / 1e6:.1f} MB, {spent:.1f} s, peak {peak:.2f} GiB"
    )
    assert size < 15e6
    assert peak < 2
    assert len(summary["rankings"]) == len(summary["sweeps"]) / 3
