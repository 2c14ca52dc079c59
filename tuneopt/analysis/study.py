"""Everything at once: from runs to every figure of the analysis, computed once and held together."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tuneopt.analysis.aligned import Curves
from tuneopt.analysis.best import Result, choose
from tuneopt.analysis.budget import Budget, budgets
from tuneopt.analysis.coordinates import CoordinateScaling, coordinate_scaling
from tuneopt.analysis.costs import Cost, ParetoPoint, costs, pareto
from tuneopt.analysis.curves import training_flips
from tuneopt.analysis.edges import Edge, edges
from tuneopt.analysis.flips import Flip, regime_flips
from tuneopt.analysis.hyper_laws import HyperLaw, hyper_laws
from tuneopt.analysis.inputs import Inputs
from tuneopt.analysis.joint import JointFit, joint_fits
from tuneopt.analysis.noise import NoiseModel, measure
from tuneopt.analysis.orders import TrainingOrder, orders
from tuneopt.analysis.ranking import Ranking, rankings
from tuneopt.analysis.speedup import BASELINE, DRAWS, LEVEL, BaselineLaw, Speedup, baseline_laws, speedups
from tuneopt.analysis.stars import Star, stars
from tuneopt.analysis.statements import Statement, statements
from tuneopt.analysis.transfer import Transfer, transfers
from tuneopt.analysis.undertuned import Undertuned, undertuned
from tuneopt.analysis.warnings import warnings
from tuneopt.spec import InputError


@dataclass(frozen=True, eq=False)
class Analysis:
    """All that is computed from one source; each part is described where its class is."""

    inputs: Inputs
    baseline: str
    level: float
    noise: NoiseModel
    results: tuple[Result, ...]
    laws: tuple[BaselineLaw, ...]
    speedups: tuple[Speedup, ...]
    joint: tuple[JointFit, ...]
    rankings: tuple[Ranking, ...]
    statements: tuple[Statement, ...]
    flips: tuple[Flip, ...]
    orders: tuple[TrainingOrder, ...]
    transfer: tuple[Transfer, ...]
    undertuned: tuple[Undertuned, ...]
    budgets: tuple[Budget, ...]
    edges: tuple[Edge, ...]
    stars: tuple[Star, ...]
    coordinates: tuple[CoordinateScaling, ...]
    hyper_laws: tuple[HyperLaw, ...]
    costs: tuple[Cost, ...]
    pareto: tuple[ParetoPoint, ...]
    warnings: tuple[str, ...]


def analyse(
    inputs: Inputs,
    *,
    judged: Collection[str] | None = None,
    baseline: str = BASELINE,
    sigma: float | None = None,
    level: float = LEVEL,
    draws: int = DRAWS,
    seed: int = 0,
    near: float | None = None,
) -> Analysis:
    """Every figure of a source.

    ``judged`` are the ids of the trials that results are chosen from and noise is measured on (such as the incumbents
    of sweeps with their replicates); None is all. The other trials still fill stars, transfers, the under-tuned
    baseline, orders among trials and budgets. ``sigma`` (nats) replaces measured noise, ``level`` is the coverage of
    the intervals, ``draws`` the redrawn data sets, ``near`` (nats) what counts as near-optimal. Raises `InputError` for
    a level outside (0, 1) or a sigma or threshold that is not positive.
    """
    if not 0 < level < 1:
        raise InputError(f"the level of an interval must lie between 0 and 1, not {level!r}; try 0.9")
    if near is not None and not near > 0:
        raise InputError(f"the near-optimal threshold must be a positive number of nats, not {near!r}; try 0.007")
    runs = inputs.runs
    curves = None if inputs.curves is None else Curves(inputs.curves)
    chosen = runs if judged is None else tuple(run for run in runs if run.trial in judged)
    noise = measure(chosen, sigma)
    results = choose(chosen, noise)
    ranked = rankings(results, noise)
    laws = baseline_laws(results, baseline)
    how = {"baseline": baseline, "level": level, "draws": draws, "seed": seed}
    speeds = speedups(results, noise, **how)  # type: ignore[arg-type]
    joint = joint_fits(results, noise, **how)  # type: ignore[arg-type]
    around = stars(results, runs, noise, near)
    spent = costs(results, runs, speeds, baseline)
    during = training_flips(results, curves, noise, runs=runs) if curves is not None else ()
    return Analysis(
        inputs=inputs,
        baseline=baseline,
        level=level,
        noise=noise,
        results=results,
        laws=laws,
        speedups=speeds,
        joint=joint,
        rankings=ranked,
        statements=statements(results, ranked, speeds, noise, baseline=baseline, level=level),
        flips=(*regime_flips(results, noise), *during),
        orders=() if curves is None else orders(results, ranked, runs, curves, noise),
        transfer=transfers(results, runs, laws),
        undertuned=undertuned(results, runs, laws, noise, **how),  # type: ignore[arg-type]
        budgets=budgets(runs, by_regime=True),
        edges=edges(results, runs),
        stars=around,
        coordinates=coordinate_scaling(results, around),
        hyper_laws=hyper_laws(results, around, level),
        costs=spent,
        pareto=pareto(results, spent),
        warnings=tuple(warnings(chosen, results, noise, laws, speeds, baseline, joint)),
    )
