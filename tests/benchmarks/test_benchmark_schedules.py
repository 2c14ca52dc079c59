"""The deterministic simulation: some schedules of it, that they repeat, and that planted bugs are found and shrunk."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("greenlet")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("world", "store", "drawing", "schedule", "bugs")
    return SimpleNamespace(**{name: importlib.import_module(f"simulation.{name}") for name in names})


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_whatever_goes_wrong_every_run_ends_with_the_same_records_and_certificate(simulation, first: int) -> None:
    for seed in range(first, first + 100):
        broken, _ = simulation.schedule.play(simulation.drawing.drawn(seed))
        assert broken == [], f"seed {seed}"


def test_a_schedule_follows_from_its_seed_alone(simulation) -> None:
    play, drawn = simulation.schedule.play, simulation.drawing.drawn
    assert drawn(7) == drawn(7) != drawn(8)
    scenes = [play(drawn(seed))[1] for seed in (33, 7, 33)]
    first, _, again = ((scene.world.events, scene.world.now, scene.store.operations) for scene in scenes)
    assert first == again
    written = [{name: data[0] for name, data in scene.store.written.items()} for scene in scenes]
    assert written[0] == written[2]


def test_schedules_are_of_every_kind(simulation) -> None:
    drawn = [simulation.drawing.drawn(seed) for seed in range(300)]
    kinds = {fault.kind for schedule in drawn for fault in schedule.faults}
    assert kinds == {*simulation.drawing.OPERATION_FAULTS, *simulation.drawing.TIMED_FAULTS}
    assert {(each.bucket, each.ahead, each.orphans, len(each.starts)) for each in drawn} == {
        (bucket, ahead, orphans, starts)
        for bucket in (True, False) for ahead in (True, False) for orphans in (True, False) for starts in (1, 2)
    }  # fmt: skip


FEW = ["seals that nobody reads", "a put over an existing record", "a lease that is never over"]
"""Bugs that a few schedules find; with the others it takes some hundreds."""


@pytest.mark.parametrize("bug", FEW)
def test_a_planted_bug_is_found_and_shrunk(simulation, bug: str) -> None:
    play, drawn, shrunk = simulation.schedule.play, simulation.drawing.drawn, simulation.schedule.shrunk
    with simulation.bugs.planted(bug):
        schedule = drawn(next(seed for seed in range(400) if play(drawn(seed))[0]))
        small = shrunk(schedule)
        assert play(small)[0] and len(small.faults) <= len(schedule.faults)
        assert not any(play(less)[0] for less in simulation.drawing.smaller(small)), "nothing can be left out"
    assert play(schedule)[0] == play(small)[0] == [], "without the bug it is sound"


@pytest.mark.slow
def test_every_planted_bug_is_found(simulation) -> None:
    play, drawn = simulation.schedule.play, simulation.drawing.drawn
    for bug in set(simulation.bugs.BUGS) - {*FEW, *RARE}:
        with simulation.bugs.planted(bug):
            assert any(play(drawn(seed))[0] for seed in range(400)), bug


RARE = {
    "a heart that stops at the first error",
    "damage set aside without a second look",
    "a move that reads again",
}
"""What thousands of schedules find (docs/reliability.md has the counts)."""
