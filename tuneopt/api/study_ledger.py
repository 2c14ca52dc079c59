"""What a study leaves in its ledger beside the trials: its sweeps, and accounts of its runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuneopt.cluster.progress import PoolResult
    from tuneopt.ledger import Ledger
    from tuneopt.search.queue import SchedulerQueue
    from tuneopt.search.study.study import Study


def put_sweeps(ledger: Ledger, pool: SchedulerQueue, study: Study, known: set[str]) -> None:
    """Describe the sweeps that are new in the ledger, so that reports find them; ``known`` takes in their ids."""
    from tuneopt.optim.external import account

    for name, task in pool.tasks.items():
        if name not in known:
            known.add(name)
            plain = {**task.sweep.to_dict(), "corpus_source": study.corpus, "study": study.name, "phase": task.phase}
            ledger.put_sweep(name, {**plain, **account(task.sweep.space.optimizer)})


def put_runs(ledger: Ledger, study: str, pool: SchedulerQueue, result: PoolResult) -> None:
    """An account of this run for each sweep that it worked on, and one for what they share."""
    from tuneopt.search.study.spent import RunTimes, accounts

    for account in accounts(
        study,
        pool.standings,
        RunTimes(result.slots, result.wall_seconds, result.busy, result.busy_seconds),
        run=result.run,
        reused=pool.reused,
        failed=result.failed,
        guesses=pool.guesses,
        interrupted=result.interrupted,
    ):
        ledger.put_run(account)
