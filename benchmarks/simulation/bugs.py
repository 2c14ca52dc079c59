"""Bugs to plant in driver, ledger and leases, by which it is known what the simulation can find.

Each entry of `BUGS` replaces attributes of tuneopt's own modules. ``benchmarks/schedules.py --bugs`` counts the
schedules until each is found; tests plant some of them. What a single write does to the disk (flush, name, flush) is
below the store that is simulated here, and has tests of its own (tests/ledger/test_ledger_files.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from simulation import remembering
from tuneopt.ledger import Ledger, TrialRecord, damage, lease
from tuneopt.ledger.files import RemoteFiles
from tuneopt.ledger.seal import seal
from tuneopt.run.spine import RunController
from tuneopt.search import queue, records
from tuneopt.search.plan import Ended, Outcome
from tuneopt.training.run import TrialRun

Changes = list[tuple[Any, str, Any]]
"""Owner, attribute, and what takes its place."""


def _seals_unread() -> Changes:
    real = damage.unseal
    return [(damage, "unseal", lambda *given: (real(*given)[0], "sealed"))]


def _blind_worker() -> Changes:
    return [(Ledger, "sound", lambda ledger, trial: None)]


def _last_writer_wins() -> Changes:
    def put(ledger: Ledger, record: TrialRecord) -> bool:
        name = f"trials/{record.trial}.json"
        ledger.files.replace(name, seal(name, record.to_json()))
        return True

    return [(Ledger, "put", put)]


def _list_taken_for_complete() -> Changes:
    def put(ledger: Ledger, record: TrialRecord) -> bool:
        """Whether the record is there is looked up in a listing, and then it is written."""
        name = f"trials/{record.trial}.json"
        if record.trial in ledger.ids():
            return False
        ledger.files.replace(name, seal(name, record.to_json()))
        return True

    return [(Ledger, "put", put)]


def _damage_counts_as_there() -> Changes:
    """A damaged record keeps its place: the first writer wins, even where it wrote nothing that can be read."""

    def put(ledger: Ledger, record: TrialRecord) -> bool:
        name = f"trials/{record.trial}.json"
        return ledger.files.create(name, seal(name, record.to_json()))

    return [(Ledger, "put", put), (TrialRun, "_store", lambda run, record: run.ledger.put(record))]


def _damage_deleted() -> Changes:
    """A damaged file is deleted where it should be set aside, and without asking again whether it is damaged."""

    def set_aside(files: Any, uri: str, name: str, fault: Any = None, instead: bytes | None = None) -> str:
        files.delete(name)
        return f"{name} was damaged"

    return [(damage, "set_aside", set_aside)]


def _damage_stops_the_sweep() -> Changes:
    return [(Ledger, "sound", Ledger.get)]


def _lease_for_ever() -> Changes:
    return [(lease.Holder, "gone", property(lambda holder: False))]


def _lease_without_fence() -> Changes:
    """Whoever comes takes the lease over."""

    def take(held: Any) -> None:
        held.mark()
        held.files.replace(held.name, held.mine.to_json())

    return [(lease._Lease, "take", take)]


def _lease_by_the_clock() -> Changes:
    """A holder's last time, by its own clock, is all that is looked at."""
    return [(lease, "FEWEST_BEATS", 0)]


def _heart_stops() -> Changes:
    """A beat that cannot be written is the last one."""

    def beat(held: Any, done: Any) -> None:
        while not done.wait(lease.BEAT_SECONDS):
            try:
                held.mine = held.mine.beaten()
                held.files.replace(held.name, held.mine.to_json())
            except OSError:
                return

    return [(lease._Lease, "beat", beat)]


def _certificate_of_half_a_wave() -> Changes:
    """A wave counts as over when half of it has ended."""
    real = queue.stand

    def stand(task: Any, outcomes: Any, gave_up: Any = frozenset()) -> Any:
        standing = real(task, outcomes, gave_up)
        asked = standing.state.searched.asked if hasattr(standing.state.searched, "asked") else ()
        if outcomes and standing.pending and 2 * len(standing.pending) <= max(len(asked), 2):
            return real(task, outcomes, frozenset(gave_up) | {spec.id for spec in standing.pending})
        return standing

    return [(queue, "stand", stand), (remembering, "_real_stand", stand)]


def _failed_counts_as_diverged() -> Changes:
    """A trial whose workers died is told to the plan as one that diverged."""
    real = RunController._take_in

    def take_in(controller: RunController, spec: Any, ended: Any, error: str = "") -> None:
        known = ended or controller._recorded(spec) or Ended(Outcome("diverged", None, None))
        real(controller, spec, known, error)

    return [(RunController, "_take_in", take_in)]


def _own_trials_as_evidence() -> Changes:
    """What a sweep ran itself counts as known before, where its description was lost."""
    return [(records, "belongs", lambda sweep, spec: False)]


def _sweep_never_described() -> Changes:
    return [(Ledger, "put_sweep", lambda ledger, name, plain: None)]


def _aside_without_a_second_look() -> Changes:
    """What somebody saw damaged a moment ago is moved, whatever stands there by now."""
    real = damage.set_aside

    def set_aside(files: Any, uri: str, name: str, fault: Any = damage.fault, instead: bytes | None = None) -> str:
        try:
            seen = fault(name, files.read(name))
        except FileNotFoundError:
            return ""
        return real(files, uri, name, lambda *_: seen, instead) if seen else ""

    return [(damage, "set_aside", set_aside)]


def _move_reads_again() -> Changes:
    """In a bucket, what is set aside is what stands there by now."""

    def move(files: Any, name: str, target: str, seen: bytes, instead: bytes | None = None) -> None:
        try:
            files.replace(target, files.read(name))
            files.delete(name)
        except FileNotFoundError:
            return

    return [(RemoteFiles, "move", move)]


def _mend_takes_what_is_good() -> Changes:
    real = damage.set_aside

    def always(name: str, data: bytes) -> str:
        return "" if name.startswith("trials/") else "not a record"

    def set_aside(files: Any, uri: str, name: str, fault: Any = None, instead: bytes | None = None) -> str:
        return real(files, uri, name, always, instead)

    return [(damage, "fault", always), (damage, "set_aside", set_aside)]


BUGS: dict[str, Callable[[], Changes]] = {
    "seals that nobody reads": _seals_unread,
    "a worker that does not look for a record": _blind_worker,
    "a put over an existing record": _last_writer_wins,
    "a listing taken for complete": _list_taken_for_complete,
    "a damaged record that keeps its place": _damage_counts_as_there,
    "damage deleted, unasked": _damage_deleted,
    "damage that stops the sweep": _damage_stops_the_sweep,
    "a lease that is never over": _lease_for_ever,
    "a lease without a fence": _lease_without_fence,
    "a lease judged by the clock": _lease_by_the_clock,
    "a heart that stops at the first error": _heart_stops,
    "a certificate from half a wave": _certificate_of_half_a_wave,
    "a failed trial that counts as diverged": _failed_counts_as_diverged,
    "a sweep's own trials as earlier evidence": _own_trials_as_evidence,
    "a sweep without its description": _sweep_never_described,
    "damage set aside without a second look": _aside_without_a_second_look,
    "a move that reads again": _move_reads_again,
    "a mend that takes what is good": _mend_takes_what_is_good,
}
"""What each bug does, and how it is planted."""


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The code with a bug in it; nothing that it said is remembered."""
    changes = BUGS[name]()
    before = [(owner, attribute, owner.__dict__[attribute]) for owner, attribute, _ in changes]
    remembering.forget()
    for owner, attribute, value in changes:
        setattr(owner, attribute, value)
    try:
        yield
    finally:
        for owner, attribute, value in before:
            setattr(owner, attribute, value)
        remembering.forget()
