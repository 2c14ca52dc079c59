"""Who is best where: tie groups, distances to the lowest loss, and the result of every optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tuneopt.analysis.ranking import Ranking
from tuneopt.report.blocks import Block, Chapter, Table, table_or_fold
from tuneopt.report.compare import Comparison, winner_of
from tuneopt.report.figure import Figure
from tuneopt.report.figures.against_ratio import against_ratio_info, draw_against_ratio
from tuneopt.report.figures.losses import draw_losses, losses_info
from tuneopt.report.figures.speedups import TOGETHER, interval_text
from tuneopt.report.palette import position
from tuneopt.report.rows import spread
from tuneopt.report.study import StudyView
from tuneopt.report.text import NONE, change_text, loss_text, plural

TITLE = "Ranking and tie groups"

MOST_COLUMNS = 16
"""Regimes that the table of tie groups has room for."""


def chapter(study: StudyView | None, comparison: Comparison) -> Chapter:
    """The ranking of every regime."""
    blocks: list[Block] = []
    rankings = comparison.analysis.rankings
    groups = _groups(comparison)
    if groups is not None:
        blocks.append(groups)
    distances = against_ratio_info(rankings, comparison.scales)
    if distances is not None:
        blocks.append(Figure.of("distances", distances, draw_against_ratio(distances)))
    if distances is None or sum(len(ranking.order) for ranking in rankings) <= TOGETHER:
        losses = losses_info(comparison)
        if losses.lanes:
            blocks.append(Figure.of("losses", losses, draw_losses(losses)))
    blocks.append(table_or_fold(results(study, comparison)))
    return Chapter("ranking", TITLE, (_sentence(comparison),), tuple(blocks))


def _sentence(comparison: Comparison) -> str:
    compared = [each for each in comparison.analysis.rankings if len(each.order) > 1]
    known = [each for each in compared if each.groups is not None]
    alone = sum(len(each.leaders) == 1 for each in known)
    if not compared:
        return "No regime has a result of more than one optimizer, so there is no ranking yet."
    if not known:
        return "The noise between seeds is not known in any regime, so losses are in order but nothing is ranked."
    spans = [each.span for each in known if each.span is not None]
    span = (
        f"{min(spans):.4f}" if f"{min(spans):.4f}" == f"{max(spans):.4f}" else f"{min(spans):.4f} to {max(spans):.4f}"
    )
    return (
        f"Of {plural(len(known), 'regime')} with several optimizers and known noise, {alone} "
        f"{'has' if alone == 1 else 'have'} a single best one; in the others several share the lead. Between single "
        f"runs a difference counts from {span} nats on, which allows for the number of pairs compared."
    )


def _groups(comparison: Comparison) -> Table | None:
    """Tie groups: a row per optimizer, a column per regime; None where no regime has them."""
    known = [each for each in comparison.analysis.rankings if each.groups is not None and len(each.order) > 1]
    if len(known) < 2:
        return None
    shown = [known[at] for at in spread(len(known), MOST_COLUMNS)]
    cells: dict[str, list[str]] = {}
    for number, ranking in enumerate(shown):
        for name, text in _cells(ranking).items():
            cells.setdefault(name, [NONE] * len(shown))[number] = text
    mean = {name: _mean_group(known, name) for name in cells}
    names = sorted(cells, key=lambda name: (mean[name], position(name)))
    more = f" {len(known) - len(shown)} more regimes are in the table of results." if len(shown) < len(known) else ""
    return Table(
        "Tie groups by regime",
        ("optimizer", *(comparison.label(each.regime) for each in shown)),
        tuple((name, *cells[name]) for name in names),
        frozenset(range(1, len(shown) + 1)),
        f"1 is the best group; optimizers of one group cannot be told from its best member.{more}",
    )


def _cells(ranking: Ranking) -> Mapping[str, str]:
    groups = ranking.groups or ()
    return {name: str(group) for name, group in zip(ranking.order, groups, strict=True)}


def _mean_group(rankings: list[Ranking], name: str) -> float:
    found = [ranking.group_of(name) for ranking in rankings if name in ranking.order]
    known = [group for group in found if group is not None]
    return sum(known) / len(known) if known else math.inf


def results(study: StudyView | None, comparison: Comparison) -> Table:
    """Every optimizer in every regime: loss, tie group, speedup, certificate."""
    baseline = comparison.analysis.baseline
    rows: list[tuple[str, ...]] = []
    fast = {(each.regime, each.optimizer): each for each in comparison.analysis.speedups}
    for ranking in comparison.analysis.rankings:
        groups = ranking.groups or [None] * len(ranking.order)
        for optimizer, loss, group in zip(ranking.order, ranking.losses, groups, strict=True):
            view = winner_of(study, comparison, ranking.regime, optimizer)
            speed, result = fast.get((ranking.regime, optimizer)), comparison.winners[ranking.regime, optimizer]
            error = None if ranking.noise is None else ranking.noise.sigma / math.sqrt(result.runs)
            complete = view is not None and view.state.descent.certificate.complete and view.state.finished
            row: tuple[str, ...] = (
                comparison.label(ranking.regime),
                optimizer,
                loss_text(loss, error),
                change_text(loss - ranking.losses[0]),
                NONE if group is None else str(group),
                NONE if speed is None
                else "baseline" if optimizer == baseline
                else interval_text(speed.speedup, speed.low, speed.high),
                str(result.runs),
            )  # fmt: skip
            rows.append((*row, "complete" if complete else "none") if study is not None else row)
    heads = ["regime", "optimizer", "report loss (nats)", "behind the best", "tie group", f"speedup over {baseline}"]
    heads += ["seeds", "certificate"] if study is not None else ["seeds"]
    return Table("Results", tuple(heads), tuple(rows), frozenset({2, 3, 4, 5, 6}))
