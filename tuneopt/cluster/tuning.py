"""What Ray Tune calls while it runs a plan: its searcher, its scheduler and its callback, all in front of a controller.

Tune owns the loop. It asks the searcher for a trial when a slot is free, the scheduler which waiting trial starts and
whether one goes on, and tells the callback what happened. None of the three keeps anything that matters: what runs next
follows from the plan and the records, and a driver that dies loses nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from tuneopt.ledger import CurvePoint
from tuneopt.observe.state import TrialEnd, Worker
from tuneopt.outside import sources_of
from tuneopt.run.spine import DEAD, RunController
from tuneopt.spec import InputError, TrialSpec


class TuneSearcher(Searcher):  # type: ignore[misc]
    """Suggests what the controller hands out; ``launched`` holds its trials by Tune's ids until they end.

    Tune writes its searcher, scheduler and callbacks down beside the experiment. Nothing reads that, and a controller
    holds threads and locks, so all three leave it out of a copy, which then suggests and hears nothing.
    """

    def __init__(self, controller: RunController | None) -> None:
        super().__init__(metric="select_loss", mode="min")
        self._controller = controller
        self.launched: dict[str, TrialSpec] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return TuneSearcher, (None,)

    @property
    def controller(self) -> RunController:
        """The run's controller."""
        assert self._controller is not None, "a copy that Tune wrote down runs nothing"
        return self._controller

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration, None while the running ones must end first, or FINISHED."""
        spec = self.controller.ask()
        if spec is None:  # FINISHED ends the experiment for good; None is asked again when a trial has ended
            return str(Searcher.FINISHED) if self.controller.over else None
        self.launched[trial_id] = spec
        return worker_config(self.controller, spec)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: `TuneCallback` tells the controller."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: `TuneCallback` tells the controller, in the same turn of Tune's loop."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the ledger is the state."""


def worker_config(controller: RunController, spec: TrialSpec) -> dict[str, Any]:
    """All that a worker is told of a trial (`tuneopt.cluster.trainable.TrialTrainable`); JSON where it is not flat."""
    plan, options = controller.plan, controller.options
    assert options.ledger is not None, "workers write their records into a ledger"
    placement = options.parallel.get(spec.regime.scale.name)
    return {
        "spec": json.dumps(spec.to_dict()),
        "corpus": options.reachable_corpus,
        "ledger": options.ledger.uri,
        "sources": json.dumps(sources_of(spec)),
        "marks": json.dumps(dict(plan.marks)),
        "placement": json.dumps(asdict(placement) if placement else {}),
        "keep_weights": options.keep_weights,
        "every_point": plan.judges,
        "gpus_per_rank": options.gpus_per_trial,
        "together": options.together,
    }


class TuneScheduler(FIFOScheduler):  # type: ignore[misc]
    """Starts waiting trials in the order in which they were suggested; stops those that the plan lets go no further.

    Tune's own schedulers search all trials of the experiment, twice, whenever anything happens, so that each trial of a
    long run costs more than the one before. This one forgets each trial at its end.

    A worker that is free goes to a trial that no worker was asked for yet. Given to one whose worker is just starting,
    that worker would be thrown away, and short trials would never get a second one.
    """

    def __init__(self, searcher: TuneSearcher) -> None:
        super().__init__()
        self.searcher = searcher
        self._live: dict[str, Any] = {}
        self._starting: set[str] = set()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """A trial waits for its slot."""
        self._live[trial.trial_id] = trial
        super().on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on; Tune does not ask for one that has ended by itself."""
        spec = self.searcher.launched.get(trial.trial_id)
        if spec is None or result["done"]:
            return str(TrialScheduler.CONTINUE)
        so_far = (result["fraction"], result["select_loss"], result["busy_seconds"])
        goes_on = self.searcher.controller.goes_on(spec, *so_far)
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first trial that waits and was not chosen yet, else the first that waits; None if all run."""
        for name in [name for name, trial in self._live.items() if trial.is_finished()]:
            del self._live[name]
        for status in ("PENDING", "PAUSED"):
            waiting = [trial for trial in self._live.values() if trial.status == status]
            if waiting:
                chosen = next((trial for trial in waiting if trial.trial_id not in self._starting), waiting[0])
                # Only those that still wait are remembered: what runs has its worker.
                self._starting = {trial.trial_id for trial in waiting} & self._starting | {chosen.trial_id}
                return chosen
        self._starting.clear()
        return None


@contextmanager
def own_errors() -> Iterator[None]:
    """Raise what our objects raised inside Tune as it was; Tune makes a `TuneError` of it, with a traceback as text.

    An error of the system (a ledger that cannot be read, too many open files) then has its sentence.
    """
    try:
        yield
    except tune.TuneError as error:
        inner: BaseException | None = error
        while isinstance(inner, tune.TuneError):  # Tune names no cause: the error stands in the context
            inner = inner.__cause__ or inner.__context__
        if isinstance(inner, OSError | InputError | KeyboardInterrupt):
            raise inner from None
        raise


class TuneCallback(tune.Callback):  # type: ignore[misc]
    """Translates Tune's callbacks into words that need no Ray.

    It drops the curve points from each result, and at a trial's end its configuration and Tune's running statistics:
    Tune would keep them to the end of the run, and they are most of what the driver would hold.
    """

    def __init__(self, searcher: TuneSearcher) -> None:
        self.searcher = searcher

    def on_trial_start(self, *, trial: Any, **info: Any) -> None:
        """A trial got its slot."""
        spec = self.searcher.launched.get(trial.trial_id)
        if spec is not None:
            self.searcher.controller.started(spec)

    def on_trial_result(self, *, trial: Any, result: dict[str, Any], **info: Any) -> None:
        """A trial reached a curve point, its end, or a scheduler's."""
        points = [CurvePoint(*row) for row in result.pop("points", ())]
        controller, spec = self.searcher.controller, self.searcher.launched.get(trial.trial_id)
        if spec is None:
            return
        seconds = result["busy_seconds"]
        where = Worker(str(result.get("hostname", "")), int(result.get("pid", 0)))
        controller.points(spec, points, seconds, where)
        if not result["done"]:
            return
        # How it ended: the run was halted, a scheduler cut it (then there is no status), another process had recorded
        # it meanwhile, or it came to its end.
        del self.searcher.launched[trial.trial_id]
        if result.get("halt"):
            controller.halt = str(result["halt"])
            # The whole run stops, and this trial goes on when it is run again.
        elif "status" not in result:
            controller.cut(spec, seconds)
        elif result["reused"]:
            controller.reused(spec)
        else:
            controller.ended(spec, TrialEnd(result["status"], result["select_loss"], result["report_loss"], seconds))

    def on_trial_complete(self, *, trial: Any, **info: Any) -> None:
        """A trial gave its slot back; let go of what Tune would keep of it."""
        kept = getattr(trial, "run_metadata", None)
        for name in ("metric_analysis", "metric_n_steps"):
            getattr(kept, name, {}).clear()
        getattr(kept, "last_result", {}).pop("config", None)
        trial.config = {}

    def on_trial_recover(self, *, trial: Any, **info: Any) -> None:
        """A trial's worker died and the trial is started again."""
        spec = self.searcher.launched.get(trial.trial_id)
        if spec is not None:
            self.searcher.controller.restarted(spec, last_line(trial))

    def on_trial_error(self, *, trial: Any, **info: Any) -> None:
        """A trial failed for the last time; it may never have had its slot."""
        spec = self.searcher.launched.pop(trial.trial_id, None)
        if spec is not None:
            self.searcher.controller.failed(spec, last_line(trial))


def last_line(trial: Any) -> str:
    """The last line of what Ray says about a trial's latest failure.

    Tune writes it on the driver's machine. `Trial.get_error` would look for it in the experiment's storage, where it
    arrives later or never.
    """
    try:
        lines = Path(trial.error_file).read_text(errors="replace").strip().splitlines()
    except (OSError, TypeError):
        return DEAD
    return lines[-1].strip() if lines else DEAD
