"""Sweeps of a ledger in Optuna's terms: trials, and studies in a storage that optuna-dashboard opens.

One study for each sweep. Exporting again adds the trials that are new, and touches nothing else in the storage. Optuna
is imported when it is needed: most reports do without it.

Two readers: `tuneopt ledger export FILE.db` (`export_studies`), and the report's hyperparameter importances, which take
the same trials in memory (`members`, `frozen`). Optuna wants one fixed distribution for a parameter in all trials,
where a sweep extends its grids as it goes; so each gets all that the sweep could ever reach.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.paths import check_output, replacing
from tuneopt.search.axis import Axis
from tuneopt.search.records import stored_sweep
from tuneopt.search.sampled import belongs
from tuneopt.search.sweep import Sweep
from tuneopt.spec import InputError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

SUFFIXES = (".db", ".sqlite", ".sqlite3")

_MAGIC = b"SQLite format 3\0"

_log = logging.getLogger(__name__)

METRIC = "select loss, nats per token"
"""What a study minimises, as the dashboard names its axis."""


def varied(sweep: Sweep) -> tuple[Axis, ...]:
    """The coordinates that a study gets as parameters: those that vary."""
    return tuple(axis for axis in sweep.space.axes if not axis.pinned)


def members(sweep: Sweep, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The records that the sweep's space and seeds describe, whoever proposed them, in the order they ended."""
    ours = [record for record in records if record.spec.seed in sweep.seeds and belongs(sweep, record.spec)]
    return sorted(ours, key=lambda record: (record.ended, record.trial))


def distribution(axis: Axis) -> BaseDistribution:
    """All values that a sweep could ever give the coordinate, extensions included, so that later trials fit as well.

    Logarithmic where the grid goes on by factors and holds no zero; words and switches are categories.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not axis.numeric:
        return CategoricalDistribution(axis.values)
    # Of the whole axis, not of the sweep's grid: Optuna takes no trial outside, and a grid may be extended later.
    reach = [float(value) for value in (*axis.values, *axis.below, *axis.above)]
    log = axis.extend == "geometric" and min(reach) > 0
    if axis.whole:
        return IntDistribution(int(min(reach)), int(max(reach)), log=log)
    return FloatDistribution(min(reach), max(reach), log=log)


def frozen(sweep: Sweep, record: TrialRecord, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """A record as a finished Optuna trial: value and intermediate values are select losses in nats per token.

    A value outside the distributions, such as one that an older grid reached, widens its own trial's distribution.
    """
    from optuna.trial import FrozenTrial, TrialState

    config = record.spec.config
    # Diverged is PRUNED, a run that its own losses ended; completed without a passed update check is FAIL.
    ended = TrialState.COMPLETE if record.comparable else TrialState.FAIL
    state = TrialState.PRUNED if record.status == "diverged" else ended
    # The trial's id is in the attributes: by it the next export knows which trials a study already has.
    own = {axis.name: _covering(distributions[axis.name], config[axis.name]) for axis in varied(sweep)}
    return FrozenTrial(
        number=-1,  # Optuna numbers trials as they are added
        trial_id=-1,
        state=state,
        value=record.select_loss if state == TrialState.COMPLETE else None,
        # Optuna keeps local times without a zone.
        datetime_start=datetime.fromisoformat(record.started).astimezone().replace(tzinfo=None),
        datetime_complete=datetime.fromisoformat(record.ended).astimezone().replace(tzinfo=None),
        params={name: config[name] for name in own},
        distributions=own,
        user_attrs={
            "trial": record.trial,
            "status": record.status,
            "seed": record.spec.seed,
            "select_loss": record.select_loss,
            "report_loss": record.report_loss,
            "proof_passed": record.proof_passed,
            "tokens": record.tokens,
            "seconds": sum(record.seconds.values()),
            "search": record.environment.get("search", "coordinate"),
            "scheduler": record.environment.get("scheduler", "none"),
            "hyperparameters": config,
        },
        system_attrs={},
        intermediate_values={point.step: point.select_loss for point in record.curve if point.select_loss is not None},
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's log and its notes on experimental features off the user's terminal."""
    import optuna

    # Both are global, and a notebook may have set its own: they are put back.
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _covering(known: BaseDistribution, value: Any) -> BaseDistribution:
    """``known``, widened where it does not hold ``value``: Optuna refuses a trial outside its distributions."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if isinstance(known, FloatDistribution):
        return FloatDistribution(min(known.low, float(value)), max(known.high, float(value)), log=known.log)
    if isinstance(known, IntDistribution):
        return IntDistribution(min(known.low, int(value)), max(known.high, int(value)), log=known.log)
    return known


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export did: the studies by name, the trials in them, and how many of those are new."""

    studies: tuple[str, ...]
    trials: int
    added: int
    left_out: int
    """Trials of the ledger that no sweep describes."""


def study_name(name: str, plain: Mapping[str, Any], sweep: Sweep) -> str:
    """A study's name: optimizer, regime, how it was searched, corpus, and the id that tells it from all others."""
    search = plain.get("search", "coordinate")
    scheduler = plain.get("scheduler", "none")
    how = search if scheduler == "none" else f"{search}+{scheduler}"
    # Optuna finds studies by name alone: without the id two sweeps of one regime would fall into one study.
    return f"{sweep.space.optimizer} {sweep.regime.label} {how} on {sweep.regime.corpus.name} ({name})"


def export_studies(ledger: Ledger, path: Path) -> Exported:
    """Write every sweep of ``ledger`` as a study into the SQLite file ``path``, made if it is not there.

    A new file appears whole or not at all; one that was cut off is set aside. What is in a storage already stays, and
    each study's new trials are added in one transaction. Raises `InputError` for a ledger without sweeps, and a file
    that is no Optuna storage or cannot be written.
    """
    stored = ledger.sweeps()
    if not stored:
        raise InputError(f"the ledger {ledger.address} holds no sweep yet; run `tuneopt tune` on it first")
    sweeps = {name: stored_sweep(plain, name) for name, plain in stored.items()}
    records = list(ledger.records())
    _check_place(path, ledger.own_places)
    with quiet():
        if path.exists():
            return _fill(path, path, ledger, stored, sweeps, records)
        with replacing(path, "the studies") as temporary:
            return _fill(temporary, path, ledger, stored, sweeps, records)


def _fill(
    path: Path,
    shown: Path,
    ledger: Ledger,
    stored: Mapping[str, Mapping[str, Any]],
    sweeps: Mapping[str, Sweep],
    records: Sequence[TrialRecord],
) -> Exported:
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    # A trial may belong to two sweeps of one regime, and is then in both studies: ``inside`` counts it once.
    added, placed, inside = 0, 0, set()
    storage = _open(path, shown)
    try:
        for name, sweep in sweeps.items():
            study = _study(storage, name, stored[name], sweep)
            # Without a copy of every trial: reading is most of what a repeated export does.
            present = {trial.user_attrs.get("trial") for trial in study.get_trials(deepcopy=False)}
            distributions = {axis.name: distribution(axis) for axis in varied(sweep)}
            ours = members(sweep, records)
            fresh = [frozen(sweep, record, distributions) for record in ours if record.trial not in present]
            study.add_trials(fresh)
            added, placed = added + len(fresh), placed + len(ours)
            inside |= {record.trial for record in ours}
    except (StorageInternalError, SQLAlchemyError) as error:
        raise _unwritten(shown, error) from None
    finally:  # the file is closed, also after a fault
        storage.remove_session()
        storage.engine.dispose()
    names = tuple(study_name(name, stored[name], sweep) for name, sweep in sweeps.items())
    return Exported(names, placed, added, len(records) - len(inside))


def _study(storage: RDBStorage, name: str, plain: Mapping[str, Any], sweep: Sweep) -> Study:
    """The study of a sweep, made or found again, with what identifies the sweep as user attributes."""
    import optuna

    study = optuna.create_study(
        study_name=study_name(name, plain, sweep), storage=storage, direction="minimize", load_if_exists=True
    )
    facts = {
        "sweep": name,
        "optimizer": sweep.space.optimizer,
        "scale": sweep.regime.scale.name,
        "ratio": sweep.regime.ratio,
        "corpus": sweep.regime.corpus.name,
        "corpus_fingerprint": sweep.regime.corpus.fingerprint,
        "search": plain.get("search", "coordinate"),
        "scheduler": plain.get("scheduler", "none"),
        "held": {key: value for key, value in sweep.space.start if key not in {axis.name for axis in varied(sweep)}},
    }
    # Written only where they differ: every write is a transaction, and an export that adds nothing should do nothing.
    for key, value in facts.items():
        if study.user_attrs.get(key) != value:
            study.set_user_attr(key, value)
    if study.metric_names != [METRIC]:
        study.set_metric_names([METRIC])
    return study


def _check_place(path: Path, inputs: Sequence[Path]) -> None:
    """Raise `InputError` unless the studies can go to ``path``; a storage that was cut off there is set aside."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"cannot export studies to {path.name!r}: name a file that ends in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"cannot export to {path}: the folder {path.parent} is not there; make it first")
    check_output(path, "the studies", inputs)
    if not path.exists() or _is_storage(path):
        return
    if not _is_cut_off(path):
        raise InputError(f"cannot export to {path}: it is no Optuna storage; name another file")
    kept = path.with_name(f"{path.name}.cut-off-{secrets.token_hex(4)}")
    for ending in ("", "-journal", "-wal", "-shm"):  # a journal would be taken for that of the new file
        with suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(kept.with_name(kept.name + ending))
    _log.warning("%s was cut off, and is made again; what was there is kept as %s", path, kept)


def _unwritten(path: Path, error: BaseException) -> InputError:
    """The sentence for an error of SQLite, which SQLAlchemy and Optuna wrap with their statements."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    reason = " ".join(str(getattr(cause, "orig", None) or cause).split())[:160]
    reason = "no space is left there" if "full" in reason else reason
    return InputError(f"cannot write the studies to {path} ({reason}); look after its disk, or name another file")


def _open(path: Path, shown: Path) -> RDBStorage:
    """The storage in a SQLite file, ``shown`` in sentences; raises `InputError` where Optuna cannot open or make it."""
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import OperationalError, SQLAlchemyError

    # Built, not formatted: a path may hold a question mark or a percent sign.
    url = URL.create("sqlite", database=str(path.resolve())).render_as_string()
    try:
        return RDBStorage(url)
    except (OperationalError, StorageInternalError) as error:  # it makes its tables at once
        raise _unwritten(shown, error) from None
    except (SQLAlchemyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]  # SQLAlchemy's own runs over several lines
        raise InputError(f"cannot export to {shown}: Optuna cannot open it ({reason}); name another file") from None


def _tables(path: Path) -> set[str]:
    """Names of the tables in a SQLite data base.

    Opened for writing, though nothing is written: what an export that was killed left in the journal is rolled back,
    and SQLite cannot do that in a file that is opened for reading.
    """
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)) as base:  # rw: it must be there
        return {name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _is_storage(path: Path) -> bool:
    """Whether the file is a whole SQLite data base with Optuna's tables."""
    try:
        return _tables(path) >= {"studies", "trials", "version_info"} and not _is_short(path)
    except sqlite3.Error:
        return False


def _is_cut_off(path: Path) -> bool:
    """Whether the file is the beginning of an Optuna storage: shorter than it says, or with some of the tables.

    A table counts by its columns: other programs have a table of studies, too.
    """
    from optuna.storages._rdb.models import BaseModel

    known = {name: {column.name for column in table.columns} for name, table in BaseModel.metadata.tables.items()}
    try:
        if _is_short(path):
            return True
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base:
            found = {
                name: {row[1] for row in base.execute("SELECT * FROM pragma_table_info(?)", (name,))}
                for name in _tables(path) - {"alembic_version", "sqlite_sequence"}
            }
    except sqlite3.Error:
        return False
    return all(known.get(name) == columns for name, columns in found.items())


def _is_short(path: Path) -> bool:
    """Whether a SQLite file is shorter than its head says, or has not even that (sqlite.org/fileformat.html, 1.3)."""
    with path.open("rb") as file:
        head = file.read(32)
    if len(head) < 32:
        return _MAGIC.startswith(head[: len(_MAGIC)])
    size = int.from_bytes(head[16:18]) if head[16:18] != b"\0\1" else 65536
    return head.startswith(_MAGIC) and path.stat().st_size < size * int.from_bytes(head[28:32])
