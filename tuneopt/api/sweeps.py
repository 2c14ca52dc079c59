"""Plan, cost and run one sweep, one sampled search or one trial.

`plan` turns names into a `Sweep`, which is a value: nothing is trained by it. `tune`, `sample` and `train` are one call
of `tuneopt.run.spine.run` with another plan each, and return what `tuneopt.api.results` describes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.api.budgets import budget, over
from tuneopt.api.corpora import Texts, corpus_named, encoded_corpus, regime_on
from tuneopt.api.devices import compiles_at
from tuneopt.api.optimizers import check_outside, space_of
from tuneopt.api.own_models import check_on_model, scale_named
from tuneopt.api.results import SearchResult, SweepCost, SweepResult
from tuneopt.run.options import RunOptions
from tuneopt.run.spine import Backend, RunResult, run
from tuneopt.search.plan import OneTrial
from tuneopt.search.queue import Limits, OneSweep, SchedulerQueue
from tuneopt.search.records import kept_evidence, recorded, replay
from tuneopt.search.sampled import SampledSearch
from tuneopt.search.standing import Task
from tuneopt.search.study.budget import STARTING_SECONDS
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, InputError, Regime, Scale, TrialSpec, Value, nearest
from tuneopt.training.config import ParallelConfig

if TYPE_CHECKING:
    from tuneopt.api.step_times import Note
    from tuneopt.data import Corpus
    from tuneopt.ledger import Ledger, TrialRecord
    from tuneopt.observe.observer import Observer

PRECISIONS = ("fp32", "bf16")
"""Of the compute; weights and optimizer state are fp32 either way."""

BACKENDS = ("ray", "inline")
"""Where trials can run, by name; a simulation is made from surfaces (`tuneopt.run.simulated`)."""


def plan(
    optimizer: str,
    *,
    space: str | None = None,
    scale: str | Scale = "nano-65k",
    ratio: float | None = None,
    tokens: int | None = None,
    steps: int | None = None,
    coordinates: Sequence[str] = (),
    corpus: Texts = "embedded",
    tokenizer: str | Path | None = None,
    overrides: Mapping[str, Value] | None = None,
    grids: Mapping[str, Sequence[Value]] | None = None,
    starts: Mapping[str, Value] | None = None,
    seed: int = 0,
    replicates: int = 3,
    policy: str = "joint",
    precision: str | None = None,
    compile: bool | None = None,
    resolution: float | None = None,
) -> tuple[Sweep, Corpus]:
    """A sweep of one optimizer in one regime, with the prepared corpus it runs on; nothing is trained yet.

    ``optimizer`` and ``space`` are what `space_of` takes: names, or files of a user's own, which are run here.
    ``scale`` is a word as `scale_named` takes it, or a `Scale`. ``overrides`` pins coordinates to one value, ``grids``
    replaces their grids, ``starts`` says where the descent begins.
    The budget is a ``ratio`` (1 where nothing is said), ``tokens``, or ``steps`` of the batch at the start.
    ``coordinates`` are those to tune, all unless named; the others are held where the descent begins.
    ``tokenizer`` is a file of one's own for a ``corpus`` of text (`encoded_corpus`).
    ``precision`` is that of the compute, ``fp32`` or ``bf16``, and part of every trial's identity; weights stay fp32.
    None takes that of the scale's ladder (`Scale.precision`).
    ``compile=None`` compiles wherever a compiler is found. ``resolution`` (nats) is what the certificate is to see;
    None asks for what the scale usually affords. Raises `InputError` for anything that cannot be run.
    """
    if precision is not None and precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; {nearest(precision, PRECISIONS)}")
    shape = scale_named(scale)
    precision = precision or shape.precision
    # Coordinates last: what is not tuned is held where the descent begins.
    chosen = over(space_of(optimizer, space).on(shape.ladder, overrides, grids, starts), coordinates)
    held = [name for name in grids or () if coordinates and name not in coordinates]
    if held:
        raise InputError(f"{held[0]} is held and not tuned, so its grid has no use; leave out the grid, or pin it")
    check_outside(chosen)
    share, asked = budget(shape, chosen, ratio, tokens, steps)
    assert share is not None, "there is a default"
    # What cannot run whatever the text is answered before any text is tokenized.
    unread = Regime(shape, share, CorpusId("unread", "", 0), asked)
    sweep = Sweep(chosen, unread, seed, replicates, policy, precision, resolution=resolution)
    check_on_model(chosen, shape)
    # Now the text: its fingerprint goes into every trial's id, and its bytes per token into losses in bits.
    regime, loaded = regime_on(shape, share, encoded_corpus(corpus, tokenizer))
    regime = replace(regime, asked=asked, bytes_per_token=loaded.split("report").bytes_per_token)
    return replace(sweep, regime=regime, compile=compiles_at(compile, [shape])), loaded


def single_trial(optimizer: str, *, data_seed: int | None = None, **settings: Any) -> tuple[TrialSpec, Corpus]:
    """One trial, at the start of the sweep that `plan` makes of these settings, and the corpus it runs on.

    ``data_seed`` orders the data otherwise than the seed of the weights does; a sweep's trials have one seed for both.
    """
    sweep, loaded = plan(optimizer, **settings)
    return replace(sweep.spec(sweep.space.start), data_seed=data_seed), loaded


def check_budget(search: str, resolution: float | None, max_trials: int | None, hours: float | None) -> None:
    """Raise `InputError` for bounds of a sweep that are none, or that are given to a sampled search."""
    if hours is not None and not (hours > 0 and math.isfinite(hours)):
        raise InputError(f"--hours must be more than 0, not {hours:g}; try 1")
    given = [
        name
        for name, value in (("resolution", resolution), ("max-trials", max_trials), ("hours", hours))
        if value is not None
    ]
    if search != "coordinate" and given:
        raise InputError(f"--search {search} ends when its trials are spent and takes no --{given[0]}; use --trials")


def check_backend(name: str, address: str | None, concurrent: int | None = None) -> None:
    """Raise `InputError` for an unknown backend, for no cluster at ``address``, and for one that has no use for it.

    A backend that trains one trial after another has no use for several ``concurrent`` ones either.
    """
    if name not in BACKENDS:
        raise InputError(f"unknown backend {name!r}; {nearest(name, BACKENDS)}")
    if name == "inline" and concurrent not in (None, 1):
        raise InputError(f"the inline backend trains one trial after another, not {concurrent} at once; use ray")
    if address:
        if name != "ray":
            raise InputError(f"the {name} backend trains in this process; leave out --address, or --backend {name}")
        from tuneopt.cluster.session import check_address

        check_address(address)


def backend_named(name: str, options: RunOptions) -> Backend:
    """The backend of that name: ``ray``, or ``inline`` for this process.

    Raises `InputError` for another name, and for ``options`` that the backend has no use for.
    """
    check_backend(name, None if name == "ray" else options.address, options.max_concurrent)
    if name == "inline":
        from tuneopt.run.inline import InlineBackend

        return InlineBackend()
    from tuneopt.cluster.backend import RayBackend

    return RayBackend()


def with_ledger(ledger: Ledger | Path | str, options: RunOptions | None) -> tuple[Ledger, RunOptions]:
    """The opened ledger, and the options of a run into it."""
    from tuneopt.ledger import open_ledger

    opened = open_ledger(ledger) if isinstance(ledger, Path | str) else ledger
    return opened, replace(options or RunOptions(), ledger=opened)


def tune(
    sweep: Sweep | str,
    ledger: Ledger | Path | str = "ledger",
    options: RunOptions | None = None,
    *,
    backend: str = "ray",
    observers: Sequence[Observer] = (),
    max_trials: int | None = None,
    hours: float | None = None,
    progress: bool | None = None,
    **settings: Any,
) -> SweepResult:
    """Run a sweep to its certificate, and keep an account of this run in the ledger.

    An optimizer's name stands for the sweep that `plan` makes of it and ``settings``. ``progress`` shows how far it is;
    None shows it in a notebook and on a terminal (`tuneopt.notebook`).

    It stops before its certificate when ``max_trials`` trials have ended, or when its trials have taken ``hours`` of
    all slots, those of earlier runs counted; a trial that would probably end later is not begun.

    The ``corpus`` of the options is what `plan` was given: workers load it by that name or path. A sweep that the
    ledger holds completely starts nothing. Ctrl-C ends it early with ``interrupted`` set; running the same sweep again
    goes on from there. Raises `InputError` when the backend cannot run a single trial.
    """
    from tuneopt.notebook import progress as shown

    opened, options = with_ledger(ledger, options)
    if isinstance(sweep, str):
        text = corpus_named(settings.pop("corpus", options.corpus))
        sweep, _ = plan(sweep, corpus=text, **settings)
        options = replace(options, corpus=encoded_corpus(text, settings.get("tokenizer")))
    # Ahead: a slot that the last trials of a wave leave idle costs more than a wrong guess now and then.
    evidence = kept_evidence(opened, sweep.regime.corpus)(sweep)
    limits = Limits(max_trials, hours=hours)
    queue = SchedulerQueue(OneSweep(sweep, evidence), known=recorded(opened), limits=limits, ahead=True)
    queue.expected = queue.at_pace  # set late: the pace is that of this very queue's trials
    with shown("tuning", f"{sweep.space.optimizer} at {sweep.regime.label}", progress, observers) as watching:
        result = run(queue, backend_named(backend, options), options, watching)
    # After the run, interrupted or not: seconds that nobody wrote down would be missing in every sum.
    _account(opened, result, {"sweep": sweep.id})
    return SweepResult(**vars(result), sweep=sweep, state=queue.standings[sweep.id].state)


def sample(
    search: SampledSearch,
    ledger: Ledger | Path | str,
    options: RunOptions | None = None,
    *,
    trials: int | None = None,
    backend: str = "ray",
    observers: Sequence[Observer] = (),
) -> SearchResult:
    """Run a sampled search until ``trials`` trials of its own are spent, then its best with the other seeds.

    Trials of earlier runs of the same search count; ``trials=None`` takes what coordinate descent is expected to need.
    What else the ledger holds is told to the sampler and not counted. The rest is as for `tune`; raises
    `InputError` where the sampler is not installed, too.
    """
    from tuneopt.search.sampled_plan import SampledPlan

    opened, options = with_ledger(ledger, options)
    sampled = SampledPlan.from_ledger(search, opened, trials)
    result = run(sampled, backend_named(backend, options), options, observers)
    about = {"sweep": search.id, "search": search.search, "scheduler": search.scheduler}
    _account(opened, result, about, {"cut": result.cut})
    return SearchResult(
        **vars(result),
        sweep=search.sweep,
        state=sampled.state,
        search=search,
        budget=sampled.trials,
        marks=search.marks(sampled.others, len(result.cut)),
    )


def _account(
    ledger: Ledger, result: RunResult, about: Mapping[str, Any], more: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    """Keep an account of a run in the ledger, unless nothing happened."""
    if result.run or result.failed or result.cut:
        ledger.put_run(
            {
                **about,
                "run": result.run,
                "reused": result.reused,
                "failed": result.failed,
                **(more or {}),
                "slots": result.slots,
                "wall_seconds": result.wall_seconds,
                "busy_seconds": result.busy_seconds,
                "interrupted": result.interrupted,
            }
        )


def train(
    spec: TrialSpec | str,
    corpus: Texts = "embedded",
    ledger: Ledger | Path | str = "ledger",
    *,
    ranks: int = 1,
    zero: int | None = None,
    offload: bool = False,
    checkpointing: bool = False,
    sequences: int | None = None,
    deterministic: bool = False,
    keep_weights: bool = False,
    observers: Sequence[Observer] = (),
    **settings: Any,
) -> TrialRecord:
    """Train one trial without Ray; a trial that the ledger holds is returned as it is.

    An optimizer's name stands for the trial that `single_trial` makes of it and ``settings``, on the corpus named.

    With ``ranks`` above 1 or a ZeRO stage ``zero`` it runs on that many processes of this machine, by default at the
    lowest stage that fits (`tuneopt.training.fitting`); ``offload`` keeps optimizer state in host memory.
    ``checkpointing`` is activation checkpointing; a forward pass takes at most ``sequences`` sequences (None: the
    specification's micro-batch, on CUDA the most that fit); ``deterministic`` asks CUDA for kernels that repeat
    themselves. None of them changes the trial's id. ``keep_weights`` keeps its final weights for `export_model`. Raises
    `InputError` for what cannot be.
    """
    from tuneopt.data import Corpus, load_corpus
    from tuneopt.run.inline import InlineBackend
    from tuneopt.training.fitting import chosen_stage

    if isinstance(spec, str):
        spec, loaded = single_trial(spec, corpus=corpus, **settings)
    elif isinstance(corpus, Corpus):
        loaded = corpus
    else:
        loaded = load_corpus(corpus_named(corpus), vocab_size=spec.regime.corpus.vocab_size)
    if zero is None:
        zero = chosen_stage(spec, ranks, offload=offload, checkpointing=checkpointing, sequences=sequences)
    placement = ParallelConfig(ranks, zero, offload, checkpointing, sequences, deterministic)
    placement.check_model(spec.regime.scale)
    parallel = {spec.regime.scale.name: placement}
    opened, options = with_ledger(ledger, RunOptions(parallel=parallel, keep_weights=keep_weights))
    # The spine reports an interrupt as a result, for runs of many trials; of one trial there is nothing to report.
    if run(OneTrial(spec), InlineBackend(loaded, any_device=True), options, observers).interrupted:
        raise KeyboardInterrupt
    record = opened.get(spec.id)
    assert record is not None, "a trial that ended has its record"
    return record


def cost(
    sweep: Sweep,
    corpus: Corpus,
    ledger: Ledger,
    search: SampledSearch | None = None,
    trials: int | None = None,
    *,
    measure: bool = False,
    options: RunOptions | None = None,
    note: Note = lambda text: None,
) -> SweepCost:
    """What a sweep will cost, before it starts: trials, tokens, FLOPs, and the time on this machine.

    ``options`` say what a trial takes: a core, or GPUs, once for each of its ranks.

    The time rests on trials of the same optimizer and scale in the ledger, or else on a core that was measured once;
    with ``measure`` on a few steps trained now (``note`` is told). ``power`` says what its seeds will tell apart. With
    ``search`` it is what that sampled search over the sweep's lattice costs at most, with a budget of ``trials``:
    nothing that the ledger holds makes it cheaper.
    """
    from tuneopt.api.devices import slots_here
    from tuneopt.api.step_times import times_of
    from tuneopt.data import describe
    from tuneopt.search.records import spread_of
    from tuneopt.search.study.power import power, slope

    standing, outcomes = replay(Task(sweep, evidence=kept_evidence(ledger, sweep.regime.corpus)(sweep)), ledger)
    start = sweep.spec(sweep.space.start)
    epochs = describe(corpus, sweep.regime.tokens)
    on_gpus = options is not None and options.gpus_per_trial > 0
    slots, missing = slots_here(options or RunOptions(), sweep.regime.scale.name)
    known = times_of(
        {start.optimizer: start}, ledger, corpus, measure=measure, core=not on_gpus, slots=slots, note=note
    )
    time = known.by_name.get(start.optimizer)
    each = None if time is None else time.seconds(sweep.regime.tokens)
    progress = standing.state.progress
    left = progress.remaining
    first_wave, expected = len(sweep.state({}).pending), len(outcomes) + left
    fewest, most = len(outcomes) + progress.fewest, len(outcomes) + progress.most
    if search is not None:
        budget = search.expected if trials is None else trials
        left = expected = budget + sweep.replicates - 1  # the winner's other seeds come on top
        fewest = most = expected
        first_wave = min(budget, slots)

    def clock(count: int, factor: float) -> float:
        """Seconds by the clock of so many trials of the plan, less those of the ledger."""
        to_run = count if search else max(0, count - len(outcomes))
        return 0.0 if each is None or not to_run else STARTING_SECONDS + math.ceil(to_run / slots) * each * factor

    return SweepCost(
        sweep=search.id if search else sweep.id,
        optimizer=sweep.space.optimizer,
        regime=sweep.regime,
        first_wave=first_wave,
        in_ledger=len(outcomes),
        expected=expected,
        steps=start.steps,
        epochs=epochs.epochs,
        tokens_per_second=None if time is None else time.rate,
        throughput_from=known.origin.words,
        slots=slots,
        seconds=None if each is None else left * each / slots,
        ends=None if each is None else (clock(fewest, known.origin.low), clock(most, known.origin.high)),
        warnings=(*filter(None, (epochs.warning, missing)), *(search.marks() if search else ())),
        search=search,
        fewest=fewest,
        most=most,
        power=power(
            spread_of(ledger), sweep.regime, start.optimizer, start.optimizer, sweep.replicates, slope(sweep.regime)
        ),
    )
