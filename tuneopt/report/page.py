"""The page as data: its first screen, a chapter for each question, a section for each sweep, and provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneopt.report.answer import Answer, Grid, answer, grid
from tuneopt.report.blocks import Chapter, Figure, figures_of
from tuneopt.report.chapters import cost, fairness, flips, ranking, sensitivity, sources, speedup
from tuneopt.report.compare import Comparison
from tuneopt.report.section import Section, section
from tuneopt.report.sources import Material
from tuneopt.report.text import listed, percent_text, plural
from tuneopt.report.verdict import SweepVerdict, sweep_verdict

NAMED = 4
"""Sweeps that one warning names; of more it gives the number."""

MOST_NAMES = 12
"""Optimizers or regimes that the line under the headline names; of more it gives the number."""


@dataclass(frozen=True)
class Page:
    """All that the template needs. ``missing`` holds what no input could fill: a title, and what would fill it."""

    title: str
    baseline: str
    level: str
    answer: Answer
    grid: Grid | None
    sentences: tuple[str, ...]
    compared: str
    warnings: tuple[str, ...]
    chapters: tuple[Chapter, ...]
    missing: tuple[Chapter, ...]
    sections: tuple[Section, ...]
    provenance: Chapter

    @property
    def all_figures(self) -> tuple[Figure, ...]:
        """Every figure in reading order."""
        parts = (*(chapter.blocks for chapter in self.chapters), *(section.blocks for section in self.sections))
        return tuple(figure for blocks in parts for figure in figures_of(blocks))


def build_page(material: Material, comparison: Comparison) -> Page:
    """The page of a report; where all there is is one sweep, its verdict is the page's own."""
    views = material.study.views if material.study is not None else ()
    verdicts = {view.id: sweep_verdict(view) for view in views}
    sections = tuple(section(material.study, view, verdicts[view.id]) for view in views) if material.study else ()
    alone = len(views) == 1 and len(material.origins) == 1
    warnings = all_warnings(material, comparison, verdicts)
    if alone:
        view, verdict = views[0], verdicts[views[0].id]
        loss = f"{verdict.report.text} nats per token" if verdict.report else "no loss yet"
        return Page(
            title=f"{view.optimizer} at {view.label}",
            baseline=comparison.analysis.baseline,
            level=percent_text(comparison.analysis.level),
            answer=Answer(f"{view.optimizer} at {view.label}: {loss}", ()),
            grid=None,
            sentences=verdict.sentences,
            compared=_compared(material, comparison),
            warnings=warnings,
            chapters=(),
            missing=(),
            sections=sections,
            provenance=sources.chapter(material, comparison, (), 1),
        )
    found = answer(comparison.document)
    every = (
        speedup.chapter(comparison),
        ranking.chapter(material.study, comparison),
        flips.chapter(comparison),
        fairness.chapter(comparison),
        cost.budgets_chapter(material.study, comparison),
        sensitivity.chapter(comparison),
        cost.chapter(comparison),
    )
    filled = tuple(chapter for chapter in every if chapter.blocks)
    return Page(
        title="Optimizer comparison",
        baseline=comparison.analysis.baseline,
        level=percent_text(comparison.analysis.level),
        answer=found,
        grid=grid(found, comparison.scales) if found.places else None,
        sentences=tuple(statement.sentence for statement in comparison.analysis.statements),
        compared=_compared(material, comparison),
        warnings=warnings,
        chapters=filled,
        missing=tuple(chapter for chapter in every if not chapter.blocks and chapter.lead),
        sections=sections,
        provenance=sources.chapter(material, comparison, filled, len(views)),
    )


def all_warnings(material: Material, comparison: Comparison, verdicts: Mapping[str, SweepVerdict]) -> tuple[str, ...]:
    """The sweeps' own warnings, each with its sweeps in front where there are several, then the analysis'."""
    views = material.study.views if material.study is not None else ()
    sweeps: dict[str, list[str]] = {}
    for view in views:
        for warning in verdicts[view.id].warnings:
            sweeps.setdefault(warning, []).append(f"{view.optimizer} at {view.label}")
    found = list(sweeps)
    if len(views) > 1 or len(material.origins) > 1:
        found = [f"{_who(names, len(views))}: {warning}" for warning, names in sweeps.items()]
    return tuple(dict.fromkeys([*found, *comparison.document["warnings"]]))


def _who(names: Sequence[str], every: int) -> str:
    """The sweeps that a warning is about: by name while they are few."""
    if len(names) == every > 1:
        return "every sweep"
    return listed(names) if len(names) <= NAMED else plural(len(names), "sweep")


def _compared(material: Material, comparison: Comparison) -> str:
    """What was compared, and where it comes from, in one line."""
    study = material.study
    parts = [listed(origin.name for origin in material.origins)]
    if study is not None:
        trials = len({trial for view in study.views for trial in view.every})
        parts += [
            f"corpus {listed(name for name, _ in study.corpora)}",
            f"{plural(len(study.views), 'sweep')}, {plural(trials, 'trial')}",
        ]
    names = study.optimizers if study is not None and len(material.origins) == 1 else comparison.optimizers
    regimes = [comparison.label(regime) for regime in comparison.rankings]
    if study is not None and not regimes:
        regimes = list(study.regimes)
    parts += [
        listed(names) if len(names) <= MOST_NAMES else plural(len(names), "optimizer"),
        listed(regimes) if len(regimes) <= MOST_NAMES // 2 else plural(len(regimes), "regime"),
    ]
    return " \u00b7 ".join(parts)
