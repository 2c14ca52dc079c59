"""Optuna's samplers over the lattice of a space, and what they are told. Optuna is imported when one is made.

A number is proposed by its place on its grid: grids are even on the scale that matters (mostly logarithmic), so
neighbours on the grid are neighbours to the sampler. Words and switches have no order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tuneopt.search.outcome import Outcome
from tuneopt.search.sampled import SampledSearch
from tuneopt.spec import InputError, TrialSpec, Value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler


def make_sampler(search: str, seed: int) -> BaseSampler:
    """The sampler of that name; raises `InputError` where the installed Optuna lacks it."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
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
    given = spec.config
    return {
        axis.name: axis.values.index(given[axis.name]) if axis.numeric else given[axis.name] for axis in search.axes
    }


def to_values(search: SampledSearch, point: Mapping[str, Any]) -> dict[str, Value]:
    """The sampler's parameters as values of the coordinates; the inverse of `to_point`."""
    return {axis.name: axis.values[int(point[axis.name])] if axis.numeric else point[axis.name] for axis in search.axes}


def told_loss(search: SampledSearch, outcome: Outcome, last: float | None = None) -> float | None:
    """The loss that the sampler is told, in nats; None tells it that the trial cannot win.

    The Gaussian process learns from numbers alone: for it a trial that diverged or failed its proof lies at the loss
    of a uniform guess, and one that a scheduler cut at its ``last`` loss. No comparison ever sees these.
    """
    if outcome.loss is not None or search.search != "gp":
        return outcome.loss
    return last if last is not None else math.log(max(2, search.sweep.regime.corpus.vocab_size))
