"""Run a sampled search on Ray Tune: Optuna's samplers, and ASHA for those who ask for it.

The workers are those of every sweep. What they record carries the name of the search that proposed it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tuneopt.cluster.placing import Placements, Placing
from tuneopt.cluster.progress import Progress, SweepResult
from tuneopt.cluster.tuner import compiling_ahead, fit, reachable
from tuneopt.ledger import Ledger
from tuneopt.ledger.lease import hold
from tuneopt.observe.observer import Observer
from tuneopt.optim.external import account
from tuneopt.search.sampled import SampledSearch
from tuneopt.spec import InputError

if TYPE_CHECKING:
    from tuneopt.cluster.sampling import SampledSearcher

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
    placements: Placements | None = None,
    keep_weights: bool = False,
    listener: Callable[[Progress], None] = lambda progress: None,
    observers: Sequence[Observer] = (),
) -> SearchResult:
    """Run a sampled search until ``trials`` trials of its own are spent, then its best with the other seeds.

    Trials of earlier runs of the same search count; ``trials=None`` takes what coordinate descent is expected to need.
    What the ledger holds beside them is told to the sampler and not counted. Raises `InputError` when the cluster
    cannot run a single trial or the sampler is not installed.
    """
    from tuneopt.cluster.sampling import SampledSearcher

    budget = search.expected if trials is None else trials
    cut = ledger.sweeps().get(search.id, {}).get("cut", {})
    searcher = SampledSearcher(search, ledger, reachable(corpus), budget, cut)

    def keep() -> None:
        plain = search.to_dict(searcher.centre, searcher.cut)
        optimizer = search.sweep.space.optimizer
        ledger.put_sweep(search.id, {**plain, "trials": budget, "corpus_source": corpus, **account(optimizer)})

    searcher.on_cut = keep
    began = time.perf_counter()
    start = search.sweep.spec(search.sweep.space.start)
    placing = Placing(placements or {}, gpus_per_trial, not ledger.is_local, keep_weights)
    if searcher.spent:
        keep()
        return _result(searcher, SearchResult(outcomes=searcher.outcomes, state=searcher.state))
    with (
        compiling_ahead(placing.as_compiled([start]), address, gpus_per_trial),
        placing.connect(address, [search.sweep.regime.scale.name]) as session,
        hold(ledger, search.id, "search"),
    ):
        keep()  # not before the cluster is known to run a trial: what is refused leaves no trace
        slots = min(session.slots, max_concurrent or session.slots)
        result = _tune(searcher, slots, placing, listener, observers, began)
    keep()
    return result


def _tune(
    searcher: SampledSearcher,
    slots: int,
    placing: Placing,
    listener: Callable[[Progress], None],
    observers: Sequence[Observer],
    began: float,
) -> SearchResult:
    from tuneopt.cluster.halving import Halving
    from tuneopt.cluster.proposed import CutWatcher, ProposedTrainable

    scheduled = searcher.search.scheduler == "asha"
    watcher = CutWatcher(searcher, slots, began, listener)
    interrupted = fit(
        placing.trainable(ProposedTrainable),
        searcher,
        watcher,
        name=searcher.search.id,
        slots=slots,
        request=placing.request,
        scheduler=Halving(GRACE, REDUCTION) if scheduled else None,
        observers=observers,
    )
    if searcher.halt and not interrupted:
        raise InputError(searcher.halt)
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
