"""Damaged files of a ledger: told apart from good ones, named, set aside, and never deleted.

A record that a dying disk cut short must neither stop a sweep for ever nor vanish. It is moved into ``damaged/``, a
warning names it, and its trial runs again. Reading alone never moves anything: `set_aside` is called by whoever writes
the record anew, and by ``tuneopt ledger mend``.

What reads the files of a folder stands in `DECODERS`, and what it raises is what is wrong with a file: a further check
of a kind of file belongs there. `tuneopt.ledger.check` and `mend` walk the same folders, so that one reports what the
other moves.

A file that fits its seal (`seal`) is what was written. Files of releases before seals have none: for them
`contradictions` are damage, since nothing else would find a changed digit; `mend` seals those that hold none.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tuneopt.checked import NewerSchemaError
from tuneopt.errors import visible
from tuneopt.ledger.contradictions import in_account, in_record
from tuneopt.ledger.durable import NoPlainFileError
from tuneopt.ledger.files import Files
from tuneopt.ledger.record import SCHEMA, TrialRecord
from tuneopt.ledger.seal import BROKEN, SealedState, has_seal, seal, seal_lines, unseal, unseal_lines
from tuneopt.spec import InputError

FOLDER = "damaged"
"""Where damaged files are kept, under their own names and eight digits of their content."""

PLANS = "comparisons"
"""The folder of the plans of comparisons, which are YAML; all other documents are JSON."""

SAFE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
"""Names that are a single part of a path, and no hidden file, on every file system."""

PREVIOUS = "previous"
"""The entry of a run's account that names the account before it."""

LAST_RUN = "last-run.json"
"""Names the newest account of a run (of the others the one after it says so) and the plans that there were then."""

_log = logging.getLogger(__name__)
_warned: set[tuple[str, str]] = set()
"""Ledgers and files that this process has spoken of."""


class DamagedRecordError(InputError):
    """A file of a ledger that does not hold what it should; ``why`` says what is wrong with it."""

    def __init__(self, sentence: str, why: str) -> None:
        super().__init__(sentence)
        self.why = why


@dataclass(frozen=True, slots=True)
class Content:
    """What a JSON file of a ledger holds: a `TrialRecord`, or a sweep's or run's plain data without the seal."""

    value: Any
    state: SealedState
    contradiction_in: Callable[[Any], str] = lambda value: ""

    @property
    def contradiction(self) -> str:
        """What cannot be true of a record that fits its seal: its worker wrote it so, and would write it so again.

        Worked out when it is asked for. Whoever only reads such a record takes it as it was written.
        """
        return self.contradiction_in(self.value)


def ending(folder: str) -> str:
    """How the names of a folder's documents end."""
    return ".yaml" if folder == PLANS else ".json"


def is_document(name: str) -> bool:
    """Whether a name is one that a document can have: with a folder of documents, and right inside it."""
    folder, _, file = name.partition("/")
    known = folder in DECODERS and file.endswith(ending(folder))
    return known and SAFE.fullmatch(file.removesuffix(ending(folder))) is not None


def document_names(files: Files, folder: str) -> list[str]:
    """Names of the documents of a folder, the folder's own name in front, sorted; one listing, no file is opened.

    Raises `InputError` where a folder is a link to a disk that is not there, say: that is no empty ledger.
    """
    names = [f"{folder}/{name}" for name in files.names(folder)]
    if not names and (what := files.oddity(folder)) not in ("", "a folder"):
        raise InputError(f"{folder}/ of the ledger is {what}; mount what it leads to, or move it away")
    return [name for name in names if is_document(name)]


def odd_names(files: Files, folder: str) -> list[str]:
    """As `document_names`: what looks like a document and is none. That is a folder, a FIFO or a link to nothing, or a
    file with a name that no document has."""
    names = [f"{folder}/{name}" for name in files.odd_names(folder) if name.endswith(ending(folder))]
    return [*names, *(name for name in foreign_names(files, folder) if name.endswith(ending(folder)))]


def foreign_names(files: Files, folder: str) -> list[str]:
    """Plain files in a folder of documents with names that no document has, such as copies that somebody made."""
    return [name for name in (f"{folder}/{each}" for each in files.names(folder)) if not is_document(name)]


def key(name: str) -> str:
    """What a file is found by: ``abc`` of ``trials/abc.json``."""
    return name.rpartition("/")[2].removesuffix(".json").removesuffix(".yaml")


def read(files: Files, uri: str, name: str) -> bytes:
    """The bytes of a file; raises FileNotFoundError, and `DamagedRecordError` where something else stands there."""
    try:
        return files.read(name)
    except NoPlainFileError as error:
        raise _odd(uri, error) from None


def read_all(files: Files, uri: str, folder: str) -> Iterator[tuple[str, bytes]]:
    """Each document of a folder with its bytes, by name; what is no plain file is passed over, with a warning."""
    warn_of_odd(files, uri, folder)
    return files.read_all(document_names(files, folder))


def warn_of_odd(files: Files, uri: str, folder: str) -> None:
    """Say once of each thing that stands in the place of a document that it cannot be read."""
    for name in odd_names(files, folder):
        what = files.oddity(name)
        found = _odd(uri, NoPlainFileError(name, what)) if what else f"{visible(name)} in {uri} {_FOREIGN}; {_ADVICE}"
        warn_once(uri, name, f"{found}; it was passed over")


def warn_once(uri: str, name: str, sentence: str) -> None:
    """Warn of a file; a second time this process is silent, because one report reads a ledger several times."""
    if first_time(uri, name):
        _log.warning("%s", sentence)


def first_time(uri: str, name: str) -> bool:
    """Whether this process has not spoken of a file yet; from now on it has."""
    new = (uri, name) not in _warned
    _warned.add((uri, name))
    return new


_ADVICE = "move it away (`tuneopt ledger mend`)"
_FOREIGN = "has a name that no document has"


def _odd(uri: str, error: NoPlainFileError) -> DamagedRecordError:
    sentence = f"{visible(error.name)} in {uri} is {error.what}, not a file; {_ADVICE}"
    return DamagedRecordError(sentence, f"is {error.what}")


def decode(uri: str, trial: str, data: bytes) -> TrialRecord:
    """The record in the file of ``trial``; raises `DamagedRecordError` when it is damaged or another trial's.

    A record of a newer release is no damage, and raises `NewerSchemaError`. ``uri`` names the ledger in sentences.
    """
    record: TrialRecord = _read_record(uri, f"trials/{trial}.json", data).value
    return record


def decode_plain(uri: str, name: str, data: bytes) -> dict[str, Any]:
    """What a sweep's or run's file holds, without its seal; raises `DamagedRecordError` where it is damaged."""
    plain: dict[str, Any] = DECODERS[name.partition("/")[0]](uri, name, data).value
    return plain


def _read_record(uri: str, name: str, data: bytes) -> Content:
    trial, state = key(name), "unsealed"
    try:
        plain, state = unseal(name, data, "a trial record")
        record = TrialRecord.from_dict(plain)
        why = _wrong(state, in_record, record)
    except NewerSchemaError as error:
        # A version that this release does not know is most likely a newer release's, which knows better what is well.
        if not _flipped_version(name, data):
            # Nothing is moved on a suspicion: another release may seal in another way.
            doubt = (
                "; or move it away, if no later release wrote it: its seal does not fit" if state == "broken" else ""
            )
            raise NewerSchemaError(f"{name}: {error}{doubt}") from None
        why = BROKEN
    except InputError as error:
        why = str(error)
    else:
        # Whole, but under another name than its own: whoever looked that one up would get the wrong trial.
        if record.trial != trial:
            why = f"holds the record of trial {record.trial}"
            raise DamagedRecordError(f"the file {name} in {uri} is misplaced: it {why}; move it away", why)
        if not why:
            return Content(record, state, in_record)
    raise DamagedRecordError(
        f"the record {name} in {uri} is damaged ({why}); move it away (`tuneopt ledger mend`) and train it again", why
    )


def _wrong(state: SealedState, contradiction: Callable[[Any], str], value: Any) -> str:
    """What is wrong with a document that could be read; empty when nothing is. A seal outweighs a contradiction."""
    if state == "unsealed":
        return contradiction(value)
    return BROKEN if state == "broken" else ""


def _flipped_version(name: str, data: bytes) -> bool:
    """Whether one flipped bit made a later release's record of one of this release: flipped back, its seal fits."""
    for found in re.finditer(rb'"schema":(\d)', data):
        if (found[1][0] ^ ord(str(SCHEMA))).bit_count() == 1:  # the two digits differ in one bit of ASCII
            restored = data[: found.start(1)] + str(SCHEMA).encode() + data[found.end(1) :]
            if unseal(name, restored, "a trial record")[1] == "sealed":
                return True
    return False


def _read_plain(uri: str, name: str, data: bytes, contradiction: Callable[[Mapping[str, Any]], str]) -> Content:
    try:
        plain, state = unseal(name, data, "JSON")
        why = _wrong(state, contradiction, plain)
    except InputError as error:
        why = str(error)
    else:
        if not why:
            return Content(plain, state, contradiction)
    raise DamagedRecordError(f"{name} in {uri} is damaged ({why}); move it away (`tuneopt ledger mend`)", why)


def _read_plan(uri: str, name: str, data: bytes) -> Content:
    try:
        text, state = unseal_lines(name, data, "a plan")
        why = BROKEN if state == "broken" else ""
    except InputError as error:
        why = str(error)
    else:
        if not why:
            return Content(text, state)
    raise DamagedRecordError(f"{name} in {uri} is damaged ({why}); move it away (`tuneopt ledger mend`)", why)


DECODERS: dict[str, Callable[[str, str, bytes], Content]] = {
    "trials": _read_record,
    "sweeps": lambda uri, name, data: _read_plain(uri, name, data, lambda plain: ""),
    "runs": lambda uri, name, data: _read_plain(uri, name, data, in_account),
    PLANS: lambda uri, name, data: _read_plan(uri, name, data),
}
"""What reads the documents of a folder, by the ledger's address, a file's name and its bytes; raises for damage."""


def fault(name: str, data: bytes) -> str:
    """What is wrong with the bytes of a document; empty when nothing is. Raises at data of a newer release."""
    try:
        DECODERS[name.partition("/")[0]]("", name, data)
    except DamagedRecordError as error:
        return error.why
    return ""


def readable(files: Files, folder: str, uri: str = "") -> Iterator[tuple[str, str, Any]]:
    """Each good document of a folder: its file's name, its key, and what it holds.

    The others are passed over, with a warning where ``uri`` says of which ledger.
    """
    for name, data in files.read_all(document_names(files, folder)):
        try:
            yield name, key(name), DECODERS[folder](uri, name, data).value
        except (DamagedRecordError, NewerSchemaError) as error:
            if uri:
                warn_once(uri, name, f"{error}; it was passed over")


_WRITTEN = ("trials", "sweeps", "runs", PLANS, "studies", "leases", "compacted", FOLDER, ".")
"""Folders that small files are written into, each under a temporary name at first."""


def strays(files: Files) -> list[str]:
    """Temporary files that no live writer owns, left behind by writes that were interrupted."""
    return [name if folder == "." else f"{folder}/{name}" for folder in _WRITTEN for name in files.stray(folder)]


def set_aside(
    files: Files,
    uri: str,
    name: str,
    fault: Callable[[str, bytes], str] = fault,
    instead: bytes | None = None,
) -> str:
    """Move a damaged file into ``damaged/``; the sentence that says so, or nothing where the file is good by now.

    ``fault`` is asked again under the lock, right before the move: of two processes that saw the same damage the
    second one must leave alone what the first has written anew. An object store has no lock; there the window is the
    time of one request. Who has something to put there gives it as ``instead``: in an object store it then replaces the
    damage, and nothing is deleted.
    """
    with files.alone(FOLDER):
        try:
            data = files.read(name)
        except FileNotFoundError:
            return ""
        except NoPlainFileError as error:  # moved as it is: nothing follows a link or opens a FIFO
            data, why, mark = b"", f"it was {error.what}", secrets.token_hex(4)
        else:
            known = name == LAST_RUN or is_document(name)
            why, mark = fault(name, data) if known else f"it {_FOREIGN}", hashlib.sha256(data).hexdigest()[:8]
        if not why:
            return ""
        # The digest keeps a second, different damage of the same file from replacing the first one.
        kept = f"{FOLDER}/{name}~{mark}"
        files.move(name, kept, data, instead)
    return f"{visible(name)} in {uri} was damaged ({why}); it is kept as {visible(kept)}"


def tell(sentence: str) -> str:
    """Warn of what was set aside while something else was done; ``sentence`` comes back, empty where nothing was."""
    if sentence:
        _log.warning("%s", sentence)
    return sentence


def mend(files: Files, uri: str) -> list[str]:
    """Set every damaged document aside, and seal those of earlier releases; a sentence for each that is not well.

    What a newer release wrote is left alone, and said.
    """
    done, sealed = [], 0
    for folder in DECODERS:
        odd = {*odd_names(files, folder), *foreign_names(files, folder)}
        done += [set_aside(files, uri, name) for name in sorted(odd)]
        for name, data in files.read_all(document_names(files, folder)):
            try:
                if fault(name, data):
                    done.append(set_aside(files, uri, name))
                elif not has_seal(data):
                    sealed += seal_file(files, name)
            except NewerSchemaError as error:
                done.append(f"left alone: {error}")
    done.append(set_aside(files, uri, LAST_RUN, fault_of_last))
    if sealed:
        done.append(f"{sealed} files of an earlier release were sealed: they are known to be whole from now on")
    return [sentence for sentence in done if sentence]


def seal_file(files: Files, name: str) -> bool:
    """Give a file of an earlier release its seal; what it holds stays as it is, byte for byte. False without need."""
    with files.alone(FOLDER):  # whoever replaces a document does so inside
        data = files.read(name)
        if has_seal(data) or fault(name, data):
            return False
        as_lines = name.startswith(f"{PLANS}/")  # YAML has its seal as a remark, JSON as its last entry
        files.replace(name, seal_lines(name, data.decode()) if as_lines else seal(name, data.decode().strip()))
    return True


def newest(data: bytes) -> tuple[str, list[str]]:
    """The newest account and the plans that `LAST_RUN` names; raises `InputError` where it is damaged.

    Every release that wrote the file sealed it.
    """
    plain, state = unseal(LAST_RUN, data, "JSON")
    run, plans = plain.get("run"), plain.get("plans")
    if state != "sealed" or not isinstance(run, str) or not isinstance(plans, list):
        raise InputError(BROKEN)
    return run, list(map(str, plans))


def fault_of_last(name: str, data: bytes) -> str:
    """As `fault`, for `LAST_RUN`."""
    try:
        newest(data)
    except InputError as error:
        return str(error)
    return ""
