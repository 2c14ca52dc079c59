"""Looking into a ledger: short rows, a trial's record or log by the first digits of its id, the ids in an account.

People give first digits; everything else asks for a trial by its whole id. Nothing here writes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from typing import Any

from tuneopt.ledger import damage
from tuneopt.ledger.damage import DamagedRecordError
from tuneopt.ledger.logs import has_log, log_address, logged_trials
from tuneopt.ledger.record import SECONDS, TrialRecord
from tuneopt.ledger.seal import has_seal
from tuneopt.ledger.store import Ledger
from tuneopt.ledger.table import ORDER
from tuneopt.spec import InputError

SHORT = ("trial", "status", "optimizer", "scale", "ratio", "corpus", "seed", "select_loss", "report_loss", "tokens")
"""Columns of a listing; `short_rows` adds ``seconds``, ``proof_passed`` and ``ended``, and `ORDER` where it is told."""


def short_rows(ledger: Ledger) -> list[dict[str, Any]]:
    """One short row per trial: ordered by optimizer, scale size, ratio, then the best loss first, diverged last.

    ``seconds`` is the whole wall time of the trial. Losses are nats per token, None for a diverged trial.
    """
    parts = [f"seconds_{part}" for part in SECONDS]
    table = ledger.table()
    place = SHORT.index("seed") + 1
    names = (*SHORT[:place], ORDER, *SHORT[place:]) if ORDER in table.column_names else SHORT
    rows = table.select([*names, "parameters", *parts, "proof_passed", "ended"]).to_pylist()

    def order(row: dict[str, Any]) -> tuple[Any, ...]:
        loss = row["select_loss"]
        return row["optimizer"], row["parameters"], row["ratio"], loss is None, loss or 0.0, row["trial"]

    return [
        {
            **{name: row[name] for name in names},
            "seconds": sum(row[part] for part in parts),
            "proof_passed": row["proof_passed"],
            "ended": row["ended"],
        }
        for row in sorted(rows, key=order)
    ]


def find_record(ledger: Ledger, prefix: str) -> TrialRecord:
    """The one record whose id begins with ``prefix``; raises `InputError` for none, or naming the candidates."""
    trial = _only(ledger.ids(), prefix)
    record = None if trial is None else ledger.get(trial)
    if record is None:
        raise InputError(
            f"no trial in {ledger.address} has an id that begins with {prefix!r}; list them with ledger ls"
        )
    return record


def find_finished(ledger: Ledger, prefix: str) -> TrialRecord:
    """As `find_record`; the `InputError` for a trial that has not finished, or failed, names its log."""
    try:
        return find_record(ledger, prefix)
    except DamagedRecordError:
        raise
    except InputError:
        logged = [trial for trial in logged_trials(ledger) if prefix and trial.startswith(prefix)]
        if len(logged) != 1 or ledger.has(logged[0]):
            raise
        with contextlib.suppress(FileNotFoundError):
            damage.read(ledger.files, ledger.uri, f"trials/{logged[0]}.json")  # raises where no file stands there
        ran = any(logged[0] in names_in(plain.get("run")) for plain in ledger.sound_runs().values())
        why = "and the account of a run tells of one" if ran else "because it runs, was interrupted or failed"
        raise InputError(
            f"trial {logged[0]} has no record, {why}; its log "
            f"{log_address(ledger, logged[0])} says more: print it with ledger logs {logged[0]}"
        ) from None


def find_log(ledger: Ledger, prefix: str) -> str:
    """The id of the one trial whose id begins with ``prefix`` and that has a log.

    Raises `InputError` for none, or naming the candidates.
    """
    trial = _only(logged_trials(ledger), prefix)
    if trial is not None:
        return trial
    if prefix and any(trial.startswith(prefix) for trial in ledger.ids()):
        raise InputError(
            f"the trial {prefix!r} has a record but no log; `tuneopt ledger show {prefix}` shows the record"
        )
    raise InputError(f"no trial in {ledger.address} has a log and an id that begins with {prefix!r}")


def names_in(names: object) -> list[str]:
    """The ids in a list of an account (``run``, ``sweeps``), which may be of another release or of another hand."""
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def superseded(sweeps: Mapping[str, Mapping[str, Any]], runs: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Sweeps of a study whose newest plan has others in their place (phase, optimizer and regime).

    Later phases follow from earlier ones. Where those went on, or a newer release draws another conclusion, sweeps are
    planned anew, and what ran before stays in the ledger: to take the better of both would be to take the luckier.
    ``sweeps`` and ``runs`` are the documents of a ledger; the newest account that names a place decides.
    """

    def place(plain: Mapping[str, Any]) -> str:
        space = plain.get("space")
        optimizer = space.get("optimizer") if isinstance(space, dict) else None
        return json.dumps([plain.get("study"), plain.get("phase"), optimizer, plain.get("regime")], sort_keys=True)

    places = {name: place(plain) for name, plain in sweeps.items() if "study" in plain}
    decided: dict[str, set[str]] = {}
    for run in sorted(runs, reverse=True):  # their names begin with the time
        planned: dict[str, set[str]] = {}
        for name in names_in(runs[run].get("plan")):
            if name in places:
                planned.setdefault(places[name], set()).add(name)
        decided = planned | decided
    return {name for name, where in places.items() if name not in decided.get(where, {name})}


def document(ledger: Ledger, record: TrialRecord) -> dict[str, Any]:
    """A record as plain data, with the address of its log under ``log`` (None where there is no log).

    ``sealed`` says whether its file has a seal: those of releases before seals have none.
    """
    log = log_address(ledger, record.trial) if has_log(ledger, record.trial) else None
    sealed = has_seal(ledger.files.read(f"trials/{record.trial}.json"))
    return {**record.to_dict(), "log": log, "sealed": sealed}


def _only(trials: list[str], prefix: str) -> str | None:
    """The one id that begins with ``prefix``, None where there is none; raises `InputError` for several.

    An empty prefix fits every id, and means a forgotten argument: it finds none.
    """
    matches = [trial for trial in trials if trial.startswith(prefix)] if prefix else []
    if len(matches) > 1:
        shown = ", ".join(matches[:8]) + (f" and {len(matches) - 8} more" if len(matches) > 8 else "")
        raise InputError(f"the id {prefix!r} is ambiguous; give more digits of one of {shown}")
    return matches[0] if matches else None
