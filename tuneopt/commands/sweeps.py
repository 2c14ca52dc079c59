"""``tuneopt tune`` and ``tuneopt train``: parse, call one function of the API, print its result.

Order matters at the start of a command. What a user mistyped is answered before anything slow or lasting happens: names
and bounds first, then the ledger's address, then what can run at all, and only then is text tokenized or Ray started.

A command's docstring and its options' texts are its ``--help``. Imports of the API wait inside the functions, because
``--help`` has to answer without torch or Ray.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tuneopt.commands.ledgers import print_record, unfit
from tuneopt.commands.observing import LogFormat, LogLevel, MLflow, TensorBoard, WandB, Watching
from tuneopt.commands.options import (
    DONE,
    INTERRUPTED,
    UNANSWERED,
    Address,
    Backend,
    Checkpointing,
    Compile,
    Coordinates,
    CorpusName,
    DataSeed,
    Deterministic,
    Grid,
    Json,
    KeepWeights,
    LedgerUri,
    MaxConcurrent,
    ModelFile,
    ModelSet,
    Offload,
    Optimizer,
    Output,
    Precision,
    Quick,
    Ranks,
    Ratio,
    Route,
    ScaleName,
    Seed,
    Sequences,
    Set,
    Space,
    Start,
    Steps,
    TokenizerFile,
    Tokens,
    Zero,
    parse_coordinates,
    parse_count,
    parse_grids,
    parse_model,
    parse_values,
    power_text,
    show,
)

if TYPE_CHECKING:
    from tuneopt.api.results import SweepCost, SweepResult
    from tuneopt.search.descent import Certificate
    from tuneopt.search.state import Best


def tune(
    optimizer: Optimizer,
    space: Space = None,
    scale: ScaleName = "nano-65k",
    model: ModelFile = None,
    model_set: ModelSet = None,
    route: Route = None,
    ratio: Ratio = None,
    tokens: Tokens = None,
    steps: Steps = None,
    coordinates: Coordinates = None,
    quick: Quick = False,
    corpus: CorpusName = "embedded",
    tokenizer: TokenizerFile = None,
    ledger: LedgerUri = "ledger",
    set_: Set = None,
    grid: Grid = None,
    start: Start = None,
    policy: Annotated[str, typer.Option("--policy", help="Descent policy: joint, single, cyclic or model.")] = "joint",
    search: Annotated[
        str, typer.Option("--search", help="coordinate; or tpe, random, gp: no certificate.")
    ] = "coordinate",
    scheduler: Annotated[
        str, typer.Option("--scheduler", help="none; or asha: cuts trials by losses on the way.")
    ] = "none",
    trials: Annotated[int | None, typer.Option("--trials", min=1, help="Trials of --search tpe, random or gp.")] = None,
    replicates: Annotated[int, typer.Option("--replicates", min=1, help="Seeds of the start and the winner.")] = 3,
    resolution: Annotated[
        float | None,
        typer.Option("--resolution", help="Nats that the certificate is to see; by default what the scale affords."),
    ] = None,
    max_trials: Annotated[int | None, typer.Option("--max-trials", min=1, help="Stop after so many trials.")] = None,
    hours: Annotated[
        float | None, typer.Option("--hours", help="Stop when trials have taken so many hours of all slots.")
    ] = None,
    seed: Seed = 0,
    backend: Backend = "ray",
    address: Address = None,
    max_concurrent: MaxConcurrent = None,
    gpus_per_trial: Annotated[
        float, typer.Option("--gpus-per-trial", min=0, help="May be a fraction; with --ranks, of each rank.")
    ] = 0.0,
    ranks: Ranks = 1,
    zero: Zero = None,
    offload: Offload = False,
    checkpointing: Checkpointing = False,
    keep_weights: KeepWeights = False,
    precision: Precision = None,
    compile: Compile = None,
    output: Output = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and its cost, run nothing.")] = False,
    measure: Annotated[bool, typer.Option("--measure", help="With --dry-run: time a few real steps.")] = False,
    log_level: LogLevel = None,
    log_format: LogFormat = "text",
    tensorboard: TensorBoard = None,
    wandb: WandB = None,
    mlflow: MLflow = None,
    json_: Json = False,
) -> int:
    """Tune one optimizer in one regime to a certified local optimum, and write its report."""
    from tuneopt import api
    from tuneopt.ledger import open_ledger

    watching = Watching(log_level, log_format, tensorboard, wandb, mlflow, output)
    api.check_names(search, scheduler, trials)
    api.check_budget(search, resolution, max_trials, hours)
    api.check_backend(backend, address, max_concurrent)
    opened = open_ledger(ledger)
    shape = parse_model(scale, model, model_set, route)
    placement = api.placement_of(ranks, zero, offload, checkpointing, shape)
    sweep, loaded = api.plan(
        optimizer, space=space, scale=shape, ratio=ratio, corpus=corpus, tokenizer=tokenizer,
        tokens=parse_count(tokens, "--tokens"), steps=parse_count(steps, "--steps"),
        coordinates=parse_coordinates(coordinates, quick),
        overrides=parse_values(set_ or [], "--set"), grids=parse_grids(grid or []),
        starts=parse_values(start or [], "--start"), seed=seed, replicates=replicates, policy=policy,
        precision=precision, compile=compile, resolution=resolution,
    )  # fmt: skip
    for note in api.scale_notes([sweep.regime.scale], opened):
        watching.say(note)
    # A sampled search ends after a number of trials; coordinate descent ends with its certificate.
    sampled = None if search == "coordinate" else api.SampledSearch(sweep, search, scheduler)
    # The page's name, and that the batch divides among the ranks, are known before anything runs.
    path = watching.output or Path("reports") / f"{api.page_name(sweep, sampled)}.html"
    options = api.RunOptions(
        ledger=opened, corpus=api.encoded_corpus(corpus, tokenizer), address=address, max_concurrent=max_concurrent,
        gpus_per_trial=gpus_per_trial, parallel=api.placed(sweep, placement), keep_weights=keep_weights,
    )  # fmt: skip
    if dry_run:
        cost = api.cost(sweep, loaded, opened, sampled, trials, measure=measure, options=options, note=watching.say)
        return show(cost.to_dict(), json_, lambda plain: _print_cost(cost))
    title = f"{sweep.space.optimizer} at {sweep.regime.label} on {loaded.id.name}"
    if sweep.regime.asked:
        title += f", {sweep.regime.asked}"
    if sampled is not None:
        title += f" by {search}"
        if trials is None and not json_:  # a number that nobody asked for is said before it is spent
            watching.say(f"{search} gets {sampled.expected} trials: what coordinate descent is expected to need")
    with watching.run("tuning", title, json_) as observers:
        result: SweepResult
        if sampled is None:
            result = api.tune(sweep, opened, options, backend=backend, observers=observers, max_trials=max_trials,
                              hours=hours)  # fmt: skip
        else:
            result = api.sample(sampled, opened, options, trials=trials, backend=backend, observers=observers)
    return watching.reported(result, opened, path, json_, _print_result)


def train(
    optimizer: Optimizer,
    space: Space = None,
    scale: ScaleName = "nano-65k",
    model: ModelFile = None,
    model_set: ModelSet = None,
    route: Route = None,
    ratio: Ratio = None,
    tokens: Tokens = None,
    steps: Steps = None,
    corpus: CorpusName = "embedded",
    tokenizer: TokenizerFile = None,
    ledger: LedgerUri = "ledger",
    set_: Set = None,
    seed: Seed = 0,
    data_seed: DataSeed = None,
    precision: Precision = None,
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
    from tuneopt import api
    from tuneopt.display import TrialDisplay
    from tuneopt.ledger import open_ledger
    from tuneopt.ledger.browse import document

    watching = Watching(log_level, log_format, tensorboard, wandb, mlflow)
    opened = open_ledger(ledger)
    spec, loaded = api.single_trial(
        optimizer, space=space, scale=parse_model(scale, model, model_set, route), ratio=ratio, corpus=corpus,
        tokenizer=tokenizer,
        tokens=parse_count(tokens, "--tokens"), steps=parse_count(steps, "--steps"),
        overrides=parse_values(set_ or [], "--set"), seed=seed, data_seed=data_seed, precision=precision,
        compile=compile,
    )  # fmt: skip
    for note in api.scale_notes([spec.regime.scale], opened):
        watching.say(note)
    # A single trial shows its curve points, a line each: a bar would hide the numbers that one looks at.
    quiet = json_ or not watching.display
    with TrialDisplay(spec, quiet=quiet) as display, watching.trackers() as trackers:
        try:
            record = api.train(
                spec, loaded, opened, ranks=ranks, zero=zero, offload=offload, checkpointing=checkpointing,
                sequences=sequences, deterministic=deterministic, keep_weights=keep_weights,
                observers=[display, *trackers],
            )  # fmt: skip
        except KeyboardInterrupt:
            watching.say("interrupted; run the same command again to go on from the last checkpoint")
            return INTERRUPTED
    show(document(opened, record), json_, print_record)
    if not record.comparable:
        # As a sweep without a certificate does: scripts are not to take such a trial for an answer.
        watching.say(f"trial {record.spec.id} cannot be compared: {unfit(document(opened, record))}")
        return UNANSWERED
    return DONE


def _print_cost(cost: SweepCost) -> None:
    """What a sweep will cost, with where each estimate comes from: an estimate without its source invites trust."""
    from tuneopt.console import number, pairs, say
    from tuneopt.display import between

    regime, rate = cost.regime, cost.tokens_per_second
    pairs(
        {
            "sweep": f"{cost.optimizer} at {regime.scale.name}, ratio {regime.ratio:g}, corpus {regime.corpus.name}"
            + (f"; asked: {regime.asked}" if regime.asked else ""),
            "first wave": f"{cost.first_wave} trials" + ("" if cost.search else " (the start, its seeds, its star)"),
            "expected in all": f"{between(cost.fewest, cost.most)} trials, {cost.in_ledger} of them in the ledger",
            "per trial": f"{number(regime.tokens, 'tokens')}, {number(cost.steps, 'steps')}, "
            f"{regime.flops:.2e} FLOPs, {cost.epochs:.2f} epochs of the corpus",
            "throughput": f"{number(rate, 'tokens/s')} per slot, by {cost.throughput_from}"
            if rate
            else cost.throughput_from,
            "expected time": _time_text(cost),
            **({} if cost.power is None else {"power": power_text(cost.power.to_dict())}),
        }
    )
    # Warnings go to stderr, here and below: a table that is piped on stays a table.
    for warning in cost.warnings:
        say(f"warning: {warning}")


def _time_text(cost: SweepCost) -> str:
    """From the fewest trials that a sweep usually takes to the most, and from the fastest that they may be."""
    from tuneopt.display import spans

    if cost.ends is None:
        return "unknown"
    if cost.ends[1] == 0:
        return "none: all trials are in the ledger"
    more = " (more trials, or slower ones, take longer)" if cost.search is None else ""
    return f"{spans(*cost.ends)} by the clock on {cost.slots} slots{more}"


def _print_result(result: SweepResult, say: Callable[[str], None]) -> None:
    """How a sweep or a search ended, and by ``say`` what must be said with the result of a search.

    The certificate is named in every case, complete or not, since the best loss alone does not say whether it may be
    compared. The whole configuration is shown and not what changed: it is what a reader copies.
    """
    from tuneopt.api.results import SearchResult
    from tuneopt.console import pairs, report_lines, span

    best = result.state.best
    marks: tuple[str, ...] = ()
    if isinstance(result, SearchResult):
        search = result.search
        marks = result.marks  # what a reader has to know of a search
        under = "" if search.scheduler == "none" else f" under {search.scheduler}, {len(result.cut)} cut"
        pairs({"search": f"{search.search}{under}, a budget of {result.budget} trials"})
    use = result.utilisation  # None where every trial was in the ledger
    pairs(
        {
            "best": _best_text(best) + _in_bits(best) if best else "none: no trial can win",
            "config": ", ".join(f"{name}={value}" for name, value in best.spec.config.items()) if best else "",
            "certificate": _certificate_text(result.state.certificate) + _asked_about(result),
            "trials": f"{len(result.run)} run, {len(result.reused)} reused, {len(result.diverged)} diverged, "
            f"{len(result.failed)} failed, in {result.state.progress.waves} waves and {span(result.wall_seconds)}",
            "slot utilisation": "nothing ran" if use is None else f"{use:.2f}",
            **report_lines(result.report),
        }
    )
    if result.stopped:
        say(f"stopped at {result.stopped}; a larger limit goes on from here")
    # A trial that failed has no record: its log is all there is.
    for trial, error in result.failed.items():
        say(f"trial {trial} failed: {error}; see `tuneopt ledger logs {trial}`")
    for mark in marks:
        say(f"note: {mark}")


def _in_bits(best: Best) -> str:
    """The report loss in bits per byte, where the corpus told its bytes."""
    bits = best.spec.regime.bits_per_byte(best.report_loss)
    return "" if bits is None else f"; report loss {bits:.4f} bits/byte"


def _best_text(best: Best) -> str:
    """Means with means, and the run that has the id by itself: one seed's loss is no neighbour of a mean."""
    from tuneopt.console import loss

    if best.seeds < 2:
        of_one = f"select loss {loss(best.select_loss)}, report loss {loss(best.report_loss)} nats/token"
        return f"{of_one} (one seed, trial {best.trial})"
    error = "" if best.report_error is None else f" \u00b1 {best.report_error:.4f}"
    return (
        f"select loss {loss(best.select_mean)}, report loss {loss(best.report_loss)}{error} nats/token, means over "
        f"{best.seeds} seeds (trial {best.trial}, the first of them: select loss {loss(best.select_loss)})"
    )


def _asked_about(result: SweepResult) -> str:
    """Which coordinates were tuned, where some were held: a certificate says nothing of those."""
    space = result.sweep.space
    held = [axis.name for axis in space.axes if axis.pinned]
    if not held:
        return ""
    return f"; asked about {', '.join(axis.name for axis in space.varied) or 'nothing'} alone, held: {', '.join(held)}"


def _certificate_text(certificate: Certificate) -> str:
    """The state, what can be seen, and what would mend it where that is too little."""
    from tuneopt.reporting.text import bound_text

    words = {"certified": "certified", "blind": "complete, but blind", "incomplete": "NOT complete"}[certificate.state]
    edges = f"; on an edge: {', '.join(certificate.edges)}" if certificate.edges else ""
    tolerance = f"tolerance {certificate.tolerance:.4f} nats"
    if certificate.resolution is None or certificate.confidence is None:
        return f"{words}, {tolerance}{edges}"
    sees = f"no single change is better by more than {bound_text(certificate.resolution)} nats, confidence "
    sees += f"{certificate.confidence:.0%}"
    asked = f"; asked: {certificate.asked:g}" if certificate.asked is not None else ""
    count, needed = certificate.seeds_needed, ""
    if certificate.state == "blind" and count != 0:
        needed = f", which takes {'thousands of' if count is None else f'about {count}'} further runs"
    return f"{words}: {sees}{asked}{needed}; {tolerance}{edges}"
