"""The page as data: its first screen, a chapter for each question, a section for each sweep, and provenance.

`build_page` decides what a report shows and in which order; the template writes it as HTML and decides nothing. A
report of one sweep alone is a page without chapters, whose first screen is the verdict on that sweep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneopt.analysis.circumstances import circumstances_sentence
from tuneopt.analysis.comparison import one_place_statement
from tuneopt.analysis.names import in_words, optimizer_name
from tuneopt.analysis.targets import races
from tuneopt.parallel import in_parallel
from tuneopt.reporting.answer import Answer, Grid, answer, grid
from tuneopt.reporting.blocks import Chapter, Figure, figures_of
from tuneopt.reporting.chapters import cost, fairness, flips, ranking, sensitivity, sources, speedup, targets
from tuneopt.reporting.compare import Comparison
from tuneopt.reporting.figures.laws import draw_guide, guide_info
from tuneopt.reporting.palette import position
from tuneopt.reporting.section import Section, section
from tuneopt.reporting.sources import Material
from tuneopt.reporting.study import SweepView
from tuneopt.reporting.text import listed, percent_text, plural
from tuneopt.reporting.verdict import SweepVerdict, shared_warnings, sweep_verdict

NAMED = 4
"""Sweeps that one warning names; of more it gives the number."""

GUIDE = 400
"""Pixels of the figure that explains the word speedup, at the side of the first screen's sentences."""

MOST_NAMES = 12
"""Optimizers that the line under the headline names, and half as many regimes; of more it gives the number."""


@dataclass(frozen=True)
class Page:
    """All that the template needs.

    ``level`` is the coverage of intervals in words, ``sentences`` are the statements under the headline: the first
    ``folded`` of them go scale by scale, and stand in a fold behind the others. ``compared`` is the line that says what
    was compared. ``guide`` is the figure that explains the word speedup. ``missing`` are chapters that no input could
    fill: their leads say what would.
    """

    title: str
    baseline: str
    level: str
    answer: Answer
    grid: Grid | None
    sentences: tuple[str, ...]
    folded: int
    compared: str
    guide: Figure | None
    warnings: tuple[str, ...]
    chapters: tuple[Chapter, ...]
    missing: tuple[Chapter, ...]
    sections: tuple[Section, ...]
    provenance: Chapter

    @property
    def all_figures(self) -> tuple[Figure, ...]:
        """Every figure in reading order."""
        parts = (*(chapter.blocks for chapter in self.chapters), *(section.blocks for section in self.sections))
        first = () if self.guide is None else (self.guide,)
        return (*first, *(figure for blocks in parts for figure in figures_of(blocks)))


def build_page(material: Material, comparison: Comparison) -> Page:
    """The page of a report.

    Chapters come in the order in which questions are asked: by how much, where not, how sure, was it fair, what did it
    cost, what matters. Where all there is is one sweep, there is nothing to compare and its verdict is the page's own.
    """
    study, analysis = material.study, comparison.analysis
    views = study.views if study is not None else ()
    verdicts = {view.id: sweep_verdict(view) for view in views}
    chapters: tuple[Chapter, ...] = ()
    guide: Figure | None = None
    scaled: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    if len(views) == 1 and len(material.origins) == 1:
        verdict = verdicts[views[0].id]
        title = f"{optimizer_name(views[0].optimizer)} at {views[0].label}"
        loss = f"{verdict.report.text} nats per token" if verdict.report else "no loss yet"
        first_screen, sentences = Answer(f"{title}: {loss}", ()), tuple(map(in_words, verdict.sentences))
    else:
        title, first_screen = "Optimizer comparison", answer(comparison.document)
        scaled, findings = _sentences(comparison)
        circumstances = circumstances_sentence(analysis.circumstances)
        sentences = (*scaled, *findings, *([circumstances] if circumstances else []))
        chapters = (
            speedup.chapter(comparison),
            targets.chapter(comparison),
            flips.chapter(comparison),
            ranking.chapter(study, comparison),
            fairness.chapter(comparison),
            cost.chapter(comparison),
            cost.budgets_chapter(study, comparison),
            sensitivity.chapter(comparison),
            speedup.details(comparison),
        )
        known = guide_info(analysis.laws, analysis.winners, analysis.speedups, analysis.baseline)
        guide = None if known is None else Figure.of("guide", known, draw_guide, GUIDE)
    filled = tuple(chapter for chapter in chapters if chapter.blocks)
    return Page(
        title=title,
        baseline=analysis.baseline,
        level=percent_text(analysis.level),
        answer=first_screen,
        grid=grid(first_screen, comparison.scales) if first_screen.places else None,
        sentences=sentences,
        folded=len(scaled) if findings else 0,
        compared=_compared(material, comparison),
        guide=guide,
        warnings=all_warnings(material, comparison, verdicts),
        chapters=filled,
        missing=tuple(chapter for chapter in chapters if not chapter.blocks and chapter.lead),
        sections=() if study is None else tuple(in_parallel(lambda one: section(study, one, verdicts[one.id]), views)),
        provenance=sources.chapter(material, comparison, filled, len(views)),
    )


def _sentences(comparison: Comparison) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The statement of each scale; and the findings over all of them with what a target loss takes."""
    analysis = comparison.analysis
    several = [one.sentence for one in analysis.statements if one.compared > 1]
    alone = [] if several else [one.sentence for one in analysis.statements[:1]]
    if alone and len(comparison.optimizers) == 1 < len(comparison.rankings):
        alone = [f"Only {comparison.optimizers[0]} has results, so there is nothing to compare."]
        alone += sensitivity.token_sentences(analysis.hyper_laws)
    races = targets.sentences(comparison)
    if len(races) > targets.MOST_RACES:
        races = [*races[: targets.MOST_RACES], f"{len(races) - targets.MOST_RACES} more stand under {targets.TITLE}."]
    # Where no scale has speedups in tokens, those in compute are the answer.
    compute = () if analysis.laws else speedup.frontier_sentences(comparison)
    scaled, findings = (*several, *alone), (*compute, *(one.sentence for one in analysis.findings), *races)
    first = one_place_statement(comparison.document)
    return tuple(map(in_words, (first, *scaled) if first else scaled)), tuple(map(in_words, findings))


def all_warnings(material: Material, comparison: Comparison, verdicts: Mapping[str, SweepVerdict]) -> tuple[str, ...]:
    """The sweeps' own warnings, each with its sweeps in front where there are several, then the analysis'.

    A warning that several sweeps share is given once, and one that both parts give is not repeated.
    """
    views = material.study.views if material.study is not None else ()
    told = {view.id: list(verdicts[view.id].warnings) for view in views}
    sweeps = {warning: [_name(view) for view in those] for those, warning in shared_warnings(views, told)}
    for view in views:
        for warning in told[view.id]:
            sweeps.setdefault(warning.text, []).append(_name(view))
    several = len(views) > 1 or len(material.origins) > 1
    own = [f"{_who(names, len(views))}: {warning}" if several else warning for warning, names in sweeps.items()]
    return tuple(dict.fromkeys(map(in_words, [*own, *comparison.document["warnings"]])))


def _name(view: SweepView) -> str:
    return f"{view.optimizer} at {view.label}"


def _who(names: Sequence[str], every: int) -> str:
    """The sweeps that a warning is about: by name while they are few."""
    if len(names) == every > 1:
        return "every sweep"
    return listed(names) if len(names) <= NAMED else plural(len(names), "sweep")


def _compared(material: Material, comparison: Comparison) -> str:
    """What was compared, and where it comes from, in one line.

    A ledger alone names the optimizers and regimes of its sweeps, also of those that have no result yet.
    """
    study = material.study
    parts = [listed(origin.name for origin in material.origins)]
    names: Sequence[str] = comparison.optimizers
    regimes = [comparison.label(regime) for regime in comparison.rankings]
    if study is not None:
        trials = len({trial for view in study.views for trial in view.needed})
        parts.append(f"corpus {listed(name for name, _ in study.corpora)}")
        parts.append(f"{plural(len(study.views), 'sweep')}, {plural(trials, 'trial')}")
        names = study.optimizers if len(material.origins) == 1 else names
        regimes = regimes or list(study.regimes)
    tasks = races(comparison.analysis.targets) if not regimes else []
    names = names or sorted({row.optimizer for own in tasks for row in own}, key=position)
    parts.append(listed(map(optimizer_name, names)) if len(names) <= MOST_NAMES else plural(len(names), "optimizer"))
    parts.append(listed(regimes) if len(regimes) <= MOST_NAMES // 2 else plural(len(regimes), "regime"))
    parts.append(plural(len(tasks), "race") + " to a target" if tasks else "")
    return " \u00b7 ".join(filter(None, parts))
