"""Options that a command would pass over without a word, refused before anything is done.

Whoever writes an option expects it to do something. One that the chosen search, backend or kind of run does not use
would be believed to have worked, and one that is given twice would count only once. What holds anyway, such as
``--max-concurrent 1`` without Ray, is accepted; so is what a dry run has no use for, because it previews the same
command.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tuneopt.commands.help import words_of
from tuneopt.errors import InputError

Given = Mapping[str, Any]
"""The values of a command's options and arguments, by the names of its parameters."""


class Unused(NamedTuple):
    """Options that have no use ``when`` the others are so; ``why`` says with or without which, in words."""

    options: tuple[str, ...]
    when: Callable[[Given], bool]
    why: str


def _with(name: str) -> Callable[[Given], bool]:
    return lambda given: bool(given[name])


def _without(name: str) -> Callable[[Given], bool]:
    return lambda given: not given[name]


_TRACKERS = ("tensorboard", "wandb", "mlflow")
_MODEL = Unused(("scale",), _with("model"), "with --model, which takes its place")
_TWO_LEDGERS = Unused(
    ("ledger",), lambda given: given["place"] not in (None, given["ledger"]), "where another ledger is named without it"
)

RULES: Mapping[str, Sequence[Unused]] = {
    "tune": (
        _MODEL,
        Unused(
            ("policy",), lambda given: given["search"] != "coordinate", "with --search {search}, which does not descend"
        ),
        Unused(("measure",), _without("dry_run"), "without --dry-run"),
    ),
    "train": (_MODEL,),
    "compare": (
        _MODEL,
        Unused(("simulate",), _with("dry_run"), "with --dry-run, which runs nothing"),
        Unused(("measure",), lambda given: given["tokens_per_second"] is not None, "with --tokens-per-second"),
        Unused(("output", "address", "keep_weights", *_TRACKERS), _with("simulate"), "with --simulate"),
    ),
    "study plan": (
        Unused(("measure",), lambda given: given["tokens_per_second"] is not None, "with --tokens-per-second"),
        Unused(("measure",), lambda given: given["mfu"] is not None, "with --mfu"),
    ),
    "study run": (
        Unused(("stars", "slots", "noise"), _without("simulate"), "without --simulate"),
        Unused(
            ("ledger", "timeout", "backend", "address", "max_concurrent", "gpus_per_trial", "memory", "keep_weights",
             *_TRACKERS),
            _with("simulate"), "with --simulate, which trains nothing",
        ),
    ),
    "report": (Unused(("formats",), lambda given: given["figures"] is None, "without --figures"),),
    "export": (Unused(("corpus",), _without("retrain"), "without --retrain"),),
    "data prepare": (Unused(("workers",), _with("address"), "with --address, whose cluster encodes"),),
    "data inspect": (
        Unused(
            ("corpus",), lambda given: given["path"] not in (None, given["corpus"]), "where a path names the corpus"
        ),
    ),
    **{f"ledger {name}": (_TWO_LEDGERS,) for name in ("ls", "verify", "mend", "compact", "clean")},
}  # fmt: skip
"""What is unused when, by command. What the Python interface takes as well is refused there, and not here."""


def refuse_unused(ctx: Any) -> None:
    """Raise `InputError` for the first option on the command line of which nothing would come."""
    for rule in RULES.get(words_of(ctx), ()):
        for parameter in ctx.command.params:
            if parameter.name in rule.options and _typed(ctx, parameter.name) and rule.when(ctx.params):
                option = parameter.opts[0]
                raise InputError(f"{option} has no use {rule.why.format_map(ctx.params)}; leave out {option}")


def refuse_lost(values: Given, occurrences: Sequence[Any]) -> None:
    """Raise `InputError` for an option that is given twice and takes one value, and for an empty one.

    ``occurrences`` are the parameters in the order of the command line, ``values`` the texts of the last ones. Of two
    values the first would be lost, and an empty one would count as none, or as the working folder. A switch may be
    repeated; what has a default, or is required, has an answer of its own to nothing.
    """
    for parameter, count in Counter(occurrences).items():
        if parameter.param_type_name != "option" or parameter.multiple:
            continue
        if count > 1 and (parameter.secondary_opts or not parameter.is_flag):
            both = " and ".join([parameter.opts[0], *parameter.secondary_opts[:1]])
            raise InputError(f"{both} was given {count} times, and counts once; keep one")
        if values.get(parameter.name) == "" and parameter.default is None and not parameter.required:
            raise InputError(f"{parameter.opts[0]} is empty; give it a value, or leave it out")


def _typed(ctx: Any, name: str) -> bool:
    """Whether an option stands on the command line, be it with the value that it has anyway."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
