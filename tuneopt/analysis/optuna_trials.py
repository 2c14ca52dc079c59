"""A sweep's trials in Optuna's terms: states, distributions, intermediate values. Optuna is imported when asked for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tuneopt.ledger import TrialRecord
from tuneopt.search.axis import Axis
from tuneopt.search.sampled import belongs
from tuneopt.search.sweep import Sweep

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, TrialState


def varied(sweep: Sweep) -> tuple[Axis, ...]:
    """The coordinates that a study gets as parameters: those that vary."""
    return tuple(axis for axis in sweep.space.axes if not axis.held)


def members(sweep: Sweep, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The records that the sweep's space and seeds describe, whoever proposed them, in the order they ended."""
    found = [record for record in records if record.spec.seed in sweep.seeds and belongs(sweep, record.spec)]
    return sorted(found, key=lambda record: (record.ended, record.trial))


def distribution(axis: Axis) -> BaseDistribution:
    """All values that a sweep could ever give the coordinate, extensions included, so that later trials fit as well.

    Logarithmic where the grid goes on by factors and holds no zero; words and switches are categories.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if not axis.numeric:
        return CategoricalDistribution(axis.values)
    reach = [float(value) for value in (*axis.values, *axis.below, *axis.above)]
    log = axis.extend == "geometric" and min(reach) > 0
    if axis.whole:
        return IntDistribution(int(min(reach)), int(max(reach)), log=log)
    return FloatDistribution(min(reach), max(reach), log=log)


def state_of(record: TrialRecord) -> TrialState:
    """Completed and proven: COMPLETE. Diverged: PRUNED, as a run that its own losses ended. Unproven: FAIL."""
    from optuna.trial import TrialState

    if record.status == "diverged":
        return TrialState.PRUNED
    return TrialState.COMPLETE if record.comparable else TrialState.FAIL


def frozen(sweep: Sweep, record: TrialRecord, distributions: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """A record as a finished Optuna trial: value and intermediate values are select losses in nats per token.

    A value outside the distributions, such as one that an older grid reached, widens its own trial's distribution.
    """
    from optuna.trial import FrozenTrial, TrialState

    state, config = state_of(record), record.spec.config
    own = {axis.name: _covering(distributions[axis.name], config[axis.name]) for axis in varied(sweep)}
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=state,
        value=record.select_loss if state == TrialState.COMPLETE else None,
        datetime_start=_local(record.started),
        datetime_complete=_local(record.ended),
        params={name: config[name] for name in own},
        distributions=own,
        user_attrs={
            "trial": record.trial,
            "status": record.status,
            "seed": record.spec.seed,
            "select_loss": record.select_loss,
            "report_loss": record.report_loss,
            "proof_passed": record.proof_passed,
            "tokens": record.tokens,
            "seconds": sum(record.seconds.values()),
            "search": record.environment.get("search", "coordinate"),
            "scheduler": record.environment.get("scheduler", "none"),
            "hyperparameters": config,
        },
        system_attrs={},
        intermediate_values={point.step: point.select_loss for point in record.curve if point.select_loss is not None},
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna's log and its notes on experimental features off the user's terminal."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _covering(known: BaseDistribution, value: Any) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    if isinstance(known, FloatDistribution):
        return FloatDistribution(min(known.low, float(value)), max(known.high, float(value)), log=known.log)
    if isinstance(known, IntDistribution):
        return IntDistribution(min(known.low, int(value)), max(known.high, int(value)), log=known.log)
    return known


def _local(moment: str) -> datetime:
    """Optuna keeps local times without a zone."""
    return datetime.fromisoformat(moment).astimezone().replace(tzinfo=None)
