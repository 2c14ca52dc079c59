"""Work that is shared out among processes: the results of one process, whatever happens to the others."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuneopt import parallel
from tuneopt.errors import InputError
from tuneopt.parallel import in_parallel

HERE = os.getpid()


pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks")


@pytest.fixture(autouse=True)
def three_processes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three cores and nothing in the way: the process of tests has torch. No process is left at the end."""
    monkeypatch.setattr(parallel, "processors", lambda: 3)
    monkeypatch.setattr(parallel, "LEAST", 2)
    monkeypatch.setattr(parallel, "_alone", lambda: True)
    before = children()
    yield
    assert children() <= before


def children() -> set[str]:
    """The processes of this one that nobody has waited for."""
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.mark.parametrize("count", [*range(9), 50])
def test_results_come_in_the_order_of_their_parts(count: int) -> None:
    assert in_parallel(lambda part: part * part, range(count)) == [part * part for part in range(count)]


def test_whoever_is_free_takes_the_next_part(tmp_path: Path) -> None:
    def work(part: int) -> int:
        (tmp_path / str(part)).touch()
        while part == 0 and len(list(tmp_path.iterdir())) < 9:  # as long as all others together
            time.sleep(0.01)
        return os.getpid()

    processes = in_parallel(work, range(9))

    assert processes.count(processes[0]) == 1


@pytest.mark.parametrize("bad", [(0,), (1,), (7, 2), (5, 3)])
def test_the_error_is_that_of_the_first_part_that_fails(bad: tuple[int, ...]) -> None:
    def work(part: int) -> int:
        if part in bad:
            raise InputError(f"part {part} is damaged")
        return part

    with pytest.raises(InputError, match=f"^part {min(bad)} is damaged$"):
        in_parallel(work, range(9))


@pytest.mark.parametrize(
    "end", [lambda: os.kill(os.getpid(), signal.SIGKILL), lambda: os._exit(0), lambda: sys.exit(0)]
)
def test_a_process_that_dies_costs_time_and_nothing_else(end: object) -> None:
    def work(part: int) -> int:
        if os.getpid() != HERE and part == 4:
            end()  # type: ignore[operator]
        return part

    assert in_parallel(work, range(9)) == list(range(9))


def test_what_cannot_be_pickled_is_worked_out_here() -> None:
    results = in_parallel(lambda part: lambda: part, range(9))

    assert [result() for result in results] == list(range(9))


def test_an_interruption_leaves_nobody_behind() -> None:
    def work(part: int) -> int:
        if os.getpid() != HERE:
            time.sleep(600)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        in_parallel(work, range(9))


def test_more_than_a_pipe_holds_comes_back_whole() -> None:
    assert in_parallel(lambda part: bytes(300_000), range(9)) == [bytes(300_000)] * 9


def test_a_process_with_threads_of_its_own_is_not_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(parallel, "processors", lambda: 3)
    monkeypatch.setattr(parallel, "LEAST", 2)
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert set(in_parallel(lambda part: os.getpid(), range(9))) == {HERE}
    finally:
        done.set()
        thread.join()
