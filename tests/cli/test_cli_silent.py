"""Peers that accept a connection and never say a word: a command that talks to one ends in time, with a sentence."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

TUNE = ["tune", "-O", "adamw", "--no-compile", "--ledger", "here"]


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of somebody who takes every connection and never answers."""
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=take, daemon=True).start()
        yield server.getsockname()[1]
    for line in kept:
        line.close()


def run(words: list[str], cwd: Path, **environment: str) -> tuple[int, str, float]:
    began = time.monotonic()
    secrets = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"}
    done = subprocess.run(
        [sys.executable, "-m", "tuneopt", *words], cwd=cwd, env={**os.environ, **secrets, **environment},
        capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.stdout == "" and done.stderr.startswith("tuneopt: ") and done.stderr.count("\n") == 1, done.stderr
    assert list(cwd.iterdir()) == [], "what cannot be reached leaves nothing here"
    return done.returncode, done.stderr, time.monotonic() - began


def test_a_store_that_never_answers_ends_the_command_when_it_was_told_to(silent: int, tmp_path: Path) -> None:
    store = f"s3://bucket/prefix?endpoint_override=127.0.0.1:{silent}&scheme=http&region=us-east-1"
    code, said, took = run(["ledger", "ls", "--ledger", store, "--timeout", "1"], tmp_path)
    assert code == 2 and "did not answer within 1 s" in said and "--timeout" in said
    # pyarrow by itself gives up after about 100 s, and waits for as long again when the process ends.
    assert took < 60


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    for words, variable in (["--timeout", "0"], "20"), ([], "soon"):
        code, said, _ = run(["ledger", "ls", *words], tmp_path, TUNEOPT_STORE_SECONDS=variable)
        assert code == 2 and ("timeout" in said or "TUNEOPT_STORE_SECONDS" in said or "no ledger" in said)
    code, said, _ = run([*TUNE, "--dry-run"], tmp_path, TUNEOPT_STORE_SECONDS="soon")
    assert code == 2 and "TUNEOPT_STORE_SECONDS must be" in said


def test_a_cluster_that_never_answers_is_given_up(silent: int, tmp_path: Path) -> None:
    code, said, took = run([*TUNE, "--address", f"127.0.0.1:{silent}"], tmp_path)
    assert code == 2 and f"127.0.0.1:{silent}" in said and "nothing answered" in said and took < 60


def test_auto_says_what_it_stands_for_when_nobody_is_there(silent: int, tmp_path: Path) -> None:
    for port, words in ((silent, "nothing answered"), (1, "refused")):
        code, said, took = run([*TUNE, "--address", "auto"], tmp_path, RAY_ADDRESS=f"127.0.0.1:{port}")
        assert code == 2 and f"127.0.0.1:{port}" in said and words in said and took < 90, said
