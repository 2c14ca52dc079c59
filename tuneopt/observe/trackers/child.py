"""The process that writes to one tracker: ``python -m tuneopt.observe.trackers.child``.

It reads JSON lines from the driver until their end, so that neither a slow tracker nor one that is out of reach is
felt by the driver. The first line is ``{"kind", "target"}``; each other one is ``{"spec", "points", "end"}`` with a
trial's specification, rows of curve points, and its outcome or null. The first thing that goes wrong is said on stdout,
as one JSON text, once. When the driver dies, the lines end, and runs under way are closed as interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from tuneopt.errors import in_words
from tuneopt.ledger import CurvePoint
from tuneopt.observe.state import TrialEnd
from tuneopt.observe.trackers.libraries import MLflow, TensorBoard, TrackerLibrary, WandB
from tuneopt.spec import TrialSpec

FAILURES = 3
"""Failures in a row after which a tracker is no longer asked: each may take minutes of time-outs."""

LIBRARIES: dict[str, Callable[[str], TrackerLibrary]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}
"""What writes to a folder, a project or an address, by the name of its flag."""


class Writer:
    """Takes the driver's messages to a library, each step of a trial once, and keeps its errors from everybody."""

    def __init__(self, start: Callable[[], TrackerLibrary], complain: Callable[[str], object]) -> None:
        self.start, self.complain = start, complain
        self.library: TrackerLibrary | None = None
        self.failures = 0
        self.complained = False
        self._written: dict[str, set[int]] = {}  # steps by trial: workers that go on tell everything from the beginning

    def take(self, message: dict[str, Any]) -> None:
        """One message: curve points of a trial, or its end."""
        if self.failures < FAILURES:
            self._attempt(lambda: self._take(message))

    def close(self) -> None:
        """No more messages come."""
        if self.library is not None and self.failures < FAILURES:
            self._attempt(self.library.close)

    def _take(self, message: dict[str, Any]) -> None:
        """Write what is new. Steps are noted after the write: what failed comes again with the next message."""
        if self.library is None:
            self.library = self.start()
        spec = TrialSpec.from_dict(message["spec"])
        if spec.id not in self._written:
            self._written[spec.id] = self.library.begin(spec)
        written = self._written[spec.id]
        points = [CurvePoint(*row) for row in message["points"]]
        fresh = [point for point in points if point.step not in written]
        if fresh:
            self.library.log(spec, fresh)
            written.update(point.step for point in fresh)
        if message["end"] is not None:
            del self._written[spec.id]
            self.library.finish(spec, TrialEnd(**message["end"]))

    def _attempt(self, call: Callable[[], object]) -> None:
        """Call a library; its first failure is told, and `FAILURES` in a row end its use."""
        try:
            call()
            self.failures = 0
        except Exception as error:
            self.failures += 1
            if not self.complained:
                self.complained = True
                self.complain(in_words(error)[:500])


def serve(lines: Iterable[str], answer: Callable[[str], object]) -> None:
    """Write what ``lines`` say to the tracker that the first of them names."""
    whole = iter(lines)
    chosen = json.loads(next(whole))
    writer = Writer(lambda: LIBRARIES[chosen["kind"]](chosen["target"]), answer)
    for line in whole:
        writer.take(json.loads(line))
    writer.close()


def main() -> None:
    """Serve the driver at the other end of stdin; what libraries print goes to stderr."""
    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(text: str) -> None:
        answers.write(json.dumps(text) + "\n")
        answers.flush()

    serve(sys.stdin, answer)


if __name__ == "__main__":
    main()
