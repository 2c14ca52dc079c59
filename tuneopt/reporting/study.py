"""What a report is about: the sweeps of a ledger, replayed, with the records of their trials.

A ledger keeps what a sweep is and what each trial gave, and nothing of the path between: that is computed again here
(`replay`), so a report always agrees with what a run of the sweep would do next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.ledger.browse import names_in, superseded
from tuneopt.ledger.table import devices
from tuneopt.parallel import LEAST_RECORDS, in_parallel, uncollected
from tuneopt.reporting.palette import position
from tuneopt.search.records import replay, stored_task
from tuneopt.search.sampled import marks
from tuneopt.search.space import Config
from tuneopt.search.standing import Standing
from tuneopt.search.state import SweepState
from tuneopt.search.sweep import Sweep
from tuneopt.spec import InputError, nearest

ALONE = "sweep"
"""The phase of a sweep that belongs to no study."""

_SEARCH_FIELDS = ("search", "scheduler", "trials", "cut")


@dataclass(frozen=True)
class SweepView:
    """One sweep as the ledger leaves it.

    ``records`` holds the finished trials that the sweep needed, in the order it asked for them, ``ahead`` those that
    its runs launched on a guess and that it did not need in the end: they cost as much, and are listed, but what was
    guessed depends on which trial ended first, so they are in no budget and no analysis. ``runs`` are the accounts of
    the invocations that worked on it, oldest first. ``source`` is the name or path its corpus was read by.
    """

    id: str
    sweep: Sweep
    state: SweepState
    records: Mapping[str, TrialRecord]
    ahead: Mapping[str, TrialRecord]
    runs: tuple[Mapping[str, Any], ...]
    source: str
    search: Mapping[str, Any] = field(default_factory=dict)
    """What another searcher than coordinate descent left in the ledger: search, scheduler, trials, cut."""
    phase: str = ALONE
    """Its phase in a study."""
    quota: int | None = None
    """The trials that it was to take at most, where its study gave it a number: it ends when they are spent."""
    replicated: bool = False
    """Whether some configuration of its optimizer in its regime ran with two seeds, in any sweep of the report."""

    @property
    def marks(self) -> tuple[str, ...]:
        """What must be said with the results of another searcher, a sentence each."""
        if not self.search:
            return ()
        cut = self.search.get("cut")
        return marks(
            str(self.search["search"]),
            str(self.search.get("scheduler", "none")),
            len(cut) if isinstance(cut, Mapping) else 0,
        )

    @property
    def optimizer(self) -> str:
        """The optimizer's name."""
        return self.sweep.space.optimizer

    @property
    def label(self) -> str:
        """The regime in short, such as ``nano-65k/1x``."""
        return self.sweep.regime.label

    @property
    def anchor(self) -> str:
        """The id of the sweep's section in the page."""
        return f"sweep-{self.id}"

    @cached_property
    def every(self) -> Mapping[str, TrialRecord]:
        """All finished trials that this sweep ran or reused, by id."""
        return {**self.records, **self.ahead}

    @property
    def needed(self) -> Mapping[str, TrialRecord]:
        """The trials that every run of the sweep has, by id: its result rests on these alone.

        Another searcher's trials are all its own; what the replay of its best does not ask for was no guess.
        """
        return self.every if self.search else self.records

    @cached_property
    def launched(self) -> tuple[str, ...]:
        """Ids of the trials that this sweep's own runs have run; the rest of ``records`` other sweeps had paid for."""
        return tuple(dict.fromkeys(name for run in self.runs for name in names_in(run.get("run"))))

    def device_seconds(self, *parts: str) -> float:
        """Device seconds of what is `needed`: in ``parts`` of their time (keys of `TrialRecord.seconds`), or in all."""
        return sum(
            devices(record) * sum(record.seconds[part] for part in parts or record.seconds)
            for record in self.needed.values()
        )

    @property
    def moved(self) -> bool:
        """Whether the descent left its start."""
        return bool(self.state.descent.path)

    def record(self, config: Config, seed: int | None = None) -> TrialRecord | None:
        """The record of a configuration, with the sweep's own seed unless another is given."""
        return self.records.get(self.sweep.trial_id(config, seed))

    def seeds(self, config: Config) -> tuple[TrialRecord, ...]:
        """The comparable records of a configuration over every seed that the sweep ran it with."""
        ran = (record for record in self.records.values() if record.spec.hyperparameters == config)
        return tuple(sorted((one for one in ran if one.comparable), key=lambda one: one.spec.seed))

    @cached_property
    def start(self) -> tuple[TrialRecord, ...]:
        """The comparable records of the start, over seeds."""
        return self.seeds(self.sweep.space.start)

    @cached_property
    def winner(self) -> tuple[TrialRecord, ...]:
        """The comparable records of the incumbent, over seeds."""
        return self.seeds(self.state.descent.incumbent)


@dataclass(frozen=True)
class StudyView:
    """The sweeps of a report, smallest regime first, and how many trials of the ledger belong to none of them.

    ``runs`` are the accounts of what the sweeps of studies share: wall seconds and slots, each run once. ``shares`` are
    the accounts of all sweeps, shown or not, that those runs worked on. ``replaced`` counts the sweeps of earlier plans
    of a study, which are not among them (`tuneopt.ledger.browse.superseded`).
    """

    views: tuple[SweepView, ...]
    other_trials: int
    runs: tuple[Mapping[str, Any], ...] = ()
    shares: tuple[Mapping[str, Any], ...] = ()
    replaced: int = 0

    @cached_property
    def optimizers(self) -> tuple[str, ...]:
        """The optimizers compared, in the palette's order."""
        return tuple(sorted({view.optimizer for view in self.views}, key=position))

    @cached_property
    def regimes(self) -> tuple[str, ...]:
        """The regimes' labels, smallest first."""
        return tuple(dict.fromkeys(view.label for view in self.views))

    @cached_property
    def corpora(self) -> tuple[tuple[str, str], ...]:
        """Name and fingerprint of each corpus."""
        corpora = (view.sweep.regime.corpus for view in self.views)
        return tuple(dict.fromkeys((corpus.name, corpus.fingerprint) for corpus in corpora))


class _ReadOnce(Ledger):
    """A ledger that opens each record's file once: sweeps share trials, and a replay asks for each many times over."""

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self.cache: dict[str, TrialRecord | None] = {}  # None: there is no such record

    def get(self, trial: str) -> TrialRecord | None:
        if trial not in self.cache:
            self.cache[trial] = super().get(trial)
        return self.cache[trial]


def read_study(ledger: Ledger, sweeps: Sequence[str] | None = None) -> StudyView:
    """Replay the sweeps of a ledger, or those whose ids (or their beginnings) are given.

    Sweeps that the newest plan of their study has replaced are read where they are named, and counted otherwise. Raises
    `InputError` for a ledger without sweeps and an id that no sweep has.
    """
    stored, accounts = ledger.sweeps(), ledger.runs()
    replaced = set() if sweeps is not None else superseded(stored, accounts)
    current = {name: plain for name, plain in stored.items() if name not in replaced}
    chosen = _choose(current, sweeps, ledger.address)
    reader = _ReadOnce(ledger.uri)
    if len(chosen) == len(current):  # everything is wanted: one pass over the records beats a look-up for each
        with uncollected():
            records = ledger.records(partial(in_parallel, least=LEAST_RECORDS))
            reader.cache.update({record.trial: record for record in records})
    runs = list(accounts.values())
    standings = in_parallel(lambda name: replay(stored_task(stored[name], name, reader), reader)[0], chosen)
    each = zip(chosen, standings, strict=True)
    views = _with_replicates([_view(name, stored[name], standing, reader, runs) for name, standing in each])
    views.sort(key=_order)
    ours = {trial for view in views for trial in view.every}
    # A run of a study leaves one account for what its sweeps share (wall seconds, slots) and one for each sweep. The
    # shared seconds can only be divided by what all sweeps of those studies took, so the shares of sweeps that are not
    # shown count too.
    shown = {view.id for view in views}
    shared = tuple(run for run in runs if "sweep" not in run and shown & set(names_in(run.get("sweeps"))))
    studies = {run.get("study") for run in shared}
    shares = tuple(run for run in runs if "sweep" in run and run.get("study") in studies)
    return StudyView(tuple(views), len(set(ledger.ids()) - ours), shared, shares, len(replaced))


def _choose(stored: Mapping[str, Any], sweeps: Sequence[str] | None, uri: str) -> list[str]:
    if not stored:
        raise InputError(f"the ledger {uri} holds no sweep yet; run `tuneopt tune` on it first")
    if sweeps is None:
        return sorted(stored)
    chosen: dict[str, None] = {}  # an ordered set: a sweep that is named twice is shown once
    for wanted in sweeps:
        matches = [sweep for sweep in stored if sweep.startswith(wanted)] if wanted else []
        if len(matches) != 1:
            fault = f"{len(matches)} sweeps begin with" if matches else "the ledger has no sweep"
            raise InputError(f"{fault} {wanted!r}; {nearest(wanted, stored)}")
        chosen[matches[0]] = None
    if not chosen:
        raise InputError(f"no sweep was named; known: {', '.join(sorted(stored))}")
    return list(chosen)


def _view(
    name: str, plain: Mapping[str, Any], standing: Standing, ledger: Ledger, runs: list[dict[str, Any]]
) -> SweepView:
    task, sweep = standing.task, standing.task.sweep
    read = ((trial, ledger.get(trial)) for trial in standing.trials)
    records = {trial: record for trial, record in read if record is not None}
    # What its runs trained and the replay does not ask for was launched on a guess (docs/decisions.md, "Looking
    # ahead").
    ours = tuple(run for run in runs if run.get("sweep") == name)
    launched = dict.fromkeys(trial for run in ours for trial in names_in(run.get("run")) if trial not in records)
    ahead = ((trial, ledger.get(trial)) for trial in launched)
    return SweepView(
        id=name,
        sweep=sweep,
        state=standing.state,
        records=records,
        ahead={trial: record for trial, record in ahead if record is not None},
        runs=ours,
        source=str(plain.get("corpus_source", sweep.regime.corpus.name)),
        search={name: plain[name] for name in _SEARCH_FIELDS if name in plain} if "search" in plain else {},
        phase=task.phase,
        quota=task.quota,
    )


def _with_replicates(views: Sequence[SweepView]) -> list[SweepView]:
    """The views, each with whether its noise was measured somewhere: a comparison runs seeds in sweeps of their own."""
    seeds: dict[tuple[Any, ...], set[int]] = {}
    for view in views:
        for record in view.needed.values():
            if record.comparable:
                spec = record.spec
                seeds.setdefault((spec.optimizer, spec.regime, spec.hyperparameters), set()).add(spec.seed)
    measured = {key[:2] for key, ran in seeds.items() if len(ran) > 1}
    return [replace(view, replicated=(view.optimizer, view.sweep.regime) in measured) for view in views]


def _order(view: SweepView) -> tuple[Any, ...]:
    # By ladder before size, so that two ladders never mix.
    regime = view.sweep.regime
    corpus = regime.corpus
    return (
        regime.scale.ladder != "nano",
        regime.scale.parameters,
        regime.scale.name,
        regime.ratio,
        corpus.name,
        corpus.fingerprint,
        position(view.optimizer),
        view.id,
    )
