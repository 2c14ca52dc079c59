"""Live progress on stderr: a bar and the running trials on a terminal, one line for each finished trial elsewhere."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuneopt.console import err, loss, span

if TYPE_CHECKING:
    from tuneopt.cluster.progress import PoolProgress, PoolResult, Progress
    from tuneopt.ledger import CurvePoint
    from tuneopt.spec import TrialSpec

REFRESH_SECONDS = 0.5


class SweepDisplay:
    """Shows a sweep under way: trials done, running, reused, diverged, best loss, time left."""

    def __init__(self, title: str, quiet: bool = False) -> None:
        self.title, self.quiet = title, quiet
        self.live = Live(console=err, refresh_per_second=2, transient=True) if err.is_terminal and not quiet else None
        self._lines = -1
        self._drawn = 0.0

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        if not self.quiet:
            err.print(f"tuning {self.title}", markup=False)
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def update(self, progress: Progress) -> None:
        """Draw the moment; on a terminal at most twice a second, elsewhere when another trial is done."""
        if self.quiet:
            return
        if self.live:
            if time.perf_counter() - self._drawn > REFRESH_SECONDS:
                self._drawn = time.perf_counter()
                self.live.update(self._picture(progress))
        elif progress.done + progress.failed > self._lines >= 0:
            self._lines = progress.done + progress.failed
            err.print(status_line(progress), markup=False)
        else:
            self._lines = max(self._lines, progress.done + progress.failed)

    def _picture(self, progress: Progress) -> Group:
        ended = progress.state.progress.done
        expected = max(1, ended + progress.state.progress.remaining)
        running = Table.grid(padding=(0, 2))
        for trial, (fraction, at) in progress.running.items():
            running.add_row(Text(trial), ProgressBar(1.0, fraction, width=20), f"{fraction:4.0%}", f"loss {loss(at)}")
        return Group(
            Text(self.title, style="bold"), ProgressBar(expected, ended, width=60), Text(status_line(progress)), running
        )


def status_line(progress: Progress) -> str:
    """One line: trials done of those expected, running, reused, diverged, best loss, time gone and left."""
    figures = progress.state.progress
    parts = [
        f"wave {figures.waves}",
        f"{figures.done} of about {figures.done + figures.remaining} trials",
        f"{len(progress.running)} running",
        f"{progress.reused} reused",
        f"{figures.diverged} diverged",
        *([f"{progress.failed} failed"] if progress.failed else []),
        f"best {loss(figures.best_loss)} nats/token",
        f"{span(progress.elapsed)} gone",
    ]
    left = seconds_left(progress)
    return ", ".join([*parts, f"about {span(left)} left"] if left is not None else parts)


def seconds_left(progress: Progress) -> float | None:
    """Seconds to the expected end, from the seconds that this run's trials took so far; None before there are any."""
    under_way = sum(fraction for fraction, _ in progress.running.values())
    trained = progress.done + under_way
    if trained < 0.5 or progress.busy <= 0:
        return None
    return max(0.0, progress.state.progress.remaining - under_way) * progress.busy / trained / progress.slots


class StudyDisplay:
    """Shows a study under way: trials, certificates and phases, a line whenever another trial is done."""

    def __init__(self, title: str, quiet: bool = False) -> None:
        self.title, self.quiet = title, quiet
        self.live = Live(console=err, refresh_per_second=2, transient=True) if err.is_terminal and not quiet else None
        self._lines = 0
        self._drawn = 0.0

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        if not self.quiet:
            err.print(f"study {self.title}", markup=False)
        return self

    def __exit__(self, *error: object) -> None:
        if self.live:
            self.live.stop()

    def update(self, progress: PoolProgress, plan: object = None) -> None:
        """Draw the moment; on a terminal at most twice a second, elsewhere when another trial is done."""
        if self.quiet:
            return
        ended = progress.done + progress.failed
        if self.live:
            if time.perf_counter() - self._drawn > REFRESH_SECONDS:
                self._drawn = time.perf_counter()
                self.live.update(Group(Text(self.title, style="bold"), Text(study_line(progress))))
        elif ended > self._lines:
            err.print(study_line(progress), markup=False)
        self._lines = ended


def study_line(progress: PoolProgress) -> str:
    """One line: phases with their sweeps, certificates, trials done, running, reused, diverged, time gone."""
    held = progress.standings.values()
    phases = dict.fromkeys(standing.task.phase for standing in held)
    counts = (
        f"phase {name}: {sum(each.finished for each in held if each.task.phase == name)} of "
        f"{sum(each.task.phase == name for each in held)} sweeps"
        for name in phases
    )
    return ", ".join(
        [
            *counts,
            f"{sum(standing.certified for standing in held)} certificates",
            f"{progress.done} trials done",
            f"{len(progress.running)} running",
            f"{progress.reused} reused",
            f"{progress.diverged} diverged",
            *([f"{progress.failed} failed"] if progress.failed else []),
            f"{span(progress.elapsed)} gone",
        ]
    )


class TrialDisplay:
    """Shows one trial under way, a line for each curve point."""

    def __init__(self, spec: TrialSpec, quiet: bool = False) -> None:
        self.spec, self.quiet = spec, quiet

    def __enter__(self) -> Self:
        if not self.quiet:
            err.print(f"training {self.spec.optimizer} at {self.spec.regime.label}, trial {self.spec.id}", markup=False)
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to take down."""

    def update(self, point: CurvePoint) -> None:
        """Print the curve point."""
        if not self.quiet:
            err.print(
                f"step {point.step} of {self.spec.steps}, train {loss(point.train_loss)}, "
                f"select {loss(point.select_loss)} nats/token, {span(point.seconds)}",
                markup=False,
            )


def resume_hint(command: Sequence[str], result: PoolResult) -> str:
    """What to tell a user whose sweep or study was interrupted."""
    again = shlex.join(["tuneopt", *command[1:]])
    return (
        f"interrupted after {len(result.run)} trials; every finished trial is in the ledger and running ones have "
        f"checkpoints. Go on with: {again}"
    )
