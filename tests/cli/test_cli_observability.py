"""Logs and trackers as a user of the command line meets them; real processes where processes matter."""

import json
import lzma
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from typer.main import get_command

import tuneopt.data
from tuneopt.cli import app, main
from tuneopt.ledger import Ledger
from tuneopt.ledger.logs import TrialLog, log_address, read_log

OPTIONS = {"log_level": "--log-level", "log_format": "--log-format", "tensorboard": "--tensorboard",
           "wandb": "--wandb", "mlflow": "--mlflow"}  # fmt: skip
"""What users and their scripts rely on: the same five options on every command that trains."""


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tuneopt", *words])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as end:
            main()
    finally:
        signal.signal(signal.SIGTERM, before)
    return int(end.value.code or 0)


@pytest.mark.parametrize("words", ["tune", "train", "study run"])
def test_every_command_that_trains_has_the_same_options(words: str) -> None:
    command = get_command(app)
    for word in words.split():
        command = command.commands[word]
    found = {parameter.name: parameter for parameter in command.params}
    assert {name: found[name].opts for name in OPTIONS} == {name: [flag] for name, flag in OPTIONS.items()}
    assert [found[name].default for name in OPTIONS] == [None, "text", None, None, None]
    named = {name: parameter.envvar for name, parameter in found.items() if parameter.envvar}
    assert named == {"log_level": "TUNEOPT_LOG_LEVEL", "log_format": "TUNEOPT_LOG_FORMAT"}, "display alone"


BAD = {
    "unknown level": ("tune -O soap --log-level loud", "--log-level 'loud' is unknown"),
    "near level": ("train -O soap --log-level warnin", "did you mean 'warning'"),
    "unknown format": ("tune -O soap --log-format yaml", "--log-format 'yaml' is unknown"),
    "study: unknown format": ("study run none.yaml --log-format jsn", "--log-format 'jsn' is unknown"),
    "board in a file": ("tune -O soap --tensorboard a-file", "is no folder; give a folder"),
    "no board": ("train -O soap --tensorboard ''", "--tensorboard is empty"),
    "logs of no ledger": ("ledger logs ab --ledger nowhere", "nowhere"),
    "logs of no trial": ("ledger logs ffff --ledger good", "no trial in"),
    "logs of a path": ("ledger logs ../../etc/passwd --ledger good", "no trial in"),
    "logs of many": ("ledger logs a --ledger good", "ambiguous"),
    "followed as one document": ("ledger logs aa --follow --json --ledger good", "choose one"),
    "show of a trial that failed": ("ledger show aa --ledger good", "good/logs/aa.jsonl"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_writes_nothing(name: str, tmp_path: Path, monkeypatch, capsys) -> None:
    words, expected = BAD[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").write_text("")
    for trial in ("aa", "ab"):
        TrialLog(Ledger(tmp_path / "good"), trial).write("start")
    before = sorted(tmp_path.rglob("*"))
    assert run(monkeypatch, *[word.strip("'") for word in words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and expected in err
    assert sorted(tmp_path.rglob("*")) == before


def test_logs_are_printed_for_people_and_as_one_document(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    ledger = Ledger(tmp_path / "ledger")
    log = TrialLog(ledger, "ab12")
    log.write("start", optimizer="soap", regime="nano-65k/1x", host="node-3", pid=7)
    log.write("point", step=10, steps=90, train_loss=5.25, select_loss=None, report_loss=5.5, seconds=3.25)
    log.write("error", "error", text="OSError: \x1b[31mdisk", traceback="Traceback\n  File 'x.py'\nOSError: disk")
    log.write("odd", number=1)
    log.write("failed", "error", text="its worker died", by="driver")
    assert run(monkeypatch, "ledger", "logs", "ab", "--ledger", ledger.uri) == 0
    shown = capsys.readouterr().out
    assert "info    start: soap at nano-65k/1x, process 7 on node-3\n" in shown
    assert "point: step 10 of 90, train 5.2500, select not finite, report 5.5000, 3.2 s\n" in shown
    assert "error   error: OSError: \\x1b[31mdisk\nTraceback\n  File 'x.py'\nOSError: disk\n" in shown
    assert "odd: number 1\n" in shown and "\x1b" not in shown
    assert run(monkeypatch, "ledger", "logs", "ab", "--json", "--ledger", ledger.uri) == 0
    assert json.loads(capsys.readouterr().out) == read_log(ledger, "ab12")[0]
    assert run(monkeypatch, "ledger", "logs", "ab", "-f", "--ledger", ledger.uri) == 0
    assert capsys.readouterr().out == shown, "a trial that failed for good has no more to come"


def test_the_doctor_names_the_extras_without_missing_them(tmp_path: Path) -> None:
    from tuneopt.cluster.doctor import _extras

    findings = {finding.subject: finding for finding in _extras()}
    assert set(findings) == {"--tensorboard", "--wandb", "--mlflow"}
    assert findings["--tensorboard"].status == "ok", "Ray Tune brings tensorboardX"
    for finding in findings.values():
        assert finding.status == "ok" or (finding.status == "note" and finding.mend.startswith("pip install "))


TRIAL = [
    "--ratio", "0.02", "--no-compile", "--optimizer", "adamw", "--json", "--log-format", "json",
    "--tensorboard", "board",
]  # fmt: skip
SWEEP = [
    "--replicates", "1", "--grid", "learning_rate=0.004,0.016", "--set", "weight_decay=0.1", "--set", "beta1=0.9",
    "--set", "beta2=0.95", "--set", "epsilon=1e-10", "--set", "max_grad_norm=1", "--set", "warmup=0.1",
    "--set", "train_batch_size=16",
]  # fmt: skip


@pytest.fixture
def text(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    embedded = Path(tuneopt.data.__file__).parent / "embedded" / "public-domain-mix.txt.xz"
    for number, document in enumerate(lzma.decompress(embedded.read_bytes()).decode().split("<|endoftext|>")[:200]):
        (folder / f"{number:03d}.txt").write_text(document)
    return folder


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    pipe, level = subprocess.PIPE, {"TUNEOPT_LOG_LEVEL": "info"}
    command = [sys.executable, "-m", "tuneopt", *words]
    return subprocess.Popen(command, cwd=folder, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **level})


@pytest.mark.slow
def test_one_trial_logs_json_lines_and_a_second_run_adds_nothing(text: Path, tmp_path: Path) -> None:
    process = start(tmp_path, "train", *TRIAL, "--corpus", "text")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    document, lines = json.loads(out), [json.loads(line) for line in err.splitlines()]
    trial = document["trial"]
    assert document["log"] == f"{tmp_path}/ledger/logs/{trial}.jsonl" and Path(document["log"]).exists()
    told = [line for line in lines if line.get("event")]
    assert [(line["event"], line["trial"], line["optimizer"]) for line in told] == [
        ("started", trial, "adamw"), ("ended", trial, "adamw"),
    ]  # fmt: skip
    assert told[1]["select_loss"] == document["select_loss"]
    events = list((tmp_path / "board").rglob("events.out.tfevents.*"))
    assert len(events) == 1 and events[0].parent.name == trial
    again = start(tmp_path, "train", *TRIAL, "--corpus", "text")
    out, err = again.communicate(timeout=200)
    assert json.loads(out) == document
    assert [line["event"] for line in map(json.loads, err.splitlines()) if "event" in line] == ["reused"]
    assert list((tmp_path / "board").rglob("events.out.tfevents.*")) == events


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_with_a_killed_worker_keeps_logs_and_one_run_a_trial(text: Path, tmp_path: Path) -> None:
    process = start(tmp_path, "tune", *TRIAL, *SWEEP, "--corpus", "text")
    logs = tmp_path / "ledger" / "logs"
    deadline = time.monotonic() + 240
    while not (pids := working(logs)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)
    trial, pid = pids.popitem()
    psutil.Process(pid).kill()
    out, err = process.communicate(timeout=300)
    assert process.returncode in (0, 3), err
    summary, lines = json.loads(out), [json.loads(line) for line in err.splitlines()]
    ledger = Ledger(tmp_path / "ledger")
    assert summary["trials"]["failed"] == 0 and summary["trials"]["run"] == len(ledger.ids()) >= 2
    names = [event["event"] for event in read_log(ledger, trial)[0]]
    assert names.count("start") == 2 and names[-1] == "end" and "restart" in names
    restarted = [line for line in lines if line.get("event") == "restarted"]
    assert [line["trial"] for line in restarted] == [trial] and restarted[0]["level"] == "warning"
    assert {line["trial"] for line in lines if line.get("event") == "ended"} == set(ledger.ids())
    for name in ledger.ids():
        assert [event["event"] for event in read_log(ledger, name)[0]][-1] == "end"
        assert Path(log_address(ledger, name)).exists()
    events = sorted((tmp_path / "board").rglob("events.out.tfevents.*"))
    assert {path.parent.name for path in events} == set(ledger.ids())
    again = start(tmp_path, "tune", *TRIAL, *SWEEP, "--corpus", "text")
    again.communicate(timeout=200)
    assert sorted((tmp_path / "board").rglob("events.out.tfevents.*")) == events, "reused trials are not logged again"


def working(logs: Path) -> dict[str, int]:
    """Trials that have reached a curve point beyond the first and have not ended, with their workers' processes."""
    found = {}
    for path in logs.glob("*.jsonl") if logs.is_dir() else ():
        events = [json.loads(line) for line in path.read_text().splitlines()]
        names = [event["event"] for event in events]
        if names.count("point") >= 2 and names[-1] == "point":
            found[path.stem] = events[0]["pid"]
    return found


BROKEN = """
import torch

class Broken(torch.optim.SGD):
    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr)
        self.count = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.count += 1
        if self.count > 12:
            raise RuntimeError("the update went wrong")
        super().step(closure)
"""

BROKEN_SPACE = """
from tuneopt.search.space import SearchSpace, learning_rate, train_batch_size, warmup
FIXED = {"lr_schedule": "cosine", "min_lr_ratio": 0}
SPACE = SearchSpace(
    "Broken", (learning_rate({"nano": (0.01, 0.1)}, {"nano": 0.1}), train_batch_size(), warmup()),
    {"nano": FIXED}, "here", "by trying")
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_trial_that_fails_leaves_its_log_and_the_message_names_it(text: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "space.py").write_text(BROKEN_SPACE)
    only = ["--set", "learning_rate=0.1", "--set", "train_batch_size=16", "--set", "warmup=0.1", "--replicates", "1"]
    where = ["--space", "./space.py", "--ratio", "0.05", "--no-compile", "--corpus", "text"]
    command = [sys.executable, "-m", "tuneopt", "tune", "-O", "./broken.py:Broken", *where, *only]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    (log,) = (tmp_path / "ledger" / "logs").iterdir()
    trial = log.stem
    assert f"trial {trial}: failed: RuntimeError: the update went wrong; its log: {log}" in process.stderr
    assert f"see `tuneopt ledger logs {trial}`" in process.stderr and "Traceback" not in process.stderr
    events = read_log(Ledger(tmp_path / "ledger"), trial)[0]
    names = [event["event"] for event in events]
    assert names.count("start") == 3 and names.count("error") == 3 and names.count("restart") == 2
    assert names[-1] == "failed" and events[-1]["by"] == "driver"
    error = next(event for event in events if event["event"] == "error")
    assert error["text"] == "RuntimeError: the update went wrong" and "in step" in error["traceback"]
    assert Ledger(tmp_path / "ledger").ids() == [], "no record stands for a trial that failed"
