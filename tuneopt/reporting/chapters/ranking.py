"""Who is best where: tie groups, distances to the lowest loss, and the result of every optimizer.

Optimizers are in one tie group where noise cannot tell them from the group's best member, allowing for the number of
pairs compared (`tuneopt.analysis.ranking`). A rank within a group would be a toss of a coin, so none is given.
"""

from __future__ import annotations

import math

from tuneopt.analysis.names import decimals, optimizer_name
from tuneopt.reporting.blocks import Block, Chapter, Figure, Fold, Table
from tuneopt.reporting.compare import Comparison, winner_of
from tuneopt.reporting.drawing import spread
from tuneopt.reporting.figures.against import against_ratio_info, draw_against_ratio
from tuneopt.reporting.figures.losses import draw_losses, losses_info
from tuneopt.reporting.figures.speedups import MARKS, TOGETHER, interval_text, mark_of
from tuneopt.reporting.palette import position
from tuneopt.reporting.study import StudyView, SweepView
from tuneopt.reporting.text import NONE, bound_text, change_text, loss_text, plural
from tuneopt.reporting.verdict import certificate_state
from tuneopt.search.standing import REPEATED

TITLE = "How sure: rankings and tie groups"

MOST_COLUMNS = 18
"""Regimes that the table of tie groups has room for."""


def chapter(study: StudyView | None, comparison: Comparison) -> Chapter:
    """The ranking of every regime: tie groups first, because they are what can be said; losses are for the details.

    Rows of losses are drawn only where they fit a screen, or where no scale has two ratios to be drawn against.
    """
    rankings = comparison.analysis.rankings
    if not rankings:
        return Chapter("ranking", TITLE, ())
    groups = _groups(comparison)
    blocks: list[Block] = [] if groups is None else [groups]
    distances = against_ratio_info(rankings, comparison.scales)
    if distances is not None:
        blocks.append(Fold(distances.title, tuple(Figure.all("distances", [distances], draw_against_ratio))))
    if distances is None or sum(len(ranking.order) for ranking in rankings) <= TOGETHER:
        blocks += Figure.all("losses", [losses_info(comparison)], draw_losses)
    blocks.append(results(study, comparison).folded())
    lead = tuple(filter(None, (_sentence(comparison), comparison.analysis.noise_line)))
    return Chapter("ranking", TITLE, lead, tuple(blocks))


def _sentence(comparison: Comparison) -> str:
    """In how many regimes one optimizer leads alone, and from which difference (nats) on two single runs differ.

    The difference varies with the noise of a regime and with the number of optimizers that are compared there.
    """
    compared = [one for one in comparison.analysis.rankings if len(one.order) > 1]
    known = [one for one in compared if one.groups is not None]
    if not compared:
        return "No regime has a result of more than one optimizer, so there is no ranking yet."
    if not known:
        return "The noise between seeds is not known in any regime, so losses are in order but nothing is ranked."
    alone = sum(len(one.leaders) == 1 for one in known)
    spans = sorted(one.span for one in known if one.span is not None)
    least, most = (f"{span:.{decimals(span)}f}" for span in (spans[0], spans[-1]))
    where = f"{plural(len(known), 'regime')} with several optimizers and known noise"
    if alone == len(known):
        first = f"Each of {where} has a single best one." if alone > 1 else f"The {where[2:]} has a single best one."
    elif not alone:
        first = (
            f"In each of {where} several share the lead."
            if len(known) > 1
            else "Several share the lead in the one regime with several optimizers and known noise."
        )
    else:
        first = f"Of {where}, {alone} {'has' if alone == 1 else 'have'} a single best one; in the "
        first += f"{'other' if len(known) - alone == 1 else 'others'} several share the lead."
    return (
        f"{first} Between single runs a difference counts where it is above {least} "
        f"{'nats' if least == most else f'to {most} nats (by regime)'}, which allows for the number of pairs compared."
    )


def _groups(comparison: Comparison) -> Table | None:
    """Tie groups: a row per optimizer, a column per regime; None for fewer than two regimes that have them.

    Rows are ordered by the mean group over all regimes that the optimizer was run in.
    """
    known = [one for one in comparison.analysis.rankings if one.groups is not None and len(one.order) > 1]
    if len(known) < 2:
        return None
    every: dict[str, list[int]] = {}
    for ranking in known:
        for name, group in zip(ranking.order, ranking.groups or (), strict=True):
            every.setdefault(name, []).append(group)
    shown = [known[at] for at in spread(len(known), MOST_COLUMNS)]
    columns = [dict(zip(ranking.order, ranking.groups or (), strict=True)) for ranking in shown]
    names = sorted(
        {name for column in columns for name in column},
        key=lambda name: (sum(every[name]) / len(every[name]), position(name)),
    )
    more = f" {len(known) - len(shown)} more regimes are in the table of results." if len(shown) < len(known) else ""
    return Table(
        "Tie groups by regime",
        ("optimizer", *(comparison.label(one.regime) for one in shown)),
        tuple((name, *(str(column.get(name, NONE)) for column in columns)) for name in names),
        frozenset(range(1, len(shown) + 1)),
        f"1 is the best group; optimizers of one group cannot be told from its best member.{more}",
    )


def results(study: StudyView | None, comparison: Comparison) -> Table:
    """Every optimizer in every regime: loss, tie group, speedup, and its sweep's certificate if there is one.

    The error behind a loss is sigma / sqrt(seeds), with the sigma of the regime: the spread of two or three seeds alone
    says little. A certificate is shown for ledgers only, for a table says nothing of how its values were found.
    """
    baseline = comparison.analysis.baseline
    rows: list[tuple[str, ...]] = []
    fast = {(one.regime, one.optimizer): one for one in comparison.analysis.speedups}
    for ranking in comparison.analysis.rankings:
        groups = ranking.groups or [None] * len(ranking.order)
        for optimizer, loss, group in zip(ranking.order, ranking.losses, groups, strict=True):
            speed, runs = fast.get((ranking.regime, optimizer)), comparison.winners[ranking.regime, optimizer].runs
            error = None if ranking.noise is None else ranking.noise.sigma / math.sqrt(runs)
            row: tuple[str, ...] = (
                comparison.label(ranking.regime),
                optimizer,
                loss_text(loss, error),
                change_text(loss - ranking.losses[0], error),
                NONE if group is None else str(group),
                NONE if speed is None or "no law" in speed.flags
                else "baseline" if optimizer == baseline
                else interval_text(speed.speedup, speed.low, speed.high, mark_of(speed)),
                str(runs),
            )  # fmt: skip
            if study is not None:
                view = winner_of(study, comparison, ranking.regime, optimizer)
                row = (*row, "none" if view is None else _certificate(view))
            rows.append(row)
    heads = ("regime", "optimizer", "report loss (nats)", "behind the best", "tie group",
             f"speedup over {optimizer_name(baseline)}",
             "seeds", *(["certificate"] if study is not None else []))  # fmt: skip
    marked = any("*" in row[5] for row in rows)
    return Table("Results", heads, tuple(rows), frozenset({2, 3, 4, 5, 6}), MARKS if marked else "")


def _certificate(view: SweepView) -> str:
    """The state of a sweep's certificate with its resolution; a green word without it says nothing."""
    resolution = view.state.certificate.resolution
    state = certificate_state(view)
    return state if resolution is None or state == REPEATED else f"{state} at {bound_text(resolution)} nats"
