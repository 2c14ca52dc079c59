"""The command line. Thin: each command parses, calls the API, prints. Heavy imports wait until a command runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tuneopt.spec import InputError

DONE, BAD_INPUT, NO_CERTIFICATE, INTERRUPTED = 0, 2, 3, 130

app = typer.Typer(
    name="tuneopt",
    help="Fair comparisons of language-model pretraining optimizers, on a laptop or a Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
ledger_app = typer.Typer(help="Look into recorded trials.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(ledger_app, name="ledger")
data_app = typer.Typer(help="Prepare and inspect corpora.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(data_app, name="data")

Optimizer = Annotated[str, typer.Option("--optimizer", "-O", help="Optimizer, as `tuneopt optimizers` lists them.")]
ScaleName = Annotated[str, typer.Option("--scale", help="Model scale: nano-65k ... nano-1m, 130m ... 1.2b.")]
Ratio = Annotated[float, typer.Option("--ratio", help="Tokens over the Chinchilla optimum (20 per parameter).")]
CorpusName = Annotated[str, typer.Option("--corpus", help="`embedded`, or a folder of .txt, .jsonl or .parquet.")]
LedgerUri = Annotated[str, typer.Option("--ledger", help="Where trial records are kept: a folder, s3:// or gs://.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Pin a coordinate; repeatable.")]
Grid = Annotated[list[str] | None, typer.Option("--grid", metavar="NAME=V1,V2", help="Replace a grid; repeatable.")]
Start = Annotated[list[str] | None, typer.Option("--start", metavar="NAME=VALUE", help="Begin there; repeatable.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of weights and data order.")]
Compile = Annotated[bool | None, typer.Option("--compile/--no-compile", help="torch.compile; default: if possible.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else there.")]


@app.command()
def tune(
    optimizer: Optimizer,
    scale: ScaleName = "nano-65k",
    ratio: Ratio = 1.0,
    corpus: CorpusName = "embedded",
    ledger: LedgerUri = "ledger",
    set_: Set = None,
    grid: Grid = None,
    start: Start = None,
    policy: Annotated[str, typer.Option("--policy", help="Descent policy: joint, single or cyclic.")] = "joint",
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
    from tuneopt.display import SweepDisplay, resume_hint

    overrides, starts = api.parse_values(set_ or [], "--set"), api.parse_values(start or [], "--start")
    grids = {
        name: [api.parse_value(word) for word in text.split(",")]
        for name, text in api.parse_assignments(grid or [], "--grid").items()
    }
    sweep, loaded = api.plan(
        optimizer, scale=scale, ratio=ratio, corpus=corpus, overrides=overrides, grids=grids, starts=starts,
        seed=seed, replicates=replicates, policy=policy, compile=compile,
    )  # fmt: skip
    opened = _ledger(ledger)
    if dry_run:
        return _print(api.cost(sweep, loaded, opened), json_, console.cost)
    with SweepDisplay(f"{optimizer} at {sweep.regime.label} on {loaded.id.name}", quiet=json_) as display:
        result = api.tune(
            sweep, opened, corpus=corpus, address=address, max_concurrent=max_concurrent,
            gpus_per_trial=gpus_per_trial, listener=display.update,
        )  # fmt: skip
    if result.interrupted:
        console.say(resume_hint(sys.argv, result))
        return INTERRUPTED
    path = output or Path("reports") / f"{optimizer}-{scale}-{ratio:g}x.html".replace("/", "-")
    api.report(opened, path, [sweep.id])
    _print(api.summary(sweep, result, path), json_, console.sweep_summary)
    return DONE if result.state.descent.certificate.complete else NO_CERTIFICATE


@app.command()
def train(
    optimizer: Optimizer,
    scale: ScaleName = "nano-65k",
    ratio: Ratio = 1.0,
    corpus: CorpusName = "embedded",
    ledger: LedgerUri = "ledger",
    set_: Set = None,
    seed: Seed = 0,
    compile: Compile = None,
    json_: Json = False,
) -> int:
    """Train one trial in this process, without Ray."""
    from tuneopt import api, console
    from tuneopt.display import TrialDisplay

    spec, loaded = api.single_trial(
        optimizer, scale=scale, ratio=ratio, corpus=corpus, overrides=api.parse_values(set_ or [], "--set"),
        seed=seed, compile=compile,
    )  # fmt: skip
    opened = _ledger(ledger)
    with TrialDisplay(spec, quiet=json_) as display:
        try:
            record = api.train(spec, loaded, opened, display.update)
        except KeyboardInterrupt:
            console.say("interrupted; run the same command again to go on from the last checkpoint")
            return INTERRUPTED
    return _print(record.to_dict(), json_, console.record)


@app.command()
def report(
    ledger: LedgerUri = "ledger",
    output: Annotated[Path, typer.Option("-o", "--output", help="HTML file to write.")] = Path("reports/report.html"),
    json_: Json = False,
) -> int:
    """Write the one-file HTML report of everything in a ledger."""
    from tuneopt import api, console

    return _print(api.report(ledger, output), json_, lambda summary: console.report_summary(summary, output))


@app.command()
def optimizers(json_: Json = False) -> int:
    """List the optimizers: family, fallback rule, source, state bytes per parameter."""
    from dataclasses import asdict

    from tuneopt import console
    from tuneopt.optim import info

    return _print([asdict(entry) for entry in info()], json_, console.optimizers)


@app.command()
def space(
    name: Annotated[str, typer.Argument(help="Optimizer, or a path to a search-space module.")], json_: Json = False
) -> int:
    """Print a search space: grids and starts of both ladders, and the published tuned points."""
    from tuneopt import console
    from tuneopt.search import load_space

    return _print(load_space(name).describe(), json_, console.space)


@app.command()
def doctor(
    address: Annotated[str | None, typer.Option("--address", help="Also look at the Ray cluster there.")] = None,
    json_: Json = False,
) -> int:
    """Say what this machine or cluster can run, and what is missing."""
    from tuneopt import console
    from tuneopt.cluster.doctor import examine

    findings = [finding.to_dict() for finding in examine(address)]
    _print(findings, json_, console.findings)
    return BAD_INPUT if any(finding["status"] == "missing" for finding in findings) else DONE


@ledger_app.command("ls")
def ledger_ls(ledger: LedgerUri = "ledger", json_: Json = False) -> int:
    """List the recorded trials."""
    from tuneopt import console
    from tuneopt.ledger import open_ledger, short_rows

    return _print(short_rows(open_ledger(ledger, must_exist=True)), json_, console.trials)


@ledger_app.command("show")
def ledger_show(
    trial: Annotated[str, typer.Argument(help="Trial id, or enough of its beginning.")],
    ledger: LedgerUri = "ledger",
    json_: Json = False,
) -> int:
    """Show one trial: configuration, losses, cost, proof and routing."""
    from tuneopt import console
    from tuneopt.ledger import find_record, open_ledger

    return _print(find_record(open_ledger(ledger, must_exist=True), trial).to_dict(), json_, console.record)


@ledger_app.command("export")
def ledger_export(
    path: Annotated[Path, typer.Argument(help="File to write: .parquet or .csv.")], ledger: LedgerUri = "ledger"
) -> int:
    """Export all trials as one table, a row each."""
    from tuneopt import console
    from tuneopt.ledger import open_ledger

    rows = open_ledger(ledger, must_exist=True).export(path)
    console.say(f"{rows} trials written to {path}")
    return DONE


@ledger_app.command("verify")
def ledger_verify(ledger: LedgerUri = "ledger", json_: Json = False) -> int:
    """Check every record of a ledger; exit code 2 when something is damaged."""
    from tuneopt import console
    from tuneopt.ledger import open_ledger

    problems = open_ledger(ledger, must_exist=True).verify()
    _print(problems, json_, lambda found: console.say("\n".join(found) or "every record is whole"))
    return BAD_INPUT if problems else DONE


@data_app.command("inspect")
def data_inspect(
    corpus: CorpusName = "embedded",
    scale: ScaleName = "nano-65k",
    ratio: Ratio = 1.0,
    json_: Json = False,
) -> int:
    """Show a corpus: documents, tokens, bytes per token, splits, and the epochs that a budget takes."""
    from tuneopt import api, console

    return _print(api.inspect_corpus(corpus, scale, ratio), json_, console.corpus)


def _ledger(uri: str) -> Any:
    from tuneopt.ledger import open_ledger

    return open_ledger(uri)


def _print(document: Any, as_json: bool, show: Any) -> int:
    if as_json:
        sys.stdout.write(json.dumps(document, indent=2, sort_keys=False, allow_nan=False) + "\n")
    else:
        show(document)
    return DONE


def main() -> None:
    """Run the command line; bad input ends in one line on stderr and exit code 2, never in a traceback."""
    try:
        code = app(standalone_mode=False)
    except InputError as error:
        code = _refuse(str(error))
    except typer.TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        code = _refuse(message.rstrip(".") + "; see `tuneopt --help`") if message else BAD_INPUT
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    sys.exit(code if isinstance(code, int) else DONE)


def _refuse(sentence: str) -> int:
    sys.stderr.write("tuneopt: " + " ".join(sentence.split()) + "\n")
    return BAD_INPUT
