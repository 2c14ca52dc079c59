"""How much tuning matters: the cost of one wrong coordinate, near-optimal values, and which coordinates scale."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuneopt.report.blocks import Block, Chapter, Fold, Table, table_or_fold
from tuneopt.report.compare import Comparison
from tuneopt.report.figure import Figure
from tuneopt.report.figures.exponents import ExponentsInfo, draw_exponents, exponents_info
from tuneopt.report.figures.regrets import draw_regrets, regrets_info
from tuneopt.report.palette import position
from tuneopt.report.text import NONE, listed, plural, value_text

if TYPE_CHECKING:
    from tuneopt.analysis.coordinates import CoordinateScaling

TITLE = "Sensitivity and scaling of hyperparameters"

MOST_VALUES = 12
"""Tuned values of a coordinate that a table spells out."""


def chapter(comparison: Comparison) -> Chapter:
    """The stars, and the coordinates by whether one value serves every regime."""
    analysis = comparison.analysis
    lead: list[str] = []
    blocks: list[Block] = []
    regrets = regrets_info(analysis.stars)
    if regrets is not None:
        blocks.append(Figure.of("regrets", regrets, draw_regrets(regrets)))
    else:
        lead.append("What one wrong value costs needs stars, the runs around a best configuration: sweeps make them.")
    laws = exponents_info(analysis.hyper_laws, analysis.level)
    if laws is not None:
        blocks.append(Figure.of("exponents", laws, draw_exponents(laws)))
        lead.append(_law_sentence(laws))
    several = [each for each in analysis.coordinates if each.regimes > 1]
    if several:
        lead += _scaling_sentence(several)
        blocks += _tables(several, comparison)
    return Chapter("sensitivity", TITLE, tuple(lead), tuple(blocks))


def _law_sentence(info: ExponentsInfo) -> str:
    """How many laws show a movement with model size or with the ratio."""
    size = [law for law in info.laws if _apart(law.b_low, law.b_high)]
    ratio = [law for law in info.laws if _apart(law.c_low, law.c_high)]
    return (
        f"Of {plural(len(info.laws), 'coordinate')} with a fitted law, {len(size)} move with model size and "
        f"{len(ratio)} with the ratio beyond their intervals."
    )


def _apart(low: float | None, high: float | None) -> bool:
    return low is not None and high is not None and (low > 0 or high < 0)


def _scaling_sentence(found: list[CoordinateScaling]) -> list[str]:
    by_name: dict[str, list[str]] = {}
    for each in found:
        if each.scales:
            by_name.setdefault(each.optimizer, []).append(each.coordinate)
    open_ = [each for each in found if each.scales is None and _moved(each)]
    said = []
    if by_name:
        words = [f"{name}: {listed(by_name[name])}" for name in sorted(by_name, key=position)]
        said.append(f"No single value of these coordinates is near-optimal in every regime ({'; '.join(words)}).")
    if open_:
        said.append(f"The best value moves with the regime for {plural(len(open_), 'coordinate')} of "
                    f"{len(found)} without showing that it has to: for that, other values must have been run in every "
                    "regime.")  # fmt: skip
    return said or ["For every coordinate some value is near-optimal in all regimes compared."]


def _tables(found: list[CoordinateScaling], comparison: Comparison) -> list[Block]:
    ordered = sorted(found, key=lambda each: (position(each.optimizer), not each.scales, each.coordinate))
    changing = [each for each in ordered if each.scales or (each.scales is None and _moved(each))]
    calm = [each for each in ordered if each not in changing]
    blocks: list[Block] = []
    if changing:
        blocks.append(table_or_fold(_table("Coordinates that change with the regime", changing, comparison)))
    if calm:
        title = "Coordinates that one value serves"
        blocks.append(Fold(f"{title}: {len(calm)}", (_table(title, calm, comparison),)))
    near = _near(ordered, comparison)
    if near.rows:
        blocks.append(Fold(f"{near.title}: all {len(near.rows):,} rows", (near,)))
    return blocks


def _moved(each: CoordinateScaling) -> bool:
    return len({value for _, value in each.tuned}) > 1


def _table(title: str, found: list[CoordinateScaling], comparison: Comparison) -> Table:
    rows = []
    for each in found:
        values = [f"{comparison.label(regime)}: {value_text(value)}" for regime, value in each.tuned[:MOST_VALUES]]
        more = f", and {len(each.tuned) - MOST_VALUES} more" if len(each.tuned) > MOST_VALUES else ""
        scales = "not known" if each.scales is None else "yes" if each.scales else "no"
        shared = ", ".join(value_text(value) for value in each.shared) or ("none" if each.scales else NONE)
        rows.append((each.optimizer, each.coordinate, scales, shared, ", ".join(values) + more))
    threshold = found[0].threshold
    return Table(title, ("optimizer", "coordinate", "scales", "near-optimal everywhere", "tuned value by regime"),
                 tuple(rows), note=f"Near-optimal is within {threshold:g} nats of the best value.")  # fmt: skip


def _near(found: list[CoordinateScaling], comparison: Comparison) -> Table:
    known = {(star.optimizer, star.regime) for star in comparison.analysis.stars}
    rows = tuple(
        (each.optimizer, each.coordinate, comparison.label(regime), ", ".join(value_text(value) for value in values))
        for each in found
        for regime, values in each.near
        if (each.optimizer, regime) in known
    )
    return Table("Near-optimal values by regime", ("optimizer", "coordinate", "regime", "near-optimal values"), rows)
