"""TPE, random and Gaussian-process search as a Ray Tune searcher, through Tune's own adapter of Optuna.

What the ledger holds is told to the sampler first, so that running the same search again goes on where it ended.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.optim.external import source_of
from tuneopt.search.outcome import Outcome
from tuneopt.search.records import outcome_of
from tuneopt.search.sampled import SampledSearch
from tuneopt.search.samplers import distributions, make_sampler, to_point, to_values, told_loss
from tuneopt.search.sweep import Sweep, SweepState
from tuneopt.spec import TrialSpec

REPEATS = 10
"""Known configurations that a sampler may propose in a row before an unknown one is drawn at random instead."""

DRAWS = 10_000
"""Random draws after which the lattice counts as exhausted."""


class SampledSearcher(Searcher):  # type: ignore[misc]
    """Suggests ``trials`` new trials of a sampled search, then the best configuration again with the other seeds.

    The space's start is the first proposal. A configuration that cannot run in the regime or whose trial is known is
    not a trial: the sampler is asked again. ``cut`` holds the trials that the scheduler stopped, with how far they
    came: they have no record, take part in no comparison, and count as spent.
    """

    def __init__(
        self, search: SampledSearch, ledger: Ledger, corpus: str, trials: int, cut: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(metric="select_loss", mode="min")
        self.search, self.ledger, self.corpus, self.trials = search, ledger, corpus, trials
        self.specs: dict[str, TrialSpec] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.running: dict[str, TrialSpec] = {}
        self.failed: set[str] = set()
        self.halt = ""
        """Why nothing more can run; a worker found out."""
        self.cut: dict[str, dict[str, Any]] = {}
        self.on_cut: Callable[[], None] = lambda: None
        """Called when the scheduler cut a trial, so that it is known to the next run even if this one is killed."""
        self._asked: dict[str, str] = {}
        self._proposals = 0
        self._exhausted = False
        self.own: set[str] = set()
        """Trials proposed by this search, in this run and in earlier ones; the winner's other seeds not counted."""
        for record in search.records(ledger.records()):
            self._learn(record)
        self.reused = set(self.outcomes)
        self.told = len([spec for spec in self.specs.values() if spec.seed == search.sweep.seed]) - len(self.own)
        start = search.sweep.spec(search.sweep.space.start)
        begun = start.id in self.specs or start.id in (cut or {})
        self.inner = OptunaSearch(
            distributions(search),
            metric="select_loss",
            mode="min",
            points_to_evaluate=None if begun else [to_point(search, start)],
            sampler=make_sampler(search.search, (search.sweep.seed + 1_000_003 * len(self.own)) % 2**32),
        )
        for trial, spec in self.specs.items():
            if spec.seed == search.sweep.seed:
                self._tell(spec, self.outcomes[trial])
        for trial, seen in (cut or {}).items():
            spec = search.sweep.spec(search.config(seen["config"]))
            self.specs[trial], self.cut[trial] = spec, dict(seen)
            self.own.add(trial)
            self._tell(spec, Outcome("diverged"), seen["select_loss"])
        self._random = random.Random(search.sweep.seed + len(self.own))
        self._settle()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration, None while the running ones must end first, or FINISHED."""
        if self.halt:
            return str(Searcher.FINISHED)
        spec = None if self._exhausted or len(self.own) >= self.trials else self._propose(trial_id)
        confirming = spec is None
        if confirming:
            if self._searching():
                return None
            spec = self._confirm()
        if spec is None:
            return None if self.running else str(Searcher.FINISHED)
        self.running[trial_id] = self.specs[spec.id] = spec
        return {
            "spec": json.dumps(spec.to_dict()),
            "corpus": self.corpus,
            "ledger": self.ledger.uri,
            "source": source_of(spec.optimizer),
            "search": json.dumps(
                {"search": self.search.search, "scheduler": self.search.scheduler, "search_id": self.search.id}
            ),
            "confirming": confirming,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: samplers learn from the ends of runs."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take in a trial that ended with a record, that the scheduler cut, or that failed."""
        spec = self.running.pop(trial_id, None)
        if spec is None:
            return
        searched = spec.seed == self.search.sweep.seed
        if result and result.get("halt"):
            self.halt = str(result["halt"])
            return
        record = self.ledger.sound(spec.id)
        value = None
        if record is not None:
            self.outcomes[spec.id] = outcome_of(record)
            value = told_loss(self.search, self.outcomes[spec.id])
        elif result and not error and "status" not in result:
            self.cut[spec.id] = {
                "config": {axis.name: spec.config[axis.name] for axis in self.search.axes},
                "fraction": result["fraction"],
                "select_loss": result["select_loss"],
                "seconds": result["busy_seconds"],
            }
            value = told_loss(self.search, Outcome("diverged"), result["select_loss"])
            self.on_cut()
        else:
            self.failed.add(spec.id)
        if searched:
            name = self._asked.pop(trial_id, None)
            if name is not None:
                told = None if value is None else {"select_loss": value}
                self.inner.on_trial_complete(name, told, error=spec.id in self.failed)
            elif spec.id not in self.failed:
                self.inner.add_evaluated_point(to_point(self.search, spec), value, pruned=value is None)
        self._settle()

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the ledger is the state."""

    @property
    def spent(self) -> bool:
        """Whether nothing is left to run."""
        return len(self.own) >= self.trials and not self.running and self._confirm() is None

    @property
    def centre(self) -> Sweep:
        """The sweep around the best configuration so far."""
        return self.search.centred(self.specs, self.outcomes)

    def _learn(self, record: TrialRecord) -> None:
        self.specs[record.trial], self.outcomes[record.trial] = record.spec, outcome_of(record)
        if record.spec.seed == self.search.sweep.seed and record.environment.get("search_id") == self.search.id:
            self.own.add(record.trial)

    def _tell(self, spec: TrialSpec, outcome: Outcome, last: float | None = None) -> None:
        loss = told_loss(self.search, outcome, last)
        self.inner.add_evaluated_point(to_point(self.search, spec), loss, pruned=loss is None)

    def _propose(self, trial_id: str) -> TrialSpec | None:
        """A trial that is not known yet; None when the lattice has no more."""
        for _ in range(REPEATS):
            name = f"proposal {self._proposals}"
            self._proposals += 1
            spec = self._trial(to_values(self.search, self.inner.suggest(name)))
            if spec is not None:
                self._asked[trial_id] = name
                self.own.add(spec.id)
                return spec
            self.inner.on_trial_complete(name, error=True)
        return self._draw()

    def _draw(self) -> TrialSpec | None:
        for _ in range(DRAWS if len(self.specs) < self.search.size else 0):
            spec = self._trial({axis.name: self._random.choice(axis.values) for axis in self.search.axes})
            if spec is not None:
                self.own.add(spec.id)
                return spec
        self._exhausted = True
        return None

    def _trial(self, values: Mapping[str, Any]) -> TrialSpec | None:
        """The trial of these values, None where it cannot run or is known; a record written meanwhile is taken in."""
        config = self.search.config(values)
        if not self.search.sweep.feasible(config):
            return None
        spec = self.search.sweep.spec(config)
        if spec.id in self.specs:
            return None
        record = self.ledger.sound(spec.id)
        if record is not None:
            self._learn(record)
            self.reused.add(spec.id)
            self._tell(spec, self.outcomes[spec.id])
            return None
        return spec

    def _searching(self) -> bool:
        return any(spec.seed == self.search.sweep.seed for spec in self.running.values())

    def _confirm(self) -> TrialSpec | None:
        """The best configuration with the next of the other seeds, once the search has ended."""
        best = self.search.best(self.specs, self.outcomes)
        if best is None:
            return None
        busy = {spec.id for spec in self.running.values()}
        for seed in self.search.sweep.seeds:
            spec = self.search.sweep.spec(best, seed)
            if spec.id in self.outcomes or spec.id in self.failed or spec.id in busy:
                continue
            record = self.ledger.sound(spec.id)
            if record is None:
                return spec
            self._learn(record)
            self.reused.add(spec.id)
        return None

    def _settle(self) -> None:
        """Where the search stands, in the words of a sweep around its best configuration."""
        state = self.centre.state(self.outcomes, self.failed)
        others = self.search.sweep.replicates - 1
        done = len([trial for trial in self.own if trial in self.outcomes or trial in self.cut])
        left = max(0, self.trials - len(self.own & (self.outcomes.keys() | self.cut.keys() | self.failed)))
        confirmed = sum(spec.seed != self.search.sweep.seed for spec in self.specs.values())
        self.state: SweepState = replace(
            state,
            progress=replace(state.progress, waves=1, done=done, remaining=left + max(0, others - confirmed)),
        )
