"""Run a sampled search on Ray Tune: Optuna's samplers, and ASHA for those who ask for it.

The workers are those of every sweep. What they record carries the name of the search that proposed it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.cluster.progress import Progress, SweepResult
from tuneopt.cluster.session import WORKER_ENVIRONMENT, connect
from tuneopt.ledger import Ledger
from tuneopt.optim.external import account
from tuneopt.search.sampled import SampledSearch
from tuneopt.train.precompile import compiling

if TYPE_CHECKING:
    from tuneopt.cluster.sampling import SampledSearcher

RETRIES = 2
"""How often a trial whose worker died is started again; it goes on from its last checkpoint."""

GRACE = 0.15
"""Fraction of its run before which ASHA stops no trial; the learning rate has then warmed up."""

REDUCTION = 3
"""ASHA keeps one trial in this many at each rung, and the next rung lies this many times further."""


@dataclass(slots=True, kw_only=True)
class SearchResult(SweepResult):
    """How a sampled search ended. ``state`` is that of the sweep around its best configuration."""

    cut: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Trial id -> how far a trial came that the scheduler stopped: it has no record and no final loss."""
    trials: int = 0
    """The budget, in trials, of this run and earlier ones of the same search."""
    marks: tuple[str, ...] = ()
    """What must be said beside the result."""


def run_search(
    search: SampledSearch,
    ledger: Ledger,
    corpus: str,
    trials: int | None = None,
    *,
    address: str | None = None,
    max_concurrent: int | None = None,
    gpus_per_trial: float = 0.0,
    listener: Callable[[Progress], None] = lambda progress: None,
) -> SearchResult:
    """Run a sampled search until ``trials`` trials of its own are spent, then its best with the other seeds.

    Trials of earlier runs of the same search count; ``trials=None`` takes what coordinate descent is expected to need.
    What the ledger holds beside them is told to the sampler and not counted. Raises `InputError` when the cluster
    cannot run a single trial or the sampler is not installed.
    """
    from tuneopt.cluster.sampling import SampledSearcher

    budget = search.expected if trials is None else trials
    cut = ledger.sweeps().get(search.id, {}).get("cut", {})
    # Workers run elsewhere, so they get the whole path; the ledger keeps what the user typed.
    place = str(Path(corpus).resolve()) if Path(corpus).exists() else corpus
    searcher = SampledSearcher(search, ledger, place, budget, cut)

    def keep() -> None:
        plain = search.to_dict(searcher.centre, searcher.cut)
        optimizer = search.sweep.space.optimizer
        ledger.put_sweep(search.id, {**plain, "trials": budget, "corpus_source": corpus, **account(optimizer)})

    searcher.on_cut = keep
    began = time.perf_counter()
    start = search.sweep.spec(search.sweep.space.start)
    if searcher.spent:
        keep()
        return _result(searcher, SearchResult(outcomes=searcher.outcomes, state=searcher.state))
    with (
        compiling(start, WORKER_ENVIRONMENT)
        if start.compile and address is None and gpus_per_trial == 0
        else nullcontext(),
        connect(address, gpus_per_trial=gpus_per_trial) as session,
    ):
        keep()  # not before the cluster is known to run a trial: what is refused leaves no trace
        slots = min(session.slots, max_concurrent or session.slots)
        result = _tune(searcher, slots, gpus_per_trial, listener, began)
    keep()
    return result


def _tune(
    searcher: SampledSearcher,
    slots: int,
    gpus_per_trial: float,
    listener: Callable[[Progress], None],
    began: float,
) -> SearchResult:
    from ray import tune

    from tuneopt.cluster.halving import Halving
    from tuneopt.cluster.proposed import CutWatcher, ProposedTrainable

    scheduled = searcher.search.scheduler == "asha"
    watcher = CutWatcher(searcher, slots, began, listener)
    interrupted = False
    with tempfile.TemporaryDirectory(prefix="tuneopt-ray-") as scratch:
        tuner = tune.Tuner(
            tune.with_resources(ProposedTrainable, {"cpu": 1, "gpu": gpus_per_trial}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=Halving(GRACE, REDUCTION) if scheduled else None,
                num_samples=-1,
                reuse_actors=True,
                max_concurrent_trials=slots,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=searcher.search.id,
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
    return _result(
        searcher,
        SearchResult(
            outcomes=searcher.outcomes,
            state=searcher.state,
            run=sorted(watcher.done),
            failed={trial: watcher.errors.get(trial, "its worker died") for trial in searcher.failed},
            slots=slots,
            wall_seconds=time.perf_counter() - began,
            busy_seconds=watcher.busy_seconds,
            interrupted=interrupted,
        ),
    )


def _result(searcher: SampledSearcher, result: SearchResult) -> SearchResult:
    return replace(
        result,
        reused=sorted(searcher.reused),
        cut=dict(searcher.cut),
        trials=searcher.trials,
        marks=searcher.search.marks(searcher.told, len(searcher.cut)),
    )
