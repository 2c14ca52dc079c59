"""The one result of each optimizer in each regime: which configuration stands for it, and its loss.

The configuration is chosen on the select split and its loss is reported on the report split. Among configurations
that cannot be told from the lowest select loss (closer than the tolerance), the one run with most seeds stands: it is
the sweep's confirmed winner, and taking the lowest of many near-equal runs would report luck.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.runs import RegimeKey, Run
from tuneopt.constants import TOLERANCE
from tuneopt.spec import Value


@dataclass(frozen=True, slots=True)
class Result:
    """An optimizer's result in a regime: mean report loss (nats) of the chosen configuration over its seeds."""

    optimizer: str
    regime: RegimeKey
    parameters: int | None
    tokens: float
    loss: float
    select_loss: float
    runs: int
    config: tuple[tuple[str, Value], ...]
    trials: tuple[str, ...]
    """Trial ids that the loss averages, by seed."""


def choose(runs: Iterable[Run], noise: NoiseModel) -> tuple[Result, ...]:
    """The result of each (optimizer, regime) that has a comparable run, ordered by regime and optimizer.

    Runs that diverged or lack a passed proof never enter. Configurations are compared on one seed, the one that most
    of them were run with.
    """
    groups: dict[tuple[RegimeKey, str], dict[tuple[object, ...], dict[int, Run]]] = {}
    for run in runs:
        if run.status == "completed" and run.select_loss is not None and run.report_loss is not None:
            configs = groups.setdefault((run.regime, run.optimizer), defaultdict(dict))
            configs[run.config, run.variant].setdefault(run.seed, run)
    return tuple(
        _result(list(configs.values()), noise)
        for _, configs in sorted(groups.items(), key=lambda item: (_size(item[1]), item[0]))
    )


def _size(configs: dict[tuple[object, ...], dict[int, Run]]) -> float:
    run = next(iter(next(iter(configs.values())).values()))
    return run.parameters or 0


def _result(configs: list[dict[int, Run]], noise: NoiseModel) -> Result:
    counts = Counter(seed for config in configs for seed in config)
    seed = min(counts, key=lambda candidate: (-counts[candidate], candidate))
    rivals = [config for config in configs if seed in config]
    regime = rivals[0][seed].regime
    known = noise.of(regime)
    tolerance = TOLERANCE if known is None else max(TOLERANCE, known.threshold())
    losses = [_select(config[seed]) for config in rivals]
    near = [config for config, loss in zip(rivals, losses, strict=True) if loss <= min(losses) + tolerance]
    if max(len(config) for config in near) == 1:  # nothing was confirmed: the lowest loss stands
        near = [rivals[losses.index(min(losses))]]
    winner = min(near, key=lambda config: (-len(config), _select(config[seed]), repr(config[seed].config)))
    members = [winner[number] for number in sorted(winner)]
    reports = [run.report_loss for run in members if run.report_loss is not None]
    return Result(
        optimizer=members[0].optimizer,
        regime=regime,
        parameters=members[0].parameters,
        tokens=members[0].tokens,
        loss=sum(reports) / len(reports),
        select_loss=sum(_select(run) for run in members) / len(members),
        runs=len(members),
        config=members[0].config,
        trials=tuple(run.trial for run in members),
    )


def _select(run: Run) -> float:
    if run.select_loss is None:
        raise ValueError(f"run {run.trial} has no loss")
    return run.select_loss
