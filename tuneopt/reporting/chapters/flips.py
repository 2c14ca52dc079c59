"""Where rankings flip: across ratios and scales, and during training.

A flip is a pair of optimizers whose order changes between two neighbouring regimes, or between a moment of training
and its end. It is beyond noise where both orders are, with the level shared among all pairs of a line of regimes
(`tuneopt.analysis.ranking`); the others are listed too, folded away, for a reader who wants to run more seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from tuneopt.analysis.ranking import Flip, Ranking
from tuneopt.analysis.winner import broken
from tuneopt.reporting.blocks import Block, Chapter, Figure, Fold, Table
from tuneopt.reporting.compare import Comparison
from tuneopt.reporting.figures.crossings import crossings_info, draw_crossings
from tuneopt.reporting.figures.curves import draw_training, training_info
from tuneopt.reporting.figures.flips import draw_flips, flips_info
from tuneopt.reporting.text import NONE, listed, percent_text, plural

TITLE = "Where rankings flip"

MOST = 200
"""Flips that a table lists, significant ones first."""

MOST_ROWS = 8
"""Flips beyond noise that the page lists; more are folded."""

MOMENTS = (0.25, 0.5, 0.75)
"""About these parts of training the table says what a cut would have thrown away: where early-stopping schedulers cut.

Each is matched with the nearest moment at which the curves of an order were recorded.
"""

KINDS = {"ratio": "between ratios", "scale": "between scales", "training": "during training"}


def chapter(comparison: Comparison) -> Chapter:
    """The flips, those within noise folded away, and what would show those that cannot be seen."""
    analysis = comparison.analysis
    far = broken(analysis.winners)
    lead = [_sentence(analysis.flips, analysis.rankings, bool(far))]
    charts = {by: flips_info(analysis.rankings, analysis.flips, comparison.scales, by, analysis.baseline, far)
              for by in ("ratio", "size")}  # fmt: skip
    figures = {by: Figure.all(f"flips-by-{by}", [info], draw_flips) for by, info in charts.items()}
    blocks: list[Block] = [*(figures["ratio"] or figures["size"])]
    curves = crossings_info(analysis.winners, analysis.rankings, analysis.inputs.runs, analysis.flips)
    blocks += Figure.all("crossings", [curves], draw_crossings)
    sure = [flip for flip in analysis.flips if flip.significant]
    unsure = [flip for flip in analysis.flips if not flip.significant]
    if sure:
        blocks.append(_table("Flips that noise does not explain", sure, comparison).folded(MOST_ROWS))
    if figures["ratio"] and figures["size"]:
        blocks.append(Fold("Flips between model sizes", tuple(figures["size"])))
    if unsure:
        known = any(one.groups is not None for one in analysis.rankings)
        doubt = " within noise" if known else ", the noise being unknown"
        table = _table(f"Flips{doubt}", unsure, comparison)
        blocks.append(Fold(f"{plural(len(unsure), 'flip')}{doubt}", (table,)))
    during: list[Block] = []
    for trials in (False, True):
        key = "training-trials" if trials else "training"
        during += Figure.all(key, [training_info(analysis.orders, trials)], draw_training)
    cuts = _cuts(comparison)
    if during or cuts.rows:
        blocks.append(Fold("The order during training, and what a cut would have thrown away",
                           (*during, *([cuts] if cuts.rows else []))))  # fmt: skip
    if not analysis.orders:
        lead.append("Flips during training need the loss at several moments of each run: a ledger has it, a table may "
                    "bring it as a column curve.")  # fmt: skip
    return Chapter("flips", TITLE, tuple(lead), tuple(blocks))


def _sentence(flips: Sequence[Flip], rankings: Sequence[Ranking], far: bool) -> str:
    """How many flips there are of each kind, and how often noise alone would invent one."""
    counts, known = [], any(one.groups is not None for one in rankings)
    for kind, words in KINDS.items():
        own = [flip for flip in flips if flip.kind == kind]
        if own:
            sure = f" ({sum(flip.significant for flip in own)} beyond noise)" if known else ""
            counts.append(f"{len(own)} {words}{sure}")
    if not counts:
        met = any(len(set(one.order) & set(other.order)) > 1 for one, other in combinations(rankings, 2))
        if not met:
            return "No two optimizers met in two regimes, so whether any pair changes its order is not known."
        aside = ", broken runs aside" if far else ""
        return f"No pair of optimizers changes its order between the regimes compared{aside}."
    if not known:
        return f"Pairs that change their order: {listed(counts)}. The noise is not known, so any of them may be chance."
    return (
        f"Pairs that change their order: {listed(counts)}. In one line of regimes noise invents a flip beyond noise "
        f"with a chance of at most {percent_text(max(flip.rate for flip in flips))}."
    )


def _table(title: str, flips: Sequence[Flip], comparison: Comparison) -> Table:
    """Who led first and who leads after, between which regimes or from which part of training on."""
    rows = []
    for flip in flips[:MOST]:
        where = f"{comparison.label(flip.earlier)} \u2192 {comparison.label(flip.regime)}"
        if flip.fraction is not None:
            where = f"{comparison.label(flip.regime)}, after {percent_text(flip.fraction)} of training"
        rows.append((KINDS[flip.kind], *flip.pair, where))
    more = f"{len(flips) - MOST} more are in the JSON." if len(flips) > MOST else ""
    return Table(title, ("kind", "led first", "leads after", "where"), tuple(rows), note=more)


def _cuts(comparison: Comparison) -> Table:
    """What keeping the better half at some moment would have thrown away.

    The regret is in nats of the final loss: the best that was kept, minus the best of all.
    """
    rows = []
    for order in comparison.analysis.orders:
        for moment in MOMENTS:
            at = min(range(len(order.fractions)), key=lambda place: abs(order.fractions[place] - moment))
            tau, regret = order.tau[at], order.cut_regret[at]
            if tau is not None:
                rows.append((
                    comparison.label(order.regime),
                    order.among,
                    str(order.curves),
                    percent_text(order.fractions[at]),
                    f"{tau:.2f}",
                    f"{order.crossed[at]} ({order.significant[at]})",
                    NONE if order.winner_rank[at] is None else str(order.winner_rank[at]),
                    listed(order.thrown_away[at]) or "nothing",
                    NONE if regret is None else f"{regret:.4f}",
                ))  # fmt: skip
    heads = ("regime", "order among", "curves", "moment", "Kendall's tau", "pairs crossed (beyond noise)",
             "place of the winner", "best ones thrown away", "regret (nats)")  # fmt: skip
    return Table("What a cut in mid-training would have thrown away", heads, tuple(rows[:MOST]),
                 frozenset({2, 3, 4, 5, 6, 8}), "A cut keeps the better half at that moment.")  # fmt: skip
