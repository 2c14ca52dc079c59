"""Which hyperparameters the good trials of a sweep owe their losses to: PED-ANOVA, by Optuna.

PED-ANOVA (Watanabe, Bansal and Hutter, arXiv 2304.10255) compares where the best trials lie with where all trials lie,
coordinate by coordinate. It complements the star: the star says what a single change costs around the incumbent, this
says what set the best trials apart from all others, wherever they were.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass
from functools import lru_cache

from tuneopt.analysis.optuna_studies import members, quiet, varied
from tuneopt.ledger import TrialRecord
from tuneopt.search.axis import Axis
from tuneopt.search.sweep import Sweep
from tuneopt.spec import Value

EVALUATOR = "PED-ANOVA"

FEWEST = 20
"""Finished trials below which importances are noise and none are given: the best tenth would hold one trial or two."""

GOOD = 5
"""Trials that the best group holds at least, as the method asks for."""

BEST = 0.1
"""The share of trials that counts as the best group, where that is `GOOD` trials or more."""


@dataclass(frozen=True, slots=True)
class Importance:
    """One coordinate: its share of all coordinates' importance, 0 to 1, and how many values it was tried at."""

    coordinate: str
    share: float
    values: int


@dataclass(frozen=True, slots=True)
class Importances:
    """The coordinates of one sweep, most important first; the shares sum to 1, or are all 0 where nothing stands out.

    ``trials`` finished and comparable trials were looked at, the ``best`` of them against all. ``bar`` is the select
    loss of the worst of the best, in nats per token.
    """

    evaluator: str
    entries: tuple[Importance, ...]
    trials: int
    best: int
    bar: float


def importances(sweep: Sweep, records: Iterable[TrialRecord]) -> Importances | None:
    """How much each coordinate that varies has to do with being among the best trials of the sweep's own seed.

    ``records`` may be a whole ledger's: those that the sweep's space does not describe are passed over. None below
    `FEWEST` comparable trials. The same records give the same figures.
    """
    finished = [
        record
        for record in members(sweep, list(records))
        if record.comparable and record.select_loss is not None and record.spec.seed == sweep.seed
    ]
    if len(finished) < FEWEST:
        return None
    losses = sorted(record.select_loss for record in finished if record.select_loss is not None)
    share = max(BEST, GOOD / len(finished))  # of few trials a larger share, so that the group holds `GOOD`
    bar = losses[math.ceil(share * len(losses)) - 1]
    tried = {axis.name: _tried(axis, finished) for axis in varied(sweep)}
    shares = _evaluate(sweep, finished, tried, share, bar)
    entries = [Importance(name, shares.get(name, 0.0), len(values)) for name, values in tried.items()]
    entries.sort(key=lambda entry: (-round(entry.share, 9), entry.coordinate))  # equal but for a machine's last bits
    return Importances(EVALUATOR, tuple(entries), len(finished), sum(loss <= bar for loss in losses), bar)


def _tried(axis: Axis, records: Iterable[TrialRecord]) -> list[Value]:
    """The values of a coordinate among ``records``: numbers ascending, words as declared."""
    values = {record.spec.config[axis.name] for record in records}
    return sorted(values, key=float) if axis.numeric else [value for value in axis.values if value in values]


def _evaluate(
    sweep: Sweep, records: list[TrialRecord], tried: dict[str, list[Value]], share: float, bar: float
) -> dict[str, float]:
    """The evaluator's shares. Numbers go in by rank among the values tried: grids are even on no common scale."""
    numeric = {axis.name: axis.numeric for axis in varied(sweep)}
    configs = [(record.spec.config, record.select_loss) for record in records]
    found = {}
    for name, values in tried.items():
        if len(values) > 1:
            ranks = {value: rank for rank, value in enumerate(values)}
            counts = Counter((ranks[config[name]], loss is not None and loss <= bar) for config, loss in configs)
            found[name] = _importance(numeric[name], len(values), tuple(sorted(counts.items())), share)
    total = sum(sorted(found.values(), reverse=True))
    return {name: value / total for name, value in found.items()} if total > 0 else {}


@lru_cache(maxsize=4096)
def _importance(numeric: bool, values: int, counts: tuple[tuple[tuple[int, bool], int], ...], share: float) -> float:
    """What the evaluator says of one coordinate that took so many ``values``, before all add up to 1.

    It looks at each coordinate by itself, and of trials at how many had each rank, among the best (``share`` of them)
    or not: ``counts``. Three quarters of these are the same in several sweeps of a study, and evaluating takes longest.
    """
    from optuna import create_study
    from optuna.distributions import CategoricalDistribution, IntDistribution
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.storages import InMemoryStorage
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState

    distribution = IntDistribution(0, values - 1) if numeric else CategoricalDistribution(range(values))

    def trial(number: int, rank: int, best: bool) -> FrozenTrial:
        return FrozenTrial(
            number=number, trial_id=number, state=TrialState.COMPLETE, value=0.0 if best else 1.0,
            params={"rank": rank}, distributions={"rank": distribution},
            user_attrs={}, system_attrs={}, intermediate_values={}, datetime_start=None, datetime_complete=None,
        )  # fmt: skip

    trials = [one for number, (key, count) in enumerate(counts) for one in [trial(number, *key)] * count]

    class Recorded(Study):
        """A study of the trials as they are: one in memory copies each of them deeply, for a third of a page's time."""

        def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
            return trials

    # The evaluator reads trials from a study, so one is made in memory and thrown away.
    with quiet():
        storage = InMemoryStorage()
        study = Recorded(create_study(storage=storage, direction="minimize").study_name, storage)
        evaluator = PedAnovaImportanceEvaluator(target_quantile=share)
        return get_param_importances(study, evaluator=evaluator, normalize=False)["rank"]
