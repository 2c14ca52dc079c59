"""How many trials a cluster holds, and what is said when it can never hold one, does not answer, or does not start."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneopt.cluster import session
from tuneopt.spec import InputError


@pytest.mark.parametrize(
    ("cpus", "gpus", "machine", "held"),
    [
        (1, 0, {"CPU": 2.0}, 2),
        (1, 1, {"CPU": 16.0, "GPU": 1.0}, 1),
        (1, 0.1, {"CPU": 16.0, "GPU": 1.0}, 10),
        (1, 0.25, {"CPU": 2.0, "GPU": 1.0}, 2),
        (1, 8, {"CPU": 64.0, "GPU": 4.0}, 0),
        (1, 1, {"CPU": 64.0}, 0),
        (1, 0, {}, 0),
    ],
)
def test_trials_that_one_machine_holds(cpus, gpus, machine, held) -> None:
    assert session._fit({"CPU": cpus, "GPU": gpus}, machine) == held


@given(st.integers(1, 40), st.integers(1, 8))
def test_equal_shares_of_a_gpu_fill_it_exactly(shares: int, whole: int) -> None:
    assert session._fit({"CPU": 0, "GPU": 1 / shares}, {"GPU": float(whole)}) == shares * whole


class FakeRay:
    """Ray's words that `connect` uses, over a cluster that is only declared."""

    def __init__(self, monkeypatch, now, later=()) -> None:
        import ray

        self.closed = False
        monkeypatch.setattr(ray, "init", lambda **options: setattr(self, "options", options))
        monkeypatch.setattr(ray, "shutdown", lambda: setattr(self, "closed", True))
        monkeypatch.setattr(session, "_machines", lambda: list(now))
        monkeypatch.setattr(session, "_machines_to_come", lambda: list(later))


def test_a_cluster_that_grows_with_its_work_counts_as_what_it_can_become(monkeypatch) -> None:
    """A head without CPUs and no worker yet: the trials that wait are what brings the workers."""
    head, worker = {"memory": 1.0}, {"CPU": 16.0, "GPU": 1.0}
    ray = FakeRay(monkeypatch, now=[(head, 1)], later=[({"CPU": 0.0}, 1), (worker, 8)])
    with session.connect(None, gpus_per_trial=0.5) as connected:
        assert connected.slots == 16 and connected.gpus == 0
    assert ray.closed


def test_machines_are_not_added_up_for_one_trial(monkeypatch) -> None:
    ray = FakeRay(monkeypatch, now=[({"CPU": 8.0, "GPU": 1.0}, 1)] * 4)
    with pytest.raises(
        InputError, match="needs 1 CPUs and 2 GPUs on one machine, and the largest has 8 CPUs and 1 GPUs"
    ):
        session.connect(None, gpus_per_trial=2).__enter__()
    assert ray.closed, "a refused session leaves nothing behind"


def test_a_cluster_of_fixed_size_has_what_it_has(monkeypatch) -> None:
    FakeRay(monkeypatch, now=[({"CPU": 4.0}, 1), ({"CPU": 2.5}, 1)])
    with session.connect(None) as connected:
        assert connected.slots == 6


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1", "127.0.0.1:99999", "nonsense"])
def test_no_cluster_at_the_address_is_bad_input_at_once(address: str) -> None:
    with pytest.raises(InputError, match="no Ray cluster"), session.connect(address):
        pass


@pytest.fixture
def answering() -> Iterator[str]:
    """A server that accepts connections; its first word is ``answering.say``."""
    yield from _server(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts connections and never says a word, as a head node does that was stopped."""
    yield from _server(b"")


def _server(word: bytes) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        lines: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    line, _ = server.accept()
                except OSError:
                    return
                lines.append(line)
                if word:
                    line.sendall(word)

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        for line in lines:
            line.close()


@pytest.mark.parametrize("form", ["{}", "ray://{}"])
def test_a_server_that_never_answers_is_said_within_seconds(silent: str, form: str) -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match="nothing answered for 5 s"), session.connect(form.format(silent)):
        pass
    assert time.monotonic() - began < 30


def test_another_program_at_the_address_is_no_cluster(answering: str) -> None:
    with pytest.raises(InputError, match="another program answers there"), session.connect(answering):
        pass


def test_auto_with_an_address_of_the_environment_that_is_dead_names_it(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in ("127.0.0.1:1", silent):
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(InputError, match="auto, which stands for"), session.connect("auto"):
            pass


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Exception("The current node timed out during startup. More words."), "The current node timed out"),
        (OSError("AF_UNIX path length cannot exceed 107 bytes"), "RAY_TMPDIR to a short absolute path"),
        (OSError(28, "No space left on device", "/dev/shm/plasma"), "/dev/shm/plasma: no space"),
        (PermissionError(13, "Permission denied", "/root/.ray"), "/root/.ray: permission denied"),
    ],
)  # fmt: skip
def test_a_ray_that_does_not_start_is_one_sentence_whatever_it_raises(
    monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    import ray

    def fail(**options: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(InputError, match=words) as caught, session.connect(None):
        pass
    assert "--backend inline" in str(caught.value) and "None" not in str(caught.value)


# What two of Ray's processes write where the raylet is killed while Ray starts.
RETOLD = """Raylet is terminated. Termination is unexpected. Possible reasons include: (1) SIGKILL. Last 20 lines of it:
    [state-dump] NodeManager.GCTaskFailureReason - 1 total (1 active)
    [2026-12-01 12:58:22,574 I 16258 16258] (raylet) accessor.cc:475: Received address, IsAlive = 1

"""


@pytest.mark.parametrize(
    ("logs", "reason"),
    [
        ({"runtime_env_agent.err": RETOLD}, "the raylet ended"),
        ({"raylet.err": "[2026-12-01 12:58:22,574 I 1 1] (raylet) main.cc:1: Raylet starts\n"}, "the raylet ended"),
        ({"raylet.err": "[2026-12-01 12:58:22,574 C 1 1] (raylet) main.cc:1: no room\n", "zygote.err": RETOLD},
         "raylet: [2026-12-01 12:58:22,574 C 1 1] (raylet) main.cc:1: no room"),
    ],
)  # fmt: skip
def test_of_rays_logs_only_what_tells_a_cause_is_said(tmp_path: Path, logs: dict[str, str], reason: str) -> None:
    (place := tmp_path / "session_1" / "logs").mkdir(parents=True)
    for name, text in logs.items():
        (place / name).write_text(text)
    said = session._not_started(RuntimeError("the raylet ended"), tmp_path)
    assert said.startswith(f"Ray could not be started on this machine ({reason}); end what is left")


def test_ray_sets_no_handlers_while_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    import ray
    from ray._private import utils

    before = signal.getsignal(signal.SIGTERM)
    during = []

    def start(**options: object) -> None:
        utils.set_sigterm_handler(lambda *_: None)  # as `ray.init` and its node do
        during.append(signal.getsignal(signal.SIGTERM))
        raise ValueError("enough")

    monkeypatch.setattr(ray, "init", start)
    with pytest.raises(InputError), session.connect(None):
        pass
    assert during == [before] and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("folder", ["here", "/tmp/" + "x" * 60, "/proc/version/ray"])
def test_a_folder_for_ray_that_cannot_serve_is_refused_before_ray_starts(
    monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with pytest.raises(InputError, match="RAY_TMPDIR"), session.connect(None):
        pass
