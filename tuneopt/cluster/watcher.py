"""A Ray Tune callback that keeps count of a sweep and tells a listener."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray import tune

from tuneopt.cluster.progress import Progress
from tuneopt.cluster.searcher import SweepSearcher


class Watcher(tune.Callback):  # type: ignore[misc]
    """Counts what this run of a sweep trained; calls the listener with a `Progress` whenever something happens."""

    def __init__(self, searcher: SweepSearcher, slots: int, began: float, listener: Callable[[Progress], None]) -> None:
        self.searcher, self.slots, self.began, self.listener = searcher, slots, began, listener
        self.running: dict[str, tuple[float, float | None]] = {}
        self.busy: dict[str, float] = {}
        self.done: set[str] = set()
        self.errors: dict[str, str] = {}

    @property
    def busy_seconds(self) -> float:
        """Seconds inside training and evaluation, over all trials of this run."""
        return sum(self.busy.values())

    def on_trial_start(self, *, trial: Any, **info: Any) -> None:
        """A trial got its slot."""
        self.running[self._name(trial)] = (0.0, None)
        self.tell()

    def on_trial_result(self, *, result: dict[str, Any], **info: Any) -> None:
        """A trial reached a curve point, or its end."""
        name = result["trial"]
        self.busy[name] = result["busy_seconds"]
        self.running[name] = (result["fraction"], result["select_loss"])
        if result["done"]:
            self.running.pop(name)
            if not result["reused"]:
                self.done.add(name)
        self.tell()

    def on_trial_complete(self, **info: Any) -> None:
        """A trial gave its slot back."""
        self.tell()

    def on_trial_recover(self, *, trial: Any, **info: Any) -> None:
        """A trial's worker died and the trial is started again."""
        self.running.pop(self._name(trial), None)
        self.tell()

    def on_trial_error(self, *, trial: Any, **info: Any) -> None:
        """A trial failed for the last time."""
        name = self._name(trial)
        self.running.pop(name, None)
        lines = str(trial.get_error() or "").strip().splitlines()
        self.errors[name] = lines[-1] if lines else "its worker died"
        self.tell()

    def tell(self) -> None:
        """Tell the listener where things stand now."""
        outcomes = self.searcher.outcomes
        self.listener(
            Progress(
                state=self.searcher.state,
                running=dict(self.running),
                done=len(self.done),
                reused=len(self.searcher.reused),
                diverged=sum(outcome.status == "diverged" for outcome in outcomes.values()),
                failed=len(self.searcher.failed),
                slots=self.slots,
                elapsed=time.perf_counter() - self.began,
                busy=self.busy_seconds,
            )
        )

    def _name(self, trial: Any) -> str:
        spec = self.searcher.running.get(trial.trial_id)
        return spec.id if spec else str(trial.trial_id)
