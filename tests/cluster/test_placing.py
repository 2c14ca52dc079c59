"""What trials on several ranks ask of a cluster, what is refused at once, and what passes between ranks and worker."""

import asyncio
import json
import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_session import FakeRay

from tuneopt import api
from tuneopt.cluster import session
from tuneopt.cluster.backend import RayBackend, as_compiled, reserved, worker_class
from tuneopt.cluster.rank_worker import Job, Line
from tuneopt.cluster.ranks import Group, Ranked
from tuneopt.cluster.trainable import TrialTrainable
from tuneopt.errors import NoRoomError
from tuneopt.run.options import RunOptions, check_batches
from tuneopt.scale_files import find_scale
from tuneopt.search.plan import OneTrial
from tuneopt.search.space import load_space
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, InputError, Regime
from tuneopt.training.config import ParallelConfig

GPUS = {"CPU": 16.0, "GPU": 8.0}


@pytest.mark.parametrize(
    ("ranks", "machines", "together", "held"),
    [
        (8, [(GPUS, 2)], False, 2),
        (4, [(GPUS, 2)], False, 4),
        (16, [(GPUS, 2)], False, 1),
        (16, [(GPUS, 2)], True, 0),
        (5, [(GPUS, 3)], True, 3),
        (5, [(GPUS, 3)], False, 4),
        (3, [({"CPU": 2.0, "GPU": 8.0}, 2)], False, 1),
        (2, [({"CPU": 64.0}, 4)], False, 0),
    ],
)
def test_trials_of_several_ranks_that_machines_hold(ranks, machines, together, held) -> None:
    assert session._trials({"CPU": 1.0, "GPU": 1.0}, ranks, machines, together) == held


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 9), st.integers(1, 4)), max_size=4))
def test_ranks_never_take_more_than_there_is(ranks: int, machines: list[tuple[int, int]]) -> None:
    kinds = [({"CPU": float(cpus)}, count) for cpus, count in machines]
    there = sum(cpus * count for cpus, count in machines)
    spread = session._trials({"CPU": 1.0}, ranks, kinds, False)
    close = session._trials({"CPU": 1.0}, ranks, kinds, True)
    assert spread * ranks <= there < (spread + 1) * ranks
    assert close <= spread


class AtScales:
    """As much of a plan as connecting looks at."""

    def __init__(self, *scales: str) -> None:
        self.scales = set(scales)

    def coming(self, count: int) -> list[Any]:
        return []


def connected(options: RunOptions, *scales: str) -> int:
    with RayBackend().connect(AtScales(*scales), options) as slots:  # type: ignore[arg-type]
        return slots


def test_slots_are_those_of_the_smallest_trial(monkeypatch) -> None:
    FakeRay(monkeypatch, now=[(GPUS, 2)])
    options = RunOptions(parallel={"130m": ParallelConfig(2), "1.2b": ParallelConfig(8, 2)}, gpus_per_trial=1)
    assert connected(options, "130m", "1.2b") == 8
    assert connected(options, "nano-65k") == 16, "a scale without a placement trains on one device"


def test_what_no_cluster_can_meet_is_refused_with_what_is_missing(monkeypatch) -> None:
    ray = FakeRay(monkeypatch, now=[(GPUS, 2)])
    with pytest.raises(InputError, match=r"32 ranks needs 32 times 1 CPU and 1 GPU on the cluster.* hold 16"):
        connected(RunOptions(parallel={"1.2b": ParallelConfig(32, 2)}, gpus_per_trial=1), "1.2b")
    assert ray.closed
    remote = SimpleNamespace(is_local=False)
    together = RunOptions(remote, parallel={"1.2b": ParallelConfig(16, 2)}, gpus_per_trial=1)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="on one machine, where its checkpoints are, and the largest holds 8"):
        connected(together, "1.2b")


@pytest.mark.parametrize("gpus", [0.5, 2.0])
def test_a_rank_drives_one_whole_gpu(gpus: float) -> None:
    with pytest.raises(InputError, match=f"drives one GPU, and --gpus-per-trial is {gpus:g}; give 1"):
        RunOptions(parallel={"130m": ParallelConfig(2)}, gpus_per_trial=gpus)
    RunOptions(parallel={"130m": ParallelConfig(1)}, gpus_per_trial=gpus)


def sweep(**grids: list[Any]) -> Sweep:
    space = load_space("adamw").on("nano", {}, {name: tuple(values) for name, values in grids.items()})
    return Sweep(space, Regime(find_scale("nano-65k"), 1.0, CorpusId("x", "y", 512)))


def test_batches_that_do_not_divide_are_refused_before_anything_starts() -> None:
    with pytest.raises(InputError, match="train_batch_size 12, 20 does not divide among 8 ranks at 130m"):
        check_batches(ParallelConfig(8), "130m", [8, 12, 16.0, 20])
    with pytest.raises(InputError, match="does not divide among 3 ranks at nano-65k"):
        api.placed(sweep(), ParallelConfig(3))
    assert api.placed(sweep(train_batch_size=[12, 24, 48]), ParallelConfig(3)) == {"nano-65k": ParallelConfig(3)}
    assert api.placed(sweep(), None) == {}


def test_one_process_is_the_plain_worker_with_the_plain_request() -> None:
    for options in (RunOptions(), RunOptions(gpus_per_trial=0.25), RunOptions(keep_weights=True)):
        assert worker_class(options) is TrialTrainable
        assert reserved(options) == {"cpu": 1.0, "gpu": options.gpus_per_trial}


def test_ranks_take_their_devices_through_ray_train_alone() -> None:
    options = RunOptions(parallel={"nano-65k": ParallelConfig(2, 1)})
    assert worker_class(options) is Ranked
    there, elsewhere = (
        reserved(options)({"spec": json.dumps({"regime": {"scale": {"name": name}}})}).required_resources
        for name in ("nano-65k", "nano-262k")
    )
    assert "CPU" not in there and there["memory"] == 1.0
    assert elsewhere == {"CPU": 1.0}


def test_kernels_are_compiled_for_the_micro_batch_of_a_rank() -> None:
    spec = replace(sweep().spec(sweep().space.start), compile=True)
    assert spec.batch == 8 and spec.micro_batch == 8
    (compiled,) = as_compiled(RunOptions(parallel={"nano-65k": ParallelConfig(4)}), OneTrial(spec).coming(1))
    assert compiled == replace(spec, micro_batch=2)
    assert as_compiled(RunOptions(), [spec]) == [spec]
    stage_3 = RunOptions(parallel={"nano-65k": ParallelConfig(2, 3)})
    assert as_compiled(stage_3, [spec]) == [], "stage 3 runs uncompiled"


def job(trial: str = "one") -> Job:
    spec = SimpleNamespace(id=trial)
    return Job(spec, "embedded", "", SimpleNamespace(uri="somewhere"), ParallelConfig(2))  # type: ignore[arg-type]


def test_ranks_wait_for_the_next_trial_and_leave_after_a_while() -> None:
    async def life() -> None:
        line = Line(patience=0.2)
        assert await line.give(job("one"))
        assert await line.newest() == 0 and (await line.job(0)).spec.id == "one"
        waiting = [asyncio.create_task(line.job(1)) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert await line.give(job("two"))
        assert [(await each).spec.id for each in waiting] == ["two", "two"]
        leaving = [asyncio.create_task(line.job(2)) for _ in range(2)]
        assert [await each for each in leaving] == [None, None]
        assert not await line.give(job("three")), "who has left takes up nothing"
        assert await line.job(2) is None

    asyncio.run(life())


def test_words_come_at_once_and_once() -> None:
    async def talk() -> None:
        line = Line()
        assert await line.words(0.0) == []
        listening = asyncio.create_task(line.words(5.0))
        await asyncio.sleep(0.05)
        await line.tell({"trial": "one", "fraction": 0.5})
        assert await listening == [{"trial": "one", "fraction": 0.5}]
        assert await line.words(0.0) == []

    asyncio.run(asyncio.wait_for(talk(), 4))


class LocalLine:
    """A line without Ray: what ranks say is written down beforehand."""

    def __init__(self, words: list[dict[str, Any]]) -> None:
        self.said = [words]
        self.given: list[Job] = []

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: self.answer(name, arguments))

    def answer(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "give":
            self.given.append(*arguments)
            return True
        return self.said.pop(0) if self.said else []


@pytest.fixture
def group(monkeypatch):
    """A group whose ranks said something, and whose Ray Train run has ended unless it is kept waiting."""
    import ray

    monkeypatch.setattr(ray, "get", lambda value: value)

    def make(words: list[dict[str, Any]], running: bool = False) -> Group:
        line, ended = LocalLine(words), threading.Event()
        monkeypatch.setattr(ray, "remote", lambda **options: lambda kind: SimpleNamespace(remote=lambda: line))
        monkeypatch.setattr(Group, "_fit", lambda self: ended.wait(5) if running else None)
        made = Group(ParallelConfig(2), 0.0, False)
        assert made.take_up(job())
        if not running:
            made._thread = SimpleNamespace(ident=1, is_alive=lambda: False)  # type: ignore[assignment]
        return made

    return make


def word(**rest: Any) -> dict[str, Any]:
    return {"trial": "one", **rest}


def test_busy_seconds_of_ranks_that_were_started_again_add_up(group) -> None:
    moments = [word(busy_seconds=seconds, fraction=seconds / 10) for seconds in (2.0, 5.0, 1.0, 3.0)]
    told = group([*moments, word(busy_seconds=4.0, reused=False)])
    assert [told.next_word() for _ in range(4)] == [
        {"fraction": 0.2},
        {"fraction": 0.5},
        {"fraction": 0.1},
        {"fraction": 0.3},
    ]
    assert told.next_word() is None and told.busy_seconds == 9.0 and not told.reused


def test_words_of_the_trial_before_are_passed_over(group) -> None:
    told = group([{"trial": "zero", "busy_seconds": 7.0, "reused": True}, word(busy_seconds=1.0, fraction=0.5)])
    assert told.next_word() == {"fraction": 0.5} and told.busy_seconds == 1.0
    assert told.next_word() is None, "the run ended, and nothing more will come"


def test_what_a_rank_finds_wrong_with_the_trial_ends_it_at_once(group) -> None:
    with pytest.raises(InputError, match="another corpus"):
        group([word(refused="another corpus")], running=True).next_word()
    with pytest.raises(NoRoomError, match="no space is left for somewhere"):
        group([word(no_room=True)], running=True).next_word()


def test_ranks_that_are_there_take_up_the_next_trial(group) -> None:
    told = group([word(busy_seconds=3.0, reused=False)], running=True)
    assert told.next_word() is None and told.busy_seconds == 3.0
    assert told.take_up(job("two")) and told.busy_seconds == 0.0
    assert [given.spec.id for given in told.line.given] == ["one", "two"]
    ended = group([])
    assert not ended.take_up(job("two")), "a run that ended is started anew"


@pytest.mark.parametrize(
    ("scale", "gpus", "machines", "warned"),
    [
        ("130m", 0, [(GPUS, 2)], "16 GPUs are there, and trials at 130m take none"),
        ("130m", 0, [({"CPU": 4.0, "GPU": 1.0}, 1)], "a GPU is there, and trials at 130m take none"),
        ("130m", 1, [(GPUS, 2)], ""),
        ("130m", 0, [({"CPU": 4.0}, 1)], ""),
        ("nano-65k", 0, [(GPUS, 2)], ""),
    ],
)
def test_a_run_for_gpus_that_takes_none_is_told_so(monkeypatch, caplog, scale, gpus, machines, warned) -> None:
    FakeRay(monkeypatch, now=machines)
    space = load_space("adamw").on(find_scale(scale).ladder)
    spec = Sweep(space, Regime(find_scale(scale), 1.0, CorpusId("x", "y", 512)), compile=False).spec(space.start)
    with RayBackend().connect(OneTrial(spec), RunOptions(gpus_per_trial=gpus)):
        pass
    assert [warned] * bool(warned) == [record.getMessage()[: len(warned)] for record in caplog.records]


def test_workers_of_trials_without_gpus_see_none(monkeypatch) -> None:
    ray = FakeRay(monkeypatch, now=[(GPUS, 1)])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for gpus, seen in ((0, ""), (0.5, None), (1, None)):
        with session.connect(None, gpus_per_trial=gpus):
            assert ray.options["runtime_env"]["env_vars"].get("CUDA_VISIBLE_DEVICES") == seen
