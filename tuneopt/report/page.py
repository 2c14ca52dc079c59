"""The page as data: its first screen, one section for each sweep, and what stands at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneopt.report import provenance, tables
from tuneopt.report.command import tune_command
from tuneopt.report.compare import Comparison
from tuneopt.report.curves import curves_info, draw_curves
from tuneopt.report.figure import Figure
from tuneopt.report.losses import draw_losses, losses_info
from tuneopt.report.palette import look
from tuneopt.report.path import draw_path, path_info
from tuneopt.report.seeds import draw_seeds, seeds_info
from tuneopt.report.sensitivity import draw_sensitivity, sensitivity_info
from tuneopt.report.speedups import draw_speedups, speedups_info
from tuneopt.report.standing import standing
from tuneopt.report.star import draw_star, star_info
from tuneopt.report.study import Study, SweepView
from tuneopt.report.text import listed, plural
from tuneopt.report.verdict import SweepVerdict, Tile, sweep_verdict, tiles

CURVES = 2400
"""Faint learning curves on the whole page, and rows of trials: they keep a file of 10,000 trials small."""
ROWS = 4000

NAMED = 4
"""Sweeps that one warning names; of more it gives the number."""


@dataclass(frozen=True)
class Section:
    """One sweep: figures in reading order, facts and tables, and what is folded away at its end."""

    anchor: str
    title: str
    colour: str
    verdict: SweepVerdict
    tiles: tuple[Tile, ...]
    star: Figure | None
    seeds: Figure | None
    hyperparameters: tables.Table
    path: Figure
    moves: tables.Table
    curves: Figure | None
    sensitivity: Figure | None
    certificate: tables.Facts
    budget: tables.Facts
    corpus: tables.Facts
    proof: tables.Table
    routing: tables.Table
    trials: tables.Table
    command: str


@dataclass(frozen=True)
class Page:
    """All that the template needs."""

    title: str
    headline: str
    sentences: tuple[str, ...]
    compared: str
    warnings: tuple[str, ...]
    results: tables.Table | None
    budgets: tables.Table | None
    figures: tuple[Figure, ...]
    sections: tuple[Section, ...]
    environment: tables.Facts
    other_trials: int

    @property
    def all_figures(self) -> tuple[Figure, ...]:
        """Every figure in reading order."""
        own = [
            figure
            for section in self.sections
            for figure in (section.seeds, section.star, section.path, section.curves, section.sensitivity)
            if figure is not None
        ]
        return (*self.figures, *own)


def build_page(study: Study, comparison: Comparison) -> Page:
    """The page of a study; a single sweep's verdict is the page's own."""
    verdicts = {view.id: sweep_verdict(view) for view in study.views}
    sections = tuple(_section(study, view, verdicts[view.id]) for view in study.views)
    several = len(study.views) > 1
    if several:
        words = standing(study, comparison)
        headline, sentences = words.headline, words.sentences
    else:
        view, verdict = study.views[0], verdicts[study.views[0].id]
        loss = f"{verdict.report.text} nats per token" if verdict.report else "no loss yet"
        headline, sentences = f"{view.optimizer} at {view.label}: {loss}", verdict.sentences
    return Page(
        title=f"{listed(study.optimizers)} at {listed(study.regimes)}" if not several else "Optimizer comparison",
        headline=headline,
        sentences=sentences,
        compared=_compared(study),
        warnings=all_warnings(study, comparison, verdicts),
        results=tables.results(study, comparison) if several else None,
        budgets=tables.budget_table(comparison) if several else None,
        figures=_figures(study, comparison) if several else (),
        sections=sections,
        environment=provenance.environment(study.views),
        other_trials=study.other_trials,
    )


def all_warnings(study: Study, comparison: Comparison, verdicts: Mapping[str, SweepVerdict]) -> tuple[str, ...]:
    """The sweeps' own warnings, each with its sweeps in front where there are several, then the analysis'."""
    sweeps: dict[str, list[str]] = {}
    for view in study.views:
        for warning in verdicts[view.id].warnings:
            sweeps.setdefault(warning, []).append(f"{view.optimizer} at {view.label}")
    found = list(sweeps)
    if len(study.views) > 1:
        found = [f"{_who(names, len(study.views))}: {warning}" for warning, names in sweeps.items()]
    return tuple(dict.fromkeys([*found, *comparison.document["warnings"]]))


def _who(names: Sequence[str], every: int) -> str:
    """The sweeps that a warning is about: by name while they are few."""
    if len(names) == every:
        return "every sweep"
    return listed(names) if len(names) <= NAMED else plural(len(names), "sweep")


def _compared(study: Study) -> str:
    """What was compared, in one line."""
    trials = len({trial for view in study.views for trial in view.every})
    return (
        f"{listed(study.optimizers)} \u00b7 {listed(study.regimes)} \u00b7 "
        f"corpus {listed(name for name, _ in study.corpora)} \u00b7 "
        f"{plural(len(study.views), 'sweep')}, {plural(trials, 'trial')}"
    )


def _figures(study: Study, comparison: Comparison) -> tuple[Figure, ...]:
    found = []
    losses, speeds = losses_info(study, comparison), speedups_info(comparison)
    if losses.lanes:
        found.append(Figure.of("losses", losses, draw_losses(losses)))
    if speeds:
        found.append(Figure.of("speedups", speeds, draw_speedups(speeds)))
    return tuple(found)


def _section(study: Study, view: SweepView, verdict: SweepVerdict) -> Section:
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
        certificate=tables.certificate(view),
        budget=tables.budget(view),
        corpus=provenance.corpus(view),
        proof=provenance.proof(view),
        routing=provenance.routing(view),
        trials=provenance.trials(view, max(20, ROWS // len(study.views))),
        command=tune_command(view),
    )
