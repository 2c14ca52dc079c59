"""Searches that sample the lattice of a space instead of walking it: TPE, random, Gaussian process.

They propose the trials that coordinate descent could propose, so their records land in the same ledger and are reused.
What they lack is a certificate: they end when their trials are spent. Losses are nats per token.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.search.axis import Axis
from tuneopt.search.plan import Outcome
from tuneopt.search.space import Config
from tuneopt.search.sweep import Sweep
from tuneopt.spec import InputError, TrialSpec, Value, identity, nearest

SEARCHES = ("coordinate", "tpe", "random", "gp")
"""Ways to search by name; all but the first sample, and give no certificate."""

SCHEDULERS = ("none", "asha")
"""Ways to stop trials early by name; all but the first rank on intermediate loss."""


def check_names(search: str, scheduler: str, trials: int | None) -> None:
    """Raises `InputError` for an unknown search or scheduler, and for what coordinate descent does not take."""
    if search not in SEARCHES:
        raise InputError(f"unknown search {search!r}; {nearest(search, SEARCHES)}")
    if scheduler not in SCHEDULERS:
        raise InputError(f"unknown scheduler {scheduler!r}; {nearest(scheduler, SCHEDULERS)}")
    if search != "coordinate":
        return
    if scheduler != "none":
        raise InputError(
            f"coordinate descent compares finished runs only and takes no scheduler; use --search tpe with {scheduler}"
        )
    if trials is not None:
        raise InputError("coordinate descent runs to its certificate and takes no --trials; use --search tpe with it")


def belongs(sweep: Sweep, spec: TrialSpec) -> bool:
    """Whether ``spec`` is a trial of ``sweep``: its regime and settings, any seed, any values of what varies."""
    varied = {axis.name for axis in sweep.space.varied}
    given, start = spec.config, dict(sweep.space.start)
    if given.keys() != start.keys() or any(given[name] != start[name] for name in start if name not in varied):
        return False
    own = sweep.describe(spec.hyperparameters, spec.seed)
    return own == spec or own.id == spec.id  # equal ones need no hash


@dataclass(frozen=True)
class SampledSearch:
    """A sampler over the lattice of ``sweep``: every combination of the values on its grids.

    ``search`` is one of `SEARCHES` but coordinate, ``scheduler`` one of `SCHEDULERS`. Raises `InputError` for other
    names, and for a space that holds every coordinate.
    """

    sweep: Sweep
    search: str
    scheduler: str = "none"

    def __post_init__(self) -> None:
        if self.search == "coordinate":
            raise InputError("coordinate descent does not sample; choose tpe, random or gp")
        check_names(self.search, self.scheduler, None)
        if not self.axes:
            raise InputError("every coordinate is pinned, so there is nothing to sample; leave out a --set")

    @cached_property
    def id(self) -> str:
        """Sixteen hexadecimal digits that identify the search; the number of its trials does not count."""
        return identity({**self.sweep.to_dict(), "search": self.search, "scheduler": self.scheduler})

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """The coordinates that vary."""
        return self.sweep.space.varied

    @property
    def size(self) -> int:
        """Configurations on the lattice, those that cannot run in the regime counted as well."""
        return math.prod(len(axis.values) for axis in self.axes)

    @property
    def expected(self) -> int:
        """The fair budget: the trials that coordinate descent is expected to need, less the winner's other seeds."""
        return min(self.size, self.sweep.state({}).progress.remaining - (self.sweep.replicates - 1))

    def config(self, values: Mapping[str, Value]) -> Config:
        """The complete configuration with these values of the varied coordinates."""
        return TrialSpec.freeze({**dict(self.sweep.space.start), **values})

    def on_lattice(self, spec: TrialSpec) -> bool:
        """Whether ``spec`` is a trial of this sweep (with any seed) whose values all lie on the grids."""
        given = spec.config
        return belongs(self.sweep, spec) and all(given[axis.name] in axis.values for axis in self.axes)

    def records(self, records: Iterable[TrialRecord]) -> Iterator[TrialRecord]:
        """Those of ``records`` that lie on the lattice and have one of the sweep's seeds."""
        return (record for record in records if record.spec.seed in self.sweep.seeds and self.on_lattice(record.spec))

    def best(self, trials: Mapping[str, TrialSpec], outcomes: Mapping[str, Outcome]) -> Config | None:
        """The configuration of lowest select loss, with the sweep's own seed, among the finished ones of ``trials``."""
        losses = [
            (loss, trial)
            for trial, spec in trials.items()
            if spec.seed == self.sweep.seed and trial in outcomes and (loss := outcomes[trial].loss) is not None
        ]
        return trials[min(losses)[1]].hyperparameters if losses else None

    def centred(self, trials: Mapping[str, TrialSpec], outcomes: Mapping[str, Outcome]) -> Sweep:
        """The sweep that would start at the best configuration found so far.

        Its star says how much is known around that point: it is what a certificate would take.
        """
        best = self.best(trials, outcomes)
        if best is None:
            return self.sweep
        values = {name: value for name, value in best if name in {axis.name for axis in self.axes}}
        return replace(self.sweep, space=self.sweep.space.begin_at(values))

    def marks(self, others: int = 0, cut: int = 0) -> tuple[str, ...]:
        """What must be said with every result of this search, a sentence each."""
        own = marks(self.search, self.scheduler, cut)
        if others:
            own += (f"{self.search} was told {others} earlier trials first, which its own budget does not count",)
        return own

    def to_dict(self, centre: Sweep, cut: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What a ledger keeps of the search among its sweeps: `centred`, and what tells the search apart.

        ``cut`` holds what is known of the trials that the scheduler cut, by id: fraction done, last select loss.
        """
        return {
            **centre.to_dict(),
            "search": self.search,
            "scheduler": self.scheduler,
            "declared_start": dict(self.sweep.space.start),
            "cut": dict(cut or {}),
        }


def marks(search: str, scheduler: str = "none", cut: int = 0) -> tuple[str, ...]:
    """What a searcher and a scheduler that cut ``cut`` trials take from a result's standing, a sentence each."""
    found = [f"proposed by {search}, not by coordinate descent: budgets differ and there is no certificate"]
    if scheduler != "none":
        found.append(f"ranked on intermediate loss: {scheduler} cut {cut} trials, which have no final loss")
    return tuple(found)


class MarkedLedger(Ledger):
    """Adds ``marks`` to the environment of each record that it stores; what it reads is as it is.

    A search that samples marks its records with its name, id and scheduler, and says so in words among their notes:
    its budget, and what it ranked on, are not those of coordinate descent.
    """

    def __init__(self, uri: str, marks: Mapping[str, str]) -> None:
        super().__init__(uri)
        self.marks = dict(marks)

    def __reduce__(self) -> tuple[Any, ...]:
        return MarkedLedger, (self.uri, self.marks)  # a ledger travels to workers and ranks by its address alone

    def put(self, record: TrialRecord) -> bool:
        """Store a record with its marks."""
        notes = [f"proposed by {self.marks['search']}"]
        if self.marks["scheduler"] != "none":
            notes.append(f"ran under {self.marks['scheduler']}, which ranks on intermediate loss")
        environment = {**record.environment, **self.marks}
        return super().put(replace(record, environment=environment, notes=(*record.notes, *notes)))


def marked(ledger: Ledger, marks: Mapping[str, str]) -> Ledger:
    """``ledger``, with ``marks`` on its new records where there are any."""
    return MarkedLedger(ledger.uri, marks) if marks else ledger
