"""Several sweeps against each other: the document of the analysis, on what the sweeps themselves call best.

The page and ``--json`` read one document, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from tuneopt.analysis import Budget, budgets, read_runs, summary
from tuneopt.analysis.runs import RegimeKey
from tuneopt.ledger import TrialRecord
from tuneopt.ledger import table as tables
from tuneopt.report.study import Study, SweepView


@dataclass(frozen=True)
class Comparison:
    """The analysis of a study. ``document`` is what ``report --json`` prints, before the report's own fields.

    ``regimes`` gives the analysis' name of each sweep's regime, by sweep id; sweeps without a result have none.
    """

    document: Mapping[str, Any]
    regimes: Mapping[str, RegimeKey]
    budgets: tuple[Budget, ...]

    def label(self, regime: RegimeKey) -> str:
        """A regime in short; with its corpus only where the study has several."""
        several = len({known.corpus for known in self.rankings}) > 1
        return regime.label if several else regime._replace(corpus="").label

    @cached_property
    def speedups(self) -> Mapping[tuple[RegimeKey, str], Mapping[str, Any]]:
        """The speedups by regime and optimizer."""
        return {(_key(row), row["optimizer"]): row for row in self.document["speedups"]}

    @cached_property
    def rankings(self) -> Mapping[RegimeKey, Mapping[str, Any]]:
        """The rankings by regime."""
        return {_key(row): row for row in self.document["rankings"]}


def _key(row: Mapping[str, Any]) -> RegimeKey:
    return RegimeKey(row["corpus"], row["scale"], row["ratio"])


def compare(study: Study) -> Comparison:
    """Losses, tie groups, speedups, flips and warnings of a study.

    An optimizer is judged by the configuration that its sweep ended on. The runs of the start count for the noise,
    once the winner was run with as many seeds.
    """
    judged: dict[str, TrialRecord] = {}
    for view in study.views:
        confirmed = len(view.winner) >= len(view.start)
        judged |= {record.trial: record for record in (*view.winner, *(view.start if confirmed else ()))}
    everything = {trial: record for view in study.views for trial, record in view.every.items()}
    table = tables.build([tables.row(record) for record in judged.values()])
    regimes = {run.trial: run.regime for run in read_runs(table)}
    return Comparison(
        document=summary(table, curves=_curves(judged)),
        regimes={view.id: regimes[view.winner[0].trial] for view in study.views if view.winner},
        budgets=budgets(tables.build([tables.row(record) for record in everything.values()]), by_regime=True),
    )


def _curves(records: Mapping[str, TrialRecord]) -> pa.Table:
    rows = [{"trial": trial, **point} for trial, record in records.items() for point in tables.points(record)]
    return pa.Table.from_pylist(rows, schema=tables.CURVES)


def winner_of(study: Study, comparison: Comparison, regime: RegimeKey, optimizer: str) -> SweepView | None:
    """The sweep that stands for an optimizer in a regime; of several, the one with the lowest select loss."""
    found = [view for view in study.views if comparison.regimes.get(view.id) == regime and view.optimizer == optimizer]
    return min(found, key=lambda view: (view.state.descent.incumbent_loss or 0.0, view.id), default=None)
