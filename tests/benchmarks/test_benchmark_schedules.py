"""The deterministic simulation: some schedules of it, that they repeat, and that planted bugs are found and shrunk."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tuneopt.ledger import Ledger, damage, lease

pytest.importorskip("greenlet")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def simulation(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    names = ("world", "store", "schedule")
    return SimpleNamespace(**{name: importlib.import_module(f"simulation.{name}") for name in names})


@pytest.mark.parametrize("first", range(0, 400, 100))
def test_whatever_goes_wrong_every_run_ends_with_the_same_records_and_certificate(simulation, first: int) -> None:
    for seed in range(first, first + 100):
        broken, _ = simulation.schedule.play(simulation.schedule.drawn(seed))
        assert broken == [], f"seed {seed}"


def test_a_schedule_follows_from_its_seed_alone(simulation) -> None:
    play, drawn = simulation.schedule.play, simulation.schedule.drawn
    assert drawn(7) == drawn(7) != drawn(8)
    scenes = [play(drawn(seed))[1] for seed in (33, 7, 33)]
    first, _, again = ((scene.world.events, scene.world.now, scene.store.operations) for scene in scenes)
    assert first == again
    written = [{name: data[0] for name, data in scene.store.written.items()} for scene in scenes]
    assert written[0] == written[2]


def test_schedules_are_of_every_kind(simulation) -> None:
    drawn = [simulation.schedule.drawn(seed) for seed in range(300)]
    kinds = {fault.kind for schedule in drawn for fault in schedule.faults}
    assert kinds == {*simulation.schedule.OPERATION_FAULTS, *simulation.schedule.TIMED_FAULTS}
    assert {(each.bucket, each.ahead, each.orphans, len(each.starts)) for each in drawn} == {
        (bucket, ahead, orphans, starts)
        for bucket in (True, False) for ahead in (True, False) for orphans in (True, False) for starts in (1, 2)
    }  # fmt: skip


def put_over(ledger: Ledger, record) -> bool:
    """A store of records whose last writer wins."""
    from tuneopt.ledger.seal import seal

    name = f"trials/{record.trial}.json"
    ledger.files.replace(name, seal(name, record.to_json()))
    return True


def trusting(monkeypatch: pytest.MonkeyPatch, simulation) -> None:
    """Seals that nobody looks at."""
    real = damage.unseal
    monkeypatch.setattr(damage, "unseal", lambda *given: (real(*given)[0], "sealed"))
    for cached in simulation.schedule._DECODERS.values():
        cached.cache_clear()


def blind(monkeypatch: pytest.MonkeyPatch, simulation) -> None:
    """Nobody finds what is recorded, so that everything is trained again."""
    monkeypatch.setattr(Ledger, "sound", lambda ledger, trial: None)


def last_wins(monkeypatch: pytest.MonkeyPatch, simulation) -> None:
    monkeypatch.setattr(Ledger, "put", put_over)


def never_expires(monkeypatch: pytest.MonkeyPatch, simulation) -> None:
    """A lease that nobody takes over: a killed driver keeps everybody out."""
    monkeypatch.setattr(lease.Holder, "gone", property(lambda holder: False))


BUGS: list[Callable] = [trusting, blind, last_wins, never_expires]


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found_and_shrunk(simulation, bug: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch, simulation)
    play, drawn, shrunk = simulation.schedule.play, simulation.schedule.drawn, simulation.schedule.shrunk
    seeds = (seed for seed in range(400) if play(drawn(seed))[0])
    schedule = drawn(next(seeds))
    small = shrunk(schedule)
    assert play(small)[0] and len(small.faults) <= len(schedule.faults)
    assert not any(play(smaller)[0] for smaller in simulation.schedule._smaller(small)), "nothing can be left out"
    for cached in simulation.schedule._DECODERS.values():  # what a broken reader said is not remembered
        cached.cache_clear()
