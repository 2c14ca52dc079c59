"""Commands on real file systems that are read-only or full: one sentence, and the same command works afterwards."""

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_commands import COMMANDS, call, make

OUT = ("report of a CSV", "report of JSON", "report of a ledger", "ledger export CSV", "ledger export Parquet",
       "ledger export Optuna", "compare")  # fmt: skip
"""Commands that write into ``out``."""

SLOW = ("data prepare", "train", "tune")

PLACES = [(name, "out") for name in OUT] + [("ledger compact", "L"), ("data inspect", "cache")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mounted") / "here"
    folder.mkdir()
    make(folder)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for name, variable in (("cache", "TUNEOPT_CACHE"), ("home", "HOME")):
        monkeypatch.setenv(variable, str(tmp_path / "here" / name))
    return tmp_path / "here"


@contextlib.contextmanager
def mounted(folder: Path, kind: str) -> Iterator[list[str]]:
    """A small file system over a folder, with what it held; gives the command after which it can be written."""
    kept = folder.with_name(f"{folder.name}-kept")
    shutil.copytree(folder, kept) if folder.exists() else kept.mkdir()
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"a file system needs root and the right to mount: {done.stderr.decode().strip()}")
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        filler = folder / ".filler"
        if kind == "full":
            room = os.statvfs(folder)
            filler.write_bytes(bytes(room.f_bavail * room.f_frsize))
            yield ["rm", str(filler)]
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
            yield ["mount", "-o", "remount,rw", str(folder)]
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def disturbed(here: Path, name: str, place: str, kind: str) -> None:
    words = shlex.split(COMMANDS[name])
    with mounted(here / place, kind) as mend:
        code, out, err = call(words)
        last = err.strip().splitlines()[-1] if err.strip() else ""
        assert code == 2 and last.startswith("tuneopt: ") and not out, (code, err[-2000:])
        assert "Errno" not in err and "Traceback" not in err and "sqlite" not in err, err
        reason = "no space is left" if kind == "full" else "read-only file system"
        assert reason in last and str(place) in last and ".tuneopt-" not in last, last
        subprocess.run(mend, check=True)
        code, _, err = call(words)
        assert code == (3 if name == "tune" else 0), err  # two trials certify nothing


@pytest.mark.parametrize("kind", ["read-only", "full"])
@pytest.mark.parametrize(("name", "place"), PLACES)
def test_what_cannot_be_written_is_one_sentence_and_is_written_afterwards(
    here: Path, name: str, place: str, kind: str
) -> None:
    disturbed(here, name, place, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["read-only", "full"])
@pytest.mark.parametrize("name", SLOW)
def test_so_is_what_is_prepared_and_trained(here: Path, name: str, kind: str) -> None:
    disturbed(here, name, "out", kind)
