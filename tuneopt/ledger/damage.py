"""Damaged files of a ledger: told apart from good ones, named, set aside, and never deleted.

A record that a dying disk cut short must neither stop a sweep for ever nor vanish. It is moved into ``damaged/``, a
warning names it, and its trial runs again. Reading alone never moves anything: `set_aside` is called by whoever writes
the record anew, and by ``tuneopt ledger mend``.

What reads the files of a folder stands in `DECODERS`, and what it raises is what is wrong with a file: a further check
of a kind of file belongs there. `check` and `mend` walk the same folders, so that one reports what the other moves.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from tuneopt.checked import NewerSchemaError, parse_object
from tuneopt.ledger import place
from tuneopt.ledger.files import Files
from tuneopt.ledger.record import TrialRecord
from tuneopt.spec import InputError

FOLDER = "damaged"
"""Where damaged files are kept, under their own names and eight digits of their content."""

_log = logging.getLogger(__name__)


class DamagedRecordError(InputError):
    """A file of a ledger that does not hold what it should; ``why`` says what is wrong with it."""

    def __init__(self, sentence: str, why: str) -> None:
        super().__init__(sentence)
        self.why = why


def json_names(files: Files, folder: str) -> list[str]:
    """Names of the JSON files of a folder, the folder's own name in front, sorted; one listing, no file is opened."""
    return [f"{folder}/{name}" for name in files.names(folder) if name.endswith(".json")]


def key(name: str) -> str:
    """What a file is found by: ``abc`` of ``trials/abc.json``."""
    return name.rpartition("/")[2].removesuffix(".json")


def decode(uri: str, trial: str, data: bytes) -> TrialRecord:
    """The record in the file of ``trial``; raises `DamagedRecordError` when it is damaged or another trial's.

    A record of a newer release is no damage, and raises `NewerSchemaError`. ``uri`` names the ledger in sentences.
    """
    name = f"trials/{trial}.json in {uri}"
    try:
        record = TrialRecord.from_json(data)
    except NewerSchemaError:
        raise
    except InputError as error:
        raise DamagedRecordError(
            f"the record {name} is damaged ({error}); move it away (`tuneopt ledger mend`) and train it again",
            str(error),
        ) from None
    if record.trial != trial:
        why = f"holds the record of trial {record.trial}"
        raise DamagedRecordError(f"the file {name} is misplaced: it {why}; move it away", why)
    return record


def decode_plain(uri: str, name: str, data: bytes) -> dict[str, Any]:
    """What a sweep's or run's file holds; raises `DamagedRecordError` for anything but a JSON object."""
    try:
        return parse_object(data, "JSON")
    except InputError as error:
        raise DamagedRecordError(
            f"{name} in {uri} is damaged ({error}); move it away (`tuneopt ledger mend`)", str(error)
        ) from None


DECODERS: dict[str, Callable[[str, str, bytes], object]] = {
    "trials": lambda uri, name, data: decode(uri, key(name), data),
    "sweeps": decode_plain,
    "runs": decode_plain,
}
"""What reads the JSON files of a folder, by the ledger's address, a file's name and its bytes; raises for damage."""


def fault(name: str, data: bytes) -> str:
    """What is wrong with the bytes of a JSON file; empty when nothing is. Raises at data of a newer release."""
    try:
        DECODERS[name.partition("/")[0]]("", name, data)
    except DamagedRecordError as error:
        return error.why
    return ""


_WRITTEN = ("trials", "sweeps", "runs", "studies", "leases", "compacted", ".")
"""Folders that small files are written into, each under a temporary name at first."""


def strays(files: Files) -> list[str]:
    """Temporary files that no live writer owns, left behind by writes that were interrupted."""
    return [name if folder == "." else f"{folder}/{name}" for folder in _WRITTEN for name in files.stray(folder)]


def set_aside(files: Files, uri: str, name: str, fault: Callable[[str, bytes], str] = fault) -> str:
    """Move a damaged file into ``damaged/``; the sentence that says so, or nothing where the file is good by now.

    ``fault`` is asked again under the lock, right before the move: of two processes that saw the same damage the
    second one must leave alone what the first has written anew. An object store has no lock; there the window is the
    time of one request, and what is moved is kept.
    """
    with files.alone(FOLDER):
        try:
            data = files.read(name)
        except FileNotFoundError:
            return ""
        why = fault(name, data)
        if not why:
            return ""
        # The digest keeps a second, different damage of the same file from replacing the first one.
        kept = f"{FOLDER}/{name}~{hashlib.sha256(data).hexdigest()[:8]}"
        files.move(name, kept)
    sentence = f"{name} in {uri} was damaged ({why}); it is kept as {kept}"
    _log.warning("%s", sentence)
    return sentence


def mend(files: Files, uri: str) -> list[str]:
    """Set every damaged JSON file aside; one sentence for each. Raises at a record of a newer release."""
    done = []
    for folder in DECODERS:
        for name, data in files.read_all(json_names(files, folder)):
            if fault(name, data):
                done.append(set_aside(files, uri, name))
    return [sentence for sentence in done if sentence]


def check(files: Files, uri: str) -> tuple[list[str], dict[str, tuple[bytes, TrialRecord]]]:
    """One sentence for each file that is damaged or out of place; and the good records, with their bytes, by trial."""
    problems = list(_check_marker(files, uri))
    records = {}
    for folder, read in DECODERS.items():
        kind = "a record" if folder == "trials" else "JSON"
        names = files.names(folder)
        problems += [f"{folder}/{name}: not {kind}; move it away" for name in names if not name.endswith(".json")]
        for name, data in files.read_all([f"{folder}/{name}" for name in names if name.endswith(".json")]):
            try:
                content = read(uri, name, data)
            except DamagedRecordError as error:
                problems.append(f"{name}: {error.why}")
            except NewerSchemaError as error:
                problems.append(f"{name}: {error}")
            else:
                if isinstance(content, TrialRecord):
                    records[key(name)] = data, content
    return problems, records


def _check_marker(files: Files, uri: str) -> Iterator[str]:
    """What is wrong with the marker; `Ledger.mark` mends what it can."""
    try:
        place.check_marker(files.read(place.MARKER), uri)
    except FileNotFoundError:
        yield f"{place.MARKER}: missing; the next record that is put writes it again"
    except InputError as error:
        yield f"{place.MARKER}: {error}"
