"""Step times are measured as trials will run: beside others, and nothing of that stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tuneopt.api import step_times
from tuneopt.api.studies import load_study, planned_study
from tuneopt.ledger import open_ledger


def test_the_cores_beside_a_measurement_are_busy_and_then_free(monkeypatch):
    started = []
    real = subprocess.Popen
    monkeypatch.setattr(step_times.subprocess, "Popen", lambda *a, **k: started.append(real(*a, **k)) or started[-1])
    with pytest.raises(RuntimeError), step_times._busy_cores(2):
        assert [process.poll() for process in started] == [None, None]
        before = [_cpu_ticks(process.pid) for process in started]
        while any(_cpu_ticks(process.pid) <= had for process, had in zip(started, before, strict=True)):
            time.sleep(0.05)
        raise RuntimeError
    assert all(process.poll() is not None for process in started)
    with step_times._busy_cores(0):
        assert len(started) == 2


def test_what_keeps_a_core_busy_ends_with_whoever_started_it():
    script = (
        "import os, subprocess, time, tuneopt.api.step_times as s\n"
        "popen = s.subprocess.Popen\n"
        "s.subprocess.Popen = lambda *a, **k: (p := popen(*a, **k), print(p.pid, flush=True))[0]\n"
        "with s._busy_cores(1): time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        companion = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    while _alive(companion):  # the test's own time limit ends this
        time.sleep(0.05)


TWO_SCALES = """\
name: two scales
optimizers: [adamw, lion, muon]
scales: [nano-65k, nano-147k]
ratios: [1]
corpus: embedded
phase_1: {regimes: {nano-65k: [1]}}
phase_2: {regimes: {nano-147k: [1]}}
"""


def test_trials_at_a_larger_scale_take_as_long_as_the_ledger_says_there(tmp_path, make_record):
    """AdamW ran at both scales; Lion, which ran at the smaller one alone, slows down from there as AdamW does."""
    (tmp_path / "study.yaml").write_text(TWO_SCALES)
    study = load_study(tmp_path / "study.yaml")
    plan = planned_study(study)
    ledger = open_ledger(tmp_path / "ledger")
    small, large = (plan.regimes(phase)[0] for phase in ("I", "II"))
    for name, regime, rate in (("adamw", small, 50_000.0), ("adamw", large, 30_000.0), ("lion", small, 60_000.0)):
        sweep = study.sweep(study.spaces[name], regime, plan.compile, lower=True)
        record = make_record(sweep.spec(sweep.space.start), 3.0)
        seconds = record.seconds | {"train": record.tokens / rate, "eval": 4.0, "checkpoint": 1.0}
        ledger.put(replace(record, seconds=seconds))
    seconds, _ = step_times.study_times(plan, ledger, step_times.Speed())
    assert seconds("adamw", small) == pytest.approx(5 + small.tokens / 50_000)
    assert seconds("adamw", large) == pytest.approx(5 + large.tokens / 30_000)
    per_token = (seconds("lion", replace(large, ratio=3.0)) - seconds("lion", large)) / (2 * large.tokens)
    assert per_token == pytest.approx(1 / 36_000)


def _cpu_ticks(pid: int) -> int:
    """User time of a process, in clock ticks."""
    return int(_stat(pid)[11])


def _stat(pid: int) -> list[str]:
    """What the kernel says of a process, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _alive(pid: int) -> bool:
    try:
        return _stat(pid)[0] != "Z"
    except FileNotFoundError:
        return False
