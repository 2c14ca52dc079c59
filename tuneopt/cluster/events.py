"""A Ray Tune callback that tells observers of a run's trials, in words that need no Ray."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ray import tune

from tuneopt.ledger import CurvePoint, Ledger
from tuneopt.observe.observer import Observer, Observers, TrialEnd, Worker
from tuneopt.spec import TrialSpec

DEAD = "its worker died"


class Events(tune.Callback):  # type: ignore[misc]
    """Translates Tune's callbacks for ``observers``; with none of them it costs a look-up per result.

    Placed before callbacks that drop a trial's configuration, and it drops the curve points from each result, which
    Tune would keep to the end of the run.
    """

    def __init__(self, observers: Iterable[Observer], ledger: Ledger) -> None:
        self.observers, self.ledger = Observers(observers), ledger
        self._specs: dict[str, TrialSpec] = {}
        self._busy: dict[str, float] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # Tune writes its callbacks down beside the experiment; nothing reads that, and observers hold threads.
        return Events, ((), self.ledger)

    def on_trial_start(self, *, trial: Any, **info: Any) -> None:
        """A trial got its slot."""
        if not self.observers.held:
            return
        spec = self._specs[trial.trial_id] = _spec(trial)
        self.observers.started(spec)

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """A trial reached a curve point, its end, or a scheduler's."""
        points = [CurvePoint(*row) for row in result.pop("points", ())]
        spec = self._specs.get(trial.trial_id)
        if spec is None:
            return
        self._busy[trial.trial_id] = result["busy_seconds"]
        if points:
            self.observers.points(spec, points, Worker(str(result.get("hostname", "")), int(result.get("pid", 0))))
        if result.get("halt"):  # the whole run stops, and this trial goes on when it is run again
            del self._specs[trial.trial_id]
            return
        if result["done"] and "status" in result:
            del self._specs[trial.trial_id]
            if result["reused"]:
                self.observers.reused(spec)
                return
            # Its last points, and those that a killed process took with it.
            record = self.ledger.get(spec.id) if self.observers.wants_whole_curves else None
            if record is not None:
                self.observers.points(spec, record.curve)
            self.observers.ended(spec, self._end(trial, result["status"], result))

    def on_trial_complete(self, *, trial: Any, **info: Any) -> None:
        """A trial gave its slot back; one that has not ended by itself was cut."""
        spec = self._specs.pop(trial.trial_id, None)
        if spec is not None:
            self.observers.ended(spec, self._end(trial, "cut", {}))
        self._busy.pop(trial.trial_id, None)

    def on_trial_recover(self, *, trial: Any, **info: Any) -> None:
        """A trial's worker died and the trial is started again."""
        spec = self._specs.get(trial.trial_id)
        if spec is not None:
            self.observers.restarted(spec, last_line(trial))

    def on_trial_error(self, *, trial: Any, **info: Any) -> None:
        """A trial failed for the last time."""
        spec = self._specs.pop(trial.trial_id, None) or _spec(trial)  # it may have failed before it got its slot
        self.observers.ended(spec, self._end(trial, "failed", {}, last_line(trial)))

    def _end(self, trial: Any, status: str, result: dict[str, Any], error: str = "") -> TrialEnd:
        return TrialEnd(
            status,
            result.get("select_loss"),
            result.get("report_loss"),
            self._busy.pop(trial.trial_id, 0.0),
            error,
        )


def _spec(trial: Any) -> TrialSpec:
    return TrialSpec.from_dict(json.loads(trial.config["spec"]))


def last_line(trial: Any) -> str:
    """The last line of what Ray says about a trial's latest failure.

    Tune writes it beside the driver; `Trial.get_error` would look for it in the experiment's storage, where it arrives
    later or never.
    """
    try:
        lines = Path(trial.error_file).read_text(errors="replace").strip().splitlines()
    except (OSError, TypeError):
        return DEAD
    return lines[-1].strip() if lines else DEAD
