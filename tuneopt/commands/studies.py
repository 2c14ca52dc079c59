"""``tuneopt study plan|run|status``: parse, call one function of the API, print its result.

A status is printed the same way while a study runs, when it has ended and when it was simulated: all three are the same
document (`tuneopt.search.study.status`). The printers below read the JSON documents and nothing else, so that people
and scripts never see different numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneopt.commands.observing import LogFormat, LogLevel, MLflow, TensorBoard, WandB, Watching
from tuneopt.commands.options import (
    DONE,
    UNANSWERED,
    Address,
    Backend,
    Json,
    KeepWeights,
    LedgerUri,
    MaxConcurrent,
    Output,
    group,
    power_text,
    show,
    tuned_text,
)
from tuneopt.commands.places import check_places
from tuneopt.errors import InputError
from tuneopt.paths import shipped

if TYPE_CHECKING:
    from tuneopt.api.study_results import StudyResult

app = group("Studies: sweeps over optimizers and regimes in three phases, over one pool of slots.")

WORDS = {"incomplete": "not yet", "repeated": "none: seeds alone"}
"""How a cell of a table says that a sweep has no certificate, or varies nothing that could have one."""

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
    measure: Annotated[bool, typer.Option("--measure", help="Train a few steps where no speed is known.")] = False,
    json_: Json = False,
) -> int:
    """Say what a study will cost before it starts, and whether it fits."""
    from tuneopt import api
    from tuneopt.console import say
    from tuneopt.ledger import open_ledger

    study, opened = api.load_study(file, match_budget), open_ledger(ledger)
    document = api.study_plan(
        study, opened, api.Speed(tokens_per_second, mfu, peak_flops), slots=slots,
        device_bytes=_bytes(memory), most_ranks=ranks, measure=measure, note=say,
    )  # fmt: skip
    for note in api.scale_notes(study.scales.values(), opened):
        say(note)
    return show(document, json_, _print_plan)


@app.command("status")
def study_status(file: File, ledger: LedgerUri = "ledger", match_budget: Match = False, spent: Spent = False,
                 json_: Json = False) -> int:  # fmt: skip
    """Say where a study stands: phase, certificates, what is running, spent and left."""
    from tuneopt import api
    from tuneopt.console import say

    status = api.study_status(api.load_study(file, match_budget), ledger)
    show(status, json_, lambda plain: _print_status(plain, say))
    if spent and not json_:
        _print_spent(status)
    return DONE


@app.command("run")
def study_run(
    file: File,
    ledger: LedgerUri = "ledger",
    backend: Backend = "ray",
    address: Address = None,
    max_concurrent: MaxConcurrent = None,
    gpus_per_trial: Annotated[float, typer.Option("--gpus-per-trial", min=0, help="May be a fraction.")] = 0.0,
    memory: Memory = None,
    keep_weights: KeepWeights = False,
    match_budget: Match = False,
    simulate: Annotated[bool, typer.Option("--simulate", help="On surfaces and a fake clock; trains nothing.")] = False,
    stars: Annotated[Path | None, typer.Option("--stars", help="Table of stars for --simulate (JSON).")] = None,
    slots: Annotated[int, typer.Option("--slots", min=1, help="Slots of --simulate.")] = 64,
    noise: Annotated[float, typer.Option("--noise", min=0, help="Nats between seeds, for --simulate.")] = 0.0012,
    spent: Spent = False,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", help="Whom the report's speedups are over; default: the study's, or adamw."),
    ] = None,
    output: Output = None,
    log_level: LogLevel = None,
    log_format: LogFormat = "text",
    tensorboard: TensorBoard = None,
    wandb: WandB = None,
    mlflow: MLflow = None,
    json_: Json = False,
) -> int:
    """Run a study to its certificates, or to its limits, and write its report."""
    from tuneopt import api
    from tuneopt.console import pairs, report_lines
    from tuneopt.ledger import open_ledger

    watching = Watching(log_level, log_format, tensorboard, wandb, mlflow, output)
    study = api.load_study(file, match_budget)  # a mistake in the file is answered before anything else
    # The file may name others that are read: optimizers, spaces, scales, models.
    words = re.split(r"[\s,'\"\[\]{}]+", shipped(file, "studies").read_text(encoding="utf-8"))
    outputs = {"output": output, "tensorboard": tensorboard, "mlflow": mlflow}
    check_places({**outputs, "words": words, "corpus": study.corpus, "ledger": None if simulate else ledger})
    over = api.report_baseline(study, baseline)

    def draw(result: StudyResult, say: Callable[[str], None]) -> None:
        _print_status({**result.status, **({} if result.conclusion is None else result.conclusion.to_dict())}, say)
        if spent:
            _print_spent(result.status)
        if result.report:
            pairs(report_lines(result.report))

    # A simulation trains nothing, so it opens no ledger. It writes a report only where one is asked for by name, and
    # the report says what it is: no simulated figure may be taken for a result.
    if simulate:
        command = ["study", "run", str(file), "--simulate", "--slots", str(slots), "--noise", repr(noise)]
        command += [] if stars is None else ["--stars", str(stars)]
        command += [] if baseline is None else ["--baseline", baseline]
        command += ["--match-budget"] if match_budget else []
        simulated = api.simulate_study(
            study, slots=slots, stars=stars, noise=noise, report=watching.output, command=command, baseline=over
        )
        show(simulated.to_dict(), json_, lambda plain: draw(simulated, watching.say))
        return DONE if simulated.certified else UNANSWERED
    opened = open_ledger(ledger)  # what is wrong with an address is answered before anything is shown
    api.check_backend(backend, address, max_concurrent)
    for note in api.scale_notes(study.scales.values(), opened):
        watching.say(note)
    options = api.RunOptions(
        address=address, max_concurrent=max_concurrent, gpus_per_trial=gpus_per_trial, keep_weights=keep_weights
    )
    with watching.run("study", study.name, json_) as observers:
        result = api.run_study(
            study, opened, options, backend=backend, device_bytes=_bytes(memory), observers=observers
        )
    path = watching.output or Path("reports") / f"{study.name}.html".replace("/", "-")
    return watching.reported(result, opened, path, json_, draw, over)


def _bytes(gibibytes: float | None) -> int | None:
    """GiB as typed, in bytes: data sheets of devices name GiB, everything inside counts bytes."""
    if gibibytes is not None and not 0 < gibibytes < 2**30:  # NaN is no number of bytes
        raise InputError(f"--memory must be a positive number of GiB below {2**30}, not {gibibytes:g}")
    return None if gibibytes is None else int(gibibytes * 2**30)


def _print_plan(plan: Mapping[str, Any]) -> None:
    """What a study costs, and whether it fits. Warnings go to stderr, as everywhere, so that tables can be piped on."""
    from tuneopt.console import number, out, pairs, say, table
    from tuneopt.search.study.cost import size

    # First by phase and optimizer, then the sums of the phases, which name no optimizer.
    rows = [(part.get("optimizer", "all optimizers"), part)
            for part in (*plan["optimizers"], *plan["phases"])]  # fmt: skip
    table(
        ("phase", "optimizer", "trials", "tokens", "FLOPs", "device-hours"),
        [
            (part["name"], name, number(part["trials"]), number(part["tokens"]), f"{part['flops']:.2e}",
             _hours(part["device_hours"]))
            for name, part in rows
        ],
    )  # fmt: skip
    whole = plan["total"]
    out.print()
    pairs(
        {
            "in all": f"about {number(whole['trials'])} trials "
            f"({_trial_span(whole)}{plan['in_ledger']} in the ledger), {number(whole['tokens'])} tokens, "
            f"{whole['flops']:.2e} FLOPs, {_hour_span(whole)} device-hours",
            "left": _left(plan["left"], plan["slots"]),
            "on": f"{plan['slots']} slots; step times by {plan['throughput_from']}",
            "largest trial": f"{size(plan['peak_bytes'])} of memory ({plan['peak_trial']['optimizer']} at "
            f"{plan['peak_trial']['scale']})",
            "memory by scale": ", ".join(map(_scale_memory, plan["scales"]))
            + ("" if plan["device_bytes"] is None else f"; a device has {size(plan['device_bytes'])}"),
            "disk": size(plan["disk_bytes"]),
            "limits": _limits(plan["limits"]),
            **_powers(plan["power"]),
            "fits": "yes" if plan["fits"] else f"NO: {plan['why']}",
        }
    )
    for warning in plan["warnings"]:
        say(f"warning: {warning}")


def _certificate(plain: Mapping[str, Any]) -> str:
    """The state of a certificate in a cell, with its resolution where it has one."""
    from tuneopt.reporting.text import bound_text

    if plain["state"] in WORDS:
        return WORDS[plain["state"]]
    state, resolution = plain["state"], plain["resolution"]
    return state if resolution is None else f"{state} ({bound_text(resolution)} nats)"


def _print_status(status: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """The statement of a comparison; phases, best configurations so far, what is sensitive, what is spent and left."""
    from tuneopt.console import loss, out, pairs, span, table

    if "statement" in status:
        out.print(_statement(status), markup=False)
        out.print()
    table(
        ("phase", "sweeps", "certificates", "trials ended", "of about"),
        [
            (part["name"], part["regimes"], part["certificates"], part["ended"], part["trials"])
            for part in status["phases"]
        ],
    )
    out.print()
    # Sweeps of which no trial has ended yet, or all diverged, have no row: they are in the counts above.
    results = [result for result in status["results"] if result["best"]["select_loss"] is not None]
    if results:
        table(
            ("optimizer", "phase", "regime", "select loss", "report loss", "seeds", "certificate", "distance"),
            [
                # Means over the same seeds on both splits.
                (result["optimizer"], result["phase"], f"{result['scale']}/{result['ratio']:g}x",
                 loss(result["best"]["select_mean"]), loss(result["best"]["report_loss"]), result["best"]["seeds"],
                 _certificate(result["certificate"]),
                 loss(result["distance"]))
                for result in results
            ],
        )  # fmt: skip
        out.print()
    for finding in status["findings"]:
        if finding["verdicts"]:  # none before Phase I of the optimizer has ended: "none sensitive" would be a claim
            names = ", ".join(finding["sensitive"]) or "none"
            out.print(f"{finding['optimizer']} scaling-sensitive: {names}", markup=False)
    out.print()
    trials, eta = status["trials"], status["eta_seconds"]
    pairs(
        {
            **{f"{care['optimizer']} was given": tuned_text(care) for care in status.get("care", ())},
            **_powers(() if status["finished"] else status.get("power", ())),
            "phase": status["phase"],
            "trials": f"{trials['ended']} of about {trials['expected']} ended, {trials['running']} running, "
            f"{trials['reused']} reused, {trials['diverged']} diverged",
            "spent": f"{_hours(status['device_hours'])} device-hours; limits: {_limits(status['limits'])}",
            "under way": ", ".join(map(_running, status["running"])) or "nothing",
            "left": "nothing"
            if status["finished"]
            else f"about {_hours(status['remaining_device_hours'])} device-hours"
            # A rate exists only while a study runs somewhere.
            + (f", about {span(eta)} at the present rate" if eta is not None else ""),
        }
    )
    if "simulation" in status:
        _simulation(status["simulation"])
    if status.get("stopped"):
        say(f"stopped at {status['stopped']}; raise it and run the study again to go on")


def _print_spent(status: Mapping[str, Any]) -> None:
    """Where the budget went. On request alone (``--spent``): a row for each coordinate is longer than all the rest."""
    from tuneopt.console import number, table

    table(
        ("optimizer", "phase", "spent on", "trials", "diverged", "tokens", "device-hours"),
        [
            (row["optimizer"], row["phase"], row["coordinate"], row["trials"], row["diverged"], number(row["tokens"]),
             _hours(row["device_seconds"] / 3600))
            for row in status["budget"]
        ],
    )  # fmt: skip


def _powers(parts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What will be told apart, by regime and pair of optimizers."""
    places = {f"{part['scale']}/{part['ratio']:g}x" for part in parts}
    several = len(places) > 1
    return {
        f"power {part['scale']}/{part['ratio']:g}x" if several else f"power {part['optimizer']}": power_text(part)
        for part in parts
    }


def _statement(status: Mapping[str, Any]) -> str:
    """What a comparison found; while it runs, what it has found so far, if anything."""
    if status["finished"]:
        return str(status["statement"])
    if any(row["low"] is None for row in status["speedups"]) or not status["speedups"]:
        return "Nothing can be said yet: the rivals and the baseline have not all ended."
    return f"So far: {status['statement']}"


def _running(trial: Mapping[str, Any]) -> str:
    """A trial under way, by what it is for; its id would say nothing to a person."""
    what = "launched ahead"  # on a guess, so that no sweep has asked for it yet
    if trial["optimizer"] is not None:
        what = f"{trial['optimizer']} {trial['scale']}/{trial['ratio']:g}x"
    return f"{what} {trial['fraction']:.0%}"


def _scale_memory(part: Mapping[str, Any]) -> str:
    """The peak of one scale, with the ranks that it has or would need."""
    from tuneopt.search.study.cost import size

    text = f"{part['scale']} {size(part['peak_bytes'])}"
    if part["ranks"] > 1:
        text += f" on each of {part['ranks']} ranks, ZeRO {part['zero']}"
    enough = part["enough"]
    if enough is not None:
        text += f" (or {size(enough['peak_bytes'])} on each of {enough['ranks']} ranks, ZeRO {enough['zero']})"
    return text


def _simulation(plain: Mapping[str, Any]) -> None:
    """That nothing was trained, and how many surfaces rest on a star and how many on a model of one."""
    from tuneopt.console import pairs, span

    pairs(
        {
            "simulated": f"{plain['slots']} slots, utilisation {plain['utilisation']:.3f}, "
            f"{plain['seconds'] / 3600:,.0f} fake hours in {span(plain['cpu_seconds'])} of computing",
            "surfaces": "; ".join(
                f"{name}: " + ", ".join(f"{count} from a {origin}" for origin, count in counts.items())
                for name, counts in plain["surfaces"].items()
            ),
        }
    )


def _hours(hours: float | None) -> str:
    # A study of nano trials takes minutes: two digits where one decimal would round to nothing.
    return "unknown" if hours is None else f"{hours:,.1f}" if hours >= 0.1 or hours == 0 else f"{hours:.2g}"


def _hour_span(part: Mapping[str, Any]) -> str:
    """Device-hours between the fastest and the slowest that trials may be."""
    low, high = (_hours(part[name]) for name in ("device_hours_low", "device_hours_high"))
    return low if low == high else f"{low} to {high}"


def _trial_span(part: Mapping[str, Any]) -> str:
    """Between how many trials it may be, where that is not settled: a phase's findings decide the next one."""
    low, high = part["trials_low"], part["trials_high"]
    return "" if low == high else f"{low:,} to {high:,}, by how many coordinates are found to scale; "


def _left(left: Mapping[str, Any], slots: int) -> str:
    """What is still to run, and about how long that takes."""
    from tuneopt.display import spans

    if not left["trials"]:
        return "nothing"
    text = f"about {left['trials']:,} trials, {_hour_span(left)} device-hours"
    if left["device_hours"] is None:
        return text
    ends = (3600 * left[name] / slots for name in ("device_hours_low", "device_hours_high"))
    return f"{text}, {spans(*ends)} by the clock with all slots busy"


def _limits(limits: Mapping[str, float | None]) -> str:
    """The limits that a study sets. One that it does not set is left out: it is not a limit of 0."""
    return ", ".join(f"{name} {most:g}" for name, most in limits.items() if most is not None) or "none"
