"""Sampled searches by name: TPE, random, Gaussian process, with or without a scheduler that stops trials early."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.api.sweeps import cost, placed, summary

if TYPE_CHECKING:
    from tuneopt.cluster.alternatives import SearchResult
    from tuneopt.cluster.progress import Progress
    from tuneopt.data import Corpus
    from tuneopt.ledger import Ledger
    from tuneopt.observe.observer import Observer
    from tuneopt.search.sampled import SampledSearch
    from tuneopt.train.config import ParallelConfig


def sample(
    search: SampledSearch,
    ledger: Ledger | str,
    *,
    trials: int | None = None,
    corpus: str = "embedded",
    address: str | None = None,
    max_concurrent: int | None = None,
    gpus_per_trial: float = 0.0,
    placement: ParallelConfig | None = None,
    keep_weights: bool = False,
    listener: Callable[[Progress], None] = lambda progress: None,
    observers: Sequence[Observer] = (),
) -> SearchResult:
    """Run a sampled search on Ray Tune to the end of its ``trials``, and keep an account of this run in the ledger.

    ``trials=None`` takes what coordinate descent is expected to need. ``corpus`` is what `plan` was given.
    """
    from tuneopt.cluster.alternatives import run_search
    from tuneopt.ledger import open_ledger

    opened = open_ledger(ledger) if isinstance(ledger, str) else ledger
    placements = placed(search.sweep, placement)
    result = run_search(
        search,
        opened,
        corpus,
        trials,
        address=address,
        max_concurrent=max_concurrent,
        gpus_per_trial=gpus_per_trial,
        placements=placements,
        keep_weights=keep_weights,
        listener=listener,
        observers=observers,
    )
    if result.run or result.failed or result.cut:
        opened.put_run(
            {
                "sweep": search.id,
                "search": search.search,
                "scheduler": search.scheduler,
                "run": result.run,
                "reused": result.reused,
                "failed": result.failed,
                "cut": result.cut,
                "slots": result.slots,
                "wall_seconds": result.wall_seconds,
                "busy_seconds": result.busy_seconds,
                "interrupted": result.interrupted,
            }
        )
    return result


def search_cost(search: SampledSearch, corpus: Corpus, ledger: Ledger, trials: int | None = None) -> dict[str, Any]:
    """What a sampled search will cost at most, before it starts; nothing that the ledger holds makes it cheaper."""
    plan = cost(search.sweep, corpus, ledger)
    budget = search.expected if trials is None else trials
    runs, rate = budget + search.sweep.replicates - 1, plan["tokens_per_second"]
    return {
        **plan,
        "sweep": search.id,
        "search": search.search,
        "scheduler": search.scheduler,
        "trials": {**plan["trials"], "first_wave": min(budget, plan["slots"]), "expected": runs},
        "seconds": runs * search.sweep.regime.tokens / rate / plan["slots"] if rate else None,
        "warnings": [*plan["warnings"], *search.marks()],
    }


def search_summary(search: SampledSearch, result: SearchResult, report: Path) -> dict[str, Any]:
    """How a sampled search ended: what ``tune --search NAME --json`` prints, with all that every sweep prints."""
    plain = summary(search.sweep, result, report)
    return {
        **plain,
        "sweep": search.id,
        "search": search.search,
        "scheduler": search.scheduler,
        "trials": {**plain["trials"], "cut": len(result.cut), "budget": result.trials},
        "marks": list(result.marks),
    }
