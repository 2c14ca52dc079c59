"""What every run on Ray Tune has in common: compiling ahead, where workers find the corpus, and Tune's settings."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from tuneopt.cluster.session import WORKER_ENVIRONMENT
from tuneopt.observe.observer import Observer
from tuneopt.spec import TrialSpec
from tuneopt.train.kernels import compiling

RETRIES = 2
"""How often a trial whose worker died is started again; it goes on from its last checkpoint."""


def compiling_ahead(
    first: Sequence[TrialSpec], address: str | None, gpus_per_trial: float
) -> AbstractContextManager[object]:
    """Compile for the first trial while Ray starts; on a cluster the kernels are needed elsewhere.

    There the first worker of each machine compiles.
    """
    if first and first[0].compile and address is None and gpus_per_trial == 0:
        return compiling(first[0], WORKER_ENVIRONMENT)
    return nullcontext()


def reachable(corpus: str) -> str:
    """A corpus as workers elsewhere find it: the whole path where it is one, else its name."""
    return str(Path(corpus).resolve()) if Path(corpus).exists() else corpus


def fit(
    trainable: Any,
    searcher: Any,
    watcher: Any,
    *,
    name: str,
    slots: int,
    request: Any,
    scheduler: Any = None,
    observers: Sequence[Observer] = (),
) -> bool:
    """Run what ``searcher`` suggests in warm workers, ``slots`` at a time; whether Ctrl-C ended it early.

    ``request`` is what Tune reserves for a trial, or a function that says it for a trial's configuration. Tune keeps
    nothing: its folder is temporary, records and checkpoints are the workers' own. ``observers`` hear of every trial.
    """
    from ray import tune

    from tuneopt.cluster.live_queue import LiveQueue
    from tuneopt.cluster.watched import watched

    with (
        tempfile.TemporaryDirectory(prefix="tuneopt-ray-") as scratch,
        watched(searcher, slots, observers) as events,
    ):
        tuner = tune.Tuner(
            tune.with_resources(trainable, request),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler or LiveQueue(),
                num_samples=-1,
                # A trial on ranks that a scheduler stops ends with its worker, which has nothing to keep warm.
                reuse_actors=scheduler is None or not callable(request),
                max_concurrent_trials=slots,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=name,
                storage_path=scratch,
                callbacks=[events, watcher],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=RETRIES),
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        except KeyboardInterrupt:
            return True
    return False
