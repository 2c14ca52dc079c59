"""A full check of a ledger: every problem as one sentence, nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tuneopt.ledger import checks, compaction, place
from tuneopt.ledger import table as tables
from tuneopt.ledger.record import TrialRecord
from tuneopt.spec import InputError

if TYPE_CHECKING:
    from tuneopt.ledger.store import Ledger

_FOLDERS = ("trials", "sweeps", "runs", "compacted", ".")


def problems(ledger: Ledger) -> list[str]:
    """Damaged, misplaced, left-over and disagreeing files, each as one sentence that names the file."""
    records, found = _check_trials(ledger)
    return [
        *_check_marker(ledger),
        *found,
        *_check_plain(ledger),
        *_check_stray(ledger),
        *_check_folded(ledger, records),
    ]


def _check_marker(ledger: Ledger) -> Iterator[str]:
    try:
        place.check_marker(ledger.files.read(place.MARKER), ledger.uri)
    except FileNotFoundError:
        yield f"{place.MARKER}: missing; the next record that is put writes it again"
    except InputError as error:
        yield f"{place.MARKER}: {error}"


def _check_trials(ledger: Ledger) -> tuple[dict[str, tuple[bytes, TrialRecord]], list[str]]:
    records: dict[str, tuple[bytes, TrialRecord]] = {}
    found = []
    names = ledger.files.names("trials")
    found += [f"trials/{name}: not a record; move it away" for name in names if not name.endswith(".json")]
    for name, data in ledger.files.read_all([f"trials/{name}" for name in names if name.endswith(".json")]):
        trial = name.removeprefix("trials/").removesuffix(".json")
        try:
            record = TrialRecord.from_json(data)
        except InputError as error:
            found.append(f"{name}: {error}")
            continue
        if record.trial != trial:
            found.append(f"{name}: holds the record of trial {record.trial}")
        else:
            records[trial] = data, record
    return records, found


def _check_plain(ledger: Ledger) -> Iterator[str]:
    for folder in ("sweeps", "runs"):
        names = ledger.files.names(folder)
        yield from (f"{folder}/{name}: not JSON; move it away" for name in names if not name.endswith(".json"))
        for name, data in ledger.files.read_all([f"{folder}/{name}" for name in names if name.endswith(".json")]):
            try:
                checks.parse_object(data, "JSON")
            except InputError as error:
                yield f"{name}: {error}"


def _check_stray(ledger: Ledger) -> Iterator[str]:
    for folder in _FOLDERS:
        for name in ledger.files.stray(folder):
            path = name if folder == "." else f"{folder}/{name}"
            yield f"{path}: left behind by an interrupted write; it holds nothing that counts and may be removed"


def _check_folded(ledger: Ledger, records: dict[str, tuple[bytes, TrialRecord]]) -> Iterator[str]:
    """The compacted rows against the records; trials not folded yet are no problem."""
    if not ledger.files.exists(compaction.NAME):
        return
    folded = compaction.load(ledger)
    texts = compaction.load(ledger, ("trial", "record"))
    if folded is None or texts is None:
        yield f"{compaction.NAME}: damaged or of another release; compact again"
        return
    stored = dict(zip(texts["trial"].to_pylist(), texts["record"].to_pylist(), strict=True))
    known = [trial for trial in folded["trial"].to_pylist() if trial in records]
    expected = {
        row["trial"]: row for row in tables.build([tables.row(records[trial][1]) for trial in known]).to_pylist()
    }
    present = set(ledger.ids())
    for row in folded.to_pylist():
        trial = row["trial"]
        if trial not in present:
            yield f"{compaction.NAME}: holds trial {trial}, whose record is gone; compact again"
        elif trial in records and (stored[trial].encode() != records[trial][0] or not _same(row, expected[trial])):
            yield f"{compaction.NAME}: disagrees with trials/{trial}.json; compact again"


def _same(row: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Equal where both have a column; a column's kind may differ by what other trials hold."""

    def form(value: Any) -> Any:
        return tables.word(value) if isinstance(value, bool | int | float) else value

    names = {*row, *expected}
    return all(form(row.get(name)) == form(expected.get(name)) for name in names)
