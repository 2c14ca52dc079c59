"""What a training process writes into its trial's log: beginning, curve points, warnings, errors, end.

Each event is one line of JSON (`tuneopt.ledger.logs.TrialLog`). A process that is killed leaves the lines that it
wrote, so a log shows how far a trial came and what it warned of, whatever ended it. One function for each event of
docs/observability.md, so that its fields stand in one place; `tuneopt.ledger.logs` puts them into words.
"""

from __future__ import annotations

import inspect
import logging
import os
import socket
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TextIO

from tuneopt.errors import TRIAL_LOG, TrialFailedError, in_words, staying
from tuneopt.ledger import CurvePoint, TrialRecord
from tuneopt.ledger.logs import TrialLog
from tuneopt.spec import TrialSpec
from tuneopt.training.loop import Training
from tuneopt.training.machine import environment


def log_start(log: TrialLog, spec: TrialSpec) -> None:
    """A process takes the trial up."""
    log.write(
        "start",
        optimizer=spec.optimizer,
        regime=spec.regime.label,
        seed=spec.seed,
        data_seed=spec.order_seed,
        config=dict(spec.config),
        steps=spec.steps,
        # In the log and not in the record: they change no result, and records are shared with strangers.
        host=socket.gethostname(),
        pid=os.getpid(),
        tuneopt=environment().get("tuneopt", "unknown"),
    )


def log_ready(log: TrialLog, training: Training) -> None:
    """The model is built and compiled, and training begins or goes on from a checkpoint."""
    log.write("ready", device=str(training.device), startup_seconds=round(training.seconds["startup"], 3))
    # A trial that begins has the untrained loss as its first point; one that goes on has logged it before.
    if training.resumes:
        log.write("resume", step=training.step, steps=training.steps, resumes=training.resumes)
    elif training.curve:
        log_point(log, training.curve[0], training.steps)


def log_point(log: TrialLog, point: CurvePoint, steps: int) -> None:
    """A curve point; losses in nats per token."""
    log.write("point", steps=steps, **asdict(point))


def log_end(log: TrialLog, record: TrialRecord) -> None:
    """The record is in the ledger."""
    log.write(
        "end",
        status=record.status,
        select_loss=record.select_loss,
        report_loss=record.report_loss,
        proof_passed=record.proof_passed,
        tokens_per_second=record.tokens_per_second,
        resumes=record.resumes,
        notes=list(record.notes),
    )


@contextmanager
def logging_to(log: TrialLog) -> Iterator[None]:
    """Copy warnings into the log, from `logging` and from `warnings`, and an exception, which then goes on.

    Hooks are in place only while the trial is under way: a process trains one after the other, and a warning belongs to
    the trial that it came up in. Code of the trial that asks the program to end, an optimizer's ``sys.exit(0)`` say,
    raises `TrialFailedError` instead: a run must not end by it, least of all as if all were well.
    """
    root, shown = logging.getLogger(), warnings.showwarning
    handler = _ToLog(log, alone=not root.handlers)

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        log.write("warning", "warning", kind=category.__name__, text=str(message), where=f"{filename}:{lineno}")
        shown(message, category, filename, lineno, file, line)  # whoever listened before still hears of it

    root.addHandler(handler)
    warnings.showwarning = show
    try:
        with staying():
            yield
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or _is_closing(error) or _from_outside(error):
            log.write("interrupted", "warning", text="the process was asked to end")
            raise
        log.write("error", "error", text=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
        if isinstance(error, Exception):
            raise
        # The others pass by whoever looks after trials, and end a worker of Ray without a word.
        raise TrialFailedError(f"the trial's code asked the program to end ({in_words(error)})") from error
    finally:
        root.removeHandler(handler)
        if warnings.showwarning is show:  # somebody else's hook stays
            warnings.showwarning = shown


def _is_closing(error: BaseException) -> bool:
    """Whether a generator around the trial is being closed; a trial's code may raise the same `GeneratorExit`."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return isinstance(error, GeneratorExit) and bool(frames[-1].f_code.co_flags & inspect.CO_GENERATOR)


def _from_outside(error: BaseException) -> bool:
    """Whether a `SystemExit` is Ray's, whose workers raise it when their process gets SIGTERM."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    module = str(frames[-1].f_globals.get("__name__", "")) if frames else ""
    return isinstance(error, SystemExit) and module.partition(".")[0] == "ray"


@contextmanager
def log_failed(log: TrialLog) -> Iterator[None]:
    """For callers that do not start a failed trial again: say that it failed for good, and name the log."""
    try:
        yield
    except Exception as error:
        log.write("failed", "error", text=f"{type(error).__name__}: {error}")
        error.add_note(f"{TRIAL_LOG}{log.where}")
        raise


class _ToLog(logging.Handler):
    """Writes log records of warnings and errors into a trial's log."""

    def __init__(self, log: TrialLog, alone: bool) -> None:
        super().__init__(logging.WARNING)
        self.log, self.alone = log, alone

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; where no other handler is, Python's last resort still shows it on stderr."""
        if not getattr(record, "log_failed", False):  # a log that cannot be written warns of it: once is enough
            level = "error" if record.levelno >= logging.ERROR else "warning"
            about = {"traceback": "".join(traceback.format_exception(*record.exc_info))} if record.exc_info else {}
            self.log.write("warning", level, logger=record.name, text=record.getMessage(), **about)
        if self.alone and logging.lastResort and not _handled(record.name):
            logging.lastResort.handle(record)


def _handled(name: str) -> bool:
    """Whether a logger below the root shows records of that name: `logging` walks up in the same way."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None and logger.parent is not None:
        if logger.handlers:
            return True
        logger = logger.parent if logger.propagate else None
    return False
