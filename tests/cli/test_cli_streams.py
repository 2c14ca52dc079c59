"""Real processes: stdout is for results alone, and a stream that is full, closed or ASCII is no reason to break."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TUNEOPT = [sys.executable, "-m", "tuneopt"]

NOISY = """
import atexit, ctypes, os, sys, threading, time
print("printed by Python")
os.write(1, b"written to the descriptor\\n")
ctypes.CDLL(None).puts(b"printed by C")
ctypes.CDLL(None).fflush(None)
ctypes.CDLL(None).puts(b"flushed by C at the exit")
os.system("echo printed by a child")
atexit.register(print, "printed at the exit")
threading.Thread(target=lambda: [time.sleep(1), print("printed by a thread")]).start()
"""

SPACE = """
from tuneopt.search.space import SearchSpace, learning_rate, train_batch_size, warmup, weight_decay
FIXED = {"lr_schedule": "cosine", "min_lr_ratio": 0, "max_grad_norm": 1}
SPACE = SearchSpace(
    optimizer="adamw",
    coordinates=(
        learning_rate({"nano": (0.1, 0.2), "paper": (0.1, 0.2)}, {"nano": 0.1, "paper": 0.1}),
        train_batch_size(), warmup(), weight_decay(),
    ),
    fixed={"nano": FIXED, "paper": FIXED}, source="\\u00e9", grid_source="by trying",
)
"""


def run(
    *words: str, cwd: Path, shell: str = "", before: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    command = " ".join([before, *TUNEOPT, *words, shell])
    return subprocess.run(
        command, shell=True, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120,
        executable="/bin/bash",
    )  # fmt: skip


@pytest.fixture
def space(tmp_path: Path) -> Path:
    (tmp_path / "space.py").write_text(NOISY + SPACE)
    return tmp_path


def test_whatever_a_file_of_the_user_prints_the_document_is_alone_on_stdout(space: Path) -> None:
    done = run("space", "./space.py", "--json", cwd=space)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["optimizer"] == "adamw"
    for words in (
        "printed by Python", "written to the descriptor", "printed by C", "flushed by C", "printed by a child",
        "printed at the exit", "printed by a thread",
    ):  # fmt: skip
        assert words in done.stderr


def test_help_goes_to_stdout(tmp_path: Path) -> None:
    assert "--json" in run("space", "--help", cwd=tmp_path).stdout


def test_a_full_stdout_is_one_sentence(tmp_path: Path) -> None:
    for words in (["space", "adamw", "--json"], ["space", "adamw"], ["--help"]):
        done = run(*words, cwd=tmp_path, shell=">/dev/full")
        assert done.returncode == 2, (words, done.stderr)
        assert done.stderr.startswith("tuneopt: no space is left") and done.stderr.count("\n") == 1, done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    done = run("space", "adamw", "--json", cwd=tmp_path, shell="| head -1; exit ${PIPESTATUS[0]}")
    assert done.returncode == 0 and done.stdout == "{\n" and done.stderr == ""


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_a_closed_stream_breaks_nothing(space: Path, closed: str) -> None:
    done = run("space", "./space.py", "--json", cwd=space, shell=closed)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if "1>&-" not in closed:
        assert json.loads(done.stdout)["optimizer"] == "adamw"


def test_an_ascii_stdout_gets_what_it_lacks_spelt_out(space: Path) -> None:
    done = run("space", "./space.py", cwd=space, PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert "\\xe9" in done.stdout


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        ("report --results $'caf\\xe9.csv'", {}, r"the argument 'caf\udce9.csv' holds bytes that are no text in utf-8"),
        ("ledger ls ledger", {"folder": "$'caf\\xe9'"}, r"the working folder '.*/caf\udce9' holds bytes"),
        (
            "tune -O adamw --dry-run",
            {"TUNEOPT_CACHE": os.fsdecode(b"/tmp/caf\xe9")},
            r"the cache's folder (TUNEOPT_CACHE) '/tmp/caf",
        ),
        ("report --results café.csv", {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "PYTHONUTF8=1"),
    ],
)
def test_a_name_that_is_no_text_is_one_sentence(words: str, environment: dict[str, str], said: str, tmp_path: Path):
    own = {"folder": "here", **environment}
    folder = own.pop("folder")
    done = run(*words.split(" "), cwd=tmp_path, before=f"mkdir {folder}; cd {folder};", **own)
    assert done.returncode == 2 and done.stderr.startswith("tuneopt: the ") and done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in said.split(".*")) and "; rename it" in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_file_that_closes_the_streams_costs_no_result(name: str, tmp_path: Path) -> None:
    own = f"import sys\nfrom tuneopt.search import load_space\nsys.{name}.close()\nSPACE = load_space('adamw')\n"
    (tmp_path / "own.py").write_text(own)
    done = run("space", "./own.py", cwd=tmp_path, shell="")
    assert (done.returncode, done.stderr) == (0, "") and "learning_rate" in done.stdout


def test_a_working_folder_that_was_deleted_is_said(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = run("ledger", "ls", cwd=tmp_path, shell="").stderr  # there is no ledger, and that is what is said
    assert "there is no ledger" in done
    for words in ("ledger ls", "report --results t.csv", "study plan smoke.yaml"):
        (tmp_path / "gone").mkdir(exist_ok=True)
        shell = f"cd gone && rmdir ../gone && {' '.join(TUNEOPT)} {words}"
        gone = subprocess.run(shell, shell=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert gone.returncode == 2
        assert "the working folder was deleted" in gone.stderr and gone.stderr.count("\n") == 1, gone.stderr


def test_a_mistake_of_ours_is_one_sentence_and_its_traceback_is_kept(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom tuneopt import cli\nfrom tuneopt.search import space\n"
        "def broken(name):\n    raise LookupError('of all things')\n"
        "import tuneopt.search; tuneopt.search.load_space = broken\n"
        "sys.argv = ['tuneopt', 'space', 'adamw']\ncli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True,
        timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "LookupError: of all things" in done.stderr
    (log,) = tmp_path.glob("tuneopt-traceback-*.txt")
    assert str(log) in done.stderr and "in broken" in log.read_text()


@pytest.mark.parametrize(("raised", "code", "said"), [("SystemExit(0)", 2, "asked the program to end"),
                                                      ("MemoryError", 2, "not enough memory"),
                                                      ("Panic('at line 7')", 1, "Panic: at line 7")])  # fmt: skip
def test_what_is_no_exception_ends_a_command_with_a_sentence_too(
    tmp_path: Path, raised: str, code: int, said: str
) -> None:
    program = (
        "import sys\nfrom tuneopt import cli\nimport tuneopt.search\n"
        "class Panic(BaseException):\n    '''As libraries in Rust raise it.'''\n"
        f"def broken(name):\n    raise {raised}\n"
        "tuneopt.search.load_space = broken\nsys.argv = ['tuneopt', 'space', 'adamw']\ncli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "TMPDIR": str(tmp_path)}, capture_output=True, text=True,
        timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == code and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr


def test_who_reads_no_further_ends_a_listing_well(tmp_path: Path) -> None:
    """rich would silence stderr and end the command with an exit code of its own."""
    done = run("optimizers", cwd=tmp_path, shell="| true; exit ${PIPESTATUS[0]}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("moment", ["refuse_lost", "refuse_unused", "own_stdout"])
def test_who_asks_a_command_to_end_is_told_so_at_any_moment(moment: str, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom tuneopt import cli\nfrom tuneopt.commands import options\n"
        f"options.{moment} = lambda *given: os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.argv = ['tuneopt', 'ledger', 'ls']\ncli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130 and done.stderr.startswith("tuneopt: interrupted; ") and done.stdout == ""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("error", ["ValueError('broken class')", "InputError('Ray cannot start')", "None"])
def test_an_interruption_that_a_library_turns_into_an_error_is_one(name: str, error: str, tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom tuneopt import cli\nfrom tuneopt.errors import InputError\n"
        "from tuneopt.commands import options\n"
        "def build(*given):\n"
        f"    try:\n        os.kill(os.getpid(), signal.{name})\n"
        f"    except KeyboardInterrupt as asked:\n        raise ({error} or asked) from None\n"
        "options.refuse_lost = build\nsys.argv = ['tuneopt', 'ledger', 'ls']\ncli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 130 and done.stderr.startswith("tuneopt: interrupted; "), done.stderr
