"""What a tracker's library must be able to do, and what every tracker is told of a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tuneopt.ledger import CurvePoint
from tuneopt.observe.observer import TrialEnd
from tuneopt.spec import TrialSpec, Value


class Backend(Protocol):
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
    }


def tags_of(spec: TrialSpec) -> dict[str, str]:
    """What runs are filtered by."""
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
