"""Sweeps of a ledger as studies in an Optuna storage, which optuna-dashboard opens.

One study for each sweep. Exporting again adds the trials that are new, and touches nothing else in the storage.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.analysis.optuna_trials import distribution, frozen, members, quiet, varied
from tuneopt.ledger import Ledger
from tuneopt.search.records import stored_sweep
from tuneopt.search.sweep import Sweep
from tuneopt.spec import InputError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.storages import RDBStorage

SUFFIXES = (".db", ".sqlite", ".sqlite3")

METRIC = "select loss, nats per token"


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
    return f"{sweep.space.optimizer} {sweep.regime.label} {how} on {sweep.regime.corpus.name} ({name})"


def export_studies(ledger: Ledger, path: Path) -> Exported:
    """Write every sweep of ``ledger`` as a study into the SQLite file ``path``, made if it is not there.

    Raises `InputError` for a ledger without sweeps, and a file that is no Optuna storage or cannot be written.
    """
    stored = ledger.sweeps()
    if not stored:
        raise InputError(f"the ledger {ledger.uri} holds no sweep yet; run `tuneopt tune` on it first")
    sweeps = {name: stored_sweep(plain, name) for name, plain in stored.items()}
    records = list(ledger.records())
    added, placed, inside = 0, 0, set()
    with quiet():
        storage = _open(path)
        try:
            for name, sweep in sweeps.items():
                study = _study(storage, name, stored[name], sweep)
                held = {trial.user_attrs.get("trial") for trial in study.get_trials(deepcopy=False)}
                distributions = {axis.name: distribution(axis) for axis in varied(sweep)}
                found = members(sweep, records)
                fresh = [frozen(sweep, record, distributions) for record in found if record.trial not in held]
                study.add_trials(fresh)
                added, placed = added + len(fresh), placed + len(found)
                inside |= {record.trial for record in found}
        finally:
            storage.remove_session()
            storage.engine.dispose()
    names = tuple(study_name(name, stored[name], sweep) for name, sweep in sweeps.items())
    return Exported(names, placed, added, len(records) - len(inside))


def _study(storage: RDBStorage, name: str, plain: Mapping[str, Any], sweep: Sweep) -> Study:
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
    for key, value in facts.items():
        if study.user_attrs.get(key) != value:
            study.set_user_attr(key, value)
    if study.metric_names != [METRIC]:
        study.set_metric_names([METRIC])
    return study


def _open(path: Path) -> RDBStorage:
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import SQLAlchemyError

    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"cannot export studies to {path.name!r}: name a file that ends in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise InputError(f"cannot export to {path}: the folder {path.parent} is not there; make it first")
    if path.exists() and not _is_storage(path):
        raise InputError(f"cannot export to {path}: it is no Optuna storage; name another file")
    url = URL.create("sqlite", database=str(path.resolve())).render_as_string()
    try:
        return RDBStorage(url)
    except (SQLAlchemyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"cannot export to {path}: Optuna cannot open it ({reason}); name another file") from None


def _is_storage(path: Path) -> bool:
    """Whether the file is a SQLite data base with Optuna's tables; it is opened for reading only."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as base:
            tables = {name for (name,) in base.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error:
        return False
    return {"studies", "trials", "version_info"} <= tables
