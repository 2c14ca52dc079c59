"""``tuneopt tune`` and ``tuneopt train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tuneopt.commands.options import (
    DONE,
    INTERRUPTED,
    NO_CERTIFICATE,
    Compile,
    CorpusName,
    Grid,
    Json,
    LedgerUri,
    Optimizer,
    Ratio,
    ScaleName,
    Seed,
    Set,
    Space,
    Start,
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
    gpus_per_trial: Annotated[float, typer.Option("--gpus-per-trial", min=0, help="May be a fraction.")] = 0.0,
    compile: Compile = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Report file; default: in reports/.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its cost, run nothing.")] = False,
    json_: Json = False,
) -> int:
    """Tune one optimizer in one regime to a certified local optimum, and write its report."""
    from tuneopt import api, console
    from tuneopt.cluster.session import check_address
    from tuneopt.display import SweepDisplay, resume_hint
    from tuneopt.ledger import open_ledger

    api.check_names(search, scheduler, trials)
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
        starts=starts, seed=seed, replicates=replicates, policy=policy, compile=compile,
    )  # fmt: skip
    if search != "coordinate":
        suffix = search if scheduler == "none" else f"{search}-{scheduler}"
        name = f"{sweep.space.optimizer}-{scale}-{ratio:g}x-{suffix}.html".replace("/", "-")
        return sampled(
            api.SampledSearch(sweep, search, scheduler), loaded, opened, output or Path("reports") / name,
            corpus=corpus, trials=trials, address=address, max_concurrent=max_concurrent,
            gpus_per_trial=gpus_per_trial, dry_run=dry_run, json_=json_,
        )  # fmt: skip
    if dry_run:
        return show(api.cost(sweep, loaded, opened), json_, console.cost)
    with SweepDisplay(f"{sweep.space.optimizer} at {sweep.regime.label} on {loaded.id.name}", quiet=json_) as display:
        result = api.tune(
            sweep, opened, corpus=corpus, address=address, max_concurrent=max_concurrent,
            gpus_per_trial=gpus_per_trial, listener=display.update,
        )  # fmt: skip
    if result.interrupted:
        console.say(resume_hint(sys.argv, result))
        return INTERRUPTED
    path = output or Path("reports") / f"{sweep.space.optimizer}-{scale}-{ratio:g}x.html".replace("/", "-")
    api.report(opened, path, [sweep.id])
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
    compile: Compile = None,
    ranks: Annotated[int, typer.Option("--ranks", min=1, help="Processes, one for each GPU.")] = 1,
    zero: Annotated[int, typer.Option("--zero", min=0, max=3, help="ZeRO stage; 0 is plain data parallel.")] = 0,
    offload: Annotated[bool, typer.Option("--offload", help="With ZeRO: keep state in host memory.")] = False,
    json_: Json = False,
) -> int:
    """Train one trial without Ray: in this process, or on several ranks of this machine."""
    from tuneopt import api, console
    from tuneopt.display import TrialDisplay
    from tuneopt.ledger import open_ledger

    opened = open_ledger(ledger)
    spec, loaded = api.single_trial(
        optimizer, space=space, scale=scale, ratio=ratio, corpus=corpus,
        overrides=api.parse_values(set_ or [], "--set"), seed=seed, compile=compile,
    )  # fmt: skip
    with TrialDisplay(spec, quiet=json_) as display:
        try:
            record = api.train(spec, loaded, opened, display.update, ranks=ranks, zero=zero, offload=offload)
        except KeyboardInterrupt:
            console.say("interrupted; run the same command again to go on from the last checkpoint")
            return INTERRUPTED
    return show(record.to_dict(), json_, console.record)
