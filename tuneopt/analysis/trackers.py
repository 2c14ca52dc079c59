"""What trackers hand out, as columns like those of other tables: objects of a run, and runs without an end.

A tracker gives each run as objects: its configuration, and a summary of what it measured. A table has such an object as
JSON text. Both are read alike, in all rows of a table: what says which run this is (its optimizer, scale, seed) is a
column elsewhere, and must not contradict one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from tuneopt import checked
from tuneopt.analysis import cells
from tuneopt.analysis.columns import Headings
from tuneopt.analysis.vocabulary import hyperparameter_name, in_group, is_coordinate, known_meaning, meaning_in_run
from tuneopt.analysis.vocabulary import meaning as meaning_of
from tuneopt.spec import InputError

UNFINISHED = ("running", "crashed", "failed", "killed", "error", "pending", "scheduled", "pruned", "fail", "queued",
              "preempted", "preempting", "paused", "waiting")  # fmt: skip
"""Words by which a tracker says that a run has not come to its end; such rows are left out."""

FINISHED = frozenset({"complete", "finished", "terminated"})
"""A tracker's words for a run that came to its end, with or without a loss."""

FEWEST_ROWS = 3
"""Rows from which on a text that is another one in each of them is taken for a label."""

NAMES_A_RUN = re.compile(
    r"(.*_)?(seed|job_?id|pid|port|host|hostname|node|node_?list|user|username|timestamp|start_time|commit|git_sha|"
    r"(local|global|node)_?rank|(run|output|log|save|checkpoint)_?(dir|path|name|id))",
    re.IGNORECASE,
)
"""Names of settings that say which run this is, and nothing of how it was trained."""

_GROUP = ("optimizer", "scale", "parameters", "ratio", "tokens", "tokens_per_parameter", "steps", "corpus")
_SUMMARIES = ("summary", "summary_metrics", "metrics")

Read = tuple[int, dict[str, Any]]  # the number of a row, and its cells by meaning


def lifted(number: int, row: Mapping[str, Any], named: Mapping[str, str]) -> Mapping[str, Any]:
    """A row whose objects ``summary`` and ``config`` say what is a column elsewhere, with these as columns.

    ``named`` is what ``--columns`` says. Raises `InputError` for JSON text that cannot be read or has a key twice, and
    for an object that contradicts a column or another object: one of the two would be passed over in silence.
    """
    prefixes = {name: prefix for name, cell in row.items() if cell is not None and (prefix := _prefix(name, named))}
    objects = {name: _in_groups(_object(number, prefix, name, row[name])) for name, prefix in prefixes.items()}
    if not any(isinstance(cell, Mapping) for cell in objects.values()):
        return row
    flat = {name: cell for name, cell in row.items() if not isinstance(objects.get(name), Mapping)}
    # A column called name is the run's where something else names the optimizer.
    plain = {meaning: name for name in flat if (meaning := known_meaning(str(name))) and not cells.is_empty(row[name])
             and cells.folded(str(name)) != "name"}  # fmt: skip
    has_batch = any(meaning_of(str(name)) == "hp_train_batch_size" for name in flat)
    for name, inside in objects.items():
        if not isinstance(inside, Mapping):
            continue
        rest = {}
        for key, value in inside.items():
            meaning = meaning_in_run(str(key))
            # With steps the batch says how many tokens they are, so it is a column too, where none of the table's is.
            batch = hyperparameter_name(str(key)) == "train_batch_size" and not has_batch
            if prefixes[name] == "config" and meaning is None and not batch:
                rest[key] = value
                continue
            place, column = f"{prefixes[name]}.{key}", plain.get(meaning or "")
            if place in flat and not _same(flat[place], value):
                raise _contradiction(number, str(key), flat[place], value, name)
            if column is None or prefixes[name] != "config" or meaning in named:
                flat[place] = value
            elif not cells.is_empty(value) and not _same(row[column], value):
                raise _contradiction(number, str(column), row[column], value, name)
        if rest:
            flat[name] = rest
    return flat


def _prefix(name: object, named: Mapping[str, str]) -> str:
    """What stands in front of the columns that are made of an object: of measurements, of settings, or nothing."""
    if str(name).strip().lower() in _SUMMARIES:
        return "summary"
    return "config" if named.get("config") == name or known_meaning(str(name)) == "config" else ""


def _object(number: int, prefix: str, name: str, cell: Any) -> Any:
    """A cell with its JSON text read; other cells as they are."""
    if not isinstance(cell, str) or not cell.strip() or (prefix == "summary" and not cell.lstrip().startswith("{")):
        return cell
    try:
        return checked.parse_object(cell, str(name))
    except InputError as error:
        raise InputError(
            f"row {number} of the results: {name} is no JSON object ({error}); write {{name: value}}, each name once"
        ) from None


def _in_groups(cell: Any) -> Any:
    """An object with what it nests as names in a group, such as ``optimizer.lr``; other cells as they are.

    Only where a group says something: what else is nested stays one setting.
    """
    if not isinstance(cell, Mapping):
        return cell
    flat: dict[str, Any] = {}
    for key, value in cell.items():
        inside = {f"{key}.{own}": one for own, one in value.items()} if isinstance(value, Mapping) else {}
        flat |= inside if any(map(in_group, inside)) else {key: value}
    return flat


def _same(one: Any, other: Any) -> bool:
    """Whether two cells say one thing, also where one of them writes a number or a name otherwise."""
    if one == other or cells.folded(str(one)) == cells.folded(str(other)):
        return True
    try:
        return cells.number(str(one), units=True) == cells.number(str(other), units=True)
    except ValueError:
        return False


def _contradiction(number: int, what: str, one: Any, other: Any, name: str) -> InputError:
    return InputError(
        f"row {number} of the results has {what} {checked.shown(one)} and, in its {name}, {checked.shown(other)}; "
        "keep one"
    )


def of_runs(read: Sequence[Read], known: Headings) -> tuple[list[Read], list[str]]:
    """The rows of runs that came to their end, without what only names them, and notes on all that is left out.

    Raises `InputError` where none of the runs of an export finished.
    """
    notes = []
    kept = [(number, cell) for number, cell in read if not (known.tracker and _state(cell) in UNFINISHED)]
    if left_out := len(read) - len(kept):
        if not kept:
            raise InputError(f"none of the {left_out} runs of the export finished, so there is no final loss to read")
        what = "1 row of a run" if left_out == 1 else f"{left_out} rows of runs"
        notes.append(f"{what} that did not finish {'is' if left_out == 1 else 'are'} left out")
    own = {means for name, means in known.meanings.items() if means.startswith("hp_") and not name.startswith("hp_")}
    if names := labels(kept, own - known.chosen if known.tracker else ()):
        kept = _without(kept, names)
        shown = ", ".join(name.removeprefix("hp_") for name in names)
        notes.append(
            f"what only names a run is not read as a hyperparameter ({shown}); --columns hp_NAME=COLUMN reads it"
        )
    if known.aside:
        shown = ", ".join(known.aside[:8]) + (", ..." if len(known.aside) > 8 else "")
        what = "1 column of the export is" if len(known.aside) == 1 else f"{len(known.aside)} columns of the export are"
        notes.append(f"{what} not read ({shown})")
    return kept, notes


def _state(cell: Mapping[str, Any]) -> str:
    return str(cell.get("status") or "").strip().lower()


def labels(read: Sequence[Read], own: Collection[str]) -> list[str]:
    """Settings of a tracker's export that only name a run, such as the folder of its outputs.

    Taken for hyperparameters they would make a configuration of every run, and no two would be replicates. A label is
    a text that is another one in each row of at least `FEWEST_ROWS`, or in each row of a method and size whose seeds
    differ as well; and whatever its name says to be a seed, or where and when a run ran (`NAMES_A_RUN`), where it is
    not the same in all rows. ``own`` are columns that are looked at besides those of ``config``.
    """
    settings = [{name: cell[name] for name in sorted(own) if name in cell} for _, cell in read]
    for setting, (_, cell) in zip(settings, read, strict=True):
        setting.update(cell["config"] if isinstance(cell.get("config"), Mapping) else {})
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, (_, cell) in enumerate(read):
        groups[tuple(str(cell.get(name)) for name in _GROUP)].append(place)

    def differ(values: Sequence[object]) -> bool:
        return all(len({str(values[place]) for place in places}) == len(places) for places in groups.values())

    seeds = [cell.get("seed") for _, cell in read]
    seeded = not any(map(cells.is_empty, seeds)) and len(groups) < len(read) and differ(seeds)
    found = []
    for name in settings[0] if len(read) >= FEWEST_ROWS else ():
        values = [one.get(name) for one in settings]
        if NAMES_A_RUN.fullmatch(name.removeprefix("hp_")) and len(set(map(str, values))) > 1:
            found.append(name)
            continue
        texts = [value for value in values if isinstance(value, str) and isinstance(cells.value(value), str)]
        if len(texts) == len(read) and not is_coordinate(name.removeprefix("hp_")):
            found += [name] if len(set(texts)) == len(texts) or (seeded and differ(texts)) else []
    return found


def _without(read: Sequence[Read], names: Collection[str]) -> list[Read]:
    """The rows without these settings, in columns of their own or in ``config``."""
    kept = [(number, {name: cell for name, cell in row.items() if name not in names}) for number, row in read]
    for _, row in kept:
        if isinstance(row.get("config"), Mapping):
            row["config"] = {name: cell for name, cell in row["config"].items() if name not in names}
    return kept
