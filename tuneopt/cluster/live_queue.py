"""Which waiting trial starts next: the first, found without looking at the trials that ended.

Ray Tune's own schedulers search all trials of the experiment, twice, whenever anything happens, so that each trial of a
long run costs more than the one before.
"""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import FIFOScheduler


class LiveQueue(FIFOScheduler):  # type: ignore[misc]
    """Starts waiting trials in the order in which they were suggested; forgets each at its end.

    A worker that is free goes to a trial that no worker was asked for yet. Given to one whose worker is just starting,
    that worker would be thrown away, and short trials would never get a second one. Stands before another scheduler in
    a class's bases to give it this queue.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._live: dict[str, Any] = {}
        self._starting: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial waits for its slot."""
        self._live[trial.trial_id] = trial
        super().on_trial_add(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first trial that waits and was not chosen yet, else the first that waits; None if all run."""
        for name in [name for name, trial in self._live.items() if trial.is_finished()]:
            del self._live[name]
        for status in ("PENDING", "PAUSED"):
            waiting = [trial for trial in self._live.values() if trial.status == status]
            if waiting:
                chosen = next((trial for trial in waiting if trial.trial_id not in self._starting), waiting[0])
                self._starting = {trial.trial_id for trial in waiting} & self._starting | {chosen.trial_id}
                return chosen
        self._starting.clear()
        return None
