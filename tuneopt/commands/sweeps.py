"""``tuneopt tune`` and ``tuneopt train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tuneopt.commands.observing import LogFormat, LogLevel, MLflow, TensorBoard, WandB, Watching
from tuneopt.commands.options import (
    DONE,
    INTERRUPTED,
    NO_CERTIFICATE,
    Checkpointing,
    Compile,
    CorpusName,
    Deterministic,
    Grid,
    Json,
    KeepWeights,
    LedgerUri,
    Offload,
    Optimizer,
    Precision,
    Ranks,
    Ratio,
    ScaleName,
    Seed,
    Sequences,
    Set,
    Space,
    Start,
    Zero,
    show,
)
from tuneopt.commands.searches import sampled


def tune(
    optimizer: Optimizer,
    space: Space = None,
    scale: ScaleName = "nano-65k",
    ratio: Ratio = 1.0,
    corpus: CorpusName = "embedded",
    ledger: LedgerUri = "ledger",
    set_: Set = None,
    grid: Grid = None,
    start: Start = None,
    policy: Annotated[str, typer.Option("--policy", help="Descent policy: joint, single or cyclic.")] = "joint",
    search: Annotated[
        str, typer.Option("--search", help="coordinate; or tpe, random, gp: no certificate.")
    ] = "coordinate",
    scheduler: Annotated[str, typer.Option("--scheduler", help="none; asha ranks on intermediate loss.")] = "none",
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="For searches without a certificate.")] = None,
    replicates: Annotated[int, typer.Option("--replicates", min=1, help="Seeds of the start and the winner.")] = 3,
    seed: Seed = 0,
    address: Annotated[str | None, typer.Option("--address", help="Ray cluster; default: this machine.")] = None,
    max_concurrent: Annotated[int | None, typer.Option("--max-concurrent", min=1, help="Trials at once.")] = None,
    gpus_per_trial: Annotated[
        float, typer.Option("--gpus-per-trial", min=0, help="May be a fraction; with --ranks, of each rank.")
    ] = 0.0,
    ranks: Ranks = 1,
    zero: Zero = None,
    offload: Offload = False,
    checkpointing: Checkpointing = False,
    keep_weights: KeepWeights = False,
    precision: Precision = "fp32",
    compile: Compile = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Report file; default: in reports/.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its cost, run nothing.")] = False,
    log_level: LogLevel = None,
    log_format: LogFormat = "text",
    tensorboard: TensorBoard = None,
    wandb: WandB = None,
    mlflow: MLflow = None,
    json_: Json = False,
) -> int:
    """Tune one optimizer in one regime to a certified local optimum, and write its report."""
    from tuneopt import api, console
    from tuneopt.cluster.session import check_address
    from tuneopt.display import SweepDisplay, resume_hint
    from tuneopt.ledger import open_ledger
    from tuneopt.ledger.store import mending

    watching = Watching(log_level, log_format, tensorboard, wandb, mlflow)
    api.check_names(search, scheduler, trials)
    placement = api.placement_of(ranks, zero, offload, checkpointing, scale)
    if address:
        check_address(address)
    opened = open_ledger(ledger)  # before any text is tokenized
    overrides, starts = api.parse_values(set_ or [], "--set"), api.parse_values(start or [], "--start")
    grids = {
        name: [api.parse_value(word) for word in text.split(",")]
        for name, text in api.parse_assignments(grid or [], "--grid").items()
    }
    sweep, loaded = api.plan(
        optimizer, space=space, scale=scale, ratio=ratio, corpus=corpus, overrides=overrides, grids=grids,
        starts=starts, seed=seed, replicates=replicates, policy=policy, precision=precision, compile=compile,
    )  # fmt: skip
    api.placed(sweep, placement)  # a batch that does not divide is refused before Ray starts, and by --dry-run
    if search != "coordinate":
        suffix = search if scheduler == "none" else f"{search}-{scheduler}"
        name = f"{sweep.space.optimizer}-{scale}-{ratio:g}x-{suffix}.html".replace("/", "-")
        return sampled(
            api.SampledSearch(sweep, search, scheduler), loaded, opened, output or Path("reports") / name,
            corpus=corpus, trials=trials, address=address, max_concurrent=max_concurrent,
            gpus_per_trial=gpus_per_trial, placement=placement, keep_weights=keep_weights, dry_run=dry_run, json_=json_,
            watching=watching,
        )  # fmt: skip
    if dry_run:
        return show(api.cost(sweep, loaded, opened), json_, console.cost)
    title = f"{sweep.space.optimizer} at {sweep.regime.label} on {loaded.id.name}"
    quiet = json_ or not watching.display
    with SweepDisplay(title, quiet=quiet) as display, watching.trackers() as observers:
        result = api.tune(
            sweep, opened, corpus=corpus, address=address, max_concurrent=max_concurrent,
            gpus_per_trial=gpus_per_trial, placement=placement, keep_weights=keep_weights, listener=display.update,
            observers=observers,
        )  # fmt: skip
    if result.interrupted:
        watching.say(resume_hint(sys.argv, result))
        return INTERRUPTED
    path = output or Path("reports") / f"{sweep.space.optimizer}-{scale}-{ratio:g}x.html".replace("/", "-")
    mending(opened, lambda: api.report(opened, path, [sweep.id]))
    show(api.summary(sweep, result, path), json_, console.sweep_summary)
    return DONE if result.state.descent.certificate.complete else NO_CERTIFICATE


def train(
    optimizer: Optimizer,
    space: Space = None,
    scale: ScaleName = "nano-65k",
    ratio: Ratio = 1.0,
    corpus: CorpusName = "embedded",
    ledger: LedgerUri = "ledger",
    set_: Set = None,
    seed: Seed = 0,
    precision: Precision = "fp32",
    compile: Compile = None,
    ranks: Ranks = 1,
    zero: Zero = None,
    offload: Offload = False,
    checkpointing: Checkpointing = False,
    sequences: Sequences = None,
    deterministic: Deterministic = False,
    keep_weights: KeepWeights = False,
    log_level: LogLevel = None,
    log_format: LogFormat = "text",
    tensorboard: TensorBoard = None,
    wandb: WandB = None,
    mlflow: MLflow = None,
    json_: Json = False,
) -> int:
    """Train one trial without Ray: in this process, or on several ranks of this machine."""
    from tuneopt import api, console
    from tuneopt.display import TrialDisplay
    from tuneopt.ledger import open_ledger
    from tuneopt.ledger.browse import document

    watching = Watching(log_level, log_format, tensorboard, wandb, mlflow)
    opened = open_ledger(ledger)
    spec, loaded = api.single_trial(
        optimizer, space=space, scale=scale, ratio=ratio, corpus=corpus,
        overrides=api.parse_values(set_ or [], "--set"), seed=seed, precision=precision, compile=compile,
    )  # fmt: skip
    quiet = json_ or not watching.display
    with TrialDisplay(spec, quiet=quiet) as display, watching.trackers() as observers:
        try:
            record = api.train(
                spec, loaded, opened, display.update, ranks=ranks, zero=zero, offload=offload,
                checkpointing=checkpointing, sequences=sequences, deterministic=deterministic,
                keep_weights=keep_weights, observers=observers,
            )  # fmt: skip
        except KeyboardInterrupt:
            watching.say("interrupted; run the same command again to go on from the last checkpoint")
            return INTERRUPTED
    return show(document(opened, record), json_, console.record)
