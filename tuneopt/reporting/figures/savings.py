"""Speedups over the baseline by data-to-model ratio and by model size: the first figure of a comparison.

A panel for each size (or ratio), a line for each optimizer, its interval as a ribbon. Optimizers that the page is about
have a colour and a name at the end of their line, the others are grey and for comparison. An open mark is not measured:
the baseline's runs do not reach as far as the speedup says. The finding is the title.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tuneopt.analysis.names import optimizer_name, place_name, ratio_name, scale_name
from tuneopt.analysis.speedup import Speedup, above_one
from tuneopt.reporting.blocks import Cell, Info
from tuneopt.reporting.drawing import Drawing, Mark, spread
from tuneopt.reporting.figures.speedups import interval_text, measured
from tuneopt.reporting.palette import MUTED, hollow, look, position, stands_out
from tuneopt.reporting.panels import Label, Panel, Panels
from tuneopt.reporting.text import drawn_of, listed, percent_text, plural

MOST_PANELS = 8
"""Panels of a figure: two rows on a screen."""

MOST_LABELS = 15
"""Names at the ends of a panel's lines; of more the lower grey ones go without and answer to the pointer."""

TALL = 190
"""Pixels of a panel's plot: two such figures and one of flips fill a screen."""

MOST_NAMED = 4
"""Optimizers that a title names; of more it gives the number."""


@dataclass(frozen=True)
class SavingsInfo(Info):
    """Claim: how the tokens that an optimizer saves over the baseline change with the ratio, or with the model size.

    Speedups are D_eff / D in tokens over tokens (Wen et al., arXiv 2509.02046), of every optimizer but the baseline.
    ``by`` is what runs along the horizontal axis: ``ratio`` (a panel for each size) or ``size`` (a panel for each
    ratio). ``panels`` are (title, speedups) and ``places`` the horizontal places of their ratios or scales; ``level``
    is the coverage of the intervals. ``every`` counts the panels that there is no room for as well.
    ``what`` is saved: tokens, or compute over a frontier of sizes.
    """

    by: str
    baseline: str
    level: float
    panels: tuple[tuple[str, tuple[Speedup, ...]], ...]
    places: Mapping[float | str, float]
    every: int
    finding: str
    what: str = "tokens"

    columns = ("corpus", "scale", "ratio", "optimizer", "speedup", "low", "high", "flags")

    def _title(self) -> str:
        return self.finding

    def bounds(self) -> tuple[float, float]:
        """The vertical range: every measured speedup and 1, with room above for intervals.

        What was not measured may be any number and stands at the edge.
        """
        every = [one for _, own in self.panels for one in own]
        sure = [one.speedup for one in every if measured(one)] or [one.speedup for one in every]
        ends = [min(one.high or one.speedup, 1.25 * one.speedup) for one in every if stands_out(one.optimizer)]
        ceiling = min(max([1.1, *sure, *ends, *(one.speedup for one in every)]), 1.35 * max([1.0, *sure]))
        floor = max(0.0, min([0.97, *(one.speedup for one in every if one.speedup > 0.5 * min(sure))]))
        pad = 0.06 * (ceiling - floor)
        return floor - pad, ceiling + pad

    def _reading(self) -> str:
        low, high = self.bounds()
        cut = [one for _, own in self.panels for one in own if not low <= one.speedup <= high]
        known = any(one.low is not None for _, own in self.panels for one in own)
        ribbons = f"Ribbons: {percent_text(self.level)} intervals. " if known else ""
        edge = " Marks on the edge lie beyond it." if cut else ""
        return (
            f"{self.what.capitalize()} that {optimizer_name(self.baseline)} needs for the same loss, over the "
            f"{self.what} used. {ribbons}Open marks: extrapolated, or a bound"
            f"{drawn_of(len(self.panels), self.every, 'panels')}.{edge}"
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (*one.regime, one.optimizer, one.speedup, one.low, one.high, "; ".join(one.flags))
            for _, own in self.panels
            for one in own
        ]


def savings_info(
    speedups: Sequence[Speedup], scales: Sequence[str], by: str, baseline: str, level: float, told: str = ""
) -> SavingsInfo | None:
    """The speedups by ``by`` (``ratio`` or ``size``), None where no panel would have two places on its axis.

    ``scales`` are the scale names, smallest first. Panels that hold one place are left out. ``told`` is the
    finding where the analysis has stated one; otherwise it is found here, from intervals alone.
    """
    rivals = [one for one in speedups if one.optimizer != baseline and "no law" not in one.flags]
    several = len({one.regime.corpus for one in rivals}) > 1
    groups: dict[tuple[str, float], list[Speedup]] = {}
    titles: dict[tuple[str, float], str] = {}
    for one in rivals:
        corpus, scale, ratio = one.regime
        key = (corpus, float(scales.index(scale)) if by == "ratio" else ratio)
        groups.setdefault(key, []).append(one)
        title = scale_name(scale) if by == "ratio" else ratio_name(ratio)
        titles[key] = f"{corpus} {title}" if several else title

    def place(one: Speedup) -> float | str:
        return one.regime.ratio if by == "ratio" else one.regime.scale

    keys = sorted(key for key, own in groups.items() if len({place(one) for one in own}) > 1)
    if not keys:
        return None
    chosen = [keys[at] for at in spread(len(keys), MOST_PANELS)]
    panels = tuple(
        (titles[key], tuple(sorted(groups[key], key=lambda one: (position(one.optimizer), _order(one, scales)))))
        for key in chosen
    )
    marks = {place(one) for _, own in panels for one in own}
    if by == "ratio":
        places: dict[float | str, float] = {ratio: math.log2(float(ratio)) for ratio in sorted(marks, key=float)}
    else:
        ordered = [scale for scale in scales if scale in marks]
        places = {scale: float(at) for at, scale in enumerate(ordered)}
    said = told or (_everywhere(rivals, baseline) if by == "ratio" else _along_size(rivals, scales, baseline))
    return SavingsInfo(by, baseline, level, panels, places, len(keys), said)


def _order(one: Speedup, scales: Sequence[str]) -> tuple[int, float]:
    return scales.index(one.regime.scale), one.regime.ratio


def _everywhere(rivals: Sequence[Speedup], baseline: str) -> str:
    """Who saves tokens in every regime, beyond noise; else how many speedups are above 1, and the largest measured."""
    name = optimizer_name(baseline)
    own: dict[str, list[Speedup]] = {}
    for one in rivals:
        own.setdefault(one.optimizer, []).append(one)
    regimes = {one.regime for one in rivals}
    # Only who was run (nearly) everywhere can lead everywhere: a lone win would read as much.
    always = [
        optimizer
        for optimizer, all_ in own.items()
        if len(all_) == len(regimes) and all(above_one(one.low, one.flags) for one in all_)
    ]
    always.sort(key=lambda optimizer: -sum(one.speedup for one in own[optimizer]))
    if always and len(regimes) > 1:
        who = listed(optimizer_name(one) for one in always)
        if len(always) > MOST_NAMED:
            who = f"{len(always)} of {len(own)} optimizers"
        verb = "saves" if len(always) == 1 else "save"
        guessed = sum(not measured(one) for optimizer in always for one in own[optimizer])
        beyond = all(one.extrapolated or measured(one) for optimizer in always for one in own[optimizer])
        word = "extrapolated" if beyond else f"on a law through two runs of {name}"
        doubt = f" ({guessed} of {len(always) * len(regimes)} {word})" if guessed else ""
        # Not every size and ratio: where the baseline has no law there is no speedup, and nothing is drawn.
        where = "sizes and ratios" if len({regime.scale for regime in regimes}) > 1 else "ratios"
        every = "both" if len(regimes) == 2 else f"all {len(regimes)}"
        return f"{who} {verb} tokens over {name} at {every} {where} shown{doubt}"
    unknown = sum(one.low is None and one.high is None for one in rivals)
    if unknown == len(rivals):
        least, most = (f"{pick(one.speedup for one in rivals):.2f}" for pick in (min, max))
        span = least if least == most else f"{least} to {most}"
        return f"Speedups over {name} of {span}, the noise being unknown"
    above = sum(above_one(one.low, one.flags) for one in rivals)
    doubt = f", which is not known for {unknown}" if unknown else ""
    if len(rivals) > 1 and all(one.high is not None and one.high < 1 for one in rivals):
        return f"All speedups over {name} are below 1 beyond noise"
    if not above:
        # Losses may well be told apart: an interval holds the error of tuning too.
        return f"No speedup over {name} is above 1 beyond noise and tuning{doubt}"
    best = max([one for one in rivals if measured(one)] or rivals, key=lambda one: one.speedup)
    kind = "largest measured" if measured(best) else "largest, not measured,"
    several = len({one.regime.corpus for one in rivals}) > 1
    where = place_name(best.regime.scale, best.regime.ratio, best.regime.corpus if several else "")
    bound = ", at least" if "lower bound" in best.flags else ""
    are = "is" if above == 1 else "are"
    return (
        f"{above} of {plural(len(rivals), 'speedup')} over {name} {are} above 1 beyond noise{doubt}; the {kind} "
        f"is {optimizer_name(best.optimizer)}'s{bound} {best.speedup:.2f} at {where}"
    )


def _along_size(rivals: Sequence[Speedup], scales: Sequence[str], baseline: str) -> str:
    """How the advantage of the optimizer with the largest mean speedup changes from the smallest to the largest size.

    It changes beyond noise where the two intervals do not meet, which is stricter than a test of the difference.
    """
    own: dict[str, list[Speedup]] = {}
    for one in rivals:
        own.setdefault(one.optimizer, []).append(one)
    most = max(len(all_) for all_ in own.values())
    leader = max(
        (optimizer for optimizer, all_ in own.items() if len(all_) == most),
        key=lambda optimizer: sum(one.speedup for one in own[optimizer]),
    )
    lines: dict[tuple[str, float], list[Speedup]] = {}
    for one in sorted(own[leader], key=lambda one: scales.index(one.regime.scale)):
        lines.setdefault((one.regime.corpus, one.regime.ratio), []).append(one)
    ends = [(line[0], line[-1]) for line in lines.values() if len(line) > 1]
    name = optimizer_name(leader)
    if not ends or all(one.low is None and one.high is None for pair in ends for one in pair):
        return f"Speedup over {optimizer_name(baseline)} by model size"
    falls = sum(first.low is not None and last.high is not None and last.high < first.low for first, last in ends)
    rises = sum(first.high is not None and last.low is not None and last.low > first.high for first, last in ends)
    spans = {(scale_name(first.regime.scale), scale_name(last.regime.scale)) for first, last in ends}
    where = " from {} to {}".format(*next(iter(spans))) if len(spans) == 1 else " from the smallest to the largest size"
    if not falls and not rises:
        return f"{name}'s speedup does not change beyond its intervals{where}"
    count, word = (falls, "falls") if falls >= rises else (rises, "rises")
    share = "at every ratio" if count == len(ends) else f"at {count} of {len(ends)} ratios"
    if falls and rises:
        share += f" and {'rises' if falls >= rises else 'falls'} at {min(falls, rises)} of them"
    return f"{name}'s speedup {word}{where} {share}, beyond its intervals"


def draw_savings(info: SavingsInfo) -> Panels:
    """Grey lines first, then ribbons, then coloured lines and marks; names at the ends, coloured ones bold."""
    up = info.bounds()
    panels = [_panel(info, title, own, up) for title, own in info.panels]
    x = "tokens / (20 \u00d7 parameters)" if info.by == "ratio" else "model size (parameters)"
    what = "speedup" if info.what == "tokens" else f"speedup in {info.what}"
    return Panels(panels, x, f"{what} over {optimizer_name(info.baseline)}", up, tall=TALL)


def _panel(info: SavingsInfo, title: str, own: Sequence[Speedup], up: tuple[float, float]) -> Panel:
    drawing = Drawing(0, "", "")
    drawing.level(1.0, MUTED)
    places, several = info.places, len({one.regime.corpus for one in own}) > 1
    names = list(dict.fromkeys(one.optimizer for one in own))
    lines = {name: [one for one in own if one.optimizer == name] for name in names}

    def at(one: Speedup) -> float:
        return places[one.regime.ratio if info.by == "ratio" else one.regime.scale]

    def inside(value: float) -> float:
        return min(max(value, up[0]), up[1])

    for name in sorted(names, key=stands_out):
        line, colour = sorted(lines[name], key=at), look(name).colour
        front = stands_out(name)
        known = [one for one in line if one.low is not None]
        if front and len(known) > 1:
            lower = [(at(one), inside(one.low or 0.0)) for one in known]
            upper = [(at(one), inside(up[1] if one.high is None else one.high)) for one in known]
            drawing.ribbon(lower, upper, colour)
        elif front:
            bars = [[(at(one), inside(one.low or 0.0)), (at(one), inside(one.high or up[1]))] for one in known]
            drawing.lines(bars, colour, 3, opacity=0.35)
        drawing.lines([[(at(one), inside(one.speedup)) for one in line]], colour, 2.6 if front else 1.1)
        marks = []
        for one in line:
            where = place_name(one.regime.scale, one.regime.ratio, one.regime.corpus if several else "")
            words = f"{optimizer_name(name)} at {where}: {interval_text(one.speedup, one.low, one.high)}"
            words += f"\n{', '.join(one.flags)}" if one.flags else ""
            beyond = one.speedup > up[1]
            mark = "triangle-up" if beyond else "circle" if measured(one) else hollow("circle")
            marks.append(Mark(at(one), inside(one.speedup), words, mark, 9 if front else 5.5))
        drawing.marks(marks, colour, name=name)
    ticks = sorted(places.items(), key=lambda item: item[1])
    kept = [ticks[number] for number in spread(len(ticks), 6)]
    span = max(places.values()) - min(places.values()) or 1.0
    drawing.across.update(
        range=[min(places.values()) - 0.06 * span, max(places.values()) + 0.03 * span],
        tickmode="array", tickvals=[place for _, place in kept], showgrid=False, tickfont={"size": 11},
        ticktext=[ratio_name(mark) if isinstance(mark, float | int) else scale_name(mark) for mark, _ in kept],
    )  # fmt: skip
    drawing.up.update(showgrid=True, tickformat=".1f" if up[1] - up[0] > 0.3 else ".2f", nticks=6)
    labels = _labels(lines, at, inside)
    for label in labels:  # a thin line leads on from where a line ends before the axis does
        start = max(map(at, lines[label.series]))
        if start < label.x:
            drawing.lines([[(start, label.y), (label.x, label.y)]], label.colour, 0.7, name=label.series)
    return Panel(title, drawing, labels)


def _labels(
    lines: Mapping[str, Sequence[Speedup]], at: Callable[[Speedup], float], inside: Callable[[float], float]
) -> list[Label]:
    """The names at the right end of a panel: coloured ones first, then grey ones from the top as far as there is room.

    A name stands at the end of the axis, also that of a line which ends before.
    """
    last = {name: max(line, key=at) for name, line in lines.items()}
    end = max(at(one) for one in last.values())
    shown = sorted(last, key=lambda name: (not stands_out(name), -last[name].speedup))[:MOST_LABELS]
    return [
        Label(end, inside(last[name].speedup), optimizer_name(name), look(name).colour, name, stands_out(name))
        for name in shown
    ]
