"""The columns of somebody's table: their names and synonyms, and what a tracker's export calls them.

A table needs an optimizer, a scale (or its non-embedding parameters), a ratio (or tokens) and a final loss. The rest is
optional. Names are read without regard to case, spaces, dashes, underscores, dots and slashes. An unknown column is an
error, so that a misspelt one is not silently left out; all of them are named at once, and ``--columns`` maps them.

A tracker's export (Weights & Biases, MLflow, Ray Tune, Optuna) is known by the names that the tracker gives. It has a
hundred columns that nobody chose, so there what is unknown is left aside, and a note says so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from tuneopt import checked
from tuneopt.analysis.cells import folded
from tuneopt.analysis.vocabulary import (
    COLUMNS,
    CONSTANTS,
    NUMBERS,
    WORDS,
    hyperparameter_column,
    is_no_loss,
    is_upside_down,
    meaning,
)
from tuneopt.errors import InputError, nearest
from tuneopt.search.space import space_names

_INDEX = re.compile(r"|unnamed: ?\d+|__index_level_\d+__|index", re.IGNORECASE)
_TRACKERS = frozenset({"runtime", "timestamp", "wandb"})  # of Weights & Biases, with an underscore in front
_OPTUNA = {"params": "params.", "user_attrs": "metrics."}
_PAGE = frozenset({"created", "state", "runtime", "user", "sweep"})  # headings of its table of runs, two or more
_REACHED = frozenset({"target_steps", "target_seconds"})


@dataclass(frozen=True)
class Headings:
    """What each column of a table means: a key of `COLUMNS`, ``hp_<name>``, or "" where it is not read.

    ``constants`` are values that all rows have, ``aside`` the columns of a tracker's export that nobody reads,
    ``chosen`` the meanings that ``--columns`` gave.
    """

    meanings: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)
    aside: tuple[str, ...] = ()
    tracker: bool = False
    chosen: frozenset[str] = frozenset()

    @property
    def is_race(self) -> bool:
        """Whether rows say when they reached a target and not how long they were to run, as AlgoPerf's logs do."""
        return _is_race({*self.meanings.values(), *self.constants})

    @property
    def unread_targets(self) -> list[str]:
        """Columns of a table of runs that say when a target was reached: there it is worked out from the losses."""
        return [] if self.is_race else [name for name, means in self.meanings.items() if means in _REACHED]

    def check_loss(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """A doubt about the column of the loss, by its name or by what a column ``metric`` calls it; "" where none is.

        Raises `InputError` for one that is better where it is larger, for every order would be upside down, and for
        rows of several metrics.
        """
        name = next((name for name, means in self.meanings.items() if means == "loss"), "")
        metric = next((name for name, means in self.meanings.items() if means == "metric"), "")
        if called := sorted({str(row.get(metric) or "").strip() for row in rows} - {""}) if metric else []:
            if len(called) > 1:
                listed = ", ".join(map(checked.shown, called[:5])) + (", ..." if called[5:] else "")
                raise InputError(
                    f"the column {metric} names {len(called)} metrics ({listed}), and losses of one can be compared; "
                    "keep its rows, or drop the column"
                )
            name = called[0]
        if is_upside_down(name):
            raise InputError(
                f"the loss is read from the column {checked.shown(name)}, which by its name is better where it is "
                "larger, so that every order would be upside down; name the column that holds a loss"
            )
        if not is_no_loss(name):
            return ""
        return (
            f"the loss is read from the column {name}, which by its name is not in nats per token: then nothing that "
            "is said in nats is in nats, and assumed noise and tolerances are of another size"
        )

    def lacking(self, sized: bool) -> list[str]:
        """What every table needs and this one has no column for; ``sized`` says whether its scales' sizes are known."""
        return _lacking({*self.meanings.values(), *self.constants}, sized)

    def cells(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The cells of a row by meaning, with the constants; unread ones are left out."""
        named = ((self.meanings[str(name)], value) for name, value in row.items())
        return {**self.constants, **{means: value for means, value in named if means}}


def headings(rows: Sequence[Mapping[str, Any]], wanted_as: Mapping[str, str] | None = None) -> Headings:
    """The meaning of every column of a table, decided once for all of its rows.

    ``wanted_as`` maps columns of `COLUMNS` (or ``hp_<name>``) to those of the table, or to a value for all rows, and
    ``drop`` to one that is not to be read (``*``: all that are unknown). Raises `InputError` for unknown columns, all
    at once, and for two columns of one meaning.
    """
    # Decided by the table and not row by row: JSON rows may each have other keys, and a meaning must not change.
    columns: dict[str, int] = {}  # name: the first row that has it
    for number, row in enumerate(rows, start=1):
        for name in row:
            columns.setdefault(str(name), number)
    meant, constants, drop_rest = _mapped(columns, wanted_as or {})
    mapped = {*meant.values(), *constants}
    optuna = {"number", "value", "state"} <= set(columns)  # Optuna's own data frame, whose prefixes have no point
    tracker = optuna or _from_tracker(columns)
    unknown: list[str] = []
    for name in columns:
        if name in meant:
            continue
        word = re.sub(r"^(params|user_attrs)_", lambda found: _OPTUNA[found[1]], name) if optuna else name
        means = "" if _INDEX.fullmatch(name.strip()) and _counts(rows, name) else meaning(word)
        if means is None:
            unknown.append(name)
        elif means in constants or (means in meant.values() and means in mapped):
            meant[name] = ""  # another column, or a value, was named in its place
        else:
            meant[name] = means
    # Exports of trackers have dozens of columns that nobody means; in a table of somebody's own an unknown name is most
    # likely a misspelt one, and a loss that is passed over in silence would be worse than a question.
    if unknown and not (tracker or drop_rest):
        raise _unknown(unknown, columns, _lacking({*meant.values(), *constants}))
    meant |= dict.fromkeys(unknown, "")
    _one_each(meant, columns)
    if tracker:
        _refuse_run_names(rows, [name for name, means in meant.items() if means == "optimizer" and means not in mapped])
    return Headings(meant, constants, tuple(unknown), tracker, frozenset(mapped))


def _refuse_run_names(rows: Sequence[Mapping[str, Any]], optimizers: Sequence[str]) -> None:
    """Raise `InputError` where the optimizer of an export would be the name of each of its runs."""
    for name in optimizers:
        names = [str(row.get(name)) for row in rows]
        invented = {folded(one) for one in names}.isdisjoint(map(folded, space_names()))
        if folded(name) == "name" and len(rows) > 1 and len(set(names)) == len(rows) and invented:
            raise InputError(
                f"the column {name} of the export names runs ({checked.shown(names[0])}, {checked.shown(names[1])}); "
                "say which column names the optimizer, such as --columns optimizer=algo"
            )


def _mapped(columns: Mapping[str, int], wanted_as: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Any], bool]:
    """What ``--columns`` says: meanings by column, constants, and whether all other columns are dropped."""
    meant: dict[str, str] = {}
    constants: dict[str, Any] = {}
    drop_rest = False
    spelled = {name.strip(): name for name in columns}  # a header may have spaces behind its commas
    for name, said in wanted_as.items():
        one = name != "drop" or said in columns or said.strip() in spelled  # a name may hold a comma itself
        for word in [said] if one else said.split(","):
            part = word if word in columns else spelled.get(word.strip(), word.strip())
            known = "" if name == "drop" else name
            if known.startswith("hp_"):
                known = hyperparameter_column(known[3:]) or ""
                if not known:
                    raise InputError(
                        "--columns maps to 'hp_', which names no hyperparameter; say which, as in hp_beta2"
                    )
            if name == "drop" and part == "*":
                drop_rest = True
            elif name == "drop" and not part and part not in columns:
                continue  # a column without a name in which nothing stood is gone already
            elif known and known not in COLUMNS and not known.startswith("hp_"):
                raise InputError(f"--columns maps to {name!r}, which no table has; {nearest(name, [*COLUMNS, 'drop'])}")
            elif meant.get(part, known) != known:
                both = " and as ".join(word or "drop" for word in (meant[part], known))
                raise InputError(f"--columns gives {part!r} twice, as {both}; keep one")
            elif part in columns:
                meant[part] = known
            elif known in CONSTANTS and (known not in NUMBERS or re.fullmatch(r"[\d.][\d.,eE+-]*\s?[a-zA-Z]?", part)):
                constants[known] = part
            else:
                several = re.search(r",\s*[a-z_]+=", part)
                mend = "give --columns once for each name" if several else nearest(part, columns)
                raise InputError(f"--columns names {part!r}, which the results do not have; {mend}")
    return meant, constants, drop_rest


def _from_tracker(columns: Iterable[str]) -> bool:
    """Whether a table is a tracker's export, by the columns that only a tracker writes."""
    plain = [name.strip().lower() for name in columns]
    page = sum(name in _PAGE for name in plain)
    return page >= 2 or any(
        (name.startswith("_") and name[1:] in _TRACKERS) or re.match(r"(config|summary|params|metrics|tags)[./]", name)
        for name in plain
    )


def _counts(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether a column does nothing but number the rows, as the index of a data frame does.

    One without a name of its own does so with gaps as well, where rows were taken out of the frame.
    """
    numbers = [str(row.get(name)).strip() for row in rows]
    if name.strip().lower() != "index" and len(numbers) > 1 and all(map(str.isdecimal, numbers)):
        return all(int(before) < int(after) for before, after in pairwise(numbers))
    return any(numbers == [str(start + place) for place in range(len(rows))] for start in (0, 1))


def _is_race(known: Collection[str]) -> bool:
    """Whether columns of these meanings say when a target was reached, and not how long runs were to be.

    A loss beside a whole budget makes a run of each row, also where the row says when a target was reached.
    """
    if _REACHED.isdisjoint(known) or not {"tokens", "ratio", "parameters"}.isdisjoint(known):
        return False
    return "loss" not in known or not ("tokens_per_parameter" in known or {"steps", "batch_tokens"} <= set(known))


def _lacking(known: Collection[str], sized: bool = True) -> list[str]:
    """What of an optimizer, a size, a budget and a loss none of the ``known`` meanings gives, in words."""
    words = [] if "optimizer" in known else ["optimizer"]
    if _is_race(known):
        return [*words, *([] if "scale" in known else ["workload"])]
    if {"scale", "parameters"}.isdisjoint(known):
        words.append("parameters or scale")
    elif not sized and "parameters" not in known and not {"tokens", "ratio"} <= set(known):
        words.append("parameters")
    if {"tokens", "ratio", "tokens_per_parameter"}.isdisjoint(known):
        if "steps" not in known:
            words.append("tokens or ratio")
        elif {"batch_tokens", "hp_train_batch_size"}.isdisjoint(known):
            words.append("batch_tokens")
    return words if "loss" in known else [*words, "loss"]


def missing(words: Sequence[str], columns: Iterable[str]) -> InputError:
    """The error for a table without the columns that ``words`` name, all at once."""
    found = [checked.shown(name) for name in columns]
    listed = ", ".join(found[:12]) + (", ..." if len(found) > 12 else "")
    several = f"columns {', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else f"column {words[0]}"
    known = words[0].split()[0]
    example = {"loss": "loss=val/loss", "optimizer": "optimizer=algo", "batch_tokens": "batch_tokens=524288",
               "parameters": "parameters=124M", "tokens": "tokens=2.5B"}.get(known, f"{known}=COLUMN")  # fmt: skip
    return InputError(
        f"row 1 of the results has no {several} (found {listed or 'no column'}); add them, name the column that says "
        f"so, or give one value for all rows, such as --columns {example}"
    )


def _unknown(names: Sequence[str], columns: Mapping[str, int], lacking: Sequence[str]) -> InputError:
    """The error for columns that are not known, with the cure that fits, and with what else a table needs."""
    still = f" (needed still: {', '.join(lacking)})" if lacking else ""
    bits = [name for name in names if is_no_loss(name)] if "loss" in lacking else []
    if bits:
        still += (
            f"; a loss is in nats per token, which {checked.shown(bits[0])} is not: bits per byte times ln 2 times the "
            "bytes of a token, or the logarithm of a perplexity"
        )
    if len(names) > 1:
        listed = ", ".join(checked.shown(name) for name in names[:20])
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        return InputError(
            f"row {columns[names[0]]} of the results has unknown columns {listed}{more}; map those that are results, "
            "such as --columns loss=val/loss, name a hyperparameter hp_<name>, and drop the rest, or --columns drop=*"
            f"{still}"
        )
    (name,) = names
    if not name.strip():
        return InputError(f"row {columns[name]} of the results has a column without a name; name it, or drop it")
    # Where no known name is close ("did you mean"), a list of fifty would not help, and one letter is close to all.
    hint = nearest(name.strip().lower(), [word for word in WORDS if len(word) > 2])
    drop = f"drop it (--columns drop={name})"
    if "loss" in lacking and "loss" in name.lower():
        hint = f"if it is the final loss that counts, say --columns loss={name}; otherwise {drop}"
    elif not hint.startswith("did"):
        hint = f"name a hyperparameter hp_<name>, map it (--columns loss=...), or {drop}"
    else:
        hint += f" Otherwise {drop}"
    return InputError(f"row {columns[name]} of the results has an unknown column {name!r}; {hint}{still}")


def _one_each(meant: dict[str, str], columns: Mapping[str, int]) -> None:
    """Raise `InputError` for two columns of one meaning; ``name`` beside a better name of the optimizer is a run's."""
    by_meaning: dict[str, list[str]] = {}
    for name, means in meant.items():
        if means:
            by_meaning.setdefault(means, []).append(name)
    for name in by_meaning.get("optimizer", []):
        if folded(name) == "name" and len(by_meaning["optimizer"]) > 1:
            meant[name] = "" if "trial" in by_meaning else "trial"
            by_meaning["optimizer"].remove(name)
    for means, names in by_meaning.items():
        if len(names) > 1:
            row = columns[names[1]]
            raise InputError(
                f"row {row} of the results says {means} twice, as {names[0]!r} and {names[1]!r}; keep one, or say "
                f"which: --columns {means}={names[1]}"
            )
