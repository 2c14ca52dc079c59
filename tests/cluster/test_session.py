"""How many trials a cluster holds, and what is said when it can never hold one."""

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
        monkeypatch.setattr(ray, "init", lambda **options: None)
        monkeypatch.setattr(ray, "shutdown", lambda: setattr(self, "closed", True))
        monkeypatch.setattr(session, "_machines", lambda: list(now))
        monkeypatch.setattr(session, "_machines_to_come", lambda: list(later))


def test_a_cluster_that_grows_with_its_work_counts_as_what_it_can_become(monkeypatch) -> None:
    """A head without CPUs and no worker yet: the trials that wait are what brings the workers."""
    head, worker = {"memory": 1.0}, {"CPU": 16.0, "GPU": 1.0}
    ray = FakeRay(monkeypatch, now=[(head, 1)], later=[({"CPU": 0.0}, 1), (worker, 8)])
    with session.connect(None, gpus_per_trial=0.5) as connected:
        assert connected.slots == 16
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
