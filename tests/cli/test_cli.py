"""The command line as a user meets it: help, answers to bad input, and plain output. Real processes, no mocks."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

TUNEOPT = [sys.executable, "-m", "tuneopt"]


def tuneopt(*arguments: str, cwd: Path, columns: int = 100) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TUNEOPT, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1"},
        timeout=120,
    )


@pytest.mark.parametrize("words", [(), ("tune",), ("ledger",), ("ledger", "show"), ("data", "inspect")], ids=" ".join)
def test_help_needs_neither_torch_nor_ray(words: tuple[str, ...], tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tuneopt.cli import main\n"
        f"sys.argv = ['tuneopt', *{words!r}, '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'ray', 'pyarrow', 'numpy', 'plotly', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


BAD = {
    "optimizer": (("tune", "--optimizer", "sopa"), "did you mean 'soap'"),
    "scale": (("tune", "--optimizer", "soap", "--scale", "999"), "known: nano-65k"),
    "near scale": (("tune", "--optimizer", "soap", "--scale", "nano-56k"), "did you mean 'nano-65k'"),
    "ratio": (("tune", "--optimizer", "soap", "--ratio", "-1"), "ratio must be a positive number"),
    "ratio text": (("tune", "--optimizer", "soap", "--ratio", "two"), "--ratio"),
    "value": (("tune", "--optimizer", "soap", "--set", "learning_rate=fast"), "learning_rate must be a finite number"),
    "coordinate": (("tune", "--optimizer", "soap", "--set", "lerning_rate=1"), "did you mean 'learning_rate'"),
    "assignment": (("tune", "--optimizer", "soap", "--set", "learning_rate"), "name=value"),
    "twice": (("tune", "--optimizer", "soap", "--set", "beta1=0.9", "--set", "beta1=0.8"), "twice"),
    "grid": (("tune", "--optimizer", "soap", "--grid", "beta1=a,b"), "beta1"),
    "corpus": (("tune", "--optimizer", "soap", "--corpus", "embeded"), "embedded"),
    "policy": (("tune", "--optimizer", "soap", "--policy", "join"), "did you mean 'joint'"),
    "ledger file": (("tune", "--optimizer", "soap", "--ledger", "a-file"), "a-file"),
    "no ledger": (("report", "--ledger", "nowhere"), "nowhere"),
    "foreign folder": (("ledger", "ls", "--ledger", "full"), "full"),
    "damaged marker": (("ledger", "ls", "--ledger", "damaged"), "damaged"),
    "trial": (("ledger", "show", "ffff", "--ledger", "good"), "ffff"),
    "command": (("tun",), "Did you mean 'tune'"),
    "option": (("tune", "--optimiser", "soap"), "--optimizer"),
    "missing": (("tune",), "--optimizer"),
    "space": (("space", "muno"), "did you mean 'muon'"),
    "batch": (("train", "--optimizer", "adamw", "--set", "train_batch_size=100000"), "train_batch_size"),
}


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    (tmp_path / "a-file").write_text("not a folder")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.docx").write_text("precious")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "ledger.json").write_text('{"schema": ')
    from tuneopt.ledger import Ledger

    Ledger(tmp_path / "good").put_run({"nothing": 1})
    return tmp_path


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_that_helps_and_exit_code_2(name: str, messy: Path) -> None:
    arguments, expected = BAD[name]
    done = tuneopt(*arguments, cwd=messy)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1 and expected in lines[0], done.stderr
    assert "Traceback" not in done.stderr


def test_a_single_trial_takes_a_data_order_of_its_own() -> None:
    from tuneopt import api

    plain, other = (api.single_trial("adamw", seed=3, data_seed=seed)[0] for seed in (None, 5))
    assert (plain.seed, plain.order_seed, other.seed, other.order_seed) == (3, 3, 3, 5) and plain.id != other.id


STUDIED = ["adamw", "nadamw", "mars", "cautious", "lion", "adam_mini", "sophia", "muon", "scion", "kron", "soap"]
"""What the published study tuned; of the others nothing is published."""


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_optimizers_and_spaces_are_listed(every: bool, tmp_path: Path) -> None:
    listed = json.loads(tuneopt("optimizers", "--json", cwd=tmp_path).stdout)
    assert {"name", "family", "fallback", "source", "state_bytes_per_parameter"} <= set(listed[0])
    for entry in listed if every else {entry["family"]: entry for entry in listed}.values():
        document = json.loads(tuneopt("space", entry["name"], "--json", cwd=tmp_path).stdout)
        assert document["optimizer"] == entry["name"]
        assert document["coordinates"] and bool(document["published"]) == (entry["name"] in STUDIED)
        assert {"name", "kind", "unit", "grid", "start", "bounds"} <= set(document["coordinates"][0])


@pytest.mark.parametrize("columns", [60, 100, 200])
def test_tables_lose_nothing_on_narrow_terminals(columns: int, tmp_path: Path) -> None:
    done = tuneopt("space", "soap", cwd=tmp_path, columns=columns)
    assert done.returncode == 0
    assert "precondition_frequency" in done.stdout and "…" not in done.stdout
    assert "520m/8x" in done.stdout


def test_doctor_names_what_it_looked_at(tmp_path: Path) -> None:
    done = tuneopt("doctor", "--json", cwd=tmp_path)
    findings = {finding["subject"]: finding for finding in json.loads(done.stdout)}
    assert findings["torch"]["status"] == "ok"
    assert findings["gpu"]["status"] in ("ok", "note")
    assert done.returncode == (2 if any(f["status"] == "missing" for f in findings.values()) else 0)


def test_help_is_quick(tmp_path: Path) -> None:
    """Not a benchmark: an import of torch or ray by accident would cost seconds, which this notices."""
    began = time.perf_counter()
    tuneopt("--help", cwd=tmp_path)
    assert time.perf_counter() - began < 3
