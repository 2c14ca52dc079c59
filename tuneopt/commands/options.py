"""Options that several commands share, how hyperparameters are typed, and how every command prints its outcome.

A hyperparameter is parsed here and nowhere else: beyond the command line it is a number, a word or a switch. An option
that two commands have is declared once, so that it means the same and reads the same in both ``--help`` texts.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import typer

from tuneopt.checked import count
from tuneopt.commands.help import HelpfulCommand, OrderedGroup
from tuneopt.commands.places import check_places
from tuneopt.commands.unused import refuse_lost, refuse_unused
from tuneopt.spec import InputError, Scale, Value
from tuneopt.streams import own_stdout, results

DONE, BAD_INPUT, UNANSWERED, INTERRUPTED = 0, 2, 3, 130
"""Exit codes: 2 is what typer itself gives for a wrong option, 130 what shells give for Ctrl-C (128 + SIGINT). 3 is for
what ended without what was asked: a certificate, a speedup for every rival, a trial that can be compared. 1 is left for
a mistake of tuneopt itself."""


def complete_optimizers(incomplete: str) -> list[str]:
    """Names of optimizers that begin so, for the completion of a shell."""
    from tuneopt.optim.info import names

    return [name for name in names() if name.startswith(incomplete)]


def _scales(incomplete: str) -> list[str]:
    from tuneopt.spec import SCALES

    return [name for name in SCALES if name.startswith(incomplete)]


Optimizer = Annotated[
    str,
    typer.Option(
        "--optimizer", "-O", autocompletion=complete_optimizers,
        help="Optimizer, as `tuneopt optimizers` lists them, PATH.py:NAME, or LIBRARY:NAME such as torch:NAdam.",
    ),
]  # fmt: skip
Space = Annotated[
    str | None, typer.Option("--space", help="Search space: PATH.py or a name; default: the optimizer's.")
]
ScaleName = Annotated[
    str,
    typer.Option(
        "--scale", autocompletion=_scales, help="nano-65k ... nano-1m, 130m ... 1.2b, FILE.yaml, or 6x384,seq=256."
    ),
]
ModelFile = Annotated[
    str | None, typer.Option("--model", metavar="PATH.py:NAME", help="A model of your own, in the place of --scale.")
]
ModelSet = Annotated[
    list[str] | None, typer.Option("--model-set", metavar="NAME=VALUE", help="An argument of --model; repeatable.")
]
Route = Annotated[
    list[str] | None,
    typer.Option("--route", metavar="PATTERN=ROLE", help="What parameters of such names are; repeatable."),
]
Ratio = Annotated[
    float | None, typer.Option("--ratio", help="Tokens over the Chinchilla optimum (20 per parameter); default: 1.")
]
Tokens = Annotated[
    str | None, typer.Option("--tokens", metavar="COUNT", help="The budget in tokens, such as 50M, instead of --ratio.")
]
Steps = Annotated[str | None, typer.Option("--steps", metavar="COUNT", help="The same in steps of the start's batch.")]
Coordinates = Annotated[
    str | None, typer.Option("--coordinates", metavar="A,B", help="Tune these alone, and hold the rest at the start.")
]
Quick = Annotated[bool, typer.Option("--quick", help="Tune the learning rate alone.")]
CorpusName = Annotated[str, typer.Option("--corpus", help="`embedded`, a prepared corpus, or a folder of text.")]
TokenizerFile = Annotated[
    Path | None,
    typer.Option("--tokenizer", metavar="FILE", help="A tokenizer.json for text; default: trained."),
]
LedgerUri = Annotated[str, typer.Option("--ledger", help="Where trial records are kept: a folder, s3:// or gs://.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Pin a coordinate; repeatable.")]
Grid = Annotated[list[str] | None, typer.Option("--grid", metavar="NAME=V1,V2", help="Replace a grid; repeatable.")]
Start = Annotated[list[str] | None, typer.Option("--start", metavar="NAME=VALUE", help="Begin there; repeatable.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of weights and data order.")]
DataSeed = Annotated[int | None, typer.Option("--data-seed", help="Another seed for the order of the data.")]
Compile = Annotated[bool | None, typer.Option("--compile/--no-compile", help="torch.compile; default: if possible.")]
Ranks = Annotated[int, typer.Option("--ranks", min=1, help="Processes of a trial, one for each device.")]
Zero = Annotated[
    int | None, typer.Option("--zero", min=0, max=3, help="ZeRO stage, 0 for plain data parallel; default: what fits.")
]
Offload = Annotated[bool, typer.Option("--offload", help="With ZeRO: keep state in host memory.")]
Precision = Annotated[
    str | None,
    typer.Option("--precision", help="Of the compute: fp32 (nano scales) or bf16 (paper scales); weights stay fp32."),
]
Checkpointing = Annotated[bool, typer.Option("--checkpointing", help="Compute activations twice, to save memory.")]
Sequences = Annotated[
    int | None, typer.Option("--micro-batch", min=1, help="Sequences of a pass at most; default: on a GPU what fits.")
]
Deterministic = Annotated[bool, typer.Option("--deterministic", help="GPU kernels that repeat to the bit; slower.")]
KeepWeights = Annotated[bool, typer.Option("--keep-weights", help="Keep final weights, for `tuneopt export`.")]
Address = Annotated[str | None, typer.Option("--address", help="Ray cluster; default: this machine.")]
MaxConcurrent = Annotated[int | None, typer.Option("--max-concurrent", min=1, help="Trials at once.")]
Backend = Annotated[
    str, typer.Option("--backend", help="ray; or inline: one trial after another in this process, without Ray.")
]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="Report file; default: in reports/.")]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", min=0.1, help="Seconds that an object store may take to answer at first; default: 20."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else there.")]


Command = TypeVar("Command", bound=Callable[..., Any])


class _ResultCommand(HelpfulCommand):
    """A command during which nothing but its result goes to stdout; its ``--help`` goes there as ever."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; raises `InputError` for an option that is given twice, or with nothing."""
        if not ctx.resilient_parsing:  # a shell that completes a word asks about lines that are not whole
            values, _, occurrences = self.make_parser(ctx).parse_args(args=list(args))
            refuse_lost(values, occurrences)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; raises `InputError` for an option without a use, and for outputs over something else."""
        refuse_unused(ctx)
        check_places(ctx.params)
        with own_stdout():
            return super().invoke(ctx)


class StoppedError(Exception):
    """A command was asked to end, and has not said so itself."""


@contextlib.contextmanager
def _stopping() -> Iterator[None]:
    """Raise `StoppedError` at Ctrl-C, which typer would turn into an exit code without a word."""
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError from None


class _Group(OrderedGroup):
    """Commands that can be asked to end at any moment, while the command line is read as well."""

    def make_context(self, *given: Any, **more: Any) -> Any:
        """Read the command line, as far as it names a command."""
        with _stopping():
            return super().make_context(*given, **more)

    def invoke(self, ctx: Any) -> Any:
        """Read the rest of it, and run the command."""
        with _stopping():
            return super().invoke(ctx)


class CommandApp(typer.Typer):
    """A `typer.Typer` whose commands keep stdout for their results; its help is that of `tuneopt.commands.help`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"cls": _Group, "no_args_is_help": True, "rich_markup_mode": None, **settings})

    def command(self, *names: Any, **settings: Any) -> Callable[[Command], Command]:
        """A decorator that registers a command; one that takes a ledger takes ``--timeout`` as well."""
        register = super().command(*names, **{"cls": _ResultCommand, **settings})

        def keep(function: Command) -> Command:
            register(_patient(function))
            return function

        return keep


def _patient(function: Callable[..., Any]) -> Callable[..., Any]:
    """The command with the option ``--timeout``, where it has one for a ledger."""
    signature = inspect.signature(function, eval_str=True)
    if "ledger" not in signature.parameters:
        return function

    def command(*, timeout: float | None = None, **given: Any) -> Any:
        if timeout is not None:
            from tuneopt.ledger import place

            os.environ[place.PATIENCE_VARIABLE] = f"{timeout:g}"  # workers look at the ledger too
            place.patience()
        return function(**given)

    more = inspect.Parameter("timeout", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Timeout)
    patient: Any = functools.wraps(function)(command)
    patient.__signature__ = signature.replace(parameters=[*signature.parameters.values(), more])
    patient.__annotations__ = {**function.__annotations__, "timeout": Timeout}
    return cast("Callable[..., Any]", patient)


def group(about: str) -> CommandApp:
    """A command that only holds others."""
    return CommandApp(help=about)


def show(document: Any, as_json: bool, draw: Callable[[Any], None]) -> int:
    """Print ``document`` as the one JSON text on stdout, or let ``draw`` show it to people."""
    if as_json:
        # NaN is no JSON: a document that holds one is a mistake of ours, and a parser elsewhere would choke on it.
        results().write(json.dumps(document, indent=2, sort_keys=False, allow_nan=False) + "\n")
    else:
        draw(document)
    return DONE


def power_text(power: Mapping[str, Any]) -> str:
    """What two optimizers, or two configurations of one, will be told apart by, and what half of it would take."""
    one, other = power["optimizer"], power["baseline"]
    who = f"two configurations of {one}" if one == other else f"{one} and {other}"
    faster = "" if power["tuned_speedup"] is None else f", a speedup of {power['tuned_speedup']:.2f}x"
    part = "" if one == other else f"their seeds alone leave {power['nats']:.4f} nats; "
    return (
        f"{who} can be told apart from {power['tuned_nats']:.4f} nats on{faster}, with {power['seeds']} seeds each; "
        f"{part}half of that takes {power['halving_seeds']} seeds each, {power['halving_trials']} trials more "
        f"(sigma {power['sigma']:.4f} nats, by {power['sigma_from']})"
    )


def tuned_text(care: Mapping[str, Any]) -> str:
    """What an optimizer was given in a comparison, and what its tuning can see."""
    names = care["coordinates"]
    what = f"{care['trials']} trials, seeds among them; tuned: {', '.join(names) or 'nothing'}"
    if care["resolution"] is None or not names:
        return what
    values = "no other value of it" if len(names) == 1 else "no other single value of them"
    return f"{what} ({values} is better by more than {max(care['resolution'], 0.001):.3f} nats, with 95% confidence)"


def parse_value(text: str) -> Value:
    """A hyperparameter value as typed: true/false, a whole number, a number, else a word."""
    if text.lower() in ("true", "false"):  # before numbers: nothing else is a switch, 0 and 1 least of all
        return text.lower() == "true"
    for kind in (int, float):  # int first: a batch of 8 is a whole number
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse_assignments(pairs: Sequence[str], option: str) -> dict[str, str]:
    """``["a=1", "b=2"]`` as a mapping of texts; raises `InputError` for a pair without a name, a value or an ``=``."""
    parsed: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise InputError(f"{option} {pair!r} is not of the form name=value, such as learning_rate=0.01")
        if name.strip() in parsed:
            raise InputError(f"{option} names {name.strip()!r} twice; keep one")
        parsed[name.strip()] = value.strip()
    return parsed


def parse_model(scale: str, model: str | None, arguments: list[str] | None, routes: list[str] | None) -> str | Scale:
    """What ``--scale``, or ``--model`` with its arguments and roles, asks for; raises `InputError`."""
    from tuneopt import api

    return api.chosen_scale(scale, model, parse_values(arguments or [], "--model-set"), parse_routes(routes or []))


def parse_routes(pairs: Sequence[str]) -> dict[str, str]:
    """``["mixer=vector"]`` as patterns and roles; a pattern may hold the sign, a role does not."""
    routes: dict[str, str] = {}
    for pair in pairs:
        pattern, _, role = pair.rpartition("=")
        if not (pattern.strip() and role.strip()):
            raise InputError(f"--route {pair!r} is not of the form PATTERN=ROLE, such as mixer=vector")
        if pattern in routes:
            raise InputError(f"--route names {pattern!r} twice; keep one")
        routes[pattern] = role
    return routes


def parse_count(text: str | None, option: str) -> int | None:
    """``50M``, ``2e6`` or ``2_000`` as a whole number; raises `InputError` for what is none."""
    return None if text is None else count(option, text)


def parse_coordinates(text: str | None, quick: bool) -> tuple[str, ...]:
    """What ``--coordinates`` or ``--quick`` names; nothing stands for all."""
    from tuneopt import api

    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise InputError("--coordinates names none; give them as learning_rate,weight_decay")
    return api.chosen_coordinates(names, quick)


def parse_grids(pairs: Sequence[str]) -> dict[str, list[Value]]:
    """``["a=1,2", "b=cosine,linear"]`` as lists of values; which of them a coordinate takes, its search space says."""
    texts = parse_assignments(pairs, "--grid")
    return {name: [parse_value(word) for word in text.split(",")] for name, text in texts.items()}


def parse_values(pairs: Sequence[str], option: str) -> dict[str, Value]:
    """``["a=1", "b=cosine"]`` as a mapping of values; raises `InputError` as `parse_assignments` does."""
    return {name: parse_value(text) for name, text in parse_assignments(pairs, option).items()}
