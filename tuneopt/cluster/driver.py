"""Run sweeps on Ray Tune: one to its certificate, or a study's over one pool of slots."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from tuneopt.cluster.progress import PoolProgress, PoolResult, Progress, SweepResult
from tuneopt.cluster.session import WORKER_ENVIRONMENT, connect
from tuneopt.ledger import Ledger
from tuneopt.optim.external import account
from tuneopt.search.known import recorded
from tuneopt.search.pool import OneSweep, Pool
from tuneopt.search.sweep import Sweep
from tuneopt.spec import TrialSpec
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
    plain = {**sweep.to_dict(), "corpus_source": corpus, **account(sweep.space.optimizer)}
    pool = Pool(OneSweep(sweep), known=recorded(ledger), ahead=True)

    def tell(progress: PoolProgress) -> None:
        moment = {name: getattr(progress, name) for name in Progress.__dataclass_fields__ if name != "state"}
        listener(Progress(**moment, state=progress.standings[sweep.id].state))

    result = run_pool(
        pool,
        ledger,
        corpus,
        name=sweep.id,
        address=address,
        max_concurrent=max_concurrent,
        gpus_per_trial=gpus_per_trial,
        connected=lambda: ledger.put_sweep(sweep.id, plain),
        listener=tell,
    )
    state = pool.standings[sweep.id].state
    return SweepResult(**{name: getattr(result, name) for name in PoolResult.__dataclass_fields__}, state=state)


def run_pool(
    pool: Pool,
    ledger: Ledger,
    corpus: str,
    *,
    name: str,
    address: str | None = None,
    max_concurrent: int | None = None,
    gpus_per_trial: float = 0.0,
    connected: Callable[[], object] = lambda: None,
    listener: Callable[[PoolProgress], None] = lambda progress: None,
) -> PoolResult:
    """Run everything that ``pool`` hands out; the rest is as for `run_sweep`. ``name`` names Tune's experiment.

    ``connected`` is called once it is sure that trials can run: what is refused leaves nothing behind. It ends when
    the pool is finished, has reached a limit, or at Ctrl-C; what runs at a limit runs to its end.
    """
    if pool.idle:
        connected()
        return PoolResult(pool.outcomes, reused=sorted(pool.outcomes), stopped=pool.stopped)
    began = time.perf_counter()
    with (
        _compiling(pool.coming(1), address, gpus_per_trial),
        connect(address, gpus_per_trial=gpus_per_trial) as session,
    ):
        connected()
        slots = min(session.slots, max_concurrent or session.slots)
        return _tune(pool, ledger, corpus, name, slots, gpus_per_trial, listener, began)


def _compiling(
    first: Sequence[TrialSpec], address: str | None, gpus_per_trial: float
) -> AbstractContextManager[object]:
    """Compile for the first trial while Ray starts; on a cluster the kernels are needed elsewhere.

    There the first worker of each machine compiles.
    """
    if first and first[0].compile and address is None and gpus_per_trial == 0:
        return compiling(first[0], WORKER_ENVIRONMENT)
    return nullcontext()


def _tune(
    pool: Pool,
    ledger: Ledger,
    corpus: str,
    name: str,
    slots: int,
    gpus_per_trial: float,
    listener: Callable[[PoolProgress], None],
    began: float,
) -> PoolResult:
    from ray import tune

    from tuneopt.cluster.searcher import PoolSearcher
    from tuneopt.cluster.trainable import TrialTrainable
    from tuneopt.cluster.watcher import Watcher

    # Workers run elsewhere, so they get the whole path; the ledger keeps what the user typed.
    searcher = PoolSearcher(pool, ledger, str(Path(corpus).resolve()) if Path(corpus).exists() else corpus)
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
                name=name,
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
    return PoolResult(
        pool.outcomes,
        run=sorted(watcher.done),
        reused=sorted(pool.reused),
        failed={trial: watcher.errors.get(trial, "its worker died") for trial in searcher.failed},
        slots=slots,
        wall_seconds=time.perf_counter() - began,
        busy_seconds=watcher.busy_seconds,
        interrupted=interrupted,
        stopped=pool.stopped,
    )
