"""What a comparison can claim: before it runs what it will tell apart, and at its end its statement.

Both follow from the study, from how its sweeps stand and from what the ledger holds. So `tuneopt compare` and `tuneopt
study` say the same of the same study file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tuneopt.search.study.comparison import rules_of
from tuneopt.search.study.power import Power, power, slope
from tuneopt.spec import CorpusId, Regime

if TYPE_CHECKING:
    from tuneopt.ledger import Ledger
    from tuneopt.search.noise import SpreadModel
    from tuneopt.search.plan import Outcome
    from tuneopt.search.standing import Standing
    from tuneopt.search.study.study import Study


@dataclass(frozen=True, slots=True)
class TunedCare:
    """What an optimizer was given where the rivals meet: ``trials`` in all, seeds among them, over ``coordinates``.

    ``resolution`` is what its tuning can see, by all that the comparison knows of noise: no other value of a tuned
    coordinate is better by more, in nats, with 95% confidence; None where nothing finished.
    """

    optimizer: str
    coordinates: tuple[str, ...]
    trials: int
    resolution: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "coordinates": list(self.coordinates)}


@dataclass(frozen=True)
class Conclusion:
    """What a comparison found, as far as it has come.

    ``analysis`` is the document of ``report --json`` over its runs, from which the ``statement`` is read. The rivals
    met the ``baseline`` at ``scale`` and ``ratio``. ``sweeps`` are the ids that a report is about, ``finished`` says
    that nothing is left to run.
    """

    baseline: str
    rivals: tuple[str, ...]
    scale: str
    ratio: float
    analysis: Mapping[str, Any]
    statement: str
    care: tuple[TunedCare, ...]
    sweeps: tuple[str, ...]
    finished: bool

    @property
    def speedups(self) -> list[Mapping[str, Any]]:
        """The speedups of the rivals where they meet the baseline, in the order in which they were asked for."""
        here = (row for row in self.analysis["speedups"] if (row["scale"], row["ratio"]) == (self.scale, self.ratio))
        rows = {row["optimizer"]: row for row in here}
        return [rows[name] for name in self.rivals if name in rows]

    @property
    def complete(self) -> bool:
        """Whether it has ended, and every rival has a speedup with its interval."""
        known = [row for row in self.speedups if row["low"] is not None]
        return self.finished and len(known) == len(self.rivals)

    def to_dict(self) -> dict[str, Any]:
        """What ``study status --json`` and ``study run --json`` add of a comparison."""
        return {
            "baseline": self.baseline,
            "statement": self.statement,
            "speedups": self.speedups,
            "care": [care.to_dict() for care in self.care],
            "warnings": self.analysis["warnings"],
        }


def conclusion(
    study: Study, standings: Mapping[str, Standing], outcomes: Mapping[str, Outcome], *, finished: bool
) -> Conclusion:
    """What the trials of a comparison say, those of ``outcomes`` that belong to it."""
    from tuneopt.analysis.comparison import comparison_statement, runs_of
    from tuneopt.analysis.document import summary
    from tuneopt.analysis.inputs import Inputs
    from tuneopt.analysis.names import count_name

    rules, regime = rules_of(study), _home(study)
    rivals = tuple(name for name in study.optimizers if name != rules.baseline)
    document = summary(Inputs(runs_of(standings, outcomes), "comparison"), baseline=rules.baseline)
    # Of several sweeps of one configuration the last has all seeds: the others add nothing to a report.
    last: dict[tuple[object, ...], str] = {}
    for standing in standings.values():
        task, sweep = standing.task, standing.task.sweep
        last[task.phase, task.optimizer, sweep.regime, bool(sweep.space.varied)] = task.id
    return Conclusion(
        baseline=rules.baseline,
        rivals=rivals,
        scale=regime.scale.name,
        ratio=regime.ratio,
        analysis=document,
        statement=comparison_statement(
            document,
            rules.baseline,
            rivals,
            regime.scale.name,
            regime.ratio,
            f"at {regime.scale.name} and {count_name(regime.tokens)} tokens",
        ),
        care=_care(study, standings, outcomes),
        sweeps=tuple(last.values()),
        finished=finished,
    )


def comparison_powers(study: Study, corpus: CorpusId, ledger: Ledger, noise: SpreadModel) -> tuple[Power, ...]:
    """What a comparison will tell apart, for each rival; the slope is that of the baseline's runs in the ledger."""
    rules = rules_of(study)
    (regime,) = study.regimes("I", corpus)
    steep = slope(regime, _losses(ledger, rules.baseline, regime))
    cells = len(study.optimizers) + len(rules.ratios) - 1
    return tuple(
        power(noise, regime, rules.baseline, name, rules.seeds, steep, cells)
        for name in study.optimizers
        if name != rules.baseline
    )


def _home(study: Study) -> Regime:
    """Where the rivals meet; the corpus counts by name alone."""
    (regime,) = study.regimes("I", CorpusId(study.corpus, "", study.vocabulary))
    return regime


def _losses(ledger: Ledger, optimizer: str, home: Regime) -> dict[float, float]:
    """The lowest select loss of an optimizer by ratio, at the scale and on the corpus of a regime."""
    lowest: dict[float, float] = {}
    for record in ledger.records(sound=True):
        regime = record.spec.regime
        here = (record.spec.optimizer, regime.scale, regime.corpus) == (optimizer, home.scale, home.corpus)
        if here and record.comparable and record.select_loss is not None:
            lowest[regime.ratio] = min(record.select_loss, lowest.get(regime.ratio, record.select_loss))
    return lowest


def _care(study: Study, standings: Mapping[str, Standing], outcomes: Mapping[str, Outcome]) -> tuple[TunedCare, ...]:
    """What each optimizer was given where the rivals meet."""
    ratio = rules_of(study).ratios[0]
    here = [standing for standing in standings.values() if standing.task.sweep.regime.ratio == ratio]
    found = []
    for name, space in study.spaces.items():
        mine = [standing for standing in here if standing.task.optimizer == name]
        trials = {trial for standing in mine for trial in standing.trials}
        tuned = next((standing for standing in mine if standing.task.sweep.space.varied), None)
        sees = None if tuned is None else _resolution(tuned, trials, standings, outcomes)
        found.append(TunedCare(name, tuple(axis.name for axis in space.varied), len(trials), sees))
    return tuple(found)


def _resolution(
    tuned: Standing, trials: set[str], standings: Mapping[str, Standing], outcomes: Mapping[str, Outcome]
) -> float | None:
    """How finely an optimizer's ``trials`` tell what its tuning ended on from the other values that were in question.

    The tuning itself ran one seed each, and knew the noise by a law alone. What the comparison's seeds have shown since
    counts here.
    """
    from tuneopt.search.belief import resolution
    from tuneopt.search.evidence import replicates_of, spread_model
    from tuneopt.search.noise import NoiseRegime

    if tuned.state.descent.incumbent_loss is None:
        return None
    sweep = tuned.task.sweep
    runs: dict[Any, dict[int, float | None]] = {}
    specs = {spec.id: spec for standing in standings.values() for spec in standing.state.needed}
    for trial, spec in specs.items():
        if trial in trials and trial in outcomes:
            runs.setdefault(spec.hyperparameters, {})[spec.seed] = outcomes[trial].loss
    model = spread_model(replicates_of(specs.values(), outcomes), tuned.task.evidence.replicates)
    spread = model.spread(
        tuned.task.optimizer, NoiseRegime(float(sweep.regime.scale.parameters), float(sweep.regime.ratio))
    )
    found = resolution(
        sweep.space, runs, tuned.state.descent.incumbent, spread, seed=sweep.seed, feasible=sweep.feasible
    )
    return found.nats
