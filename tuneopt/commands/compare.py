"""``tuneopt compare``: an answer within a budget. Parse, call the API, print its result.

What the plan will be able to tell apart is said before anything runs, on stderr, where progress goes; the statement is
the result and goes to stdout.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneopt.commands.observing import LogFormat, LogLevel, MLflow, TensorBoard, WandB, Watching
from tuneopt.commands.options import (
    DONE,
    UNANSWERED,
    Address,
    Backend,
    Compile,
    Coordinates,
    CorpusName,
    Json,
    KeepWeights,
    LedgerUri,
    MaxConcurrent,
    ModelFile,
    ModelSet,
    Output,
    Precision,
    Quick,
    Route,
    ScaleName,
    Seed,
    Set,
    Steps,
    TokenizerFile,
    Tokens,
    complete_optimizers,
    parse_assignments,
    parse_coordinates,
    parse_count,
    parse_model,
    parse_values,
    power_text,
    show,
    tuned_text,
)
from tuneopt.paths import expanded, replacing
from tuneopt.spec import InputError

if TYPE_CHECKING:
    from tuneopt.api.comparison_results import ComparisonPlan, ComparisonResult


WELL_SPENT = 0.85
"""The part of a budget that a plan uses at least, unless there is nothing left to spend it on."""


def compare(
    optimizers: Annotated[
        list[str],
        typer.Argument(
            metavar="OPTIMIZER",
            autocompletion=complete_optimizers,
            help="Optimizers, as `tuneopt optimizers` lists them, PATH.py:NAME, or LIBRARY:NAME (torch:NAdam).",
        ),
    ],
    baseline: Annotated[str, typer.Option("--baseline", help="Whom they are compared with.")] = "adamw",
    space: Annotated[
        list[str] | None, typer.Option("--space", metavar="OPTIMIZER=SPACE", help="A search space; repeatable.")
    ] = None,
    scale: ScaleName = "nano-65k",
    model: ModelFile = None,
    model_set: ModelSet = None,
    route: Route = None,
    corpus: CorpusName = "embedded",
    tokenizer: TokenizerFile = None,
    hours: Annotated[
        float | None, typer.Option("--hours", help="Budget by the clock; this, --minutes or --resolution.")
    ] = None,
    minutes: Annotated[float | None, typer.Option("--minutes", help="The budget in minutes.")] = None,
    resolution: Annotated[
        float | None, typer.Option("--resolution", help="Nats to be told apart: plans what that takes.")
    ] = None,
    ratio: Annotated[
        float | None, typer.Option("--ratio", help="Where the rivals meet; default: what the budget allows.")
    ] = None,
    tokens: Tokens = None,
    steps: Steps = None,
    coordinates: Coordinates = None,
    quick: Quick = False,
    set_: Set = None,
    ledger: LedgerUri = "ledger",
    save: Annotated[Path | None, typer.Option("--save", help="Write the study file that is run.")] = None,
    seed: Seed = 0,
    backend: Backend = "ray",
    address: Address = None,
    slots: Annotated[
        int | None,
        typer.Option("--slots", min=1, help="Trials at once, in the plan; default: what cores or GPUs here hold."),
    ] = None,
    max_concurrent: MaxConcurrent = None,
    gpus_per_trial: Annotated[float, typer.Option("--gpus-per-trial", min=0, help="May be a fraction.")] = 0.0,
    keep_weights: KeepWeights = False,
    precision: Precision = None,
    compile: Compile = None,
    output: Output = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its power, run nothing.")] = False,
    measure: Annotated[bool, typer.Option("--measure", help="With --dry-run: train a few steps to time them.")] = False,
    tokens_per_second: Annotated[
        float | None, typer.Option("--tokens-per-second", help="Of a trial on one slot; default: measured.")
    ] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="On surfaces and a fake clock; trains nothing.")] = False,
    log_level: LogLevel = None,
    log_format: LogFormat = "text",
    tensorboard: TensorBoard = None,
    wandb: WandB = None,
    mlflow: MLflow = None,
    json_: Json = False,
) -> int:
    """Compare optimizers with a baseline within a budget: plan, tune equally, measure the speedup, report it."""
    from tuneopt import api
    from tuneopt.ledger import open_ledger

    watching = Watching(log_level, log_format, tensorboard, wandb, mlflow, output)
    if minutes is not None:
        if hours is not None:
            raise InputError("give --hours or --minutes, not both")
        hours = minutes / 60
    opened = open_ledger(ledger)
    api.check_backend(backend, address, slots or max_concurrent)
    if slots is not None and max_concurrent is not None and slots != max_concurrent:
        raise InputError(
            f"--slots {slots} and --max-concurrent {max_concurrent} both say how many trials run at once; give one"
        )
    if backend == "inline":
        slots = 1
    if address and slots is None and max_concurrent is None:
        raise InputError("a plan for a cluster needs its slots: give --slots, the trials that it runs at once")
    plan = api.comparison_plan(
        optimizers, baseline=baseline, spaces=parse_assignments(space or [], "--space"),
        scale=parse_model(scale, model, model_set, route), corpus=corpus, tokenizer=tokenizer,
        hours=hours, resolution=resolution, ratio=ratio, tokens=parse_count(tokens, "--tokens"),
        steps=parse_count(steps, "--steps"), coordinates=parse_coordinates(coordinates, quick),
        overrides=parse_values(set_ or [], "--set"), seed=seed,
        precision=precision, compile=compile, slots=slots or max_concurrent, gpus_per_trial=gpus_per_trial,
        ledger=opened,
        measure=measure or not (dry_run or simulate), keep=not (dry_run or simulate),
        tokens_per_second=tokens_per_second, note=watching.say,
    )  # fmt: skip
    for note in api.scale_notes([plan.question.scale], opened):
        watching.say(note)
    if save is not None:
        with replacing(expanded(save), "the study file", make_folder=True) as temporary:
            temporary.write_text(plan.text)
    if dry_run:
        return show(plan.to_dict(), json_, lambda plain: _print_plan(plan))
    if simulate:
        simulated = api.simulate_comparison(plan)
        show(simulated.to_dict(), json_, lambda plain: _print_result(simulated, watching.say))
        return DONE if simulated.certified else UNANSWERED
    if not json_:
        for line in _foreword(plan):
            watching.say(line)
    options = api.RunOptions(
        address=address, max_concurrent=max_concurrent, gpus_per_trial=gpus_per_trial, keep_weights=keep_weights
    )
    with watching.run("comparing", plan.study.name, json_) as observers:
        result = api.run_comparison(plan, opened, options, backend=backend, observers=observers)
    path = watching.output or Path("reports") / f"{plan.page}.html"
    return watching.reported(result, opened, path, json_, _print_result)


def _foreword(plan: ComparisonPlan) -> list[str]:
    """What will come, and what it will be able to tell, before anything runs."""
    from tuneopt.console import span

    plain = plan.to_dict()
    what = "budget" if plan.question.resolution is None else "cost"
    lines = [
        f"plan: {', '.join(plain['optimizers'])} at {plain['regime']['scale']}, ratio {plain['regime']['ratio']:g}, "
        f"{plain['baseline']} at ratios {', '.join(f'{ratio:g}' for ratio in plain['ratios'])}"
        + (f" (asked: {plan.question.asked})" if plan.question.asked else "")
        + ("; made by an earlier run" if plan.stored else ""),
        f"{what}: {span(3600 * plan.planned_hours)} by the clock on {plan.slots} slots, {_left(plan)}",
    ]
    given, used = plan.question.seconds or 0.0, 3600 * plan.planned_hours
    if used < WELL_SPENT * given:
        lines.append(
            f"note: {span(given)} were given, and {span(used)} are all that this can spend: ratio "
            f"{plain['regime']['ratio']:g}, {max(map(len, plain['coordinates'].values()))} coordinates and "
            f"{plain['seeds']} seeds are the most that is planned; take a larger --scale or a longer --ratio"
        )
    names = plain["coordinates"]
    lines += [f"tuned: {name}: {', '.join(names[name]) or 'nothing'}" for name in names]
    return [*lines, *(f"power: {power_text(power)}" for power in plain["power"])]


def _left(plan: ComparisonPlan) -> str:
    """What is still to run, and how long that will take, with where that is known from."""
    from tuneopt.display import spans

    if plan.left == 0:
        return f"and nothing is left to run: all {plan.in_ledger} trials are in the ledger"
    part = f"{plan.in_ledger} trials have ended, about {plan.left} are left, " if plan.left else ""
    return (
        f"{part}expected to end after {spans(*(3600 * hours for hours in plan.ends))}, with step times by "
        f"{plan.times_from}"
    )


def _print_plan(plan: ComparisonPlan) -> None:
    """The plan, its power, and its study file."""
    from tuneopt.console import out, table

    for line in _foreword(plan):
        out.print(line, markup=False)
    out.print()
    plain = plan.to_dict()
    table(
        ("phase", "optimizer", "ratio", "trials"),
        [(part["phase"], part["optimizer"], f"{part['ratio']:g}", f"{part['trials']:g}") for part in plain["trials"]],
    )
    out.print()
    out.print(plan.text, markup=False)


def _print_result(result: ComparisonResult, say: Callable[[str], None]) -> None:
    """The statement first; then what it rests on; warnings go to ``say``."""
    from tuneopt.console import loss, out, pairs, report_lines, span, table

    if result.simulated:
        out.print("Simulated on surfaces and a fake clock: nothing was trained, and no optimizer was compared.")
    out.print(f"{result.statement}.", markup=False)
    if result.speedups:
        out.print("Brackets hold 90% intervals over seeds, for the configurations tuned here.", markup=False)
    out.print()
    table(
        ("optimizer", "ratio", "report loss", "seeds"),
        [
            (row["optimizer"], f"{row['ratio']:g}x", loss(row["best"]["report_loss"]), row["best"]["seeds"])
            for row in result.to_dict()["results"]
        ],
    )
    out.print()
    pairs(
        {
            **{care.optimizer: tuned_text(care.to_dict()) for care in result.conclusion.care},
            "budget": f"{span(3600 * result.spent_hours)} spent, {span(3600 * result.plan.planned_hours)} planned",
            "trials": f"{len(result.run)} run, {len(result.reused)} reused, {len(result.diverged)} diverged, "
            f"{len(result.failed)} failed",
            **report_lines(result.report),
        }
    )
    for warning in result.conclusion.analysis["warnings"]:
        say(f"warning: {warning}")
    if result.stopped:
        say(f"stopped at {result.stopped}; the statement rests on what had ended by then")
