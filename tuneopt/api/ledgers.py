"""A ledger as a whole: export it to other programs' formats, and remove what no run needs."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.paths import cache_folder, expanded, replacing
from tuneopt.spec import InputError, nearest

if TYPE_CHECKING:
    from tuneopt.ledger import Ledger
    from tuneopt.ledger.clean import Leftover

_log = logging.getLogger(__name__)

TABLES = (".parquet", ".csv")
OPTUNA = (".db", ".sqlite", ".sqlite3")
"""Suffixes of an Optuna storage, for optuna-dashboard."""


@dataclass(frozen=True, slots=True)
class TableExport:
    """A table that was written, one row for each of ``trials``."""

    path: str
    trials: int

    def to_dict(self) -> dict[str, Any]:
        """The JSON shape of ``ledger export``."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class OptunaExport(TableExport):
    """An Optuna storage that was written or added to; ``left_out`` counts trials that belong to no sweep."""

    added: int
    left_out: int
    studies: list[str]


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What no run of a ledger needs, and whether it was removed."""

    removed: bool
    leftovers: tuple[Leftover, ...]

    @property
    def bytes(self) -> int:
        """Bytes of all leftovers."""
        return sum(leftover.bytes for leftover in self.leftovers)

    def to_dict(self) -> dict[str, Any]:
        """The JSON shape of ``ledger clean``."""
        plain = [leftover.to_dict() for leftover in self.leftovers]
        return {"removed": self.removed, "bytes": self.bytes, "leftovers": plain}


@dataclass(frozen=True, slots=True)
class Verification:
    """What is wrong with a ledger, a sentence for each file, and the files of releases before seals.

    ``gone`` are those of the problems that nothing can be set aside for.
    """

    problems: list[str]
    unsealed: list[str]
    gone: list[str]


def verify(ledger: Ledger | str) -> Verification:
    """Read every file of a ledger and check it against its seal, its name and itself; nothing is changed.

    Raises `InputError` where there is no ledger.
    """
    opened = _opened(ledger)
    found = opened.findings()
    problems = [*found.problems, *found.gone, *_sweep_faults(opened).values()]
    return Verification(problems, found.unsealed, found.gone)


def mend(ledger: Ledger | str) -> list[str]:
    """Set damaged files aside, into ``damaged/``, and seal those of earlier releases; a sentence for each.

    Their trials run when they are next asked for. Raises `InputError` where there is no ledger.
    """
    from tuneopt.ledger.damage import set_aside

    opened = _opened(ledger, to_change=True)
    done = opened.mend()
    for name, wrong in _sweep_faults(opened).items():

        def known(name: str, data: bytes, wrong: str = wrong) -> str:
            # What is wrong with it shows only together with the trials that it names, so it is not looked for again.
            return wrong

        done.append(set_aside(opened.files, opened.uri, name, known))
    return done


def _sweep_faults(ledger: Ledger) -> dict[str, str]:
    """What is wrong with sweeps that the ledger can read, by the names of their files."""
    from tuneopt.ledger.damage import readable
    from tuneopt.search.records import sweep_fault

    faults = {name: sweep_fault(plain, key) for name, key, plain in readable(ledger.files, "sweeps")}
    return {name: fault for name, fault in faults.items() if fault}


def _opened(ledger: Ledger | str, *, to_change: bool = False) -> Ledger:
    from tuneopt.ledger import Ledger, open_ledger, place

    if to_change and isinstance(ledger, str):
        place.refuse_packed(Ledger(ledger).files)
    return open_ledger(ledger, must_exist=True) if isinstance(ledger, str) else ledger


def compact(ledger: Ledger | str) -> int:
    """Write all records into one Parquet file beside them, for fast reading; returns how many there are."""
    return _opened(ledger, to_change=True).compact()


def pack(ledger: Ledger | str, path: Path | str, study: str | None = None) -> int:
    """Write a ledger into one Parquet file, from which it is read as from its folder; returns the number of documents.

    Logs, checkpoints and weights stay behind. With ``study``, a name or an id, only its sweeps go in, with the trials
    and accounts that they rest on. Raises `InputError` where there is no ledger or no such study, for damaged
    documents, and for a file that cannot be written.
    """
    from tuneopt.ledger import packed

    opened, target = _opened(ledger), expanded(path)
    if target.suffix != ".parquet":
        raise InputError(f"a packed ledger is a .parquet file, not {target.name!r}; name it {target.stem}.parquet")
    found, inside = verify(opened), tuple(f"{folder}/" for folder in packed.FOLDERS)
    problems = [problem for problem in found.problems if problem not in found.gone and problem.startswith(inside)]
    if problems:
        raise InputError(f"{len(problems)} documents are damaged, the first: {problems[0]}; run `tuneopt ledger mend`")
    if found.gone:
        many = (
            "1 document is gone, and is" if len(found.gone) == 1 else f"{len(found.gone)} documents are gone, and are"
        )
        _log.warning("%s not packed; the first: %s", many, found.gone[0])
    data, count = packed.pack(opened.files, None if study is None else _of_study(opened, study))
    with replacing(target, "the packed ledger", opened.own_places, make_folder=True) as place:
        place.write_bytes(data)
    return count


def _of_study(ledger: Ledger, study: str) -> set[str]:
    """The documents that the sweeps of a study rest on: trials that they needed, were launched for them, or told noise;
    and the accounts of runs that worked on them.
    """
    from tuneopt.ledger.browse import names_in
    from tuneopt.search.records import replay, stored_task

    stored = ledger.sweeps()
    ours = {name: plain for name, plain in stored.items() if study in (plain.get("study"), plain.get("study_id"))}
    if not ours:
        known = {str(plain["study"]) for plain in stored.values() if "study" in plain}
        raise InputError(f"the ledger has no sweep of a study {study!r}; {nearest(study, known)}")
    trials: set[str] = set()
    for name, plain in ours.items():
        task = stored_task(plain, name, ledger)
        trials |= {*replay(task, ledger)[0].trials, *task.counted, *(peer.id for peer in task.evidence.peers)}
    runs = {}
    for name, plain in ledger.runs().items():
        # An account of several sweeps, some of them another study's, is that study's: its seconds cannot be divided.
        worked = {*names_in([plain.get("sweep")]), *names_in(plain.get("sweeps"))}
        if worked and worked <= ours.keys():
            runs[name] = plain
            trials |= set(names_in(plain.get("run")))
    kinds = {"sweeps": ours, "trials": trials, "runs": runs}
    return {f"{kind}/{name}.json" for kind, names in kinds.items() for name in names}


def unpack(path: Path | str, folder: Path | str) -> int:
    """Unfold a packed ledger into a folder that holds no other ledger; returns the number of documents."""
    from tuneopt.ledger import Ledger, packed, place

    source, target = place.packed_file(Ledger(path).files), Ledger(expanded(folder))
    if source is None:
        raise InputError(f"there is no packed ledger at {path}; `tuneopt ledger pack` makes one of a ledger")
    place.inspect(target.uri, target.files, must_exist=False)
    if target.files.exists(place.MARKER):
        raise InputError(f"{folder} holds a ledger already; give another folder")
    return packed.unpack(source, expanded(folder))


def export(ledger: Ledger | str, path: Path | str) -> TableExport:
    """Write a ledger to ``path``: one table (.parquet, .csv), or an Optuna storage for its dashboard (.db, .sqlite).

    Exporting to the same storage again adds what is new. Raises `InputError` for another suffix and a file that cannot
    be written.
    """
    opened = _opened(ledger)
    place = expanded(path)
    suffix = place.suffix.lower()
    if suffix in TABLES:
        return TableExport(str(place), opened.export(place))
    if suffix not in OPTUNA:
        raise InputError(
            f"cannot export to {place.name!r}: name a file that ends in .parquet or .csv, or in .db for Optuna"
        )
    from tuneopt.analysis.optuna_studies import export_studies

    done = export_studies(opened, place)
    return OptunaExport(str(place), done.trials, done.added, done.left_out, list(done.studies))


def clean(ledger: Ledger | str, *, dry_run: bool = False, days: float | None = None) -> Cleaning:
    """Remove what no run needs from a ledger, and from this machine's cache where the ledger is remote.

    ``days`` also takes the checkpoints of unfinished trials that have been untouched for so long. With ``dry_run``
    nothing is removed. Raises `InputError` where there is no ledger.
    """
    from tuneopt.ledger.clean import CHECKPOINTS, clean_cache, leftovers, remove

    opened = _opened(ledger, to_change=True)
    unneeded = leftovers(opened, None if days is None else days * 86400)
    if not dry_run:
        remove(opened, unneeded)
    # Checkpoints of a remote ledger's trials are kept in this machine's cache, which `leftovers` does not look into.
    unneeded += clean_cache(opened, cache_folder() / CHECKPOINTS, dry_run=dry_run)
    return Cleaning(not dry_run, tuple(unneeded))
