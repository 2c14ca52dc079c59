"""The report's main figures in a notebook, as plotly figures: speedups, flips, loss curves that cross, and stars.

The sources are those of `report`, and ``columns`` maps a table's columns as there; ``sweeps`` are ids of a ledger's
sweeps, None for all. Nothing is trained and no file is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneopt.paths import expanded
from tuneopt.spec import InputError, nearest

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from tuneopt.ledger import Ledger
    from tuneopt.reporting.blocks import Info
    from tuneopt.reporting.compare import Comparison

CURVES = 200
"""Learning curves of a figure: more than that are a grey surface."""


def plot_speedups(
    ledger: Ledger | Path | str | None = None,
    *,
    sweeps: Sequence[str] | None = None,
    results: Path | str | None = None,
    published: bool = False,
    columns: Mapping[str, str] | None = None,
    sigma: float | None = None,
    baseline: str | None = None,
    by: str = "ratio",
) -> Figure:
    """Speedups over the baseline ``by`` ratio (a panel for each size) or ``by`` size (a panel for each ratio).

    Where rivals were run in one place, as in a comparison, there is no line to draw: then a row for each, with its
    interval. A speedup is D_eff / D in tokens over tokens. ``sigma`` (nats) replaces the measured noise. Raises
    `InputError` for no source, one that cannot be read, another ``by``, and results without a speedup.
    """
    from tuneopt.reporting.figures.savings import SavingsInfo, draw_savings, savings_info
    from tuneopt.reporting.figures.speedups import draw_speedups, speedups_infos

    _checked(by)

    def info(found: Comparison) -> Info | None:
        analysis = found.analysis
        trends = [one.sentence for one in analysis.findings if one.kind == "trend"] if by == "size" else [""]
        told = "".join(trends[:1]).removesuffix(".")
        line = savings_info(analysis.speedups, found.scales, by, analysis.baseline, analysis.level, told)
        return line or next(iter(speedups_infos(found)), None)

    def draw(drawn: Any) -> Any:
        return draw_savings(drawn) if isinstance(drawn, SavingsInfo) else draw_speedups(drawn)

    need = "a speedup needs the baseline at two ratios of a scale, and another optimizer"
    return _plot(ledger, sweeps, results, published, columns, sigma, baseline, info, draw, need)


def plot_flips(
    ledger: Ledger | Path | str | None = None,
    *,
    sweeps: Sequence[str] | None = None,
    results: Path | str | None = None,
    published: bool = False,
    columns: Mapping[str, str] | None = None,
    sigma: float | None = None,
    baseline: str | None = None,
    by: str = "ratio",
) -> Figure:
    """The order of the optimizers ``by`` ratio or ``by`` size, with tie groups as bars and flips beyond noise bold.

    Of one regime alone the order can only change during training, and that is drawn, as by `plot_curves`. Raises
    `InputError` as `plot_speedups` does.
    """
    from tuneopt.reporting.figures.crossings import crossings_info, draw_crossings
    from tuneopt.reporting.figures.flips import FlipsInfo, draw_flips, flips_info

    _checked(by)

    def info(found: Comparison) -> Info | None:
        analysis = found.analysis
        order = flips_info(analysis.rankings, analysis.flips, found.scales, by, analysis.baseline)
        return order or crossings_info(analysis.winners, analysis.rankings, analysis.inputs.runs, analysis.flips)

    def draw(drawn: Any) -> Any:
        return draw_flips(drawn) if isinstance(drawn, FlipsInfo) else draw_crossings(drawn)

    need = "an order can change where two optimizers meet in two regimes, or where there are curves"
    return _plot(ledger, sweeps, results, published, columns, sigma, baseline, info, draw, need)


def plot_curves(
    ledger: Ledger | Path | str | None = None,
    *,
    sweeps: Sequence[str] | None = None,
    results: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    sigma: float | None = None,
    baseline: str | None = None,
) -> Figure:
    """Loss curves that cross during training: each optimizer's loss minus the final winner's, in nats per token.

    Of a ledger with one optimizer alone they are the learning curves of its first sweep. Raises `InputError` for no
    source, one that cannot be read, and results without curves.
    """
    from tuneopt.reporting.figures.crossings import crossings_info, draw_crossings

    def info(found: Comparison) -> Info | None:
        analysis = found.analysis
        return crossings_info(analysis.winners, analysis.rankings, analysis.inputs.runs, analysis.flips)

    if ledger is not None and results is None:
        alone = _own_curves(ledger, sweeps)
        if alone is not None:
            return alone
    need = "curves need the loss at several moments of each run: a ledger has it, a table may bring a column curve"
    return _plot(ledger, sweeps, results, False, columns, sigma, baseline, info, draw_crossings, need)


def _own_curves(ledger: Ledger | Path | str, sweeps: Sequence[str] | None) -> Figure | None:
    """The learning curves of the first sweep of a ledger with one optimizer; None where there are several."""
    from tuneopt.ledger import open_ledger
    from tuneopt.reporting.figures.curves import curves_info, draw_curves
    from tuneopt.reporting.study import read_study

    views = read_study(open_ledger(ledger, must_exist=True) if isinstance(ledger, Path | str) else ledger, sweeps).views
    if len({view.optimizer for view in views}) != 1:
        return None
    info = curves_info(views[0], CURVES)
    title = f"{info.title}: {views[0].optimizer} at {views[0].label}"
    return _titled(draw_curves(info).figure(), title) if info.curves else None


def plot_star(
    ledger: Ledger | Path | str, *, sweeps: Sequence[str] | None = None, optimizer: str | None = None
) -> Figure:
    """What each single change of a sweep's best configuration costs, in nats per token on the select split.

    Of several sweeps it is that of ``optimizer`` (the first one unless said otherwise) which varied most coordinates.
    Raises `InputError` for a ledger without such a sweep.
    """
    from tuneopt.ledger import open_ledger
    from tuneopt.reporting.figures.star import draw_star, star_info
    from tuneopt.reporting.study import read_study

    opened = open_ledger(ledger, must_exist=True) if isinstance(ledger, Path | str) else ledger
    views = read_study(opened, sweeps).views
    named = [view for view in views if optimizer in (None, view.optimizer)]
    if not named:
        raise InputError(f"no sweep of {optimizer}; {nearest(str(optimizer), {view.optimizer for view in views})}")
    view = max(
        (one for one in named if one.optimizer == named[0].optimizer), key=lambda one: len(one.sweep.space.varied)
    )
    info = star_info(view)
    if not info.lanes:
        raise InputError("there is nothing to draw: the sweep varied no coordinate")
    title = f"{info.title}: {view.optimizer} at {view.label}"
    return _titled(draw_star(info).figure(), title)


def _checked(by: str) -> None:
    if by not in ("ratio", "size"):
        raise InputError(f"a figure is drawn by ratio or by size, not by {by!r}")


def _plot(
    ledger: Ledger | Path | str | None, sweeps: Sequence[str] | None, results: Path | str | None, published: bool,
    columns: Mapping[str, str] | None, sigma: float | None, baseline: str | None,
    info: Callable[[Comparison], Info | None], draw: Callable[[Any], Any], need: str,
) -> Figure:  # fmt: skip
    """Read and analyse the source, and draw one figure of it with its title."""
    from tuneopt.ledger import open_ledger
    from tuneopt.reporting.compare import compare
    from tuneopt.reporting.palette import ranked
    from tuneopt.reporting.sources import gather

    opened = open_ledger(ledger, must_exist=True) if isinstance(ledger, Path | str) else ledger
    found = compare(gather(opened, sweeps, None if results is None else expanded(results), published, columns),
                    sigma=sigma, baseline=baseline)  # fmt: skip
    drawn = info(found)
    if drawn is None:
        raise InputError(f"there is nothing to draw: {need}")
    with ranked(found.best_first, found.analysis.baseline):
        figure = draw(drawn).figure()
    return _titled(figure, drawn.title)


def _titled(figure: Figure, title: str) -> Figure:
    """The figure with its finding above it."""
    return figure.update_layout(title={"text": title, "font": {"size": 15}}, margin={"t": 56},
                                height=figure.layout.height + 56)  # fmt: skip
