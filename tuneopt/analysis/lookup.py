"""Finding the trial of a given configuration in a regime, and comparing it with a result seed by seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from tuneopt.analysis.best import Result
from tuneopt.analysis.runs import RegimeKey, Run
from tuneopt.spec import Value

Config = tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What running a configuration gave.

    ``status`` is ``trial``, ``same`` (it is the result's own configuration), ``diverged`` or ``missing``. ``regret`` is
    its report loss minus the result's (nats) over the seeds that both have, or of the means where they share none.
    ``runs`` counts the seeds of ``loss``.
    """

    status: str
    trial: str | None = None
    loss: float | None = None
    regret: float | None = None
    runs: int = 0


class Lookup:
    """Runs by optimizer, regime and configuration."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._by_config: dict[tuple[str, RegimeKey, Config], list[Run]] = defaultdict(list)
        self._by_trial: dict[str, Run] = {}
        for run in runs:
            self._by_config[run.optimizer, run.regime, run.config].append(run)
            self._by_trial[run.trial] = run

    def run(self, trial: str) -> Run | None:
        """The run of a trial id."""
        return self._by_trial.get(trial)

    def find(self, result: Result, config: Config) -> Found:
        """What ``config`` gave for the optimizer and in the regime of ``result``."""
        if config == result.config:
            return Found("same", result.trials[0], result.loss, 0.0, result.runs)
        members = self._by_config.get((result.optimizer, result.regime, config), [])
        own = {run.seed: run for trial in result.trials if (run := self.run(trial)) is not None}
        variants = {run.variant for run in own.values()}
        members = [run for run in members if run.variant in variants] or members  # one precision, where there is one
        done = {run.seed: run for run in members if run.status == "completed" and run.report_loss is not None}
        if not done:
            lost = next((run for run in members if run.status == "diverged"), None)
            return Found("missing") if lost is None else Found("diverged", lost.trial)
        shared = sorted(done.keys() & own.keys())
        losses = {seed: run.report_loss for seed, run in done.items() if run.report_loss is not None}
        loss = fmean(losses[seed] for seed in (shared or sorted(losses)))
        reference = fmean(own[seed].report_loss or 0.0 for seed in shared) if shared else result.loss
        return Found("trial", done[(shared or sorted(done))[0]].trial, loss, loss - reference, len(shared or losses))
