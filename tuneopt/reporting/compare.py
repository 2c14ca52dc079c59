"""The analysis of all sources and its document: page and ``--json`` read the same values, so they cannot disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tuneopt.analysis.document import document
from tuneopt.analysis.names import place_name
from tuneopt.analysis.runs import RegimeKey
from tuneopt.analysis.study import Analysis, analyse, baseline_of
from tuneopt.analysis.winner import Winner
from tuneopt.reporting.palette import position
from tuneopt.reporting.sources import Material
from tuneopt.reporting.study import StudyView, SweepView


@dataclass(frozen=True)
class Comparison:
    """The analysis of a report's material; ``document`` is what ``report --json`` prints before its own fields.

    ``regimes`` gives the analysis' name of each sweep's regime, by sweep id; sweeps without a result have none.
    """

    analysis: Analysis
    document: Mapping[str, Any]
    regimes: Mapping[str, RegimeKey]

    def label(self, regime: RegimeKey) -> str:
        """A regime in short, as people read it; with its corpus only where there are several."""
        return place_name(regime.scale, regime.ratio, regime.corpus if self.several_corpora else "")

    @cached_property
    def several_corpora(self) -> bool:
        """Whether the results come from more than one corpus."""
        return len({known.corpus for known in self.rankings}) > 1

    @cached_property
    def speedups(self) -> Mapping[tuple[RegimeKey, str], Mapping[str, Any]]:
        """The speedups by regime and optimizer."""
        return {(_key(row), row["optimizer"]): row for row in self.document["speedups"]}

    @cached_property
    def rankings(self) -> Mapping[RegimeKey, Mapping[str, Any]]:
        """The rankings by regime."""
        return {_key(row): row for row in self.document["rankings"]}

    @cached_property
    def winners(self) -> Mapping[tuple[RegimeKey, str], Winner]:
        """The winners by regime and optimizer."""
        return {(winner.regime, winner.optimizer): winner for winner in self.analysis.winners}

    @cached_property
    def optimizers(self) -> tuple[str, ...]:
        """The optimizers that have a result, in the palette's order."""
        return tuple(sorted({winner.optimizer for winner in self.analysis.winners}, key=position))

    @cached_property
    def best_first(self) -> tuple[str, ...]:
        """The optimizers by their mean place over the regimes that they were run in, each place over the regime's."""
        places: dict[str, list[float]] = {}
        for ranking in self.analysis.rankings:
            for place, name in enumerate(ranking.order):
                places.setdefault(name, []).append(place / len(ranking.order))
        return tuple(sorted(places, key=lambda name: (sum(places[name]) / len(places[name]), position(name))))

    @cached_property
    def scales(self) -> tuple[str, ...]:
        """The scales' names, smallest first; those of unknown size at the end."""
        sizes = {winner.regime.scale: winner.parameters or float("inf") for winner in self.analysis.winners}
        return tuple(sorted(sizes, key=lambda name: (sizes[name], name)))


def _key(row: Mapping[str, Any]) -> RegimeKey:
    return RegimeKey(row["corpus"], row["scale"], row["ratio"])


def compare(
    material: Material, *, sigma: float | None = None, baseline: str | None = None, targets: Sequence[float] = ()
) -> Comparison:
    """The analysis of a report's material; ``sigma`` (nats) replaces the measured noise.

    ``baseline`` is whom speedups are measured against, AdamW unless said otherwise; ``targets`` are losses (nats) that
    optimizers race to.

    An optimizer stands by the configuration that its sweep ended on; in a table it is the lowest loss.
    """
    analysis = analyse(material.inputs, sigma=sigma, targets=targets, baseline=baseline_of(material.inputs, baseline))
    views = material.study.views if material.study is not None else ()
    places = {run.trial: run.regime for run in material.inputs.runs} if views else {}
    regimes = {view.id: places[view.winner[0].trial] for view in views if view.winner}
    return Comparison(analysis, document(analysis), regimes)


def winner_of(study: StudyView | None, comparison: Comparison, regime: RegimeKey, optimizer: str) -> SweepView | None:
    """The sweep whose incumbent is the winner of an optimizer in a regime; None where the winner is from a table."""
    winner = comparison.winners.get((regime, optimizer))
    if study is None or winner is None:
        return None
    views = [view for view in study.views if view.winner and view.winner[0].trial in winner.trials]
    # Of a sweep and one that only gives its winner more seeds, the first has something to say of how it was found.
    return min(
        views,
        key=lambda view: (not view.sweep.space.varied, view.state.descent.incumbent_loss or 0.0, view.id),
        default=None,
    )
