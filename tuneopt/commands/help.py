"""How ``--help`` reads: commands in the order of a first hour, options in groups with their units, and an example.

Plain text, as everywhere: it is read through pipes and in logs. An option belongs to one group, whichever command has
it, so that it is found in the same place; what no group names stands under "More".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand, TyperGroup

COMMANDS = {
    "compare": "Which optimizer is faster, within a budget.",
    "tune": "One optimizer in one regime, to a certificate.",
    "train": "One trial, in this process.",
    "study": "Many sweeps: plan, run, status.",
    "report": "The HTML page of a ledger or a table.",
    "predict": "Hyperparameters where nobody tuned.",
    "optimizers": "What there is to compare.",
    "space": "What is tuned of an optimizer, and where.",
    "scale": "Model scales, built in or your own.",
    "model": "A model of your own, before it is trained.",
    "data": "Prepare and inspect corpora.",
    "ledger": "Look into recorded trials, and mend them.",
    "export": "A trial's model, as transformers loads it.",
    "doctor": "What this machine can run, what is missing.",
}
"""Commands as they are listed, in few enough words for a narrow terminal; the question most come with is first."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "What is asked": (
        "optimizers", "optimizer", "baseline", "space", "scale", "model", "model_set", "route", "corpus", "tokenizer",
        "ratio", "tokens", "steps", "params", "results", "published", "example", "columns",
    ),
    "Budget and certainty": (
        "hours", "minutes", "resolution", "max_trials", "trials", "replicates", "quick", "match_budget", "target",
        "sigma",
    ),
    "Search": (
        "set_", "coordinates", "grid", "start", "policy", "search", "scheduler", "seed", "data_seed", "precision",
        "compile",
    ),
    "Where it runs": (
        "backend", "address", "slots", "max_concurrent", "gpus_per_trial", "ranks", "zero", "offload", "checkpointing",
        "sequences", "deterministic", "memory",
    ),
    "Before it runs": (
        "dry_run", "measure", "simulate", "stars", "noise", "tokens_per_second", "mfu", "peak_flops", "save",
    ),
    "Results": (
        "ledger", "timeout", "output", "keep_weights", "figures", "formats", "latex", "spent", "json_", "log_level",
        "log_format", "tensorboard", "wandb", "mlflow",
    ),
}  # fmt: skip
"""Groups of options, by the names of their parameters."""

REST = "More"

WHOLE = 200
"""Characters of a command's sentence in a list, which is all of it: lines are wrapped, not cut."""

UNITS = {
    "hours": "HOURS", "minutes": "MINUTES", "resolution": "NATS", "sigma": "NATS", "noise": "NATS", "target": "NATS",
    "params": "COUNT", "max_trials": "COUNT", "trials": "COUNT", "replicates": "SEEDS", "slots": "COUNT",
    "max_concurrent": "COUNT", "gpus_per_trial": "GPUS", "ranks": "COUNT", "zero": "STAGE", "memory": "GIB",
    "tokens_per_second": "RATE", "peak_flops": "FLOP/S", "mfu": "SHARE", "seed": "NUMBER", "data_seed": "NUMBER",
    "sequences": "COUNT", "ratio": "RATIO", "scale": "SCALE", "corpus": "CORPUS", "ledger": "URI", "output": "FILE",
    "optimizer": "NAME", "baseline": "NAME", "space": "SPACE", "backend": "NAME", "address": "HOST:PORT",
    "precision": "NAME", "policy": "NAME", "search": "NAME", "scheduler": "NAME", "results": "FILE", "save": "FILE",
    "stars": "FILE", "formats": "LIST", "log_level": "LEVEL", "log_format": "FORM", "timeout": "SECONDS",
    "to": "FORMAT", "older_than": "DAYS", "out": "FOLDER", "workers": "COUNT",
}  # fmt: skip
"""What stands for an option's value in the help, where the option does not say it itself."""

EXAMPLES = {
    "": ("report --example", "compare soap --minutes 8"),
    "compare": ("compare soap muon --minutes 20 --dry-run", "compare soap muon --minutes 20"),
    "tune": ("tune --optimizer soap --dry-run", "tune --optimizer soap --set lr_schedule=cosine --hours 1"),
    "train": ("train --optimizer muon --set learning_rate=0.01 --ratio 0.1",),
    "report": ("report --example", "report --ledger ledger -o reports/all.html"),
    "predict": ("predict --optimizer muon --params 1.2B --ratio 8",),
    "space": ("space soap",),
    "study plan": ("study plan studies/nano.yaml",),
    "study run": ("study run studies/paper.yaml --simulate",),
    "scale show": ("scale show 6x384,seq=256",),
    "data inspect": ("data inspect",),
}
"""Examples by command; the tests run them."""


class HelpfulCommand(TyperCommand):
    """A command whose help has its options in groups, with units, and ends with an example."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then the options of each group."""
        rows: dict[str, list[tuple[str, str]]] = {}
        several = len(self.params) > 8  # a short list needs no headings
        for parameter in self.get_params(ctx):
            if parameter.name in UNITS and getattr(parameter, "metavar", "") is None and not _is_switch(parameter):
                parameter.metavar = UNITS[parameter.name]
            row = parameter.get_help_record(ctx)
            if row is None:
                continue
            if parameter.param_type_name == "argument":
                rows.setdefault("Arguments", []).append((row[0].partition(" <")[0], row[1]))  # without Python's type
            else:
                rows.setdefault(_group_of(parameter.name or "") if several else "Options", []).append(row)
        for title in ("Arguments", "Options", *GROUPS, REST):
            if title in rows:
                with formatter.section(title):
                    formatter.write_dl(rows[title])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, a line each."""
        _write_examples(ctx, formatter)


class OrderedGroup(TyperGroup):
    """A command that holds others, listed in the order of `COMMANDS`; what is not in it comes last."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, in the order in which help and completion show them."""
        order = list(COMMANDS)
        names = super().list_commands(ctx)
        return sorted(names, key=lambda name: order.index(name) if name in order else len(order))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, each in words that are not cut."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                about = COMMANDS.get(name) if ctx.parent is None else None
                rows.append((name, about or command.get_short_help_str(WHOLE)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, a line each."""
        _write_examples(ctx, formatter)


def words_of(ctx: Any) -> str:
    """The words of a command after the program's own name, such as ``study run``."""
    words: list[str] = []
    while ctx.parent is not None:  # the program's own name may be `tuneopt` or `python -m tuneopt`
        words.insert(0, ctx.info_name or "")
        ctx = ctx.parent
    return " ".join(words)


def _write_examples(ctx: Any, formatter: Any) -> None:
    lines = EXAMPLES.get(words_of(ctx), ())
    if lines:
        with formatter.section("Example" if len(lines) == 1 else "Examples"):
            for line in lines:
                formatter.write(f"{'':>{formatter.current_indent}}tuneopt {line}\n")


def _group_of(name: str) -> str:
    return next((title for title, names in GROUPS.items() if name in names), REST)


def _is_switch(parameter: Any) -> bool:
    return bool(getattr(parameter, "is_flag", False))
