"""The durable store of trial records, sweeps and runs.

Layout under the root:

    ledger.json                    marker with the schema, written before anything else (`place`)
    trials/<id>.json               one immutable file for each finished trial (`record`), written by its worker
    sweeps/<id>.json               what a sweep asks for and where it stands; its driver replaces it as it goes
    runs/<time>-<word>.json        the account of one command, written once, at its end
    last-run.json                  which account is the newest, and which plans there were then
    comparisons/<id>.yaml          the plan of a comparison, written once, by the digits of its question
    studies/<id>.json              how far a study under way is; its driver replaces it every few seconds
    compacted/trials.parquet       derived, for fast reading (`compaction`)
    logs/<id>.jsonl                an event a line, for people (`logs`)
    leases/<name>.json             who drives a sweep or study (`lease`)
    checkpoints/, weights/         large files, owned by training; weights come and go as whole folders (`folders`)
    damaged/                       files that were set aside (`damage`)

The files in ``trials`` are the only truth: a compacted row whose file is gone does not exist, and a file that is not
compacted yet is read as it is. No operation deletes a record; a damaged one moves to ``damaged/`` when its trial is
recorded again. All writes go through `files`, so a reader or a crash at any moment sees a file whole or not at all.
Records, sweeps, runs and plans carry a seal (`seal`), by which a file that was changed later is known.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tuneopt.checked import plain_tree
from tuneopt.ledger import damage, place
from tuneopt.ledger.check import Findings, check, warn_of_gone
from tuneopt.ledger.damage import DamagedRecordError
from tuneopt.ledger.durable import NoPlainFileError
from tuneopt.ledger.files import LocalFiles
from tuneopt.ledger.record import TrialRecord
from tuneopt.ledger.seal import KEY, seal, seal_lines
from tuneopt.spec import InputError

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
LAYOUT = (
    place.MARKER, "trials", "sweeps", "runs", "comparisons", "studies", "compacted", "logs", "leases", "checkpoints",
    "weights", damage.FOLDER,
)  # fmt: skip
"""What a ledger has right under its root."""

_ATTEMPTS = 5
"""Times that a record is put where something else stood: each one may meet another process that does the same."""


class Ledger:
    """All records at one address: a folder, ``file://``, ``s3://`` or ``gs://``.

    Safe for many processes at once. Cheap to construct, holds no open files, and can be pickled to workers. Use
    `open_ledger` for an address that a user typed: it checks that a ledger can be there.
    """

    def __init__(self, uri: str | Path) -> None:
        self.uri, self.files = place.resolve(uri)
        self.address = self.uri
        """What it is called in what people read: of a packed ledger not the copy that is read, but the file."""
        self._marked = False

    def __reduce__(self) -> tuple[type[Ledger], tuple[str]]:
        return Ledger, (self.uri,)

    def __repr__(self) -> str:
        return f"Ledger({self.uri!r})"

    @property
    def own_places(self) -> list[Path]:
        """Its marker, the folders that it fills, and the file that it is packed in; none on an object store.

        No output of a command belongs there.
        """
        if not isinstance(self.files, LocalFiles):
            return []
        packed = place.packed_file(place.resolve(self.address)[1])
        return [*(self.files.root / name for name in LAYOUT), *([] if packed is None else [packed])]

    def ids(self) -> list[str]:
        """Ids of all trials that have a record, sorted; one listing, no file is opened."""
        return list(map(damage.key, damage.document_names(self.files, "trials")))

    def has(self, trial: str) -> bool:
        """Whether a trial has a record."""
        return self.files.exists(f"trials/{_safe(trial)}.json")

    def get(self, trial: str) -> TrialRecord | None:
        """The record of a trial, or None; raises `DamagedRecordError` when its file is damaged."""
        try:
            data = damage.read(self.files, self.uri, f"trials/{_safe(trial)}.json")
        except FileNotFoundError:
            return None
        return damage.decode(self.uri, trial, data)

    def sound(self, trial: str) -> TrialRecord | None:
        """The record of a trial, or None where there is none or a damaged one: what a sweep still has to run."""
        try:
            return self.get(trial)
        except DamagedRecordError as error:
            self._runs_again(trial, error)
            return None

    def _runs_again(self, trial: str, error: DamagedRecordError) -> None:
        """Say, once, that a damaged record counts for none."""
        damage.warn_once(self.uri, f"trials/{trial}.json", f"{str(error).partition(';')[0]}; its trial runs again")

    def put(self, record: TrialRecord) -> bool:
        """Store a record, durably and whole. The first writer wins: False, and no change, when a good one was there.

        A damaged record that was there is set aside, and does not count, nor does what is no file. Between that and the
        next attempt another process may have written the record: then it is the first writer. Raises `InputError`
        where the place cannot be had.
        """
        name = f"trials/{record.trial}.json"
        if self._marked and self.is_local and not self.files.exists(place.MARKER):
            damage.tell(f"the ledger {self.uri} was deleted or moved while this ran; {name} begins a new one there")
            self._marked = False
        return self._create(name, seal(name, record.to_json()))

    def put_plan(self, question: str, text: str) -> bool:
        """Store the plan of a comparison, as `put` stores a record: the first writer wins."""
        name = f"{damage.PLANS}/{_safe(question)}.yaml"
        return self._create(name, seal_lines(name, text))

    def plan(self, question: str) -> str | None:
        """The plan of a comparison, a study file; None where there is none, or a damaged one (with a warning)."""
        name = f"{damage.PLANS}/{_safe(question)}.yaml"
        try:
            text: str = damage.DECODERS[damage.PLANS](self.uri, name, damage.read(self.files, self.uri, name)).value
        except FileNotFoundError:
            return None
        except DamagedRecordError as error:
            damage.warn_once(self.uri, name, f"{str(error).partition(';')[0]}; the comparison is planned anew")
            return None
        return text

    def _create(self, name: str, data: bytes) -> bool:
        self.mark()
        for _ in range(_ATTEMPTS):
            if self.files.create(name, data):
                return True
            if damage.tell(damage.set_aside(self.files, self.uri, name, instead=data)):
                with contextlib.suppress(FileNotFoundError, NoPlainFileError):
                    if self.files.read(name) == data:
                        return True
            elif self.files.exists(name):
                return False
        raise InputError(f"cannot store {name} in {self.uri}: something takes its place again and again; look there")

    def mend(self) -> list[str]:
        """Move every damaged file to ``damaged/``, one sentence for each; their trials run when next asked for.

        Files of releases before seals are sealed, and those of newer releases are left alone; a sentence says so.
        """
        from tuneopt.ledger import compaction

        self.tidy()
        again = []
        if place.marker_cut_short(self.files):
            self.mark()
            again = [f"{place.MARKER} in {self.uri} was cut short; it was written again"]
        return [*again, *damage.mend(self.files, self.uri), *filter(None, [compaction.mend(self.files, self.uri)])]

    def records(
        self, each: Callable[..., Iterable[TrialRecord | None]] = map, sound: bool = False
    ) -> Iterator[TrialRecord]:
        """All records in the order of their ids; raises `DamagedRecordError` at a damaged one. Warns of those gone.

        ``each`` does the decoding, called as `map` is: who has several processes at hand may share it out. With
        ``sound`` a damaged record is passed over, with a warning, as its trial runs again: what is asked before and
        while something runs (speeds, noise, a search's memory) must not stop the run that mends it.
        """
        from tuneopt.ledger import compaction

        warn_of_gone(self.files, self.uri)

        def decoded(known: tuple[str, bytes | None]) -> TrialRecord | None:
            trial, text = known
            try:
                data = self.files.read(f"trials/{trial}.json") if text is None else text
            except FileNotFoundError:  # gone meanwhile
                return None
            try:
                return damage.decode(self.uri, trial, data)
            except DamagedRecordError as error:
                if not sound:
                    raise
                self._runs_again(trial, error)
                return None

        # Who decodes a local file reads it as well; an object store answers many requests at once.
        found = each(decoded, compaction.texts(self.files, self.uri, later=self.is_local))
        yield from (record for record in found if record is not None)

    def put_sweep(self, sweep: str, plain: Mapping[str, Any]) -> None:
        """Store what describes a sweep, over an older description of the same id; a damaged one is set aside."""
        self._put_plain(f"sweeps/{_safe(sweep)}.json", plain, f"sweep {sweep}", damage.fault)

    def sweeps(self) -> dict[str, dict[str, Any]]:
        """Every sweep's description by its id."""
        return self._plain("sweeps")

    def sound_sweeps(self) -> dict[str, dict[str, Any]]:
        """Every sweep's description that is not damaged, by its id: what a driver needs, which writes its own anew."""
        damage.warn_of_odd(self.files, self.uri, "sweeps")
        return {key: plain for _, key, plain in damage.readable(self.files, "sweeps", self.uri)}

    def put_run(self, plain: Mapping[str, Any]) -> str:
        """Store the account of one invocation (what was asked, reused, run); returns its name, which sorts by time.

        Each account names the one before it, and ``last-run.json`` the newest, so that `verify` can tell when one is
        gone.
        """
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}-{secrets.token_hex(3)}"
        before = damage.document_names(self.files, "runs")[-1:]
        self._put_plain(f"runs/{name}.json", {**plain, damage.PREVIOUS: damage.key(*before) if before else ""}, "run")
        with contextlib.suppress(OSError):  # the account is kept; the next one writes this again
            plans = [damage.key(plan) for plan in damage.document_names(self.files, damage.PLANS)]
            self._put_plain(damage.LAST_RUN, {"run": name, "plans": plans}, "run", damage.fault_of_last)
        return name

    def runs(self) -> dict[str, dict[str, Any]]:
        """Every invocation's account by its name, oldest first."""
        found = self._plain("runs")
        for plain in found.values():
            plain.pop(damage.PREVIOUS, None)
        return found

    def sound_runs(self) -> dict[str, dict[str, Any]]:
        """Every account that is not damaged, by its name: what a driver reckons with."""
        damage.warn_of_odd(self.files, self.uri, "runs")
        return {key: plain for _, key, plain in damage.readable(self.files, "runs", self.uri)}

    @property
    def is_local(self) -> bool:
        """Whether the ledger is a folder of this machine, and no object store."""
        return isinstance(self.files, LocalFiles)

    def checkpoint_dir(self, trial: str) -> Path:
        """The folder for a trial's checkpoints, not yet made; raises `InputError` on an object store."""
        if not isinstance(self.files, LocalFiles):
            raise InputError(f"checkpoints need a local folder, and {self.uri} is none; name a checkpoint folder")
        return self.files.root / "checkpoints" / _safe(trial)

    def table(self) -> pa.Table:
        """One row per trial, ordered by id, flat columns (`tuneopt.ledger.table` lists them)."""
        from tuneopt.ledger import compaction

        warn_of_gone(self.files, self.uri)
        return compaction.table(self.files, self.uri)

    def curves(self) -> pa.Table:
        """One row per curve point: trial, step, tokens, fraction of the run, learning rate, losses, seconds."""
        from tuneopt.ledger import compaction

        return compaction.curves(self.files, self.uri)

    def compact(self) -> int:
        """Fold all records into one Parquet file for fast reading; returns how many. Safe while workers run."""
        from tuneopt.ledger import compaction

        self.tidy()
        return compaction.compact(self.files, self.uri)

    def export(self, path: str | Path) -> int:
        """Write `table` to a ``.parquet`` or ``.csv`` file; returns the rows; `InputError` for another suffix."""
        from tuneopt.ledger.table import export

        return export(self.table(), Path(path), self.own_places)

    def tidy(self) -> None:
        """Remove what interrupted writes of dead processes left; what cannot be removed stays."""
        for name in damage.strays(self.files):
            with contextlib.suppress(OSError):
                self.files.delete(name)

    def findings(self) -> Findings:
        """What is not well: damaged, misplaced and left-over files, what is gone, what has no seal. Changes nothing."""
        from tuneopt.ledger import compaction

        found = check(self.files, self.uri)
        found.problems.extend(
            f"{name}: left behind by an interrupted write; it holds nothing that counts and may be removed"
            for name in damage.strays(self.files)
        )
        found.problems.extend(compaction.problems(self.files, found.records))
        return found

    def verify(self) -> list[str]:
        """One sentence for each file that is not well, or gone; empty when all is well. Changes nothing."""
        found = self.findings()
        return [*found.problems, *found.gone]

    def mark(self) -> None:
        """Make the marker before the first write, and never write into a ledger of a newer release."""
        if not self._marked:
            if not self.files.create(place.MARKER, place.marker_text()):
                data = self.files.read(place.MARKER)
                if place.cut_short(data):
                    self.files.replace(place.MARKER, place.marker_text())
                else:
                    place.check_marker(data, self.uri)
            self._marked = True

    def stamp(self) -> object:
        """What tells this ledger from one that is made at its place later; None where there is none."""
        if not self.is_local:
            return self.files.exists(place.MARKER) or None
        try:
            found = (Path(self.uri) / place.MARKER).stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _put_plain(
        self, name: str, plain: Mapping[str, Any], what: str, fault: Callable[[str, bytes], str] | None = None
    ) -> None:
        """Write a document over an older one, of which ``fault`` says what would be damage, to be kept."""
        self.mark()
        own = {word: value for word, value in plain.items() if word != KEY}
        data = seal(name, json.dumps(plain_tree(own, what), sort_keys=True, allow_nan=False))
        if fault is not None:
            damage.tell(damage.set_aside(self.files, self.uri, name, fault, instead=data))
        with self.files.alone(damage.FOLDER):  # who mends must not put an older text over this one
            self.files.replace(name, data)

    def _plain(self, folder: str) -> dict[str, dict[str, Any]]:
        stored = damage.read_all(self.files, self.uri, folder)
        return {damage.key(name): damage.decode_plain(self.uri, name, data) for name, data in stored}


def open_ledger(uri: str | Path, must_exist: bool = False) -> Ledger:
    """A ledger at a folder, ``file://``, ``s3://`` or ``gs://`` address.

    Nothing is written before the first record is put. With ``must_exist`` a packed ledger counts as well: what is given
    then is its copy in the cache, to read. Raises `InputError` for a file, a folder that cannot be read, a marker that
    is damaged or newer than this release, and with ``must_exist`` for a place that holds no ledger.
    """
    ledger = Ledger(uri)
    if not must_exist:
        place.refuse_packed(ledger.files)
    elif (packed := place.packed_file(ledger.files)) is not None:
        from tuneopt.ledger.packed import unfolded

        copy = Ledger(unfolded(packed))
        copy.address = ledger.uri
        return copy
    place.inspect(ledger.uri, ledger.files, must_exist)
    return ledger


def mending(ledger: Ledger, act: Callable[[], T]) -> T:
    """``act()``, and once more after `Ledger.mend` where it met a damaged file: for commands that write to the ledger.

    A command that only reads says what is damaged instead, and moves nothing.
    """
    try:
        return act()
    except DamagedRecordError:
        for sentence in ledger.mend():
            damage.tell(sentence)
        return act()


def _safe(name: str) -> str:
    """The name, if it cannot lead out of its folder; raises `InputError`."""
    if not damage.SAFE.fullmatch(name):
        raise InputError(f"{name!r} is no id of a trial or sweep; use letters, digits, '-', '_' and '.'")
    return name
