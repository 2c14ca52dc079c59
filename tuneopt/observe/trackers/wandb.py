"""Runs for Weights & Biases; ``WANDB_MODE``, ``WANDB_API_KEY`` and all its other variables hold as always."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuneopt.ledger import CurvePoint
from tuneopt.observe.observer import TrialEnd
from tuneopt.observe.trackers.backend import group_of, metrics_of, outcome_of, settings_of, tags_of
from tuneopt.spec import TrialSpec


class WandB:
    """A run for each trial in ``project``; its id and name are the trial's id, its group optimizer and regime."""

    def __init__(self, project: str) -> None:
        self.project = project
        self._runs: dict[str, Any] = {}

    def begin(self, spec: TrialSpec) -> set[int]:
        """Open the trial's run, or go on with it. Points that it holds already are drawn over each other."""
        import wandb

        run = wandb.init(
            project=self.project,
            id=spec.id,
            name=spec.id,
            group=group_of(spec),
            job_type="trial",
            tags=[f"{name}:{value}" for name, value in tags_of(spec).items()],
            config=settings_of(spec),
            resume="allow",
            reinit="create_new",
            allow_val_change=True,
            # Neither output nor load of this process say anything about the trial, which ran elsewhere.
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True
            ),
        )
        run.define_metric("step")
        run.define_metric("*", step_metric="step")
        self._runs[spec.id] = run
        return set()

    def log(self, spec: TrialSpec, points: Sequence[CurvePoint]) -> None:
        """Add curve points."""
        for point in points:
            self._runs[spec.id].log({"step": point.step, **metrics_of(point)})

    def finish(self, spec: TrialSpec, end: TrialEnd) -> None:
        """Put status and final losses into the summary; a trial that failed is a failed run."""
        run = self._runs.pop(spec.id)
        run.summary.update({"status": end.status, **outcome_of(end)})
        run.finish(exit_code=1 if end.status == "failed" else 0)

    def close(self) -> None:
        """Leave interrupted runs as failed; they go on under the same id."""
        for run in self._runs.values():
            run.summary.update({"status": "interrupted"})
            run.finish(exit_code=130)
        self._runs.clear()
