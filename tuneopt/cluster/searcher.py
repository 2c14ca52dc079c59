"""A pool of sweeps as a Ray Tune searcher.

The searcher keeps no state that matters: what it suggests follows from the plan and the outcomes known so far, and
those are in the ledger. A driver that dies loses nothing.
"""

from __future__ import annotations

import json
from typing import Any

from ray.tune.search import Searcher

from tuneopt.ledger import Ledger
from tuneopt.optim.external import source_of
from tuneopt.search.outcome import Outcome
from tuneopt.search.queue import OneSweep, SchedulerQueue
from tuneopt.search.records import recorded
from tuneopt.search.sweep import Sweep, SweepState
from tuneopt.spec import TrialSpec


class PoolSearcher(Searcher):  # type: ignore[misc]
    """Suggests the trials of a pool, the most urgent first; the workers' records tell it how they ended."""

    def __init__(self, pool: SchedulerQueue, ledger: Ledger, corpus: str) -> None:
        super().__init__(metric="select_loss", mode="min")
        self.pool, self.ledger, self.corpus = pool, ledger, corpus
        self.running: dict[str, TrialSpec] = {}
        self.failed: set[str] = set()
        self.halt = ""
        """Why nothing more can run; a worker found out."""
        self._recorded = recorded(ledger)

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """Trial id -> outcome, of every finished trial of the sweeps."""
        return self.pool.outcomes

    @property
    def reused(self) -> set[str]:
        """Ids of the trials that the ledger held already."""
        return self.pool.reused

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration, None while the running ones must end first, or FINISHED."""
        if self.pool.finished or self.halt:
            return str(Searcher.FINISHED)
        spec = self.pool.next()
        if spec is None:
            return str(Searcher.FINISHED) if self.pool.idle else None
        self.running[trial_id] = spec
        source = source_of(spec.optimizer)
        return {"spec": json.dumps(spec.to_dict()), "corpus": self.corpus, "ledger": self.ledger.uri, "source": source}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take in a finished trial from the ledger; one that ended without a record is given up for this session."""
        spec = self.running.pop(trial_id, None)
        if spec is None:
            return
        if result and result.get("halt"):
            self.halt = str(result["halt"])
            return
        ended = self._recorded(spec)
        if ended is None:
            self.failed.add(spec.id)
        self.pool.tell(spec, ended)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the ledger is the state."""


class SweepSearcher(PoolSearcher):
    """Suggests the trials of one sweep, wave by wave, skipping those that the ledger already holds.

    Where a wave leaves slots idle it looks ahead: it suggests what will be needed next if the running trials end as
    expected. That costs a trial now and then, and saves slots from waiting at the end of every wave.
    """

    def __init__(self, sweep: Sweep, ledger: Ledger, corpus: str) -> None:
        super().__init__(SchedulerQueue(OneSweep(sweep), known=recorded(ledger), ahead=True), ledger, corpus)
        self.sweep = sweep

    @property
    def state(self) -> SweepState:
        """Where the sweep stands."""
        return self.pool.standings[self.sweep.id].state
