"""What is wrong with a ledger, a sentence for each file: every document is read, and nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tuneopt.checked import NewerSchemaError
from tuneopt.errors import visible
from tuneopt.ledger import damage, place
from tuneopt.ledger.damage import DamagedRecordError
from tuneopt.ledger.durable import NoPlainFileError
from tuneopt.ledger.files import Files
from tuneopt.ledger.record import TrialRecord
from tuneopt.spec import InputError


@dataclass(frozen=True, slots=True)
class Findings:
    """What `check` found: a sentence for each file that is not well, the good records, and what has no seal."""

    problems: list[str]
    gone: list[str] = field(default_factory=list)
    """A sentence for each document that others tell of and that is not there: nothing can be set aside for it."""
    records: dict[str, tuple[bytes, TrialRecord]] = field(default_factory=dict)
    """The bytes and the record of each good file, by trial."""
    accounts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Every good account of a run, by name."""
    unsealed: list[str] = field(default_factory=list)
    """Names of good files of releases before seals."""


def check(files: Files, uri: str) -> Findings:
    """Read every document of a ledger; nothing is changed."""
    found = Findings(list(_check_marker(files, uri)))
    for folder in damage.DECODERS:
        # Odd is what has a document's name and is no plain file: a folder, a pipe that a read would wait for.
        odd = set(files.odd_names(folder))
        names = sorted([*files.names(folder), *odd])
        kind = {"trials": "a record", damage.PLANS: "a plan"}.get(folder, "JSON")
        plain = []
        for name in (f"{folder}/{each}" for each in names):
            if name.removeprefix(f"{folder}/") in odd and name.endswith(damage.ending(folder)):
                found.problems.append(f"{visible(name)}: is {files.oddity(name)}, not a file")
            elif not damage.is_document(name):
                found.problems.append(f"{visible(name)}: not {kind}; move it away")
            else:
                plain.append(name)
        for name, data in files.read_all(plain):
            _check_file(found, uri, name, data)
    # Last, because it asks which documents are there: seals show changed files, and only accounts show missing ones.
    found.gone.extend(_lost(files, found.accounts))
    _check_last(files, found)
    return found


def warn_of_gone(files: Files, uri: str) -> None:
    """Say, once a process, how many records are gone that accounts of runs tell of: what is read is not all."""
    if damage.first_time(uri, "gone"):
        accounts = {key: plain for _, key, plain in damage.readable(files, "runs")}
        if gone := [one for one in _lost(files, accounts) if one.startswith("trials/")]:
            many = "1 record is" if len(gone) == 1 else f"{len(gone)} records are"
            damage.tell(
                f"{many} gone from {uri} that accounts of runs tell of ({gone[0].partition(':')[0]}); "
                "`tuneopt ledger verify` names them, and the commands that made them make them again"
            )


def _check_file(found: Findings, uri: str, name: str, data: bytes) -> None:
    folder = name.partition("/")[0]
    try:
        content = damage.DECODERS[folder](uri, name, data)
    except DamagedRecordError as error:
        found.problems.append(f"{name}: {error.why}")
    except NewerSchemaError as error:
        found.problems.append(str(error))
    else:
        if content.contradiction:
            found.problems.append(f"{name}: contradicts itself, and was written so: {content.contradiction}")
        if content.state == "unsealed":
            found.unsealed.append(name)
        if folder == "trials":
            found.records[damage.key(name)] = data, content.value
        elif folder == "runs":
            found.accounts[damage.key(name)] = content.value


def _lost(files: Files, accounts: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """Documents that an account of a run speaks of and that have no file any more, not even one that was set aside."""
    known = {folder: _known(files, folder) for folder in damage.DECODERS}
    again = "run the same command again"
    for run, plain in accounts.items():
        # Fields of any kind: an account may be of another release, and what is odd about it was said above.
        trials, sweeps, previous = plain.get("run"), plain.get("sweeps"), plain.get(damage.PREVIOUS)
        for trial in trials if isinstance(trials, list) else ():
            if isinstance(trial, str) and trial not in known["trials"]:
                yield f"trials/{trial}.json: is gone, and runs/{run}.json recorded it; {again}"
        for sweep in [plain.get("sweep"), *(sweeps if isinstance(sweeps, list) else ())]:
            if isinstance(sweep, str) and sweep not in known["sweeps"]:
                yield f"sweeps/{sweep}.json: is gone, and runs/{run}.json worked on it; {again}"
        if isinstance(previous, str) and previous and previous not in known["runs"]:
            yield f"runs/{previous}.json: is gone, and runs/{run}.json came after it; what it took is in no sum"


def _check_last(files: Files, found: Findings) -> None:
    """What is wrong with the file that names the newest account and the plans, and which of these are gone."""
    try:
        run, plans = damage.newest(files.read(damage.LAST_RUN))
    except FileNotFoundError:  # of a release that wrote none, or there was no run yet
        return
    except NoPlainFileError as error:
        found.problems.append(f"{damage.LAST_RUN}: is {error.what}, not a file")
    except InputError as error:
        found.problems.append(f"{damage.LAST_RUN}: {error}")
    else:
        if run not in _known(files, "runs"):
            found.gone.append(f"runs/{run}.json: is gone, and it was the newest account; what it took is in no sum")
        for plan in sorted(set(plans) - _known(files, damage.PLANS)):
            found.gone.append(f"{damage.PLANS}/{plan}.yaml: is gone; whoever asks its question again gets a new plan")


def _known(files: Files, folder: str) -> set[str]:
    """The keys of all documents of a folder, those that were set aside among them."""
    aside = f"{damage.FOLDER}/{folder}"
    # A file that was set aside is called NAME~DIGITS; it is damaged, said elsewhere, and not lost.
    names = [*files.names(aside), *files.odd_names(aside)]
    kept = {damage.key(name.rpartition("~")[0]) for name in names}
    return kept | set(map(damage.key, [*damage.document_names(files, folder), *damage.odd_names(files, folder)]))


def _check_marker(files: Files, uri: str) -> Iterator[str]:
    """What is wrong with the marker; `Ledger.mark` mends what it can."""
    try:
        place.check_marker(files.read(place.MARKER), uri)
    except FileNotFoundError:
        yield f"{place.MARKER}: missing; the next record that is put writes it again"
    except InputError as error:
        yield f"{place.MARKER}: {error}"
