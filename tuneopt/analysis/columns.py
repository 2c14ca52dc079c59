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
from tuneopt.errors import InputError, nearest

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "optimizer": ("optimiser", "opt", "method", "algorithm", "name"),
    "scale": ("model", "model_size", "size", "workload"),
    "parameters": ("params", "n", "n_params", "num_params", "non_embedding_parameters"),
    "ratio": ("chinchilla", "chinchilla_ratio", "data_ratio"),
    "tokens": ("d", "n_tokens", "train_tokens", "token_budget", "budget_tokens"),
    "tokens_per_parameter": ("tpp", "tokens_per_param"),
    "steps": ("step", "n_steps", "num_steps", "train_steps", "global_step", "training_iteration"),
    "batch_tokens": ("tokens_per_step", "tokens_per_batch"),
    "loss": ("final_loss", "eval_loss", "val_loss", "validation_loss", "report_loss"),
    "select_loss": (),
    "sigma": ("std", "loss_std", "noise"),
    "seed": ("random_seed",),
    "corpus": ("data", "dataset"),
    "status": ("state",),
    "seconds": ("device_seconds", "train_seconds", "wall_seconds", "wall_time", "time", "runtime", "time_total_s"),
    "flops": ("total_flops",),
    "peak_bytes": ("peak_memory", "peak_memory_bytes", "memory_bytes"),
    "checkpoint_bytes": ("checkpoint_size",),
    "curve": ("loss_curve", "history"),
    "config": ("hyperparameters", "hparams"),
    "trial": ("id", "run", "run_id", "trial_id", "run_name"),
    "study": (),
    "target": ("target_loss",),
    "target_steps": ("steps_to_target",),
    "target_seconds": ("seconds_to_target", "time_to_target"),
    "ruleset": (),
}
"""Each column that is read, and its synonyms; ``hp_<name>`` columns are hyperparameters."""

NUMBERS = frozenset({
    "parameters", "ratio", "tokens", "tokens_per_parameter", "steps", "batch_tokens", "loss", "select_loss", "sigma",
    "seed", "seconds", "flops", "peak_bytes", "checkpoint_bytes", "target", "target_steps", "target_seconds",
})  # fmt: skip
"""Columns that hold numbers."""

CONSTANTS = frozenset({"scale", "corpus"}) | NUMBERS
"""Columns that ``--columns`` may give one value for all rows."""

NOT_NATS = frozenset({
    "bpb", "bitsperbyte", "bitspertoken", "bitsperchar", "bpc", "bpt", "perplexity", "ppl", "evalbpb", "valbpb",
    "valperplexity", "evalperplexity", "testbpb", "valbitsperbyte", "evalbitsperbyte",
})  # fmt: skip
"""Names, folded, of what is computed from a loss and is not one in nats per token."""

NO_LOSS = re.compile(r"(train|val|validation|eval|test)?(top[15])?(acc|accuracy|score|reward|bleu|f1)")
"""Names, folded, of what is better where it is larger: read as a loss, it would turn every order upside down."""

ASIDE = (
    "report_bits_per_byte",
    "family",
    "note",
    "notes",
    "comment",
    "source",
    "url",
    "date",
    "framework",
    "metric",
    "best",
)
"""Columns that may stand in a table and are not read."""

HYPERPARAMETERS: Mapping[str, str] = {
    "lr": "learning_rate",
    "peak_lr": "learning_rate",
    "wd": "weight_decay",
    "batch_size": "train_batch_size",
    "schedule": "lr_schedule",
    "scheduler": "lr_schedule",
    "lr_scheduler": "lr_schedule",
}
"""Short names of hyperparameters, as trackers have them, and the coordinates that they stand for."""

_PREFIX = re.compile(
    r"(?P<hp>(config|hparams|hyperparameters|args)[./]|params[./]|hp[./])|(?P<metric>(summary|metrics|tags)[./])",
    re.IGNORECASE,
)
_INDEX = re.compile(r"|unnamed: ?\d+|__index_level_\d+__|index", re.IGNORECASE)
_TRACKERS = frozenset({"runtime", "timestamp", "wandb"})  # of Weights & Biases, with an underscore in front
_PAGE = frozenset({"created", "state", "runtime", "user", "sweep"})  # headings of its table of runs, two or more

_REACHED = frozenset({"target_steps", "target_seconds"})
_WORDS = {word: column for column, others in COLUMNS.items() for word in (column, *others)}
_MEANING = {folded(word): column for word, column in _WORDS.items()} | {folded(word): "" for word in ASIDE}


@dataclass(frozen=True)
class Headings:
    """What each column of a table means: a key of `COLUMNS`, ``hp_<name>``, or "" where it is not read.

    ``constants`` are values that all rows have, ``aside`` the columns of a tracker's export that nobody reads.
    """

    meanings: Mapping[str, str]
    constants: Mapping[str, Any] = field(default_factory=dict)
    aside: tuple[str, ...] = ()
    tracker: bool = False

    @property
    def is_race(self) -> bool:
        """Whether rows say when they reached a target and not how long they were to run, as AlgoPerf's logs do."""
        return _is_race({*self.meanings.values(), *self.constants})

    @property
    def unread_targets(self) -> list[str]:
        """Columns of a table of runs that say when a target was reached: there it is worked out from the losses."""
        return [] if self.is_race else [name for name, meaning in self.meanings.items() if meaning in _REACHED]

    @property
    def loss_column(self) -> str:
        """The column that the loss is read from, empty where there is none."""
        return next((name for name, meaning in self.meanings.items() if meaning == "loss"), "")

    def lacking(self, sized: bool) -> list[str]:
        """What every table needs and this one has no column for; ``sized`` says whether its scales' sizes are known."""
        return _lacking({*self.meanings.values(), *self.constants}, sized)

    def cells(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The cells of a row by meaning, with the constants; unread ones are left out."""
        named = ((self.meanings[str(name)], value) for name, value in row.items())
        return {**self.constants, **{meaning: value for meaning, value in named if meaning}}


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
    tracker = _from_tracker(columns)
    unknown: list[str] = []
    for name in columns:
        if name in meant:
            continue
        meaning = _meaning(name, rows)
        if meaning is None:
            unknown.append(name)
        elif meaning in constants or (meaning in meant.values() and meaning in (wanted_as or {})):
            meant[name] = ""  # another column, or a value, was named in its place
        else:
            meant[name] = meaning
    # Exports of trackers have dozens of columns that nobody means; in a table of somebody's own an unknown name is most
    # likely a misspelt one, and a loss that is passed over in silence would be worse than a question.
    if unknown and not (tracker or drop_rest):
        raise _unknown(unknown, columns, _lacking({*meant.values(), *constants}))
    meant |= dict.fromkeys(unknown, "")
    _one_each(meant, columns)
    return Headings(meant, constants, tuple(unknown), tracker)


def _mapped(columns: Mapping[str, int], wanted_as: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Any], bool]:
    """What ``--columns`` says: meanings by column, constants, and whether all other columns are dropped."""
    meant: dict[str, str] = {}
    constants: dict[str, Any] = {}
    drop_rest = False
    for name, said in wanted_as.items():
        parts = [part.strip() for part in said.split(",")] if name == "drop" else [said]
        for part in parts:
            known = "" if name == "drop" else name
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


def _meaning(name: str, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What a column means; "" for one that is not read, None for an unknown one."""
    word = name.strip()
    if _INDEX.fullmatch(word) and _counts(rows, name):
        return ""
    plain = re.sub(r"[\s\-]+", "_", word.lower())
    if plain.startswith("hp_"):
        return f"hp_{hyperparameter_name(plain[3:])}"
    match = _PREFIX.match(word)
    rest = word[match.end() :] if match else word.removeprefix("_")
    known = _MEANING.get(folded(rest)) if folded(rest) else None
    if match and match["metric"]:
        return known
    if match:
        # Inside a configuration a name is a hyperparameter, unless it says which run this is; a loss is a result.
        inner = known if known in _IN_CONFIG else None
        return inner or f"hp_{hyperparameter_name(rest)}"
    if known is not None:
        return known
    return f"hp_{hyperparameter_name(word)}" if folded(word) in _COORDINATES else None


_IN_CONFIG = frozenset(COLUMNS) - {"loss", "select_loss", "sigma", "status", "curve", "config", "study", "ruleset"}
_COORDINATES = frozenset(
    folded(word)
    for word in (*HYPERPARAMETERS, *HYPERPARAMETERS.values(), "warmup", "beta1", "beta2", "epsilon", "max_grad_norm",
                 "momentum", "min_lr_ratio")
)  # fmt: skip


def known_meaning(name: str) -> str | None:
    """What the name of a column means by itself; "" for one that is not read, None for an unknown one."""
    return _MEANING.get(folded(name))


def meaning_in_run(name: str) -> str | None:
    """What a name inside a configuration says of which run this is (its optimizer, scale, budget); None for others."""
    known = known_meaning(name)
    return known if known in _IN_CONFIG else None


def hyperparameter_name(name: str) -> str:
    """The name of a hyperparameter as the spaces write it: lower case, underscores, no short form."""
    plain = re.sub(r"[\s\-]+", "_", name.strip().lower())
    return HYPERPARAMETERS.get(plain, plain)


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
    bits = [name for name in names if folded(name) in NOT_NATS] if "loss" in lacking else []
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
    hint = nearest(name.strip().lower(), [word for word in _WORDS if len(word) > 2])
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
    for name, meaning in meant.items():
        if meaning:
            by_meaning.setdefault(meaning, []).append(name)
    for name in by_meaning.get("optimizer", []):
        if folded(name) == "name" and len(by_meaning["optimizer"]) > 1:
            meant[name] = "" if "trial" in by_meaning else "trial"
            by_meaning["optimizer"].remove(name)
    for meaning, names in by_meaning.items():
        if len(names) > 1:
            row = columns[names[1]]
            raise InputError(
                f"row {row} of the results says {meaning} twice, as {names[0]!r} and {names[1]!r}; keep one, or say "
                f"which: --columns {meaning}={names[1]}"
            )
