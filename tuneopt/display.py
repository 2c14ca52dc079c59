"""Live progress on stderr: a bar and the running trials on a terminal, one line for each finished trial elsewhere.

Displays are observers like any other: they read the run's state after each event and keep nothing that matters. Results
go to stdout, so progress never mixes with them.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuneopt.console import err, loss, span
from tuneopt.observe.observer import Observer
from tuneopt.observe.state import RunState
from tuneopt.search.queue import SchedulerQueue
from tuneopt.search.study.planner import StudyPlan
from tuneopt.search.study.status import Outlook, RunUnderWay, outlook

if TYPE_CHECKING:
    from tuneopt.ledger import CurvePoint
    from tuneopt.observe.state import Worker
    from tuneopt.run.spine import RunResult
    from tuneopt.spec import TrialSpec

SILENT_SECONDS = 20.0
"""Most time without a line until the first trial has ended, where no terminal draws: a log that says nothing looks
dead. Afterwards every trial's end is a line."""

REFRESH_SECONDS = 0.5
"""Least time between two pictures: trials report many times a second, and people do not read that fast."""


class RunDisplay(Observer):
    """Shows a sweep, a search or a study under way. ``verb`` says what is done with what ``title`` names."""

    def __init__(self, verb: str, title: str, quiet: bool = False) -> None:
        self.verb, self.title, self.quiet = verb, title, quiet
        self.live = Live(console=err, refresh_per_second=2, transient=True) if err.is_terminal and not quiet else None
        self._lines = 0
        self._drawn = 0.0

    def __enter__(self) -> Self:
        if not self.quiet:
            err.print(f"{self.verb} {self.title}", markup=False)
        if self.live:
            self.live.start()  # the first change is drawn at once
        else:
            self._drawn = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def connecting(self) -> None:
        """Say that it takes a while: a command that is silent for a minute looks dead."""
        if not self.quiet:
            err.print("starting; where the first trials compile their model, that takes up to a minute", markup=False)

    def begun(self, state: RunState) -> None:
        """Say what is to come, before anything runs; how long it takes is known from the first trials on."""
        progress = state.progress
        if self.quiet or progress.fewest is None or not progress.most:
            return
        done = progress.done
        whole = between(done + progress.fewest, done + progress.most)
        if (ahead := _ahead(state)) is not None:  # its sweeps share trials, and those that have begun are not all
            done = len(state.plan.outcomes)
            whole = f"about {done + ahead.remaining}"
        known = f", {done} of them in the ledger" if done else ""
        err.print(f"{whole} trials in all, usually{known}", markup=False)

    def changed(self, state: RunState) -> None:
        """Draw the moment; on a terminal at most twice a second, elsewhere when another trial is done."""
        ended = len(state.done) + len(state.failed)
        if self.quiet:
            return
        if self.live:
            if time.perf_counter() - self._drawn > REFRESH_SECONDS:
                self._drawn = time.perf_counter()
                self.live.update(self._picture(state))
        elif ended > self._lines or (not ended and time.perf_counter() - self._drawn > SILENT_SECONDS):
            self._drawn = time.perf_counter()
            err.print(status_line(state), markup=False)
        self._lines = ended

    def _picture(self, state: RunState) -> Group:
        # The console wraps no line by itself, because logs are read by programs; a picture would be cut at the edge.
        title, line = Text(self.title, style="bold"), Text(fill(status_line(state), err.width))
        if state.plan.kind == "study":
            return Group(title, line)  # its trials are too many to be listed, and the whole is not known yet
        progress = state.progress
        trials = Table.grid(padding=(0, 2))
        for name, trial in state.running.items():
            bar = ProgressBar(1.0, trial.fraction, width=20)
            trials.add_row(Text(name), bar, f"{trial.fraction:4.0%}", f"loss {loss(trial.select_loss)}")
        whole = Table.grid()  # a bar ends no line by itself
        whole.add_row(ProgressBar(max(1, progress.done + progress.remaining), progress.done, width=60))
        return Group(title, whole, line, trials)


def status_line(state: RunState) -> str:
    """One line: how far the plan is, what it has reached, when it ends, what runs, and the time gone.

    In the order in which people ask, for a narrow terminal cuts the end off; a count of nothing is left out. A study
    says what the optimizers have reached and counts sweeps by phase and the trials of this run, a sweep counts all its
    trials.
    """
    progress, counts = state.progress, state.plan
    study = counts.kind == "study"
    if study:
        ahead = _ahead(state)
        parts = [
            *([] if ahead is None else _outlook(ahead)),
            *(f"phase {name}: {ended} of {count} sweeps" for name, (ended, count) in progress.phases.items()),
            *_counted(progress.certificates, "certificates"),
            f"{len(state.done)} trials done",
        ]
    else:
        whole = f"about {progress.done + progress.remaining}"
        if progress.fewest is not None and progress.most is not None:
            whole = between(progress.done + progress.fewest, progress.done + progress.most)
        # The lowest loss of any trial yet is one seed's; the result will be a mean over seeds, and mostly higher.
        best = [] if progress.best_loss is None else [f"best {loss(progress.best_loss)} (one seed)"]
        parts = [f"{progress.done} of {whole} trials", *best, *_time_left(state)]
    parts += [
        f"{len(state.running)} running",
        *([] if study else [f"wave {progress.waves}"]),
        *_counted(len(counts.reused), "reused"),
        *_counted(counts.diverged if study else progress.diverged, "diverged"),
        *_counted(len(state.failed), "failed"),
        f"{span(state.elapsed)} gone",
    ]
    return ", ".join(parts)


def _counted(count: int, what: str) -> list[str]:
    """A count in words; nothing of none."""
    return [f"{count} {what[:-1] if what.endswith('s') and count == 1 else what}"] if count else []


def _time_left(state: RunState) -> list[str]:
    """Between which times a sweep probably ends; nothing before any trial has run."""
    progress, left = state.progress, seconds_left(state)
    if left is None:
        return []
    if progress.fewest is None or progress.most is None:
        return [f"about {span(left)} left"]
    ends = (seconds_left(state, progress.fewest), seconds_left(state, progress.most))
    return [f"{spans(*(end or 0.0 for end in ends))} left"]


def _ahead(state: RunState) -> Outlook | None:
    """What is to come of a study; None for other plans."""
    plan = state.plan
    if not isinstance(plan, SchedulerQueue) or not isinstance(plan.agenda, StudyPlan):
        return None
    running = {trial: heard.fraction for trial, heard in state.running.items()}
    under_way = RunUnderWay(state.slots, running, state.elapsed, state.busy_seconds)
    return outlook(plan.agenda, plan, under_way)


def _outlook(ahead: Outlook) -> list[str]:
    """The lowest losses where optimizers meet, and when the study is expected to end."""
    parts = [f"{name} {loss(value)}" for name, value in ahead.losses.items()]
    if ahead.low is not None and ahead.high is not None:
        parts.append(f"about {ahead.remaining} trials and {spans(ahead.low, ahead.high)} left")
    return parts


def between(fewest: int, most: int) -> str:
    """A range of numbers, or the one that it is."""
    return f"{fewest}" if fewest == most else f"{fewest} to {most}"


def spans(shortest: float, longest: float) -> str:
    """A range of seconds in words, or the one time that both ends read as."""
    one, other = span(shortest), span(longest)
    return one if one == other else f"{one} to {other}"


def seconds_left(state: RunState, remaining: int | None = None) -> float | None:
    """Seconds to the expected end, from the seconds that this run's trials took so far; None before there are any.

    ``remaining`` trials are to come; None for the plan's own estimate.
    """
    # Running trials count by what they have done, so that the estimate does not jump when one ends.
    under_way = sum(trial.fraction for trial in state.running.values())
    trained = len(state.done) + under_way
    if trained < 0.5 or state.busy_seconds <= 0:
        return None
    left = state.progress.remaining if remaining is None else remaining
    return max(0.0, left - under_way) * state.busy_seconds / trained / state.slots


class TrialDisplay(Observer):
    """Shows one trial under way, a line for each curve point."""

    def __init__(self, spec: TrialSpec, quiet: bool = False) -> None:
        self.spec, self.quiet = spec, quiet
        self._step = 0

    def __enter__(self) -> Self:
        if not self.quiet:
            err.print(f"training {self.spec.optimizer} at {self.spec.regime.label}, trial {self.spec.id}", markup=False)
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to take down."""

    def points(self, spec: TrialSpec, points: Sequence[CurvePoint], worker: Worker | None = None) -> None:
        """Print the curve points that were not printed yet."""
        for point in points:
            if point.step > self._step and not self.quiet:
                err.print(
                    f"step {point.step} of {self.spec.steps}, train {loss(point.train_loss)}, "
                    f"select {loss(point.select_loss)} nats/token, {span(point.seconds)}",
                    markup=False,
                )
            self._step = max(self._step, point.step)


def resume_hint(command: Sequence[str], result: RunResult) -> str:
    """What to tell a user whose sweep or study was interrupted."""
    again = shlex.join(["tuneopt", *command[1:]])
    return (
        f"interrupted after {len(result.run)} trials; every finished trial is in the ledger and running ones have "
        f"checkpoints. Go on with: {again}"
    )
