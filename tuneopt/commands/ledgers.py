"""``tuneopt ledger ls|show|logs|export|verify`` and what mends, compacts and tidies a ledger.

Looking changes nothing: only ``mend``, ``compact`` and ``clean`` write, and a damaged record stops the other commands
with one sentence (docs/reliability.md). None of them makes a ledger that is not there, since a mistyped address would
look like an empty one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneopt.commands.options import BAD_INPUT, DONE, Json, LedgerUri, group, show
from tuneopt.errors import InputError

if TYPE_CHECKING:
    from tuneopt.api.ledgers import Cleaning, TableExport

app = group("Look into recorded trials.")

Place = Annotated[str | None, typer.Argument(metavar="[LEDGER]", help="The ledger; the same as --ledger.")]


@app.command("ls")
def ledger_ls(place: Place = None, ledger: LedgerUri = "ledger", json_: Json = False) -> int:
    """List the recorded trials."""
    from tuneopt.ledger import open_ledger, short_rows

    return show(short_rows(open_ledger(place or ledger, must_exist=True)), json_, _print_trials)


@app.command("show")
def ledger_show(
    trial: Annotated[str, typer.Argument(help="Trial id, or enough of its beginning.")],
    ledger: LedgerUri = "ledger",
    json_: Json = False,
) -> int:
    """Show one trial: configuration, losses, cost, proof and routing."""
    from tuneopt.ledger import browse, open_ledger

    opened = open_ledger(ledger, must_exist=True)
    return show(browse.document(opened, browse.find_finished(opened, trial)), json_, print_record)


@app.command("logs")
def ledger_logs(
    trial: Annotated[str, typer.Argument(help="Trial id, or enough of its beginning.")],
    ledger: LedgerUri = "ledger",
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Show what comes, to the trial's end.")] = False,
    json_: Json = False,
) -> int:
    """Print the log of a trial, finished or not: its workers, curve points, warnings and errors."""
    from tuneopt.ledger import logs, open_ledger
    from tuneopt.ledger.browse import find_log

    if follow and json_:
        raise InputError("--follow prints as events come, and --json one document at the end; choose one")
    opened = open_ledger(ledger, must_exist=True)
    found = find_log(opened, trial)
    if follow:
        # A remote log is put anew every `UPLOAD_SECONDS`: looking more often finds nothing.
        for event in logs.follow_log(opened, found, 1.0 if opened.is_local else logs.UPLOAD_SECONDS):
            _print_events([event])
        return DONE
    return show(logs.read_log(opened, found)[0], json_, _print_events)


@app.command("export")
def ledger_export(
    path: Annotated[Path, typer.Argument(help="File to write: .parquet, .csv, or .db for optuna-dashboard.")],
    ledger: LedgerUri = "ledger",
    json_: Json = False,
) -> int:
    """Export all trials as one table, a row each, or all sweeps as the studies of an Optuna storage."""
    from tuneopt import api
    from tuneopt.ledger import open_ledger

    done = api.export(open_ledger(ledger, must_exist=True), path)
    return show(done.to_dict(), json_, lambda plain: _print_export(done))


@app.command("verify")
def ledger_verify(place: Place = None, ledger: LedgerUri = "ledger", json_: Json = False) -> int:
    """Check every record of a ledger; exit code 2 when something is damaged."""
    from tuneopt import api, console

    found = api.verify(place or ledger)
    if found.unsealed:
        advice = "nothing shows whether they were changed since; `tuneopt ledger mend` seals them"
        console.say(f"{len(found.unsealed)} files of an earlier release are unsealed: {advice}")
    show(found.problems, json_, lambda problems: console.say("\n".join(problems) or "every record is whole"))
    return BAD_INPUT if found.problems else DONE


@app.command("mend")
def ledger_mend(place: Place = None, ledger: LedgerUri = "ledger", json_: Json = False) -> int:
    """Set damaged files aside, into damaged/, and seal what an earlier release wrote.

    The trials of damaged records run again when they are next asked for.
    """
    from tuneopt import api, console

    return show(api.mend(place or ledger), json_, lambda found: console.say("\n".join(found) or "nothing is damaged"))


@app.command("compact")
def ledger_compact(place: Place = None, ledger: LedgerUri = "ledger", json_: Json = False) -> int:
    """Write all records into one Parquet file beside them, from which large ledgers are read quickly."""
    from tuneopt import api, console

    count = api.compact(place or ledger)
    return show({"trials": count}, json_, lambda plain: console.say(f"{count} trials in compacted/trials.parquet"))


@app.command("clean")
def ledger_clean(
    place: Place = None,
    ledger: LedgerUri = "ledger",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")] = False,
    older_than: Annotated[
        float | None,
        typer.Option("--older-than", min=0, help="Days: unfinished trials' checkpoints untouched for so long go too."),
    ] = None,
    json_: Json = False,
) -> int:
    """Remove what no run needs: checkpoints of recorded trials, and leftovers of killed processes."""
    from tuneopt import api

    done = api.clean(place or ledger, dry_run=dry_run, days=older_than)
    return show(done.to_dict(), json_, lambda plain: _print_cleaning(done))


@app.command("pack")
def ledger_pack(
    path: Annotated[Path, typer.Argument(help="File to write, such as reports/my-study/ledger.parquet.")],
    ledger: LedgerUri = "ledger",
    study: Annotated[
        str | None,
        typer.Option("--study", metavar="NAME", help="Only this study's sweeps, and what they rest on."),
    ] = None,
    json_: Json = False,
) -> int:
    """Write a ledger into one file, from which reports are made as from its folder: to publish, archive or send it."""
    from tuneopt import api, console

    count = api.pack(ledger, path, study)
    told = f"{count} documents in {path}; `tuneopt report --ledger {path}` reads it"
    return show({"path": str(path), "documents": count}, json_, lambda plain: console.say(told))


@app.command("unpack")
def ledger_unpack(
    path: Annotated[Path, typer.Argument(help="A packed ledger, or the folder with its ledger.parquet.")],
    folder: Annotated[Path, typer.Argument(help="Folder to make; runs can go on in it.")],
    json_: Json = False,
) -> int:
    """Unfold a packed ledger into a folder that can grow."""
    from tuneopt import api, console

    count = api.unpack(path, folder)
    told = {"ledger": str(folder), "documents": count}
    return show(told, json_, lambda plain: console.say(f"{count} documents in {folder}"))


def _print_export(done: TableExport) -> None:
    from tuneopt.api.ledgers import OptunaExport
    from tuneopt.console import say

    if not isinstance(done, OptunaExport):
        say(f"{done.trials} trials written to {done.path}")
        return
    say(f"{done.trials} trials in {len(done.studies)} studies of {done.path}, {done.added} of them new")
    if done.left_out:  # else a count below that of `ledger ls` would look like a loss
        say(f"{done.left_out} trials belong to no sweep and are in no study")
    say(f"look at it with: optuna-dashboard sqlite:///{done.path}")


def _print_cleaning(done: Cleaning) -> None:
    from tuneopt.console import say

    # Each with its reason: what a dry run shows is what somebody decides on.
    verb = "removed" if done.removed else "would go"
    for leftover in done.leftovers:
        say(f"{verb}: {leftover.name} ({leftover.bytes / 2**20:.1f} MiB): {leftover.why}")
    count = len(done.leftovers)
    say(f"{verb}: {count} leftovers, {done.bytes / 2**20:.1f} MiB" if count else "nothing is left over")


def _print_trials(rows: Sequence[Mapping[str, Any]]) -> None:
    from tuneopt.console import say, table

    if not rows:  # a head without rows would look like output that was cut off
        say("no trials yet")
        return
    # The columns are those of `short_rows`, the same for every row and for ``--json``.
    table(tuple(rows[0]), [[_cell(name, value) for name, value in row.items()] for row in rows])


def _print_events(logged: Iterable[Mapping[str, Any]]) -> None:
    from tuneopt.console import out
    from tuneopt.ledger.logs import line

    for event in logged:
        out.print(line(event), markup=False)


def _cell(name: str, value: Any) -> str:
    from tuneopt.console import loss

    if isinstance(value, float):
        return loss(value) if name.endswith("loss") else f"{value:g}"
    return "-" if value is None else str(value)


def _unproven(proof: Mapping[str, Any]) -> str:
    """Why a trial's proof did not pass; records of older releases do not say."""
    if proof.get("status") == "not measurable":
        return f"not measurable: {proof['reason']}"
    return f"FAILED: {proof['reason']}" if proof.get("reason") else "FAILED"


def unfit(plain: Mapping[str, Any]) -> str:
    """Why a trial, as `tuneopt.ledger.browse.document` describes it, may not be compared with others."""
    if plain["status"] != "completed":
        return "it diverged, so it has no loss; try a lower learning rate"
    return f"its update check {_unproven(plain['proof'])}" if plain["proof"] else "it has no update check"


def print_record(plain: Mapping[str, Any]) -> None:
    """Show one trial whole, as `tuneopt.ledger.browse.document` describes it; also the end of ``tuneopt train``.

    Checks and routes come last and in full: they are the evidence that the named optimizer ran, and they are long.
    """
    from tuneopt.console import loss, number, pairs, span, table
    from tuneopt.spec import Regime

    spec = plain["spec"]
    bits = Regime.from_dict(spec["regime"]).bits_per_byte(plain["report_loss"])
    regime, seconds = spec["regime"], plain["seconds"]
    proof = plain["proof"]
    pairs(
        {
            "trial": f"{plain['trial']} ({plain['status']})",
            "optimizer": spec["optimizer"],
            "regime": f"{regime['scale']['name']}, ratio {regime['ratio']:g}, corpus {regime['corpus']['name']}, "
            f"seed {spec['seed']}" + (f", data seed {spec['data_seed']}" if "data_seed" in spec else ""),
            "config": ", ".join(f"{name}={value}" for name, value in spec["hyperparameters"].items()),
            "loss": f"select {loss(plain['select_loss'])}, report {loss(plain['report_loss'])} nats/token "
            # What divergence is measured by, and how far training came.
            f"(untrained {loss(plain['initial_loss'])})" + ("" if bits is None else f"; report {bits:.4f} bits/byte"),
            "cost": f"{number(plain['tokens'], 'tokens')} ({plain['epochs']:.2f} epochs), {plain['flops']:.2e} FLOPs, "
            f"{span(seconds['train'])} training, {span(seconds['eval'])} evaluation, "
            f"{number(plain['tokens_per_second'], 'tokens/s')}",
            "proof": "none" if proof is None else "passed" if proof["passed"] else _unproven(proof),
            "ended": f"{plain['ended']}, resumed {plain['resumes']} times",
            "seal": "fits" if plain.get("sealed", True) else "none: recorded by a release before seals, unsealed",
            "log": plain["log"] or "none: recorded by a release that wrote no logs",
        }
    )
    if proof:
        table(
            ("check", "", "measured", "expected"),
            [(c["name"], "ok" if c["passed"] else "FAILED", c["measured"], c["expected"]) for c in proof["checks"]],
        )
    table(
        ("parameter", "shape", "rule", "decay", "reason"),
        [
            (route["parameter"], "x".join(map(str, route["shape"])), route["rule"], route["decay"], route["reason"])
            for route in plain["routing"]
        ],
    )
