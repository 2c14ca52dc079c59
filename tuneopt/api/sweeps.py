"""Plan, cost and run one sweep or one trial."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.api.corpora import regime_on
from tuneopt.api.optimizers import check_outside, space_of
from tuneopt.spec import CorpusId, InputError, Regime, TrialSpec, Value, find_scale

if TYPE_CHECKING:
    from tuneopt.cluster.progress import Progress, SweepResult
    from tuneopt.data import Corpus
    from tuneopt.ledger import CurvePoint, Ledger, TrialRecord
    from tuneopt.search.sweep import Sweep


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
    compile: bool | None = None,
) -> tuple[Sweep, Corpus]:
    """A sweep of one optimizer in one regime, with the prepared corpus it runs on; nothing is trained yet.

    ``optimizer`` and ``space`` are what `space_of` takes: names, or files of a user's own, which are run here.
    ``overrides`` pins coordinates to one value, ``grids`` replaces their grids, ``starts`` where the descent begins.
    ``compile=None`` compiles wherever a compiler is found. Raises `InputError` for anything that cannot be run.
    """
    from tuneopt.search.sweep import Sweep

    ladder = find_scale(scale).ladder
    chosen = space_of(optimizer, space).on(ladder, overrides or {}, grids or {}).begin_at(starts or {})
    check_outside(chosen)
    # What cannot run whatever the text is answered before any text is tokenized.
    Sweep(chosen, Regime(find_scale(scale), ratio, CorpusId("unread", "", 0)), seed, replicates, policy)
    regime, loaded = regime_on(scale, ratio, corpus)
    return Sweep(chosen, regime, seed, replicates, policy, compile=_compile(compile)), loaded


def single_trial(
    optimizer: str,
    *,
    space: str | None = None,
    scale: str = "nano-65k",
    ratio: float = 1.0,
    corpus: str = "embedded",
    overrides: Mapping[str, Value] | None = None,
    seed: int = 0,
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
    listener: Callable[[Progress], None] = lambda progress: None,
) -> SweepResult:
    """Run a sweep to its certificate on Ray Tune, and keep an account of this run in the ledger.

    ``corpus`` is what `plan` was given: workers load it by that name or path.
    """
    from tuneopt.cluster.driver import run_sweep
    from tuneopt.ledger import open_ledger

    opened = open_ledger(ledger) if isinstance(ledger, str) else ledger
    result = run_sweep(
        sweep,
        opened,
        corpus,
        address=address,
        max_concurrent=max_concurrent,
        gpus_per_trial=gpus_per_trial,
        listener=listener,
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
    zero: int = 0,
    offload: bool = False,
) -> TrialRecord:
    """Train one trial without Ray; a trial that the ledger holds is returned as it is.

    With ``ranks`` above 1 or a ZeRO stage ``zero`` it runs on that many processes of this machine; ``offload`` keeps
    optimizer state in host memory. Neither changes the trial's id. Raises `InputError` for what cannot be.
    """
    from tuneopt.ledger import open_ledger
    from tuneopt.train.distributed import Placement
    from tuneopt.train.distributed_run import run_ranks

    opened = open_ledger(ledger) if isinstance(ledger, str) else ledger
    return run_ranks(spec, corpus, opened, Placement(ranks, zero, offload), on_point)


def cost(sweep: Sweep, corpus: Corpus, ledger: Ledger) -> dict[str, Any]:
    """What a sweep will cost, before it starts: trials, tokens, FLOPs, and the time on this machine's cores.

    The time rests on trials of the same optimizer and scale in the ledger, or else on a few steps trained now.
    """
    from tuneopt.data import describe
    from tuneopt.search.replay import replay
    from tuneopt.train.measure import recorded_throughput, trained_throughput

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
    from tuneopt.train.engine import can_compile

    if wanted and not can_compile():
        raise InputError("--compile needs a C++ compiler; install g++ or leave it out")
    return can_compile() if wanted is None else wanted
