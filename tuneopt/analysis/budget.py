"""What each optimizer's tuning has cost, so that unequal tuning is visible at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneopt.analysis.runs import Rows, Run, read_runs

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Budget:
    """The cost of one optimizer's trials, over all regimes or in one.

    ``scale``, ``ratio`` and ``corpus`` are None for all regimes together. ``trials`` counts all; ``diverged`` and
    ``unproven`` (completed without a passed proof) are among them, ``configurations`` counts those that differ in more
    than the seed. ``tokens`` and ``flops`` are what was trained, evaluation not counted; ``device_hours`` is the wall
    time of the trials, start-up and evaluation included, times their devices. None where no trial says it; where some
    do, those are summed.
    """

    optimizer: str
    scale: str | None
    ratio: float | None
    trials: int
    diverged: int
    unproven: int
    tokens: int
    flops: float | None
    device_hours: float | None
    corpus: str | None = None
    configurations: int = 0


def budgets(source: pa.Table | Rows | Iterable[Run], by_regime: bool = False) -> tuple[Budget, ...]:
    """The budget of each optimizer of a table, by name; with ``by_regime`` one per optimizer and regime."""
    groups: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in read_runs(source):
        place = (run.parameters or 0, run.regime.scale, run.regime.ratio, run.regime.corpus) if by_regime else ()
        groups[run.optimizer, *place].append(run)
    return tuple(_budget(runs, by_regime) for _, runs in sorted(groups.items(), key=lambda item: item[0]))


def _budget(runs: list[Run], by_regime: bool) -> Budget:
    regime = runs[0].regime if by_regime else None
    seconds = _sum(run.device_seconds for run in runs)
    return Budget(
        optimizer=runs[0].optimizer,
        scale=regime.scale if regime else None,
        ratio=regime.ratio if regime else None,
        trials=len(runs),
        diverged=sum(run.status == "diverged" for run in runs),
        unproven=sum(run.status == "unproven" for run in runs),
        tokens=round(sum(run.trained or 0.0 for run in runs)),
        flops=_sum(run.flops for run in runs),
        device_hours=None if seconds is None else seconds / 3600,
        corpus=regime.corpus if regime else None,
        configurations=len({(run.regime, run.config, run.variant) for run in runs}),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
