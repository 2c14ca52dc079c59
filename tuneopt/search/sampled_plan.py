"""A sampled search as a plan: Optuna's samplers by ask and tell, over the lattice of a space.

Proposal n is drawn by a sampler that is made for it alone, seeded by the search and n, from the trials told so far. So
what comes next is a pure function of the search and of what is recorded, and a search that was killed goes on as if it
had not been: its proposals are in the ledger's description of it, in their order, and those without a record are handed
out first. Optuna is imported when a plan is made.

A number is proposed by its place on its grid: grids are even on the scale that matters (mostly logarithmic), so
neighbours on the grid are neighbours to the sampler. Words and switches have no order.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.search.halving import Halving
from tuneopt.search.plan import Ended, Outcome, Plan, PlanProgress
from tuneopt.search.records import ended as record_end
from tuneopt.search.records import recorded
from tuneopt.search.sampled import SampledSearch
from tuneopt.search.state import SweepState
from tuneopt.search.sweep import Sweep
from tuneopt.spec import InputError, TrialSpec, Value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial

REPEATS = 10
"""Known configurations that a sampler may propose in a row before an unknown one is drawn at random instead."""

DRAWS = 10_000
"""Random draws after which the lattice counts as exhausted."""


def make_sampler(search: str, seed: int) -> BaseSampler:
    """The sampler of that name; raises `InputError` where the installed Optuna lacks it."""
    import optuna

    if search == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if search == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if not hasattr(optuna.samplers, "GPSampler"):
        raise InputError("--search gp needs Optuna 3.6 or newer; pip install --upgrade optuna")
    lacking = [package for package in ("torch", "scipy") if find_spec(package) is None]
    if lacking:
        raise InputError(f"--search gp needs {' and '.join(lacking)}; pip install {' '.join(lacking)}")
    return optuna.samplers.GPSampler(seed=seed)


def distributions(search: SampledSearch) -> dict[str, BaseDistribution]:
    """By coordinate: places on the grid for numbers, the values themselves for words and switches."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    return {
        axis.name: IntDistribution(0, len(axis.values) - 1) if axis.numeric else CategoricalDistribution(axis.values)
        for axis in search.axes
    }


def to_point(search: SampledSearch, spec: TrialSpec) -> dict[str, Any]:
    """A trial as the sampler's parameters."""
    config = spec.config
    return {
        axis.name: axis.values.index(config[axis.name]) if axis.numeric else config[axis.name] for axis in search.axes
    }


def to_values(search: SampledSearch, point: Mapping[str, Any]) -> dict[str, Value]:
    """The sampler's parameters as values of the coordinates; the inverse of `to_point`."""
    return {axis.name: axis.values[int(point[axis.name])] if axis.numeric else point[axis.name] for axis in search.axes}


class SampledPlan(Plan):
    """``trials`` new trials of a sampled search, then its best configuration again with the other seeds.

    ``records`` are earlier trials that may lie on the lattice. The search's own count as spent; others are told to the
    sampler first (``others`` of them) and not counted. ``known`` looks up a trial that ended meanwhile, or before.
    ``kept`` is the ledger's description of the search: what it proposed, and what its scheduler cut. ``trials=None``
    takes what coordinate descent is expected to need.

    The space's start is the first proposal. A configuration that cannot run in the regime, or whose trial is known, is
    not a trial: the sampler is asked again.
    """

    kind = "search"

    def __init__(
        self,
        search: SampledSearch,
        trials: int | None = None,
        *,
        records: Iterable[TrialRecord] = (),
        known: Callable[[TrialSpec], Ended | None] = lambda spec: None,
        kept: Mapping[str, Any] | None = None,
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        super().__init__()
        self.search, self.known = search, known
        self.id = search.id
        self.trials = search.expected if trials is None else trials
        self.judges = search.scheduler == "asha"
        self.marks = {"search": search.search, "scheduler": search.scheduler, "search_id": search.id}
        self.specs: dict[str, TrialSpec] = {}
        """Every trial of the lattice that is known, handed out or cut, by id."""
        self.own: dict[str, None] = {}
        """Trials that this search proposed, in their order; the winner's other seeds are not among them."""
        self._halving = Halving()
        self._exhausted = False
        self._distributions = distributions(search)
        self._study = optuna.create_study(sampler=make_sampler(search.search, 0))
        self._asked: dict[str, Trial] = {}
        """Optuna's trials that it has not been told the end of."""
        self._again: list[TrialSpec] = []
        """Proposals of a run that was killed before they ended."""
        self._recall(list(search.records(records)), kept or {})

    @classmethod
    def from_ledger(cls, search: SampledSearch, ledger: Ledger, trials: int | None = None) -> SampledPlan:
        """The search as the ledger leaves it."""
        kept = ledger.sound_sweeps().get(search.id, {})
        return cls(search, trials, records=ledger.records(sound=True), known=recorded(ledger), kept=kept)

    def _recall(self, records: list[TrialRecord], kept: Mapping[str, Any]) -> None:
        """Bring the search to where earlier runs left it.

        Others' trials are told first, then the search's own in the order in which they were proposed: Optuna numbers
        trials as it meets them, and TPE weighs recent ones more.
        """
        search, by_id = self.search, {record.trial: record for record in records}
        proposed = [search.sweep.spec(search.config(values)) for values in kept.get("proposed", ())]
        listed = {spec.id for spec in proposed}
        # Releases before proposals were kept marked the records alone, and listed what was cut.
        for trial, record in sorted(by_id.items()):
            if record.environment.get("search_id") == search.id and self._own(record.spec) and trial not in listed:
                proposed.append(record.spec)
        cut = kept.get("cut", {})
        proposed += [
            search.sweep.spec(search.config(seen["config"])) for trial, seen in cut.items() if trial not in listed
        ]
        mine = {spec.id for spec in proposed}
        for trial in sorted(by_id.keys() - mine):
            self._learn(by_id[trial].spec, record_end(by_id[trial]))
        self.others = len([spec for spec in self.specs.values() if self._own(spec)])
        for spec in proposed:
            self.specs[spec.id] = spec
            self.own[spec.id] = None
            self._take_up(spec)
            seen = cut.get(spec.id)
            ended = record_end(by_id[spec.id]) if spec.id in by_id else self.known(spec)
            if ended is not None:
                self._learn(spec, ended)
            elif seen is not None:
                self.cut[spec.id] = dict(seen)
                self._halving.reached(spec.id, seen["fraction"], seen["select_loss"])
                self._tell_sampler(spec, Outcome("diverged"), seen["select_loss"])
            else:
                self._again.append(spec)
            for point in by_id[spec.id].curve if self.judges and spec.id in by_id else ():
                self._halving.reached(spec.id, point.step / spec.steps, point.select_loss)

    def _own(self, spec: TrialSpec) -> bool:
        """Whether a trial has the seed that is searched with; other seeds confirm."""
        return spec.seed == self.search.sweep.seed

    def _learn(self, spec: TrialSpec, ended: Ended) -> None:
        """Take in a trial that an earlier run, or another search, has recorded."""
        self.specs[spec.id], self.outcomes[spec.id] = spec, ended.outcome
        self.reused.add(spec.id)
        if self._own(spec):
            self._take_up(spec)
            self._tell_sampler(spec, ended.outcome)

    @property
    def finished(self) -> bool:
        """Whether no trial of the budget is left, and the best has run with every seed."""
        return not self._searching and not self.running and self._confirmation() is None

    @property
    def _searching(self) -> bool:
        """Whether a trial may still be proposed."""
        return bool(self._again) or (not self._exhausted and len(self.own) < self.trials)

    @property
    def scales(self) -> set[str]:
        """The scale of the regime."""
        return {self.search.sweep.regime.scale.name}

    @property
    def centre(self) -> Sweep:
        """The sweep around the best configuration so far."""
        return self.search.centred(self.specs, self.outcomes)

    @property
    def state(self) -> SweepState:
        """Where the search stands, in the words of a sweep around its best configuration."""
        return self.centre.state(self.outcomes, self.gave_up)

    def progress(self) -> PlanProgress:
        """Figures of the search; other searches' trials count in the best loss alone."""
        figures = self.state.progress
        ended = self.outcomes.keys() | self.cut.keys()
        done = len(self.own.keys() & ended)
        left = max(0, self.trials - len(self.own.keys() & (ended | self.gave_up)))
        confirmed = sum(not self._own(spec) for spec in self.specs.values())
        return PlanProgress(
            waves=1,
            done=done,
            remaining=left + max(0, self.search.sweep.replicates - 1 - confirmed),
            diverged=figures.diverged,
            best_loss=figures.best_loss,
        )

    def documents(self, known: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
        """The search around its best configuration, what it has proposed so far, and what its scheduler cut."""
        proposed = [self._values(self.specs[trial]) for trial in self.own]
        plain = self.search.to_dict(self.centre, self.cut)
        yield self.id, {**plain, "proposed": proposed, "trials": self.trials}

    def coming(self, count: int) -> list[TrialSpec]:
        """The start, whether or not it has run: all trials of a search compile for the same shapes."""
        return [self.search.sweep.spec(self.search.sweep.space.start)][:count]

    def next(self) -> TrialSpec | None:
        """The next proposal; once the search has ended, the best configuration with another seed."""
        spec = self._again.pop(0) if self._again else None
        if spec is None and self._searching:
            spec = self._propose()
        if spec is None:
            if any(map(self._own, self.running.values())):
                return None  # the best is not known before the last proposal has ended
            spec = self._confirmation()
        if spec is not None:
            self.running[spec.id] = self.specs[spec.id] = spec
        return spec

    def tell(self, spec: TrialSpec, ended: Ended | None) -> None:
        """Take in how a trial ended; one without a record counts as spent."""
        self.running.pop(spec.id, None)
        if ended is None:
            self.gave_up.add(spec.id)
        else:
            self.outcomes[spec.id] = ended.outcome
            if self.judges and self._own(spec):
                self._halving.reached(spec.id, 1.0, ended.outcome.select_loss)
        self._tell_sampler(spec, None if ended is None else ended.outcome)

    def goes_on(self, spec: TrialSpec, fraction: float, loss: float | None, seconds: float) -> bool:
        """Whether the scheduler lets a trial go on.

        Reruns of the winner with other seeds are never stopped: they measure, they do not compete. A trial without a
        finite loss is left to its own end, which is near: divergence stops it.
        """
        if not self._own(spec) or loss is None or self._halving.reached(spec.id, fraction, loss):
            return True
        self.running.pop(spec.id, None)
        self.cut[spec.id] = {
            "config": self._values(spec),
            "fraction": fraction,
            "select_loss": loss,
            "seconds": seconds,
        }
        self._tell_sampler(spec, Outcome("diverged"), loss)
        return False

    def _values(self, spec: TrialSpec) -> dict[str, Value]:
        return {axis.name: spec.config[axis.name] for axis in self.search.axes}

    def _take_up(self, spec: TrialSpec) -> None:
        """Make a trial that is not a new proposal known to Optuna, as one that runs."""
        if spec.id not in self._asked:
            self._study.enqueue_trial(to_point(self.search, spec))
            self._asked[spec.id] = self._study.ask(self._distributions)

    def _tell_sampler(self, spec: TrialSpec, outcome: Outcome | None, last: float | None = None) -> None:
        """Tell the sampler how a trial ended: by its loss, as one that cannot win, or (None) that it failed.

        The Gaussian process learns from numbers alone: for it a trial that diverged or failed its update check lies at
        the loss of a uniform guess, and one that a scheduler cut at its ``last`` loss. No comparison ever sees these.
        """
        from optuna.trial import TrialState

        trial = self._asked.pop(spec.id, None)
        if trial is None:
            return  # a confirmation
        loss = None if outcome is None else outcome.loss
        if outcome is not None and loss is None and self.search.search == "gp":
            loss = last if last is not None else math.log(max(2, self.search.sweep.regime.corpus.vocab_size))
        if loss is not None:
            self._study.tell(trial, loss)
        else:
            self._study.tell(trial, state=TrialState.FAIL if outcome is None else TrialState.PRUNED)

    def _propose(self) -> TrialSpec | None:
        """A trial that is not known yet; None when the lattice has no more."""
        from optuna.trial import TrialState

        number = len(self.own)
        start = self.search.sweep.spec(self.search.sweep.space.start)
        if start.id not in self.specs and not self.own and self._is_new(start):
            self._take_up(start)
            return self._proposed(start)
        draw = random.Random(f"{self.id}|{number}")
        for _ in range(REPEATS):
            self._study.sampler = make_sampler(self.search.search, draw.randrange(2**32))
            trial = self._study.ask(self._distributions)
            spec = self._trial(to_values(self.search, trial.params))
            if spec is not None:
                self._asked[spec.id] = trial
                return self._proposed(spec)
            self._study.tell(trial, state=TrialState.FAIL)
        for _ in range(DRAWS if len(self.specs) < self.search.size else 0):
            spec = self._trial({axis.name: draw.choice(axis.values) for axis in self.search.axes})
            if spec is not None:
                self._take_up(spec)
                return self._proposed(spec)
        self._exhausted = True
        return None

    def _proposed(self, spec: TrialSpec) -> TrialSpec:
        self.own[spec.id] = None
        return spec

    def _trial(self, values: Mapping[str, Any]) -> TrialSpec | None:
        """The trial of these values; None where it cannot run in the regime, or is known."""
        config = self.search.config(values)
        if not self.search.sweep.feasible(config):
            return None
        spec = self.search.sweep.spec(config)
        return spec if spec.id not in self.specs and self._is_new(spec) else None

    def _is_new(self, spec: TrialSpec) -> bool:
        """Whether nobody has recorded the trial meanwhile; where somebody has, it is taken in."""
        ended = self.known(spec)
        if ended is not None:
            self._learn(spec, ended)
        return ended is None

    def _confirmation(self) -> TrialSpec | None:
        """The best configuration with the next of the other seeds."""
        best = self.search.best(self.specs, self.outcomes)
        if best is None:
            return None
        for seed in self.search.sweep.seeds:
            spec = self.search.sweep.spec(best, seed)
            if spec.id in self.outcomes or spec.id in self.gave_up or spec.id in self.running:
                continue
            if self._is_new(spec):
                return spec
        return None
