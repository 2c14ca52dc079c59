"""Runs for MLflow, at any address that its client takes (a server, or a data base such as ``sqlite:///mlflow.db``)."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuneopt.ledger import CurvePoint
from tuneopt.observe.observer import TrialEnd
from tuneopt.observe.trackers.backend import group_of, metrics_of, outcome_of, settings_of, tags_of
from tuneopt.spec import TrialSpec

if TYPE_CHECKING:
    from mlflow.entities import Metric

EXPERIMENT = "tuneopt"
"""The experiment, unless ``MLFLOW_EXPERIMENT_NAME`` names another."""

TAG = "tuneopt.trial"
"""The tag by which a trial's run is found again."""


class MLflow:
    """A run for each trial, named by its id, with its hyperparameters as parameters."""

    def __init__(self, uri: str) -> None:
        from mlflow import MlflowClient

        self.client = MlflowClient(tracking_uri=uri)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = self.client.get_experiment_by_name(name)
        self.experiment = known.experiment_id if known else self.client.create_experiment(name)
        self._runs: dict[str, str] = {}

    def begin(self, spec: TrialSpec) -> set[int]:
        """Open the trial's run, or go on with the one that carries its tag."""
        from mlflow.entities import Param

        found = self.client.search_runs([self.experiment], f"tags.`{TAG}` = '{spec.id}'", max_results=1)
        if found:
            run = found[0].info.run_id
            self.client.update_run(run, status="RUNNING")
            held = {metric.step for metric in self.client.get_metric_history(run, "select_loss")}
        else:
            tags = {TAG: spec.id, "group": group_of(spec), **tags_of(spec)}
            run = self.client.create_run(self.experiment, tags=tags, run_name=spec.id).info.run_id
            parameters = [Param(name, str(value)) for name, value in settings_of(spec).items()]
            self.client.log_batch(run, params=parameters)
            held = set()
        self._runs[spec.id] = run
        return held

    def log(self, spec: TrialSpec, points: Sequence[CurvePoint]) -> None:
        """Add curve points, in one request."""
        metrics = [metric for point in points for metric in _metrics(metrics_of(point), point.step)]
        self.client.log_batch(self._runs[spec.id], metrics=metrics)

    def finish(self, spec: TrialSpec, end: TrialEnd) -> None:
        """Add the final losses and end the run."""
        run = self._runs.pop(spec.id)
        self.client.log_batch(run, metrics=_metrics(outcome_of(end), spec.steps))
        self.client.set_tag(run, "status", end.status)
        self.client.set_terminated(run, "FAILED" if end.status == "failed" else "FINISHED")

    def close(self) -> None:
        """End interrupted runs as killed; they go on when their trials do."""
        for run in self._runs.values():
            self.client.set_terminated(run, "KILLED")
        self._runs.clear()


def _metrics(figures: dict[str, float], step: int) -> list[Metric]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(name, value, now, step) for name, value in figures.items()]
