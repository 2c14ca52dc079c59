"""The section of one sweep: figures in reading order, facts and tables, and what is folded away at its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuneopt.report import provenance, tables
from tuneopt.report.blocks import NamedValues, Table
from tuneopt.report.command import tune_command
from tuneopt.report.figure import Figure
from tuneopt.report.figures.curves import curves_info, draw_curves
from tuneopt.report.figures.path import draw_path, path_info
from tuneopt.report.figures.seeds import draw_seeds, seeds_info
from tuneopt.report.figures.sensitivity import draw_sensitivity, sensitivity_info
from tuneopt.report.figures.star import draw_star, star_info
from tuneopt.report.palette import look
from tuneopt.report.study import StudyView, SweepView
from tuneopt.report.verdict import KeyNumber, SweepVerdict, tiles

CURVES = 2400
"""Faint learning curves on the whole page, and rows of trials: they keep a file of 10,000 trials small."""

ROWS = 4000


@dataclass(frozen=True)
class Section:
    """One sweep on the page."""

    anchor: str
    title: str
    colour: str
    verdict: SweepVerdict
    tiles: tuple[KeyNumber, ...]
    star: Figure | None
    seeds: Figure | None
    hyperparameters: Table
    path: Figure
    moves: Table
    curves: Figure | None
    sensitivity: Figure | None
    importances: Table | None
    certificate: NamedValues
    budget: NamedValues
    corpus: NamedValues
    proof: Table
    routing: Table
    trials: Table
    command: str

    @property
    def figures(self) -> tuple[Figure, ...]:
        """The section's figures in reading order."""
        own = (self.seeds, self.star, self.path, self.curves, self.sensitivity)
        return tuple(figure for figure in own if figure is not None)


def section(study: StudyView, view: SweepView, verdict: SweepVerdict) -> Section:
    """The section of a sweep of a study."""

    def figure(name: str, info: Any, draw: Any) -> Figure:
        return Figure.of(f"{name}-{view.id}", info, draw(info))

    star, seeds, path = star_info(view), seeds_info(view), path_info(view)
    curves = curves_info(view, CURVES // len(study.views))
    sensitivity = sensitivity_info(view)
    corpora = {corpus for corpus, _ in study.corpora}
    where = f"{view.label} on {view.sweep.regime.corpus.name}" if len(corpora) > 1 else view.label
    return Section(
        anchor=view.anchor,
        title=f"{view.optimizer} at {where}",
        colour=look(view.optimizer).colour,
        verdict=verdict,
        tiles=tiles(view, verdict),
        star=figure("star", star, draw_star) if star.lanes else None,
        seeds=figure("seeds", seeds, draw_seeds) if seeds else None,
        hyperparameters=tables.hyperparameters(view),
        path=figure("path", path, draw_path),
        moves=tables.moves(path),
        curves=figure("curves", curves, draw_curves) if curves.curves else None,
        sensitivity=figure("sensitivity", sensitivity, draw_sensitivity) if sensitivity else None,
        importances=tables.importances(view),
        certificate=tables.certificate(view),
        budget=tables.budget(view),
        corpus=provenance.corpus(view),
        proof=provenance.proof(view),
        routing=provenance.routing(view),
        trials=provenance.trials(view, max(20, ROWS // len(study.views))),
        command=tune_command(view),
    )
