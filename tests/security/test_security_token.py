"""Ray's token of this user is readable by nobody else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuneopt.cluster.ray_fixes.access import CHOSEN, guard_token


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (*CHOSEN, "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_new_token_is_private_from_its_first_moment(home: Path) -> None:
    before = os.umask(0)
    try:
        guard_token()
    finally:
        os.umask(before)
    token = home / ".ray" / "auth_token"
    assert mode(token) == 0o600 and mode(token.parent) == 0o700
    assert len(token.read_text()) == 64 and int(token.read_text(), 16) > 0
    assert [path.name for path in token.parent.iterdir()] == ["auth_token"]


def test_an_existing_token_stays_and_is_closed_to_others(home: Path) -> None:
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("kept")
    token.chmod(0o644)
    guard_token()
    assert token.read_text() == "kept" and mode(token) == 0o600


@pytest.mark.parametrize(("name", "value"), [("RAY_AUTH_MODE", "disabled"), ("RAY_AUTH_TOKEN", "a"), (CHOSEN[1], "/x")])
def test_a_token_that_the_user_brings_or_leaves_out_is_theirs(
    name: str, value: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    guard_token()
    assert not (home / ".ray").exists()


def test_a_home_that_is_no_folder_is_left_to_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    guard_token()
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.slow
def test_ray_takes_the_token_that_is_there(home: Path) -> None:
    code = "from tuneopt.cluster.session import connect\nwith connect(None) as held:\n    print(held.slots)"
    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and int(done.stdout) >= 1, done.stderr
    token = home / ".ray" / "auth_token"
    assert mode(token) == 0o600 and len(token.read_text()) == 64
