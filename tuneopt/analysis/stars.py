"""The star around each result, from whatever trials exist: one-coordinate changes of the chosen configuration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuneopt.analysis.best import Result
from tuneopt.analysis.lookup import Config
from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.runs import RegimeKey, Run
from tuneopt.analysis.sensitivity import Sensitivity, sensitivities, star
from tuneopt.constants import NEAR_OPTIMAL


@dataclass(frozen=True, slots=True)
class Star:
    """An optimizer's incumbent in a regime, its select loss (nats), and how much each coordinate matters around it.

    ``sensitivities`` is ordered by spread, the most sensitive coordinate first. ``threshold`` is what counts as
    near-optimal (nats): `NEAR_OPTIMAL`, or the difference that noise explains where that is larger.
    """

    optimizer: str
    regime: RegimeKey
    config: Config
    loss: float
    sensitivities: tuple[Sensitivity, ...]
    threshold: float = NEAR_OPTIMAL


def stars(
    results: Iterable[Result], runs: Sequence[Run], noise: NoiseModel, near: float | None = None
) -> tuple[Star, ...]:
    """The star of each result that has at least one change of one coordinate among ``runs``.

    The incumbent is the result's run on the seed that gives the largest star. ``near`` (nats) declares what counts as
    near-optimal.
    """
    groups: dict[tuple[str, RegimeKey], list[Run]] = defaultdict(list)
    by_trial = {}
    for run in runs:
        groups[run.optimizer, run.regime].append(run)
        by_trial[run.trial] = run
    found = []
    for result in results:
        members = groups[result.optimizer, result.regime]
        centres = [by_trial[trial] for trial in result.trials if trial in by_trial and result.config]
        if not centres or len(members) < 2:
            continue
        changes, centre = max(((star(members, centre), centre) for centre in centres), key=lambda pair: len(pair[0]))
        if changes and centre.select_loss is not None:
            spread = noise.of(result.regime)
            threshold = near or max(NEAR_OPTIMAL, 0.0 if spread is None else spread.threshold())
            parts = sensitivities(dict(centre.config), centre.select_loss, changes, threshold)
            found.append(Star(result.optimizer, result.regime, centre.config, centre.select_loss, parts, threshold))
    return tuple(found)
