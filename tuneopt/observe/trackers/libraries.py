"""The three tracker libraries behind one small interface, and what every tracker is told of a trial.

Each class keeps one run for each trial, named by the trial's id, so that a trial that goes on finds its run again. They
run in a process of their own (`child`), may block and may raise. The libraries are extras, imported where they are
used.

- TensorBoard: event files through tensorboardX, which Ray Tune brings along.
- Weights & Biases: ``WANDB_MODE``, ``WANDB_API_KEY`` and all its other variables hold as always.
- MLflow: any address that its client takes (a server, or a data base such as ``sqlite:///mlflow.db``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tuneopt.ledger import CurvePoint
from tuneopt.observe.state import TrialEnd
from tuneopt.spec import TrialSpec, Value

if TYPE_CHECKING:
    from mlflow.entities import Metric

EXPERIMENT = "tuneopt"
"""MLflow's experiment, unless ``MLFLOW_EXPERIMENT_NAME`` names another."""

TAG = "tuneopt.trial"
"""The tag by which MLflow finds a trial's run again: it chooses the ids of runs itself."""


class TrackerLibrary(Protocol):
    """Keeps one run for each trial, named by the trial's id, through one library. Errors are the caller's matter."""

    def begin(self, spec: TrialSpec) -> set[int]:
        """Open the trial's run, the same again after an interruption; the steps that it is known to hold."""

    def log(self, spec: TrialSpec, points: Sequence[CurvePoint]) -> None:
        """Add curve points."""

    def finish(self, spec: TrialSpec, end: TrialEnd) -> None:
        """Close the run with its outcome."""

    def close(self) -> None:
        """Close every run that is open: its trial was interrupted and may go on some other time."""


def settings_of(spec: TrialSpec) -> dict[str, Value]:
    """A run's configuration: the hyperparameters by their names, and what names the regime."""
    regime = spec.regime
    return {
        **spec.config,
        "optimizer": spec.optimizer,
        "scale": regime.scale.name,
        "ratio": regime.ratio,
        "corpus": regime.corpus.name,
        "seed": spec.seed,
        **({} if spec.data_seed is None else {"data_seed": spec.data_seed}),
    }


def tags_of(spec: TrialSpec) -> dict[str, str]:
    """What runs are filtered by: optimizer, scale and data-to-model ratio."""
    regime = spec.regime
    return {"optimizer": spec.optimizer, "scale": regime.scale.name, "ratio": f"{regime.ratio:g}"}


def group_of(spec: TrialSpec) -> str:
    """What runs are shown together by: all trials of an optimizer in a regime, such as ``soap nano-65k 1x``."""
    regime = spec.regime
    return f"{spec.optimizer} {regime.scale.name} {regime.ratio:g}x"


def metrics_of(point: CurvePoint) -> dict[str, float]:
    """A point's figures: losses in nats per token, tokens, seconds since the trial began; only what is finite."""
    figures: Mapping[str, float | None] = {
        "train_loss": point.train_loss,
        "select_loss": point.select_loss,
        "report_loss": point.report_loss,
        "learning_rate": point.learning_rate,
        "tokens": float(point.tokens),
        "seconds": point.seconds,
    }
    return {name: value for name, value in figures.items() if value is not None}


def outcome_of(end: TrialEnd) -> dict[str, float]:
    """The final losses, on 512 sequences of each split; they alone are compared."""
    losses = {"final_select_loss": end.select_loss, "final_report_loss": end.report_loss}
    return {name: value for name, value in losses.items() if value is not None}


class TensorBoard:
    """A folder for each trial below ``folder``: ``soap nano-65k 1x/<trial id>``, with the hyperparameters' table.

    Event files can only be appended to, and nothing tells which steps they hold.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self._writers: dict[str, Any] = {}

    def begin(self, spec: TrialSpec) -> set[int]:
        """Open the trial's folder. What earlier files of it hold is drawn once: the new points take their place."""
        from tensorboardX import SummaryWriter

        path = self.folder / group_of(spec).replace("/", "-") / spec.id
        again = path.is_dir() and any(path.iterdir())
        self._writers[spec.id] = SummaryWriter(str(path), purge_step=0 if again else None, flush_secs=10)
        return set()

    def log(self, spec: TrialSpec, points: Sequence[CurvePoint]) -> None:
        """Add curve points."""
        writer = self._writers[spec.id]
        for point in points:
            for name, value in metrics_of(point).items():
                writer.add_scalar(name, value, global_step=point.step)
        writer.flush()

    def finish(self, spec: TrialSpec, end: TrialEnd) -> None:
        """Add the final losses and the row in the table of hyperparameters."""
        from tensorboardX.summary import hparams

        writer = self._writers.pop(spec.id)
        final = outcome_of(end)
        for name, value in final.items():
            writer.add_scalar(name, value, global_step=spec.steps)
        if final:
            for summary in hparams({**settings_of(spec), "status": end.status}, final):
                writer.file_writer.add_summary(summary)
        writer.close()

    def close(self) -> None:
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


class WandB:
    """A run for each trial in ``project``; its id and name are the trial's id, its group optimizer and regime.

    Several runs are open in one process at once. The step is a metric of its own: W&B's own step cannot go back, and a
    trial that goes on may tell earlier points again.
    """

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


class MLflow:
    """A run for each trial, named by its id, with its hyperparameters as parameters.

    The experiment is made where it is missing. Points go out in one request for each message: a server may be far.
    """

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

        known = self.client.search_runs([self.experiment], f"tags.`{TAG}` = '{spec.id}'", max_results=1)
        if known:
            run = known[0].info.run_id
            self.client.update_run(run, status="RUNNING")
            steps = {metric.step for metric in self.client.get_metric_history(run, "select_loss")}
        else:
            tags = {TAG: spec.id, "group": group_of(spec), **tags_of(spec)}
            run = self.client.create_run(self.experiment, tags=tags, run_name=spec.id).info.run_id
            parameters = [Param(name, str(value)) for name, value in settings_of(spec).items()]
            self.client.log_batch(run, params=parameters)
            steps = set()
        self._runs[spec.id] = run
        return steps

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
    """Figures as MLflow takes them, all of one step and of this moment (milliseconds)."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(name, value, now, step) for name, value in figures.items()]
