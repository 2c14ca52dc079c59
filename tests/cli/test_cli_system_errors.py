"""Every command against every error that the system can give, at single calls: one sentence, and then all is well.

The errors come from a library under the process (`benchmarks/faults/world.c`), so that no call is missed: pathlib's,
pyarrow's, SQLite's and torch's alike.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from faulty_commands import COMMANDS, ROOT, make

TRAINING = ("train", "tune", "data prepare")

SLOW = ("report of a ledger", "ledger export Optuna", "report of JSON", "data inspect", "study plan", "compare",
        "tune, dry")  # fmt: skip

PREPARED = [name for name in COMMANDS if name not in (*TRAINING, *SLOW)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faulty") / "here"
    folder.mkdir()
    make(folder)
    return folder


def disturbed(place: Path, commands: list[str], samples: int, kinds: int, seconds: float) -> list[dict[str, Any]]:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from faults.world import World, build, can_build
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    if not can_build() or not sys.platform.startswith("linux"):
        pytest.skip("there is no C compiler for the library of errors")
    world = World(place.with_name("page"), build(place.with_name("library")), (place, place))
    own = {"TUNEOPT_CACHE": "cache", "HOME": "home", "TMPDIR": "tmp"}
    for name in own.values():
        (place / name).mkdir(exist_ok=True)
    environment = {**os.environ, **world.environment, **{key: str(place / name) for key, name in own.items()}}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    script = Path(__file__).with_name("faulty_commands.py")
    command = [sys.executable, str(script), str(place), json.dumps(commands), str(samples), str(kinds)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds)
    world.close()
    assert done.returncode == 0, done.stderr[-3000:]
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    assert {row["command"] for row in rows} == set(commands)
    return rows


def judge(row: dict[str, Any]) -> str:
    """What is wrong with how a command bore an error; empty when nothing is."""
    lines = row["err"].strip().splitlines()
    if row["code"] not in (row["usual"], 2):
        return f"ended with {row['code']}"
    if "Traceback" in row["err"]:
        return "showed a traceback"
    if row["code"] == 2 and row["usual"] != 2:
        if not lines or not lines[-1].startswith("tuneopt: ") or row["out"]:
            return "said no sentence, or printed a part of its document"
        if "Errno" in lines[-1]:
            return "speaks of the number of an error"
    if not row["same"]:
        return "printed another document as if all were well"
    if row["left"]:
        return f"left {row['left'][:3]}"
    if row["again"] != row["usual"]:
        return f"did not work afterwards: {row['again err']}"
    return "" if row["again same"] else "printed another document afterwards"


def check(rows: list[dict[str, Any]]) -> None:
    # A sweep that ends at its limit of trials, as that of `tune` does, ends with 3.
    lazy = sorted({row["command"] for row in rows if row["usual"] != (3 if row["command"] == "tune" else 0)})
    assert not lazy, f"undisturbed every command does its work: {lazy}"
    wrong = [f"{row['command']}, {row['kind']}, call {row['call']}: {judge(row)}: {row['err'][-300:]}"
             for row in rows if judge(row)]  # fmt: skip
    assert not wrong, "\n".join([f"{len(wrong)} of {len(rows)}", *wrong[:20]])
    assert sum(row["code"] == 2 and row["usual"] == 0 for row in rows) > len(rows) / 3, "most errors must be felt"


def test_a_call_that_fails_is_one_sentence_and_the_command_works_afterwards(place: Path) -> None:
    check(disturbed(place, PREPARED, 0, 1, 800))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_so_do_all_commands_at_more_calls_for_every_kind_of_error(place: Path) -> None:
    check(disturbed(place, list(COMMANDS), 3, 7, 3500))
