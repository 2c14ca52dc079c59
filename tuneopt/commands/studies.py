"""``tuneopt study plan|run|status``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from tuneopt.commands.observing import LogFormat, LogLevel, MLflow, TensorBoard, WandB, Watching
from tuneopt.commands.options import DONE, INTERRUPTED, NO_CERTIFICATE, Json, KeepWeights, LedgerUri, group, show

app = group("Studies: sweeps over optimizers and regimes in three phases, over one pool of slots.")

File = Annotated[Path, typer.Argument(help="Study file, such as studies/smoke.yaml.")]
Match = Annotated[
    bool, typer.Option("--match-budget", help="Give each optimizer as many trials as the one that took most.")
]
Slots = Annotated[int | None, typer.Option("--slots", min=1, help="Trials at once; default: this machine's cores.")]
Memory = Annotated[
    float | None, typer.Option("--memory", "--device-memory", min=0, help="GiB that each slot's device has.")
]
Spent = Annotated[bool, typer.Option("--spent", help="Also show the cost by optimizer and coordinate.")]


@app.command("plan")
def study_plan(
    file: File,
    ledger: LedgerUri = "ledger",
    tokens_per_second: Annotated[
        float | None, typer.Option("--tokens-per-second", help="Of one trial at the smallest scale.")
    ] = None,
    mfu: Annotated[float | None, typer.Option("--mfu", help="Share of --peak-flops that training reaches.")] = None,
    peak_flops: Annotated[float | None, typer.Option("--peak-flops", help="FLOPs per second of a slot.")] = None,
    memory: Memory = None,
    slots: Slots = None,
    ranks: Annotated[int, typer.Option("--ranks", min=1, help="Most devices of one trial to be considered.")] = 64,
    match_budget: Match = False,
    json_: Json = False,
) -> int:
    """Say what a study will cost before it starts, and whether it fits."""
    from tuneopt import api, console

    document = api.study_plan(
        api.load_study(file, match_budget), ledger, api.Speed(tokens_per_second, mfu, peak_flops), slots=slots,
        device_bytes=_bytes(memory), most_ranks=ranks,
    )  # fmt: skip
    return show(document, json_, console.study_plan)


@app.command("status")
def study_status(file: File, ledger: LedgerUri = "ledger", match_budget: Match = False, spent: Spent = False,
                 json_: Json = False) -> int:  # fmt: skip
    """Say where a study stands: phase, certificates, what is running, spent and left."""
    from tuneopt import api, console

    status = api.study_status(api.load_study(file, match_budget), ledger)
    show(status, json_, console.study_status)
    if spent and not json_:
        console.study_spent(status)
    return DONE


@app.command("run")
def study_run(
    file: File,
    ledger: LedgerUri = "ledger",
    address: Annotated[str | None, typer.Option("--address", help="Ray cluster; default: this machine.")] = None,
    max_concurrent: Annotated[int | None, typer.Option("--max-concurrent", min=1, help="Trials at once.")] = None,
    gpus_per_trial: Annotated[float, typer.Option("--gpus-per-trial", min=0, help="May be a fraction.")] = 0.0,
    memory: Memory = None,
    keep_weights: KeepWeights = False,
    match_budget: Match = False,
    simulate: Annotated[bool, typer.Option("--simulate", help="On surfaces and a fake clock; trains nothing.")] = False,
    stars: Annotated[Path | None, typer.Option("--stars", help="Table of stars for --simulate (JSON).")] = None,
    slots: Annotated[int, typer.Option("--slots", min=1, help="Slots of --simulate.")] = 64,
    noise: Annotated[float, typer.Option("--noise", min=0, help="Nats between seeds, for --simulate.")] = 0.0012,
    spent: Spent = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Report file; default: in reports/.")] = None,
    log_level: LogLevel = None,
    log_format: LogFormat = "text",
    tensorboard: TensorBoard = None,
    wandb: WandB = None,
    mlflow: MLflow = None,
    json_: Json = False,
) -> int:
    """Run a study to its certificates, or to its limits, and write its report."""
    from tuneopt import api, console
    from tuneopt.cluster.session import check_address
    from tuneopt.display import StudyDisplay, resume_hint
    from tuneopt.ledger import open_ledger
    from tuneopt.ledger.store import mending

    watching = Watching(log_level, log_format, tensorboard, wandb, mlflow)
    study = api.load_study(file, match_budget)
    if simulate:
        status = api.simulate_study(study, slots=slots, stars=stars, noise=noise)
        return _ended(status, spent, json_)
    opened = open_ledger(ledger)  # what is wrong with an address is answered before anything is shown
    if address:
        check_address(address)
    quiet = json_ or not watching.display
    with StudyDisplay(study.name, quiet=quiet) as display, watching.trackers() as observers:
        result, status = api.run_study(
            study, ledger, address=address, max_concurrent=max_concurrent, gpus_per_trial=gpus_per_trial,
            device_bytes=_bytes(memory), keep_weights=keep_weights, listener=display.update, observers=observers,
        )  # fmt: skip
    if result.interrupted:
        watching.say(resume_hint(sys.argv, result))
        return INTERRUPTED
    path = output or Path("reports") / f"{study.name}.html".replace("/", "-")
    sweeps = list(dict.fromkeys(row["sweep"] for row in status["results"]))
    mending(opened, lambda: api.report(opened, path, sweeps))
    document = {
        **status,
        "stopped": result.stopped,
        "run": len(result.run),
        "failed": result.failed,
        "utilisation": result.utilisation,
        "seconds": result.wall_seconds,
        "report": str(path),
    }
    code = _ended(document, spent, json_)
    if not json_:
        console.out.print(f"report: {path}", markup=False)
    return code


def _bytes(gibibytes: float | None) -> int | None:
    return None if gibibytes is None else int(gibibytes * 2**30)


def _ended(status: dict[str, object], spent: bool, json_: bool) -> int:
    """Show how a study ended; exit code 3 unless every sweep holds its certificate."""
    from tuneopt import console

    show(status, json_, console.study_status)
    if spent and not json_:
        console.study_spent(status)
    results = status["results"]
    assert isinstance(results, list), "a status lists its results"
    complete = status["finished"] and all(result["certificate"]["complete"] for result in results)
    return DONE if complete else NO_CERTIFICATE
