"""Coordinate descent as a Ray Tune searcher.

The searcher keeps no state that matters: what it suggests follows from the sweep and the outcomes known so far, and
those are in the ledger. A driver that dies loses nothing.
"""

from __future__ import annotations

import json
from typing import Any

from ray.tune.search import Searcher

from tuneopt.ledger import Ledger
from tuneopt.search.lookahead import lookahead
from tuneopt.search.replay import Replay
from tuneopt.search.sweep import Outcome, Sweep
from tuneopt.spec import TrialSpec


class SweepSearcher(Searcher):  # type: ignore[misc]
    """Suggests the trials of one sweep, wave by wave, skipping those that the ledger already holds.

    Where a wave leaves slots idle it looks ahead: it suggests what will be needed next if the running trials end as
    expected. That costs a trial now and then, and saves slots from waiting at the end of every wave.
    """

    def __init__(self, sweep: Sweep, ledger: Ledger, corpus: str) -> None:
        super().__init__(metric="select_loss", mode="min")
        self.sweep, self.ledger, self.corpus = sweep, ledger, corpus
        self.running: dict[str, TrialSpec] = {}
        self.failed: set[str] = set()
        self._replay = Replay(sweep, ledger)
        self.state = self._replay.state()
        self.reused = set(self.outcomes)

    @property
    def outcomes(self) -> dict[str, Outcome]:
        """Trial id -> outcome, of every finished trial of the sweep."""
        return self._replay.outcomes

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration, None while the running ones must end first, or FINISHED."""
        if self.state.finished or (not self.state.pending and not self.running):
            return str(Searcher.FINISHED)
        spec = self._next()
        if spec is None:
            return None
        self.running[trial_id] = spec
        return {"spec": json.dumps(spec.to_dict()), "corpus": self.corpus, "ledger": self.ledger.uri}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take in a finished trial from the ledger; one that ended without a record is given up for this session."""
        spec = self.running.pop(trial_id, None)
        if spec is None:
            return
        if not self._replay.refresh(spec):
            self.failed.add(spec.id)
        self._settle()

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the ledger is the state."""

    def _next(self) -> TrialSpec | None:
        busy = {spec.id for spec in self.running.values()}
        for spec in self.state.pending:
            if spec.id not in busy:
                return spec
        for spec in lookahead(self.sweep, self.outcomes, self.failed):
            if spec.id in busy:
                continue
            if self._replay.look_up(spec):
                self.reused.add(spec.id)
                continue
            return spec
        return None

    def _settle(self) -> None:
        known = set(self.outcomes)
        self.state = self._replay.state(self.failed)
        self.reused |= set(self.outcomes) - known
