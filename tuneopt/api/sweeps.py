"""Plan, cost and run one sweep or one trial."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.api.corpora import regime_on
from tuneopt.api.optimizers import check_outside, space_of
from tuneopt.spec import CorpusId, InputError, Regime, TrialSpec, Value, find_scale, nearest

if TYPE_CHECKING:
    from tuneopt.cluster.progress import Progress, SweepResult
    from tuneopt.data import Corpus
    from tuneopt.ledger import CurvePoint, Ledger, TrialRecord
    from tuneopt.observe.observer import Observer
    from tuneopt.search.sweep import Sweep
    from tuneopt.train.config import ParallelConfig

PRECISIONS = ("fp32", "bf16")


def plan(
    optimizer: str,
    *,
    space: str | None = None,
    scale: str = "nano-65k",
    ratio: float = 1.0,
    corpus: str = "embedded",
    overrides: Mapping[str, Value] | None = None,
    grids: Mapping[str, Sequence[Value]] | None = None,
    starts: Mapping[str, Value] | None = None,
    seed: int = 0,
    replicates: int = 3,
    policy: str = "joint",
    precision: str = "fp32",
    compile: bool | None = None,
) -> tuple[Sweep, Corpus]:
    """A sweep of one optimizer in one regime, with the prepared corpus it runs on; nothing is trained yet.

    ``optimizer`` and ``space`` are what `space_of` takes: names, or files of a user's own, which are run here.
    ``overrides`` pins coordinates to one value, ``grids`` replaces their grids, ``starts`` where the descent begins.
    ``precision`` is that of the compute, ``fp32`` or ``bf16``, and part of every trial's identity; weights stay fp32.
    ``compile=None`` compiles wherever a compiler is found. Raises `InputError` for anything that cannot be run.
    """
    from tuneopt.search.sweep import Sweep

    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; {nearest(precision, PRECISIONS)}")
    ladder = find_scale(scale).ladder
    chosen = space_of(optimizer, space).on(ladder, overrides or {}, grids or {}).begin_at(starts or {})
    check_outside(chosen)
    # What cannot run whatever the text is answered before any text is tokenized.
    Sweep(chosen, Regime(find_scale(scale), ratio, CorpusId("unread", "", 0)), seed, replicates, policy)
    regime, loaded = regime_on(scale, ratio, corpus)
    return Sweep(chosen, regime, seed, replicates, policy, precision, _compile(compile)), loaded


def single_trial(
    optimizer: str,
    *,
    space: str | None = None,
    scale: str = "nano-65k",
    ratio: float = 1.0,
    corpus: str = "embedded",
    overrides: Mapping[str, Value] | None = None,
    seed: int = 0,
    precision: str = "fp32",
    compile: bool | None = None,
) -> tuple[TrialSpec, Corpus]:
    """One trial: the space's start with ``overrides``, and the corpus it runs on. Raises `InputError`."""
    sweep, loaded = plan(
        optimizer,
        space=space,
        scale=scale,
        ratio=ratio,
        corpus=corpus,
        overrides=overrides,
        seed=seed,
        precision=precision,
        compile=compile,
    )
    return sweep.spec(sweep.space.start), loaded


def tune(
    sweep: Sweep,
    ledger: Ledger | str,
    *,
    corpus: str = "embedded",
    address: str | None = None,
    max_concurrent: int | None = None,
    gpus_per_trial: float = 0.0,
    placement: ParallelConfig | None = None,
    keep_weights: bool = False,
    listener: Callable[[Progress], None] = lambda progress: None,
    observers: Sequence[Observer] = (),
) -> SweepResult:
    """Run a sweep to its certificate on Ray Tune, and keep an account of this run in the ledger.

    ``corpus`` is what `plan` was given: workers load it by that name or path. ``placement`` puts each trial on several
    ranks; ``keep_weights`` keeps the final weights of every trial, for `export_model`.
    """
    from tuneopt.cluster.driver import run_sweep
    from tuneopt.ledger import open_ledger

    opened = open_ledger(ledger) if isinstance(ledger, str) else ledger
    placements = placed(sweep, placement)
    result = run_sweep(
        sweep,
        opened,
        corpus,
        address=address,
        max_concurrent=max_concurrent,
        gpus_per_trial=gpus_per_trial,
        placements=placements,
        keep_weights=keep_weights,
        listener=listener,
        observers=observers,
    )
    if result.run or result.failed:
        opened.put_run(
            {
                "sweep": sweep.id,
                "run": result.run,
                "reused": result.reused,
                "failed": result.failed,
                "slots": result.slots,
                "wall_seconds": result.wall_seconds,
                "busy_seconds": result.busy_seconds,
                "interrupted": result.interrupted,
            }
        )
    return result


def train(
    spec: TrialSpec,
    corpus: Corpus,
    ledger: Ledger | str,
    on_point: Callable[[CurvePoint], Any] = lambda point: None,
    *,
    ranks: int = 1,
    zero: int | None = None,
    offload: bool = False,
    checkpointing: bool = False,
    sequences: int | None = None,
    deterministic: bool = False,
    keep_weights: bool = False,
    observers: Sequence[Observer] = (),
) -> TrialRecord:
    """Train one trial without Ray; a trial that the ledger holds is returned as it is.

    With ``ranks`` above 1 or a ZeRO stage ``zero`` it runs on that many processes of this machine, by default at the
    lowest stage that fits (`tuneopt.train.fitting`); ``offload`` keeps optimizer state in host memory.
    ``checkpointing`` is activation checkpointing; a forward pass takes at most ``sequences`` sequences (None: the
    specification's micro-batch, on CUDA the most that fit); ``deterministic`` asks CUDA for kernels that repeat
    themselves. None of them changes the trial's id.
    ``keep_weights`` keeps its final weights for `export_model`. Raises `InputError` for what cannot be.
    """
    from tuneopt.ledger import open_ledger
    from tuneopt.observe.one_trial import OneTrial
    from tuneopt.train.config import ParallelConfig
    from tuneopt.train.fitting import chosen_stage
    from tuneopt.train.run import run_ranks

    opened = open_ledger(ledger) if isinstance(ledger, str) else ledger
    with OneTrial(spec, opened, observers) as watched:

        def tell(point: CurvePoint) -> None:
            watched.point(point)
            on_point(point)

        if zero is None:
            zero = chosen_stage(spec, ranks, offload=offload, checkpointing=checkpointing, sequences=sequences)
        placement = ParallelConfig(ranks, zero, offload, checkpointing, sequences, deterministic)
        record = run_ranks(spec, corpus, opened, placement, tell, keep_weights)
        watched.done(record)
    return record


def placement_of(
    ranks: int, zero: int | None, offload: bool, checkpointing: bool = False, scale: str = ""
) -> ParallelConfig | None:
    """Where a trial runs; None for one plain process. Raises `InputError` for what cannot be.

    Without a stage ``zero``, several ranks share gradients and optimizer state of large scales (stage 2) and no others:
    devices are the cluster's, so their memory is not known here.
    """
    if zero is None:
        from tuneopt.train.memory import SHARDED

        zero = 2 if offload or (ranks > 1 and scale and find_scale(scale).parameters >= SHARDED) else 0
    if ranks == 1 and zero == 0 and not offload and not checkpointing:
        return None  # torch need not be imported to know that
    from tuneopt.train.config import ParallelConfig

    return ParallelConfig(ranks, zero, offload, checkpointing)


def placed(sweep: Sweep, placement: ParallelConfig | None) -> dict[str, ParallelConfig]:
    """``placement`` for the trials of a sweep, by their scale; raises `InputError` where a batch does not divide."""
    if placement is None:
        return {}
    from tuneopt.cluster.placing import check_batches

    scale = sweep.regime.scale.name
    axis = sweep.space.by_name.get("train_batch_size")
    batches = axis.values if axis else [sweep.space.value(sweep.space.start, "train_batch_size")]
    check_batches(placement, scale, batches)
    return {scale: placement}


def cost(sweep: Sweep, corpus: Corpus, ledger: Ledger) -> dict[str, Any]:
    """What a sweep will cost, before it starts: trials, tokens, FLOPs, and the time on this machine's cores.

    The time rests on trials of the same optimizer and scale in the ledger, or else on a few steps trained now.
    """
    from tuneopt.data import describe
    from tuneopt.search.records import replay
    from tuneopt.train.run import recorded_throughput, trained_throughput

    state, outcomes = replay(sweep, ledger)
    start = sweep.spec(sweep.space.start)
    epochs = describe(corpus, sweep.regime.tokens)
    rate, origin = recorded_throughput(ledger, start), "from trials in the ledger"
    if rate is None:
        rate, origin = trained_throughput(start, corpus), "measured now on a few steps, uncompiled"
    slots = os.cpu_count() or 1
    remaining = state.progress.remaining
    return {
        "sweep": sweep.id,
        "optimizer": sweep.space.optimizer,
        "regime": regime_dict(sweep.regime),
        "trials": {
            "first_wave": len(sweep.state({}).pending),
            "in_ledger": len(outcomes),
            "expected": len(outcomes) + remaining,
        },
        "per_trial": {
            "tokens": sweep.regime.tokens,
            "steps": start.steps,
            "flops": sweep.regime.flops,
            "epochs": epochs.epochs,
        },
        "tokens_per_second": rate,
        "throughput_from": origin,
        "slots": slots,
        "seconds": remaining * sweep.regime.tokens / rate / slots if rate else None,
        "warnings": [epochs.warning] if epochs.warning else [],
    }


def summary(sweep: Sweep, result: SweepResult, report: Path) -> dict[str, Any]:
    """How a sweep ended: what ``tune --json`` prints."""
    best, certificate = result.state.best, result.state.descent.certificate
    return {
        "sweep": sweep.id,
        "optimizer": sweep.space.optimizer,
        "regime": regime_dict(sweep.regime),
        "certificate": {
            "complete": certificate.complete,
            "tolerance": certificate.tolerance,
            "edges": list(certificate.edges),
        },
        "best": {
            "config": best.spec.config if best else None,
            "select_loss": best.select_loss if best else None,
            "report_loss": best.report_loss if best else None,
            "report_error": best.report_error if best else None,
            "trial": best.trial if best else None,
        },
        "trials": {
            "run": len(result.run),
            "reused": len(result.reused),
            "diverged": len(result.diverged),
            "failed": len(result.failed),
        },
        "errors": result.failed,
        "waves": result.state.progress.waves,
        "utilisation": result.utilisation,
        "seconds": result.wall_seconds,
        "report": str(report),
    }


def regime_dict(regime: Regime) -> dict[str, Any]:
    """A regime as the JSON shapes name it."""
    return {"scale": regime.scale.name, "ratio": regime.ratio, "corpus": regime.corpus.name}


def _compile(wanted: bool | None) -> bool:
    from tuneopt.train.kernels import has_compiler

    if wanted is False or has_compiler():
        return wanted is not False
    from tuneopt.train.building import can_compile  # a GPU needs no C++ compiler; asking for one takes torch

    if wanted and not can_compile():
        raise InputError("--compile needs a C++ compiler; install g++ or leave it out")
    return can_compile()
