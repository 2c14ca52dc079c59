"""Optimizers from outside that misbehave: one that ends the program, raises, or prints ends or goes on as a trial."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CODE = """
import ctypes, os, sys, torch

class Hostile(torch.optim.SGD):
    def __init__(self, params, lr=0.1, weight_decay=0.0):
        super().__init__(params, lr=lr, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure=None):
        {act}
        return super().step(closure)
"""

SPACE = """
from tuneopt.search.space import SearchSpace, learning_rate, train_batch_size, warmup
FIXED = {"lr_schedule": "cosine", "min_lr_ratio": 0, "weight_decay": 0.0, "max_grad_norm": 0}
SPACE = SearchSpace(
    optimizer="Hostile",
    coordinates=(
        learning_rate({"nano": (0.1, 0.2), "paper": (0.1, 0.2)}, {"nano": 0.1, "paper": 0.1}),
        train_batch_size(), warmup(),
    ),
    fixed={"nano": FIXED, "paper": FIXED}, source="here", grid_source="by trying",
)
"""


def train(
    folder: Path, act: str, command: str = "train", *more: str, warmup: float = 0
) -> subprocess.CompletedProcess[str]:
    (folder / "hostile.py").write_text(CODE.format(act=act))
    (folder / "space.py").write_text(SPACE)
    words = [
        command, "-O", "./hostile.py:Hostile", "--space", "./space.py", "--ratio", "0.01", "--no-compile",
        "--set", f"warmup={warmup:g}", "--json", *more,
    ]  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "tuneopt", *words], cwd=folder, capture_output=True, text=True, timeout=300,
        env={**os.environ, "TMPDIR": str(folder)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ("sys.exit(0)", "asked the program to end (SystemExit: 0)"),
        ("os._exit(0)", "asked the program to end (SystemExit: 0)"),
        ("raise BrokenPipeError", "BrokenPipeError"),
        ("raise GeneratorExit", "asked the program to end (GeneratorExit)"),
        ("raise type('Odd', (BaseException,), {})('odd')", "Odd: odd"),
        ("raise LookupError('nothing\\n here')", "LookupError: nothing here"),
    ],
)
def test_one_that_exits_or_raises_ends_its_trial_in_one_sentence(tmp_path: Path, act: str, words: str) -> None:
    done = train(tmp_path, act)
    assert done.returncode == 3 and done.stdout == "", done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("tuneopt: the trial failed (") and words in last and "Traceback" not in done.stderr, last
    log = Path(last.rpartition("the trial's log: ")[2])
    assert "hostile.py" in log.read_text(), "the log that the message names has the traceback"
    assert not list((tmp_path / "ledger").glob("trials/*.json"))


@pytest.mark.parametrize(
    ("act", "words", "warmup"),
    [
        # Moves by a distance that the schedule does not govern, at learning rate 0 too.
        ("[p.data.add_(0.01) for p in self.param_groups[0]['params']]", "update check FAILED: ", 0.5),
        ("[p.data.fill_(float('nan')) for p in self.param_groups[0]['params']]", "it diverged", 0.0),
    ],
    ids=["proof failed", "diverged"],
)
def test_a_trial_that_cannot_be_compared_ends_with_code_3(tmp_path: Path, act: str, words: str, warmup: float) -> None:
    done = train(tmp_path, act, warmup=warmup)
    assert done.returncode == 3, done.stderr
    trial = json.loads(done.stdout)["trial"]
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"trial {trial} cannot be compared: ") and words in last, last
    again = train(tmp_path, act, warmup=warmup)
    assert again.returncode == 3, "as the recorded trial is no answer either"


def test_one_that_prints_leaves_the_document_alone(tmp_path: Path) -> None:
    done = train(tmp_path, "print('a step'); os.write(1, b'raw'); ctypes.CDLL(None).puts(b'from C')")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "completed"
    assert "a step" in done.stderr and "from C" in done.stderr
