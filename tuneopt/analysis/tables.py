"""The figures of the analysis as pyarrow tables, for notebooks and downloads; ``.to_pandas()`` gives a data frame.

Every function takes a source (an `Analysis`, `Inputs`, a `Ledger`, the path of a results file, a table, or rows) and
the options of `tuneopt.analysis.study.analyse`. Pass an `Analysis` to compute once and take many tables. A regime
becomes the columns corpus, scale and ratio; configurations and other nested values become JSON text. Units are in
docs/analysis.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tuneopt.analysis.document import plain
from tuneopt.analysis.inputs import as_inputs
from tuneopt.analysis.statements import Gain
from tuneopt.analysis.study import Analysis, analyse

if TYPE_CHECKING:
    import pyarrow as pa

Source = Any
"""`Analysis`, `Inputs`, a `Ledger`, a path, a pyarrow table, rows, or runs."""


def as_table(values: Iterable[Any]) -> pa.Table:
    """One row per value, for the frozen dataclasses of this package (such as `Speedup`, `Budget` or `Flip`).

    A column for each field, in their order; what a field holds is described where its class is. No value gives a table
    without columns.
    """
    return _table(plain(value) for value in values)


def speedups(source: Source, **options: Any) -> pa.Table:
    """D_eff / D of every optimizer in every regime over the baseline, with intervals and flags.

    ``effective_tokens`` is D_eff in tokens, null under the law's floor.
    """
    return as_table(_analysis(source, options).speedups)


def rankings(source: Source, **options: Any) -> pa.Table:
    """One row per optimizer and regime: place (1 is best), loss and tie group.

    ``span`` is the smallest difference (nats) between single runs that counts in the regime. It and ``tie_group`` are
    null where no noise is known.
    """
    return _table(
        {
            **plain(ranking.regime),
            "place": place,
            "optimizer": name,
            "loss": loss,
            "tie_group": ranking.group_of(name),
            "span": ranking.span,
        }
        for ranking in _analysis(source, options).rankings
        for place, (name, loss) in enumerate(zip(ranking.order, ranking.losses, strict=True), start=1)
    )


def leaders(source: Source, **options: Any) -> pa.Table:
    """The statement of each scale: the best group, and each leader's gain over the baseline."""
    return _table(
        {
            **plain(statement.regime),
            "leaders": list(statement.leaders),
            "sentence": statement.sentence,
            # A scale without a gain (the baseline alone, or leading) keeps its row; a column is never left out, because
            # the first row decides which columns the table has.
            **{field.name: None if gain is None else plain(getattr(gain, field.name)) for field in fields(Gain)},
        }
        for statement in _analysis(source, options).statements
        for gain in (statement.gains or (None,))
    )


def joint_factors(source: Source, **options: Any) -> pa.Table:
    """The joint fit's factor of each optimizer: over all scales (scale is null), then for each scale.

    ``rms`` is in nats; ``results`` counts the losses that a factor rests on.
    """
    return _table(
        {"corpus": fit.corpus, "scale": fit.scale, "exponent": fit.exponent, "rms": fit.rms, **plain(factor)}
        for fit in _analysis(source, options).joint
        for factor in fit.factors
    )


def joint_residuals(source: Source, **options: Any) -> pa.Table:
    """Loss minus the joint law for every result; ``fit`` names the scale fitted, null for all together."""
    return _table(
        {"fit": fit.scale, **plain(residual)} for fit in _analysis(source, options).joint for residual in fit.residuals
    )


def order_flips(source: Source, **options: Any) -> pa.Table:
    """Pairs that change places during training, across ratios and across scales."""
    return as_table(_analysis(source, options).flips)


def training_orders(source: Source, **options: Any) -> pa.Table:
    """One row per regime, group of runs and fraction of training: agreement with the final order, and a cut's cost."""
    return _table(
        {
            **plain(order.regime),
            "among": order.among,
            "curves": order.curves,
            "fraction": fraction,
            "tau": order.tau[place],
            "crossed": order.crossed[place],
            "significant": order.significant[place],
            "winner_rank": order.winner_rank[place],
            "thrown_away": list(order.thrown_away[place]),
            "cut_regret": order.cut_regret[place],
        }
        for order in _analysis(source, options).orders
        for place, fraction in enumerate(order.fractions)
    )


def transfers(source: Source, **options: Any) -> pa.Table:
    """The blind-transfer matrix, one row per cell; a missing cell holds the configuration that would fill it.

    ``regret`` is in nats over the receiver's tuned loss, ``speedup_regret`` the part of its speedup that is lost.
    """
    return as_table(_analysis(source, options).transfer)


def undertuned_runs(source: Source, **options: Any) -> pa.Table:
    """What an under-tuned baseline would have manufactured, one row per way of tuning it badly."""
    return as_table(_analysis(source, options).undertuned)


def budgets(source: Source, **options: Any) -> pa.Table:
    """What tuning each optimizer in each regime has cost: trials, tokens, FLOPs and device-hours."""
    return as_table(_analysis(source, options).budgets)


def edge_values(source: Source, **options: Any) -> pa.Table:
    """Tuned coordinates that stand on an edge."""
    return as_table(_analysis(source, options).edges)


def sensitivities(source: Source, **options: Any) -> pa.Table:
    """The stars: one row per optimizer, regime, coordinate and value, with its loss and whether it is near-optimal."""
    return _table(
        {
            **plain(star.regime),
            "optimizer": star.optimizer,
            "coordinate": part.coordinate,
            "value": str(value),
            "incumbent": value == part.incumbent,
            "loss": loss,
            "regret": None if loss is None else loss - star.loss,
            "near_optimal": value in part.near_optimal,
            "threshold": star.threshold,
        }
        for star in _analysis(source, options).stars
        for part in star.sensitivities
        for value, loss in (
            *zip(part.values, part.losses, strict=True),
            *((value, None) for value in part.diverged),
        )
    )


def coordinate_scaling(source: Source, **options: Any) -> pa.Table:
    """Which coordinates of each optimizer need tuning again when the regime changes."""
    return as_table(_analysis(source, options).coordinates)


def hyper_scaling(source: Source, **options: Any) -> pa.Table:
    """The law of each coordinate over model size and ratio, with intervals of its exponents."""
    return as_table(_analysis(source, options).hyper_laws)


def cost_ranks(source: Source, **options: Any) -> pa.Table:
    """Tokens, seconds, FLOPs, peak memory and checkpoint bytes of every result, and its place by each."""
    rows = []
    for cost in _analysis(source, options).costs:
        row = plain(cost)
        rows.append(row | {f"rank_{name}": rank for name, rank in row.pop("ranks").items()})
    return _table(rows)


def frontier_speedups(source: Source, **options: Any) -> pa.Table:
    """C_eff / C over the baseline's frontier of sizes, where each scale has one ratio: speedups in compute."""
    return _table(
        {"measure": front.measure, **plain(speed)}
        for front in _analysis(source, options).frontiers
        for speed in front.speedups
    )


def target_costs(source: Source, **options: Any) -> pa.Table:
    """Steps, tokens and seconds that each optimizer needs to a target loss, the fewest first."""
    return as_table(_analysis(source, options).targets)


def pareto_points(source: Source, **options: Any) -> pa.Table:
    """Loss (nats) against device-seconds of training, and which results nothing at their scale beats in both."""
    return as_table(_analysis(source, options).pareto)


def _analysis(source: Source, options: dict[str, Any]) -> Analysis:
    if isinstance(source, Analysis):
        return source
    return analyse(as_inputs(source, options.pop("curves", None)), **options)


def _table(rows: Iterable[dict[str, Any]]) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pylist([{name: _cell(part) for name, part in row.items()} for row in rows])


def _cell(part: Any) -> Any:
    """Objects, and lists of them, as JSON text: their keys differ between rows, and a column has one type."""
    nested = isinstance(part, dict) or (isinstance(part, list) and any(isinstance(item, dict | list) for item in part))
    return json.dumps(part, sort_keys=True) if nested else part
