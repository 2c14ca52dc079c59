"""What the names of columns mean: synonyms, short names of hyperparameters, prefixes of trackers, what is no loss.

Here a name is read by itself. What it means in one table, beside the table's other columns, is
`tuneopt.analysis.columns`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tuneopt.analysis.cells import folded

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "optimizer": ("optimiser", "opt", "optim", "optimizer_name", "optimizer_type", "method", "algorithm", "name"),
    "scale": ("model", "model_size", "size", "workload"),
    "parameters": ("params", "n", "n_params", "num_params", "non_embedding_parameters"),
    "ratio": ("chinchilla", "chinchilla_ratio", "data_ratio"),
    "tokens": ("d", "n_tokens", "train_tokens", "token_budget", "budget_tokens"),
    "tokens_per_parameter": ("tpp", "tokens_per_param"),
    "steps": ("step", "n_steps", "num_steps", "train_steps", "global_step", "training_iteration"),
    "batch_tokens": ("tokens_per_step", "tokens_per_batch"),
    "loss": ("final_loss", "eval_loss", "val_loss", "validation_loss", "report_loss"),
    "metric": (),
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

_SPLIT = "(train|val|valid|validation|eval|test|top|mean)?"
_LARGER_IS_BETTER = re.compile(
    _SPLIT + r"(top\d)?(acc|accuracy|score|reward|return|bleu|rouge|f1|auc|recall|mmlu|hellaswag)s?\d*"
)
_NOT_NATS = re.compile(_SPLIT + r"(bp[bcdtw]|bits?|bitsper\w+|bytes?|ppl|perplexity|[wc]er|error|r?mse|mae)")

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

_LENGTHS = ("sequence_length", "seq_length", "context_length", "max_seq_len")  # tokens of a sequence, ``seq_len``

_PREFIX = re.compile(
    r"(?P<hp>(config|hparams|hyperparameters|args)[./]|params[./]|hp[./])|(?P<metric>(summary|metrics|tags)[./])",
    re.IGNORECASE,
)

_GROUP = r"(optimi[sz]er|optim|opt)\."
"""The group in which nested configurations hold an optimizer's settings. Behind a slash stand measurements: what is
logged as ``optimizer/lr`` ends at 0."""

_RULE = re.compile(_GROUP + "(name|type)", re.IGNORECASE)
_OF_RULE = re.compile(_GROUP + "(?!(name|type)$)", re.IGNORECASE)

WORDS = {word: column for column, others in COLUMNS.items() for word in (column, *others)}
_MEANING = {folded(word): column for word, column in WORDS.items()} | {folded(word): "" for word in ASIDE}
_IN_CONFIG = frozenset(COLUMNS) - {
    "loss",
    "metric",
    "select_loss",
    "sigma",
    "status",
    "curve",
    "config",
    "study",
    "ruleset",
}
_COORDINATES = frozenset(
    folded(word)
    for word in (*HYPERPARAMETERS, *HYPERPARAMETERS.values(), "warmup", "beta1", "beta2", "epsilon", "max_grad_norm",
                 "momentum", "min_lr_ratio")
)  # fmt: skip


def meaning(name: str) -> str | None:
    """What a column means by its name, a tracker's prefix counted; "" for one that is not read, None for an unknown."""
    word = name.strip()
    plain = re.sub(r"[\s\-]+", "_", word.lower())
    if plain.startswith("hp_"):
        return hyperparameter_column(plain[3:])
    match = _PREFIX.match(word)
    rest = word[match.end() :] if match else word.removeprefix("_")
    known = _MEANING.get(folded(rest)) if folded(rest) else None
    if match and match["metric"]:
        return known
    if match:
        # Inside a configuration a name is a hyperparameter, unless it says which run this is; a loss is a result.
        return meaning_in_run(rest) or hyperparameter_column(rest)
    if known is not None:
        return known
    return hyperparameter_column(word) if is_coordinate(word) or _OF_RULE.match(word) else meaning_in_run(word)


def _words(name: str) -> list[str]:
    """The words of a column's name in lower case: of ``metrics.evalAccuracy/top1`` metrics, eval, accuracy and top1."""
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower())


def is_upside_down(name: str) -> bool:
    """Whether a column is by its name better where it is larger: taken for a loss, it would reverse every order."""
    words = _words(name)
    return "loss" not in words and any(map(_LARGER_IS_BETTER.fullmatch, words))


def is_no_loss(name: str) -> bool:
    """Whether a column holds by its name what is computed from a loss, and is not one in nats per token."""
    words = _words(name)
    return any(map(_NOT_NATS.fullmatch, words)) and {"log", "ln", "nats"}.isdisjoint(words)


def is_coordinate(name: str) -> bool:
    """Whether a name is that of a hyperparameter that most optimizers have."""
    return folded(name) in _COORDINATES


def known_meaning(name: str) -> str | None:
    """What the name of a column means by itself; "" for one that is not read, None for an unknown one."""
    return _MEANING.get(folded(name))


def meaning_in_run(name: str) -> str | None:
    """What a name inside a configuration says of which run this is (its optimizer, scale, budget); None for others."""
    known = "optimizer" if _RULE.fullmatch(name) else known_meaning(name)
    if known is None and known_meaning(name.lower().removeprefix("model.")) == "parameters":
        return "parameters"
    return known if known in _IN_CONFIG else None


def in_group(name: str) -> bool:
    """Whether a name that is nested in a configuration says the optimizer, one of its settings or the model's size."""
    return _OF_RULE.match(name) is not None or meaning_in_run(name) in ("optimizer", "parameters")


def hyperparameter_column(name: str) -> str | None:
    """What a column means that holds a hyperparameter of this name; None without a name."""
    return f"hp_{plain}" if (plain := hyperparameter_name(name)) else None


def hyperparameter_name(name: str) -> str:
    """The name of a hyperparameter as the spaces write it: lower case, underscores, no short form and no group."""
    plain = re.sub(r"[\s\-]+", "_", _OF_RULE.sub("", name.strip(), count=1).lower())
    return HYPERPARAMETERS.get(plain, "seq_len" if plain in _LENGTHS else plain)
