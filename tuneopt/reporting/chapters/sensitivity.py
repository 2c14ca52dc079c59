"""How much tuning matters: the cost of one wrong coordinate, near-optimal values, and which coordinates scale.

A coordinate *scales* where no single value is near-optimal in every regime. That takes runs of other values in every
regime, which stars have; where only tuned values are known, they may differ by chance and the answer is open
(`tuneopt.analysis.coordinates`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuneopt.reporting.blocks import Block, Chapter, Figure, Fold, Table
from tuneopt.reporting.compare import Comparison
from tuneopt.reporting.figures.laws import draw_exponents, exponents_info
from tuneopt.reporting.figures.sensitivity import draw_regrets, regrets_info
from tuneopt.reporting.palette import position
from tuneopt.reporting.text import NONE, listed, near_text, plural, value_text
from tuneopt.spec import SCALES

if TYPE_CHECKING:
    from tuneopt.analysis.coordinates import CoordinateScaling
    from tuneopt.analysis.hyper_laws import HyperLaw

TITLE = "Hyperparameters: sensitivity and scaling"

MOST_VALUES = 12
"""Tuned values of a coordinate that a table spells out; the JSON has all."""


def chapter(comparison: Comparison) -> Chapter:
    """The stars, the fitted laws, and the coordinates by whether one value serves every regime.

    Coordinates of a single regime are left out: nothing can be said of how they move.
    """
    analysis = comparison.analysis
    lead: list[str] = []
    regrets, laws = regrets_info(analysis.stars), exponents_info(analysis.hyper_laws, analysis.level)
    blocks: list[Block] = [*Figure.all("regrets", [regrets], draw_regrets)]
    if laws is not None:
        blocks.append(Fold(laws.title, tuple(Figure.all("exponents", [laws], draw_exponents))))
    if regrets is None:
        lead.append("What one wrong value costs needs stars, the runs around a best configuration: sweeps make them.")
    several = [one for one in analysis.coordinates if one.regimes > 1]
    if several:
        lead += _scaling_sentences(several)
    if laws is not None:
        lead.append(_law_sentence(laws.laws))
    lead += token_sentences(analysis.hyper_laws)
    if several:
        blocks += _tables(several, comparison)
    return Chapter("sensitivity", TITLE, tuple(lead), tuple(blocks))


def _law_sentence(laws: Sequence[HyperLaw]) -> str:
    """How many laws show a movement: the interval of an exponent leaves out 0."""

    def apart(low: float | None, high: float | None) -> bool:
        return low is not None and high is not None and (low > 0 or high < 0)

    scales = max(law.scales for law in laws)
    by_size = sum(apart(law.b_low, law.b_high) for law in laws)
    by_ratio = sum(apart(law.c_low, law.c_high) for law in laws)
    count = "the one law" if len(laws) == 1 else f"{len(laws)} laws"
    return (
        f"Of {count} fitted to tuned values, {by_size or 'none'} {'shows' if by_size < 2 else 'show'} that model size "
        f"matters, and {by_ratio or 'none'} that the ratio does: the interval of the exponent leaves out 0. "
        f"{'The scale counts' if scales == 1 else f'The {scales} scales count'} as independent."
    )


def token_sentences(laws: Sequence[HyperLaw]) -> list[str]:
    """The laws of scales that are not built in, in the form in which papers publish them."""
    sentences = []
    for law in laws:
        form = law.by_tokens
        if form is None or law.points[0][0].scale in SCALES:
            continue
        value = f"1 - {law.coordinate}" if law.complement else law.coordinate
        size = "" if form.size is None else f" N^{_exponent(form.size, form.size_low, form.size_high)}"
        tokens = _exponent(form.tokens, form.tokens_low, form.tokens_high)
        sentences.append(
            f"The tuned {value} of {law.optimizer} goes as {form.coefficient:.3g}{size} D^{tokens} over "
            f"{plural(law.regimes, 'regime')} (N parameters, D tokens)."
        )
    return sentences


def _exponent(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.2f}" if low is None or high is None else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _scaling_sentences(coordinates: Sequence[CoordinateScaling]) -> list[str]:
    """Which coordinates have to change with the regime, and for how many that is open.

    Where a coordinate's answer is open and its tuned values agree, nothing is said: one value may well serve.
    """
    by_name: dict[str, list[str]] = {}
    for one in coordinates:
        if one.scales:
            by_name.setdefault(one.optimizer, []).append(one.coordinate)
    unknown = sum(one.scales is None and _moved(one) for one in coordinates)
    sentences = []
    if by_name:
        words = "; ".join(f"{name}: {listed(by_name[name])}" for name in sorted(by_name, key=position))
        sentences.append(f"No single value of these coordinates is near-optimal in every regime ({words}).")
    if unknown:
        sentences.append(
            f"Tuned values differ between regimes for {unknown} of {plural(len(coordinates), 'coordinate')}. That they "
            "have to is not shown: for that, other values must have been run in every regime."
        )
    served = sum(one.scales is False for one in coordinates)
    if served:
        share = (
            f"{served} of {len(coordinates)}"
            if served < len(coordinates)
            else {1: "the one", 2: "both"}.get(served, f"all {served}")
        )
        word = "coordinate" if served == len(coordinates) == 1 else "coordinates"
        sentences.append(f"For {share} {word} one value is near-optimal in all regimes.")
    return sentences or [
        "No coordinate was run with several values in every regime, so which have to be tuned again is not known."
    ]


def _tables(coordinates: Sequence[CoordinateScaling], comparison: Comparison) -> list[Block]:
    """What changes with the regime, what one value serves (folded), and near-optimal values where a star knows them.

    A coordinate counts as changing where it has to (`scales`), or where that is open and its tuned values differ.
    """
    ordered = sorted(coordinates, key=lambda one: (position(one.optimizer), not one.scales, one.coordinate))
    changing = [one for one in ordered if one.scales or (one.scales is None and _moved(one))]
    calm = [one for one in ordered if one not in changing]
    blocks: list[Block] = []
    if changing:
        blocks.append(_table("Coordinates that change with the regime", changing, comparison).folded())
    for title, own in (
        ("Coordinates that one value serves", [one for one in calm if one.scales is False]),
        (
            "Coordinates tuned to one value, others of which were not run everywhere",
            [one for one in calm if one.scales is None],
        ),
    ):
        if own:
            blocks.append(Fold(f"{title}: {len(own)}", (_table(title, own, comparison),)))
    known = {(star.optimizer, star.regime) for star in comparison.analysis.stars}
    rows = tuple(
        (one.optimizer, one.coordinate, comparison.label(regime), ", ".join(value_text(value) for value in values))
        for one in ordered
        for regime, values in one.near
        if (one.optimizer, regime) in known
    )
    if rows:
        heads = ("optimizer", "coordinate", "regime", "near-optimal values")
        blocks.append(Table("Near-optimal values by regime", heads, rows).folded(0))
    return blocks


def _moved(one: CoordinateScaling) -> bool:
    """Whether the tuned values differ between regimes, which alone does not show that they have to."""
    return len({value for _, value in one.tuned}) > 1


def _table(title: str, coordinates: Sequence[CoordinateScaling], comparison: Comparison) -> Table:
    """Coordinates with the values that serve everywhere and the tuned value of each regime.

    The threshold of near-optimal is that of the analysis, raised in a regime whose noise is larger.
    """
    rows = []
    for one in coordinates:
        values = [f"{comparison.label(regime)}: {value_text(value)}" for regime, value in one.tuned[:MOST_VALUES]]
        more = f", and {len(one.tuned) - MOST_VALUES} more" if len(one.tuned) > MOST_VALUES else ""
        scales = "not known" if one.scales is None else "yes" if one.scales else "no"
        shared = ", ".join(value_text(value) for value in one.shared) or ("none" if one.scales else NONE)
        rows.append((one.optimizer, one.coordinate, scales, shared, ", ".join(values) + more))
    heads = ("optimizer", "coordinate", "scales", "near-optimal everywhere", "tuned value by regime")
    note = f"Near-optimal is {near_text(max(one.threshold for one in coordinates))}."
    return Table(title, heads, tuple(rows), note=note)
