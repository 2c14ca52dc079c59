"""A driver notices that its Ray died, wakes up from whatever it waits for, and ends even if Ray does not let it."""

import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from tuneopt.cluster.ray_fixes import lost
from tuneopt.cluster.ray_fixes.lost import watching


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(lost, "LOOK_AT_CLUSTER_SECONDS", 0.02)


def fake_node(monkeypatch: pytest.MonkeyPatch, processes: dict[str, subprocess.Popen[bytes]]) -> None:
    from ray._private import worker

    held = {kind: [SimpleNamespace(process=process)] for kind, process in processes.items()}
    monkeypatch.setattr(worker, "_global_node", SimpleNamespace(all_processes=held))


def test_a_dead_raylet_wakes_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = {kind: subprocess.Popen(["sleep", "60"]) for kind in ("raylet", "gcs_server")}
    fake_node(monkeypatch, processes)
    try:
        with watching(local=True) as watch:
            time.sleep(0.1)
            assert watch.lost == ""
            processes["raylet"].kill()
            with pytest.raises(KeyboardInterrupt):
                threading.Event().wait(30)
            assert "Ray's raylet on this machine ended (exit code -9)" in watch.lost
            assert "run the same command again" in watch.lost
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def test_a_node_that_the_cluster_gave_up_counts_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    nodes = [{"NodeID": "mine", "Alive": True}, {"NodeID": "other", "Alive": False}]
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "mine"))
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert lost._dead_node() == ""
    nodes[0]["Alive"] = False
    assert "is gone" in lost._dead_node()

    def unreachable() -> list[dict[str, object]]:
        raise ConnectionError("the head does not answer")

    monkeypatch.setattr(ray, "nodes", unreachable)
    assert lost._dead_node() == "", "a head that does not answer for a while is not judged here"


def test_ray_that_is_ended_on_purpose_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen(["sleep", "60"])
    fake_node(monkeypatch, {"raylet": process})
    with watching(local=True) as watch:
        watch.rest()
        process.kill()
        process.wait()
        time.sleep(0.2)
    assert watch.lost == ""


HANGS = """
import time
from tuneopt.cluster.ray_fixes import lost
lost.LOOK_SECONDS, lost.END_SECONDS = 0.02, 0.5
lost._dead_processes = lambda: "Ray's raylet on this machine ended"
try:
    with lost.watching(local=True):
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            print("woken", flush=True)
            time.sleep(60)  # as Ray's shutdown may
finally:
    print("never", flush=True)
"""


def test_a_driver_that_ray_does_not_let_go_ends_all_the_same() -> None:
    done = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=50)
    assert done.returncode == 2 and done.stdout == "woken\n"
    assert done.stderr == (
        "tuneopt: Ray's raylet on this machine ended; run the same command again: it goes on from what is recorded\n"
    )


def test_nothing_is_left_of_a_watch_that_saw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    fake_node(monkeypatch, {})
    before = signal.getsignal(lost.WAKE)
    with watching(local=True) as watch:
        pass
    watch._thread.join(5)
    assert not watch._thread.is_alive() and signal.getsignal(lost.WAKE) == before


STARTS = """
import shutil, subprocess, sys, time
from tuneopt.cluster.ray_fixes import lost
kind, patience, seconds = sys.argv[1:]
lost.LOOK_SECONDS, lost.START_SECONDS, lost.END_SECONDS = 0.02, float(patience), 0.5
child = subprocess.Popen([shutil.copy(shutil.which("true"), f"./{kind}")])  # it ends, and nobody asks how
with lost.watching(local=True) as watch:
    try:
        time.sleep(float(seconds))
    except KeyboardInterrupt:
        print("woken", flush=True)
        time.sleep(60)  # as Ray's core may, whatever Python wants
    print("lost", repr(watch.lost))
"""


def starts(folder, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", STARTS, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=folder)


@pytest.mark.parametrize("kind", ["gcs_server", "raylet"])
def test_a_process_of_ray_that_dies_before_ray_has_a_node_is_seen(tmp_path, kind: str) -> None:
    done = starts(tmp_path, kind, "0.1", "60")
    assert (done.returncode, done.stdout) == (2, "woken\n")
    said = f"tuneopt: Ray's {kind} on this machine ended while Ray started; run the same command again: "
    assert done.stderr == said + "it goes on from what is recorded\n"


def test_ray_may_say_itself_why_it_does_not_start(tmp_path) -> None:
    done = starts(tmp_path, "gcs_server", "30", "1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "lost ''\n", "")


KILLED = """
from ray._private import node
real = node.Node.__init__

def init(self, *words, **named):
    real(self, *words, **named)
    for raylet in self.all_processes["raylet"]:
        raylet.process.kill()
        raylet.process.wait()

node.Node.__init__ = init
from tuneopt.cluster.session import connect
from tuneopt.errors import InputError
try:
    with connect(None):
        print("connected")
except InputError as error:
    print(error)
"""


def test_a_raylet_that_dies_right_before_its_driver_connects_has_its_sentence(tmp_path) -> None:
    # Ray's core would end this process with exit code 1.
    command = [sys.executable, "-c", KILLED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Ray's raylet on this machine ended (exit code -9) while Ray started" in done.stdout
