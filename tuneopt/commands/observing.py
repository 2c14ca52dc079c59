"""The options that say what a run tells about itself, and what follows from them: before a run, during it, at its end.

With ``--log-format json`` a collector reads stderr, so nothing but JSON lines may stand there: no display, no notes.
With ``--json`` a program reads stdout, and then no display is shown either: whoever starts it waits for the document.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from tuneopt.commands.options import DONE, INTERRUPTED, UNANSWERED, show
from tuneopt.paths import expanded

if TYPE_CHECKING:
    from tuneopt.api.comparison_results import ComparisonResult
    from tuneopt.api.results import SweepResult
    from tuneopt.api.study_results import StudyResult
    from tuneopt.ledger import Ledger
    from tuneopt.observe.observer import Observer
    from tuneopt.observe.trackers.tracker import Tracker

Reported = TypeVar("Reported", "SweepResult", "StudyResult", "ComparisonResult")

LogLevel = Annotated[
    str | None,
    typer.Option("--log-level", envvar="TUNEOPT_LOG_LEVEL", help="debug, info, warning or error; default: warning."),
]
LogFormat = Annotated[
    str, typer.Option("--log-format", envvar="TUNEOPT_LOG_FORMAT", help="text, or json: a line for each event.")
]
TensorBoard = Annotated[str | None, typer.Option("--tensorboard", metavar="DIR", help="Write event files there.")]
WandB = Annotated[str | None, typer.Option("--wandb", metavar="PROJECT", help="Log to Weights & Biases.")]
MLflow = Annotated[
    str | None, typer.Option("--mlflow", metavar="URI", help="Log to MLflow: a server, or sqlite:///mlflow.db.")
]


class Watching:
    """Logging as asked for, from now on, and trackers to be opened when trials are to run.

    Raises `InputError` for unknown words and for trackers that cannot be written to, before anything else is done.
    """

    def __init__(
        self,
        level: str | None,
        form: str,
        tensorboard: str | None = None,
        wandb: str | None = None,
        mlflow: str | None = None,
        output: Path | None = None,
    ) -> None:
        from tuneopt.console import say
        from tuneopt.ledger.place import patience
        from tuneopt.observe.logs import configure
        from tuneopt.observe.trackers.tracker import check
        from tuneopt.training.config import pause_seconds

        # What the environment says is checked before anything is written.
        pause_seconds()
        patience()
        # Trackers are checked now and opened when trials run: opening one starts a process and may make a run on a
        # server, which a command that ends with a sentence about its options should not leave behind.
        self.targets = {"tensorboard": tensorboard, "wandb": wandb, "mlflow": mlflow}
        check({kind: target for kind, target in self.targets.items() if target is not None})
        self.display = configure(level, form, say)
        """Whether progress may be shown on stderr: JSON lines stand there alone."""
        self.output = None if output is None else expanded(output)
        """Where the report goes, as the user asked."""

    def trackers(self) -> AbstractContextManager[Sequence[Tracker]]:
        """The trackers, closed at the end; none where none was asked for."""
        from tuneopt.observe.trackers.tracker import tracking

        return tracking(**self.targets)

    @contextmanager
    def run(self, verb: str, title: str, json_: bool) -> Iterator[list[Observer]]:
        """The observers of a run of many trials: a display, unless stdout or stderr is for machines, and trackers."""
        from tuneopt.display import RunDisplay

        quiet = json_ or not self.display
        # The display is left last: trackers may take seconds to close, and a terminal should not look dead meanwhile.
        with RunDisplay(verb, title, quiet=quiet) as display, self.trackers() as trackers:
            yield [display, *trackers]

    def reported(
        self,
        result: Reported,
        ledger: Ledger,
        path: Path,
        json_: bool,
        draw: Callable[[Reported, Callable[[str], None]], None],
        baseline: str | None = None,
    ) -> int:
        """The end of every run: a hint how to go on from an interrupt, or the report and the result; the exit code.

        ``draw`` prints the result, and gives its notes to what it gets as well (`say`). ``baseline`` is whom the
        report's speedups are over, where the result does not say.
        """
        from tuneopt import api
        from tuneopt.display import resume_hint
        from tuneopt.ledger.store import mending

        if result.interrupted:
            self.say(resume_hint(sys.argv, result))
            return INTERRUPTED
        # A record that was damaged while the run went on is set aside: the run's end is no place to stop for it.
        baseline = baseline or getattr(result, "baseline", None)  # a comparison has one of its own
        mending(ledger, lambda: api.report(ledger, path, result.sweeps, baseline=baseline))
        done = replace(result, report=str(path))
        show(done.to_dict(), json_, lambda plain: draw(done, self.say))
        return DONE if result.certified else UNANSWERED

    def say(self, text: str) -> None:
        """A note to people, or a log record where people do not read along."""
        import logging

        from tuneopt import console

        if self.display:
            console.say(text)
        else:
            logging.getLogger("tuneopt.run").info(text)
