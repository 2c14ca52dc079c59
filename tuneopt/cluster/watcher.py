"""A Ray Tune callback that keeps count of a pool's trials and tells a listener."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune

from tuneopt.cluster.events import last_line
from tuneopt.cluster.progress import PoolProgress
from tuneopt.cluster.searcher import PoolSearcher
from tuneopt.search.standing import Standing

SHARE = 0.05
"""Share of the driver's time that may go into working out where sweeps stand, just to show it."""


class Watcher(tune.Callback):  # type: ignore[misc]
    """Counts what this run trained; calls the listener with a `PoolProgress` whenever something happens."""

    def __init__(
        self, searcher: PoolSearcher, slots: int, began: float, listener: Callable[[PoolProgress], None]
    ) -> None:
        self.searcher, self.slots, self.began, self.listener = searcher, slots, began, listener
        self.running: dict[str, tuple[float, float | None]] = {}
        self.busy: dict[str, float] = {}
        self._busy = 0.0
        self.done: set[str] = set()
        self.errors: dict[str, str] = {}
        self._standings: Mapping[str, Standing] = {}
        self._next_look = 0.0

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune writes its callbacks down beside the experiment; nothing reads that, and listeners hold threads.
        return Watcher, (self.searcher, self.slots, self.began, _nobody)

    @property
    def busy_seconds(self) -> float:
        """Seconds inside training and evaluation, over all trials of this run."""
        return self._busy

    def on_trial_start(self, *, trial: Any, **info: Any) -> None:
        """A trial got its slot."""
        self.running[self._name(trial)] = (0.0, None)
        self.tell()

    def on_trial_result(self, *, result: dict[str, Any], **info: Any) -> None:
        """A trial reached a curve point, or its end."""
        name = result["trial"]
        self._busy += result["busy_seconds"] - self.busy.get(name, 0.0)
        self.busy[name] = result["busy_seconds"]
        self.running[name] = (result["fraction"], result["select_loss"])
        if result["done"]:
            self.running.pop(name)
            if not (result.get("halt") or result["reused"]):
                self.done.add(name)
        self.tell()

    def on_trial_complete(self, **info: Any) -> None:
        """A trial gave its slot back."""
        if "trial" in info:
            forget(info["trial"])
        self.tell()

    def on_trial_recover(self, *, trial: Any, **info: Any) -> None:
        """A trial's worker died and the trial is started again."""
        self.running.pop(self._name(trial), None)
        self.tell()

    def on_trial_error(self, *, trial: Any, **info: Any) -> None:
        """A trial failed for the last time."""
        name = self._name(trial)
        self.running.pop(name, None)
        self.errors[name] = last_line(trial)
        self.tell()

    def tell(self) -> None:
        """Tell the listener where things stand now."""
        pool = self.searcher.pool
        self.listener(
            PoolProgress(
                running=dict(self.running),
                done=len(self.done),
                reused=len(pool.reused),
                diverged=pool.diverged,
                failed=len(self.searcher.failed),
                slots=self.slots,
                elapsed=time.perf_counter() - self.began,
                busy=self.busy_seconds,
                standings=self._look(),
                device_seconds=pool.device_seconds,
            )
        )

    def _look(self) -> Mapping[str, Standing]:
        """Where the sweeps stand, looked up as often as that stays cheap."""
        began = time.perf_counter()
        if began >= self._next_look:
            self._standings = self.searcher.pool.standings
            now = time.perf_counter()
            self._next_look = now + (now - began) / SHARE
        return self._standings

    def _name(self, trial: Any) -> str:
        spec = self.searcher.running.get(trial.trial_id)
        return spec.id if spec else str(trial.trial_id)


def _nobody(progress: PoolProgress) -> None:
    """A listener that hears nothing."""


def forget(trial: Any) -> None:
    """Drop Tune's running statistics of an ended trial and its configuration: most of what the driver would keep."""
    kept = getattr(trial, "run_metadata", None)
    for name in ("metric_analysis", "metric_n_steps"):
        getattr(kept, name, {}).clear()
    getattr(kept, "last_result", {}).pop("config", None)
    trial.config = {}
