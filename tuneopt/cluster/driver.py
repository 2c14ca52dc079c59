"""Run one sweep on Ray Tune to its certificate."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from tuneopt.cluster.progress import Progress, SweepResult
from tuneopt.cluster.session import WORKER_ENVIRONMENT, connect
from tuneopt.ledger import Ledger
from tuneopt.search.replay import replay
from tuneopt.search.sweep import Sweep
from tuneopt.train.precompile import compiling

RETRIES = 2
"""How often a trial whose worker died is started again; it goes on from its last checkpoint."""


def run_sweep(
    sweep: Sweep,
    ledger: Ledger,
    corpus: str,
    *,
    address: str | None = None,
    max_concurrent: int | None = None,
    gpus_per_trial: float = 0.0,
    listener: Callable[[Progress], None] = lambda progress: None,
) -> SweepResult:
    """Run what is missing of ``sweep`` on Ray Tune; the workers write the records, the ledger is the result.

    ``corpus`` is the name or path that workers load it by. A sweep that the ledger holds completely starts no Ray.
    Ctrl-C ends it early with ``interrupted`` set; running the same sweep again goes on from there. Raises
    `InputError` when the cluster cannot run a single trial.
    """
    ledger.put_sweep(sweep.id, {**sweep.to_dict(), "corpus_source": corpus})
    state, outcomes = replay(sweep, ledger)
    if state.finished:
        return SweepResult(state, outcomes, reused=sorted(outcomes))
    began = time.perf_counter()
    # On a cluster the kernels are needed elsewhere: there the first worker of each machine compiles.
    ahead = state.pending[:1] if address is None and gpus_per_trial == 0 else []
    with (
        compiling(ahead[0], WORKER_ENVIRONMENT) if ahead and ahead[0].compile else nullcontext(),
        connect(address, gpus_per_trial=gpus_per_trial) as session,
    ):
        slots = min(session.slots, max_concurrent or session.slots)
        return _tune(sweep, ledger, corpus, slots, gpus_per_trial, listener, began)


def _tune(
    sweep: Sweep,
    ledger: Ledger,
    corpus: str,
    slots: int,
    gpus_per_trial: float,
    listener: Callable[[Progress], None],
    began: float,
) -> SweepResult:
    from ray import tune

    from tuneopt.cluster.searcher import SweepSearcher
    from tuneopt.cluster.trainable import TrialTrainable
    from tuneopt.cluster.watcher import Watcher

    # Workers run elsewhere, so they get the whole path; the ledger keeps what the user typed.
    searcher = SweepSearcher(sweep, ledger, str(Path(corpus).resolve()) if Path(corpus).exists() else corpus)
    watcher = Watcher(searcher, slots, began, listener)
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="tuneopt-ray-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(TrialTrainable, {"cpu": 1, "gpu": gpus_per_trial}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                reuse_actors=True,
                max_concurrent_trials=slots,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=sweep.id,
                storage_path=scratch,
                callbacks=[watcher],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except KeyboardInterrupt:
            interrupted = True
    return SweepResult(
        searcher.state,
        searcher.outcomes,
        run=sorted(watcher.done),
        reused=sorted(searcher.reused),
        failed={trial: watcher.errors.get(trial, "its worker died") for trial in searcher.failed},
        slots=slots,
        wall_seconds=time.perf_counter() - began,
        busy_seconds=watcher.busy_seconds,
        interrupted=interrupted,
    )
