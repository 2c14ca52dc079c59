"""Run sweeps on Ray Tune: one to its certificate, or a study's over one pool of slots."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tuneopt.cluster.placing import Placements, Placing
from tuneopt.cluster.progress import PoolProgress, PoolResult, Progress, SweepResult
from tuneopt.cluster.tuner import compiling_ahead, fit, reachable
from tuneopt.ledger import Ledger
from tuneopt.ledger.lease import hold
from tuneopt.observe.observer import Observer
from tuneopt.optim.external import account
from tuneopt.search.queue import OneSweep, SchedulerQueue
from tuneopt.search.records import recorded
from tuneopt.search.sweep import Sweep
from tuneopt.spec import InputError


def run_sweep(
    sweep: Sweep,
    ledger: Ledger,
    corpus: str,
    *,
    address: str | None = None,
    max_concurrent: int | None = None,
    gpus_per_trial: float = 0.0,
    placements: Placements | None = None,
    keep_weights: bool = False,
    listener: Callable[[Progress], None] = lambda progress: None,
    observers: Sequence[Observer] = (),
) -> SweepResult:
    """Run what is missing of ``sweep`` on Ray Tune; the workers write the records, the ledger is the result.

    ``placements`` says by scale which trials run on several ranks; each rank takes a CPU and ``gpus_per_trial`` GPUs.
    ``keep_weights`` keeps the final weights of every trial beside the ledger's records.
    ``corpus`` is the name or path that workers load it by. A sweep that the ledger holds completely starts no Ray.
    Ctrl-C ends it early with ``interrupted`` set; running the same sweep again goes on from there. Raises
    `InputError` when the cluster cannot run a single trial.
    """
    plain = {**sweep.to_dict(), "corpus_source": corpus, **account(sweep.space.optimizer)}
    pool = SchedulerQueue(OneSweep(sweep), known=recorded(ledger), ahead=True)

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
        placements=placements,
        keep_weights=keep_weights,
        connected=lambda: ledger.put_sweep(sweep.id, plain),
        listener=tell,
        observers=observers,
    )
    state = pool.standings[sweep.id].state
    return SweepResult(**{name: getattr(result, name) for name in PoolResult.__dataclass_fields__}, state=state)


def run_pool(
    pool: SchedulerQueue,
    ledger: Ledger,
    corpus: str,
    *,
    name: str,
    address: str | None = None,
    max_concurrent: int | None = None,
    gpus_per_trial: float = 0.0,
    placements: Placements | None = None,
    keep_weights: bool = False,
    connected: Callable[[], object] = lambda: None,
    listener: Callable[[PoolProgress], None] = lambda progress: None,
    observers: Sequence[Observer] = (),
) -> PoolResult:
    """Run everything that ``pool`` hands out; the rest is as for `run_sweep`. ``name`` names Tune's experiment.

    ``connected`` is called once it is sure that trials can run: what is refused leaves nothing behind. It ends when
    the pool is finished, has reached a limit, or at Ctrl-C; what runs at a limit runs to its end.
    """
    if pool.idle:
        connected()
        return PoolResult(pool.outcomes, reused=sorted(pool.outcomes), stopped=pool.stopped)
    began = time.perf_counter()
    placing = Placing(placements or {}, gpus_per_trial, not ledger.is_local, keep_weights)
    scales = {task.sweep.regime.scale.name for task in pool.tasks.values()}
    with (
        compiling_ahead(placing.as_compiled(pool.coming(1)), address, gpus_per_trial),
        placing.connect(address, scales) as session,
        hold(ledger, name, "sweep" if name in pool.tasks else "study"),
    ):
        connected()
        slots = min(session.slots, max_concurrent or session.slots)
        return _tune(pool, ledger, corpus, name, slots, placing, listener, observers, began)


def _tune(
    pool: SchedulerQueue,
    ledger: Ledger,
    corpus: str,
    name: str,
    slots: int,
    placing: Placing,
    listener: Callable[[PoolProgress], None],
    observers: Sequence[Observer],
    began: float,
) -> PoolResult:
    from tuneopt.cluster.searcher import PoolSearcher
    from tuneopt.cluster.trainable import TrialTrainable
    from tuneopt.cluster.watcher import Watcher

    searcher = PoolSearcher(pool, ledger, reachable(corpus))
    watcher = Watcher(searcher, slots, began, listener)
    worker = placing.trainable(TrialTrainable)
    interrupted = fit(worker, searcher, watcher, name=name, slots=slots, request=placing.request, observers=observers)
    if searcher.halt and not interrupted:
        raise InputError(searcher.halt)
    return PoolResult(
        pool.outcomes,
        run=sorted(watcher.done),
        reused=sorted(pool.reused),
        failed={trial: watcher.errors.get(trial, "its worker died") for trial in searcher.failed},
        slots=slots,
        wall_seconds=time.perf_counter() - began,
        busy_seconds=watcher.busy_seconds,
        busy=dict(watcher.busy),
        interrupted=interrupted,
        stopped=pool.stopped,
    )
