"""Event files for TensorBoard, through tensorboardX, which Ray Tune brings along."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneopt.ledger import CurvePoint
from tuneopt.observe.observer import TrialEnd
from tuneopt.observe.trackers.backend import group_of, metrics_of, outcome_of, settings_of
from tuneopt.spec import TrialSpec


class TensorBoard:
    """A folder for each trial below ``folder``: ``soap nano-65k 1x/<trial id>``, with the hyperparameters' table."""

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
