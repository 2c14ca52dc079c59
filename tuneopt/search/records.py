"""What a ledger holds, in the words of searches: ends of trials, sweeps, and a sweep replayed from its records.

Replaying records is all there is to resuming. A damaged record counts as none where trials are run (it is trained
again); where results are read it is an error, which the reader mends or reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.search.evidence import Evidence, in_reach, read_replicates
from tuneopt.search.plan import Ended, Outcome
from tuneopt.search.sampled import belongs
from tuneopt.search.standing import Standing, Task, stand
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, InputError, TrialSpec, identity

if TYPE_CHECKING:
    from tuneopt.search.noise import Replicate, SpreadModel

_FIELDS = frozenset(field.name for field in fields(Sweep) if field.init)


def outcome_of(record: TrialRecord) -> Outcome:
    """What a search is told about a finished trial; one whose update check failed is ``unproven`` and cannot win."""
    status = record.status if record.comparable or record.status == "diverged" else "unproven"
    return Outcome(status, record.select_loss, record.report_loss)


def ended(record: TrialRecord) -> Ended:
    """How a recorded trial ended; its device seconds are all its wall time, on all its devices."""
    from tuneopt.ledger.table import devices  # pulls in pyarrow, which a dry run of a sweep does not need

    return Ended(outcome_of(record), devices(record) * sum(record.seconds.values()))


def recorded(ledger: Ledger) -> Callable[[TrialSpec], Ended | None]:
    """A look-up of trials in ``ledger``; None for one without a record, or with a damaged one."""

    def look_up(spec: TrialSpec) -> Ended | None:
        record = ledger.sound(spec.id)
        return None if record is None else ended(record)

    return look_up


def stored_sweep(plain: Mapping[str, Any], name: str) -> Sweep:
    """The sweep that a ledger's entry describes; what else its driver noted there is passed over.

    Raises `InputError` naming the entry where it describes none, or another one than its name says.
    """
    try:
        sweep = Sweep.from_dict({key: value for key, value in plain.items() if key in _FIELDS})
        fault = _other_id(sweep, plain, name)
    except InputError as error:
        fault = f"describes no sweep ({error})"
    if fault:
        raise InputError(f"sweeps/{name}.json of the ledger {fault}; move it away (`tuneopt ledger mend`)")
    return sweep


def sweep_fault(plain: Mapping[str, Any], name: str) -> str:
    """What is wrong with a ledger's entry for a sweep, in one sentence; empty when nothing is."""
    try:
        stored_sweep(plain, name)
    except InputError as error:
        return str(error)
    return ""


def _other_id(sweep: Sweep, plain: Mapping[str, Any], name: str) -> str:
    """That the content has another id than ``name``, as after a changed digit.

    The id of a sampled search hashes the sweep that it was declared with, and its entry holds the one around its best.
    """
    expected = sweep.id
    if "search" in plain:
        declared = plain.get("declared_start")
        if not isinstance(declared, Mapping):
            return ""  # of a release that did not keep it
        begun = replace(sweep, space=sweep.space.restart(declared))
        how = {"search": plain["search"], "scheduler": plain.get("scheduler", "none")}
        expected = identity({**begun.to_dict(), **how})
    return "" if expected == name else f"describes the sweep {expected}"


def kept_evidence(ledger: Ledger, corpus: CorpusId, study: str | None = None) -> Callable[[Sweep], Evidence]:
    """What each sweep of a plan knows of noise besides its own runs, as the ledger stands when the plan begins.

    A sweep that the ledger describes knows what it knew then, the peers of the study that began it included: two
    studies that share a sweep decide it once, and a report of the one stays as it is when the other begins. Others know
    what the sweeps of the same ``study`` (an id) knew, so that a study which is resumed decides as one that was never
    killed; and where there is none, every configuration that the ledger holds with several seeds. What could be the
    sweep's own is left out of that: where its description was lost or damaged, it must not take what it ran itself for
    something that it knew before.
    """
    stored = ledger.sound_sweeps()
    known = {name: read_replicates(plain["evidence"]) for name, plain in stored.items() if "evidence" in plain}
    ours = (name for name, plain in stored.items() if study is not None and plain.get("study_id") == study)
    study_knew = next((known[name] for name in ours if name in known), None)
    held: list[tuple[TrialSpec, float]] | None = None

    def evidence(sweep: Sweep) -> Evidence:
        nonlocal held
        if sweep.id in known:
            begun = stored[sweep.id]
            listed = begun.get("peers", ())
            peers = listed if isinstance(listed, list) else ()
            if begun.get("study_id") != study and all(ledger.sound(trial) is not None for trial in peers):
                return replace(stored_evidence(begun, ledger), whole=True)
            return Evidence(known[sweep.id])
        if study_knew is not None:
            return Evidence(study_knew)
        if held is None:
            records = (record for trial in ledger.ids() if (record := ledger.sound(trial)) is not None)
            ended_well = ((record.spec, outcome_of(record).loss) for record in records)
            held = [(spec, loss) for spec, loss in ended_well if loss is not None]
        return Evidence(in_reach(((spec, loss) for spec, loss in held if not belongs(sweep, spec)), corpus))

    return evidence


def stored_evidence(plain: Mapping[str, Any], ledger: Ledger) -> Evidence:
    """What the sweep of a ledger's entry knew of noise; a peer without a record is one that did not run."""
    peers = plain.get("peers", ())
    records = [ledger.get(trial) for trial in peers] if isinstance(peers, list) else []
    specs = tuple(record.spec for record in records if record is not None)
    names = plain.get("optimizers", ())
    judged = tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()
    return Evidence(read_replicates(plain.get("evidence", ())), specs, judged)


def stored_task(plain: Mapping[str, Any], name: str, ledger: Ledger) -> Task:
    """The task that a ledger's entry describes: the sweep (`stored_sweep`), what it knew of noise, and its quota."""
    quota, counted = plain.get("quota"), plain.get("counted", ())
    return Task(
        stored_sweep(plain, name),
        str(plain.get("phase", "sweep")),
        quota if isinstance(quota, int) and not isinstance(quota, bool) else None,
        frozenset(trial for trial in counted if isinstance(trial, str)) if isinstance(counted, list) else frozenset(),
        stored_evidence(plain, ledger),
    )


class _Recorded(Mapping[str, Outcome]):
    """The outcomes of a ledger's trials by id; a record is read when its trial is first asked for."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._read: dict[str, Outcome | None] = {}  # None: there is no such record

    def get(self, trial: str, default: Any = None) -> Any:
        if trial not in self._read:
            record = self._ledger.get(trial)
            self._read[trial] = None if record is None else outcome_of(record)
        outcome = self._read[trial]
        return default if outcome is None else outcome

    def __contains__(self, trial: object) -> bool:
        return isinstance(trial, str) and self.get(trial) is not None

    def __getitem__(self, trial: str) -> Outcome:
        outcome: Outcome | None = self.get(trial)
        if outcome is None:
            raise KeyError(trial)
        return outcome

    def __iter__(self) -> Iterator[str]:
        return (trial for trial, outcome in self._read.items() if outcome is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def replay(task: Task, ledger: Ledger) -> tuple[Standing, dict[str, Outcome]]:
    """How a task stands, and the outcomes of its trials, as the ledger alone tells them; each is looked up once.

    A run of the sweep learns of trials wave by wave. Here all of them are known at once, which comes to the same: a
    wave is decided on what was asked for until then.
    """
    recorded = _Recorded(ledger)
    standing = stand(task, recorded)
    asked = {*standing.trials, *(spec.id for spec in task.evidence.peers)}
    if not asked.issuperset(recorded):
        # A star may hold what other sweeps ran and this one did not ask for. A run of it alone would not know of that.
        standing = stand(task, {trial: outcome for trial, outcome in recorded.items() if trial in asked})
    return standing, {trial: recorded[trial] for trial in standing.trials if trial in recorded}


def spread_of(ledger: Ledger) -> SpreadModel:
    """The noise model with every replicate of a ledger; without any it is its law."""
    from tuneopt.search.noise import Cell, NoiseRegime, Replicate, SpreadModel  # numpy: most commands do without

    runs: dict[tuple[object, ...], Replicate] = {}
    for record in ledger.records(sound=True):
        spec, loss = record.spec, outcome_of(record).loss
        if loss is None or spec.data_seed is not None:
            continue
        regime = spec.regime
        config = (regime.corpus.fingerprint, spec.hyperparameters, spec.precision, spec.compile, spec.micro_batch,
                  spec.evaluation, spec.semantics)  # fmt: skip
        cell = Cell(spec.optimizer, NoiseRegime(float(regime.scale.parameters), regime.ratio))
        runs.setdefault((cell, config, spec.seed), Replicate(cell, config, spec.seed, loss))
    return SpreadModel(runs.values())
