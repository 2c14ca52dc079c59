"""One schedule from its beginning to its end, what must be true then, and the smallest one that breaks it as well."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import suppress

from simulation.drawing import OPERATION_FAULTS, Schedule, smaller
from simulation.remembering import quick
from simulation.scene import UNDISTURBED, Scene, loss
from simulation.world import inside
from tuneopt.ledger import damage
from tuneopt.spec import InputError

HARMLESS_TO_LEASES = frozenset({"fail", "fail after", "rot", "kill driver", "kill worker", "pause worker"})
"""Faults under which a lease keeps a second driver out; a store that loses a write takes the lease with it."""


def play(schedule: Schedule) -> tuple[list[str], Scene]:
    """Run a schedule; a sentence for each property that it breaks, and what happened."""
    scene = Scene(schedule)
    world, shared = scene.world, scene.store
    with inside(world), quick():
        for which, start in enumerate(schedule.starts):
            world.at(start, functools.partial(scene.begin_driver, which))
        for fault in schedule.faults:
            if fault.kind in OPERATION_FAULTS:
                shared.faults[int(fault.place)] = (fault.kind, fault.amount)
            else:
                world.at(fault.place, functools.partial(scene.harm, fault))
        ended = world.run()
        shared.settle()
        scene.calm = True
        # The same command once more, and then again: the first brings what is missing, the second finds everything.
        for name in ("last", "again"):
            if ended:
                scene.begin_driver(0, name)
                ended = world.run()
        broken = list(_broken(scene)) if ended else ["a run does not end"]
        for process in world.processes:  # nothing of this schedule may go on in the next
            if process.alive:
                with suppress(Exception):
                    world.kill(process)
    return broken, scene


def _broken(scene: Scene) -> Iterator[str]:
    """What is not as it must be, whatever went wrong on the way."""
    store = scene.store
    yield from (f"a process crashed: {error}" for error in scene.world.errors)
    for name in ("last", "again"):
        if name not in scene.results:
            yield f"the {name} run did not end with a result: {scene.ends[-1:]}"
    if "again" in scene.results and scene.results["again"].run:
        yield f"the run after the last one trained {scene.results['again'].run}"
    state = UNDISTURBED.state
    expected = (state.certificate, state.descent.incumbent, state.best)
    for name, certificate in scene.certificates.items():
        if certificate != expected:
            yield f"{name} ended with another certificate"
    if "last" not in scene.certificates:
        yield "the last run ended without a certificate"
    present = {name: data for name in store.versions if name.startswith("trials/") and (data := store.seen(name, None))}
    aside = {store.seen(name, None) for name in store.versions if name.startswith(f"{damage.FOLDER}/")}
    for spec in UNDISTURBED.state.needed:
        if f"trials/{spec.id}.json" not in present:
            yield f"no record of trial {spec.id}"
    for name, data in present.items():
        try:
            found = damage.decode("", damage.key(name), data)
        except damage.DamagedRecordError as error:
            if damage.key(name) in {spec.id for spec in UNDISTURBED.state.needed}:
                yield f"{name} is damaged, and nobody trained it again: {error.why}"
            continue
        if found.select_loss != loss(found.spec):
            yield f"{name} was changed"
    for name, written in store.written.items():
        if not store.bucket and (len(written) > 1 or present.get(name) != written[0]):
            yield f"{name} was written {len(written)} times, or is not what was written first"
        elif not any(data == present.get(name) or data in aside for data in written):
            yield f"{name} was lost"
    yield from (f"{name} was good, and deleted" for name in store.deleted)
    if _leases_hold(scene.schedule):
        yield from scene.overlaps
    for problem in _mended(scene):
        # That an account is gone which the store forgot is true, and nobody can bring it back.
        if not any(problem.startswith(f"{name}: is gone") for name in store.lost):
            yield f"verify after mend: {problem}"
    for name in store.versions:
        kept = store.seen(name, None) if name.startswith(f"{damage.FOLDER}/") else None
        document = name.removeprefix(f"{damage.FOLDER}/").rpartition("~")[0]
        if kept is not None and _good(document, kept):
            yield f"{document} was good, and set aside"


def _good(name: str, data: bytes) -> bool:
    """Whether the bytes are a document's that fits its name and its seal; asked of the readers themselves."""
    if name == damage.LAST_RUN:
        return not damage.fault_of_last(name, data)
    try:
        damage.DECODERS[name.partition("/")[0]]("", name, data)
    except InputError:
        return False
    return True


def _leases_hold(schedule: Schedule) -> bool:
    """Whether no two drivers may work on the sweep at once, which a lease can promise where others see what is written
    and a living driver is not stopped."""
    return not schedule.bucket and all(fault.kind in HARMLESS_TO_LEASES for fault in schedule.faults)


def _mended(scene: Scene) -> list[str]:
    """What `verify` names when `mend` is done: what rotted and is needed by no run was set aside."""
    checker, problems = scene.world.process("mend", "one"), ["mend does not end"]

    def mend() -> None:
        ledger = scene.ledger(checker)
        ledger.mend()
        problems[:] = ledger.verify()

    scene.world.start(checker, mend)
    scene.world.run()
    return problems


def shrunk(schedule: Schedule) -> Schedule:
    """A schedule that breaks something, with as little in it as does so: no part of it can be left out."""
    while True:
        for less in smaller(schedule):
            if play(less)[0]:
                schedule = less
                break
        else:
            return schedule
