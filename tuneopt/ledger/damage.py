"""Damaged files of a ledger: told apart from good ones, set aside, said, and never deleted.

A record that a dying disk cut short must neither stop a sweep for ever nor vanish. It is moved into ``damaged/``, a
warning names it, and its trial runs again. Reading alone never moves anything: whoever writes the record anew does.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from tuneopt.spec import InputError

if TYPE_CHECKING:
    from tuneopt.ledger.store import Ledger

FOLDER = "damaged"
"""Where damaged files are kept, under their own names and eight digits of their content."""

T = TypeVar("T")
_log = logging.getLogger(__name__)


class DamagedRecordError(InputError):
    """A file of a ledger that does not hold what it should; ``why`` says what is wrong with it."""

    def __init__(self, sentence: str, why: str) -> None:
        super().__init__(sentence)
        self.why = why


def set_aside(ledger: Ledger, name: str, fault: Callable[[bytes], str]) -> str:
    """Move a damaged file into ``damaged/``; the sentence that says so, or nothing where the file is good by now.

    ``fault`` says what is wrong with the bytes of a file. It is asked again right before the move, so that of two
    processes that found the same damage the second leaves alone what the first has written anew.
    """
    with ledger.files.alone(FOLDER):
        try:
            data = ledger.files.read(name)
        except FileNotFoundError:
            return ""
        why = fault(data)
        if not why:
            return ""
        kept = f"{FOLDER}/{name}~{hashlib.sha256(data).hexdigest()[:8]}"
        ledger.files.move(name, kept)
    sentence = f"{name} in {ledger.uri} was damaged ({why}); it is kept as {kept}"
    _log.warning("%s", sentence)
    return sentence


def mend(ledger: Ledger) -> list[str]:
    """Set every damaged file of a ledger aside; one sentence for each, none when all is well."""
    from tuneopt.ledger import compaction

    done = []
    for folder, fault in (("trials", ledger.fault), ("sweeps", plain_fault), ("runs", plain_fault)):
        names = [f"{folder}/{name}" for name in ledger.files.names(folder) if name.endswith(".json")]
        for name, data in ledger.files.read_all(names):
            if fault(name, data):
                done.append(set_aside(ledger, name, lambda again, name=name, fault=fault: fault(name, again)))  # type: ignore[misc]
    if ledger.files.exists(compaction.NAME) and compaction.load(ledger, ()) is None:
        # Derived data: what was in it is in the files of the trials.
        done.append(set_aside(ledger, compaction.NAME, lambda data: "not a table of this release; compact again"))
    return [sentence for sentence in done if sentence]


def mending(ledger: Ledger, act: Callable[[], T]) -> T:
    """``act()``, and once more after `mend` where it met a damaged file: for commands that write to the ledger."""
    try:
        return act()
    except DamagedRecordError:
        mend(ledger)
        return act()


def plain_fault(name: str, data: bytes) -> str:
    """What is wrong with the description of a sweep or a run; empty when nothing is."""
    from tuneopt.ledger.checks import parse_object

    try:
        parse_object(data, "JSON")
    except InputError as error:
        return str(error)
    return ""
