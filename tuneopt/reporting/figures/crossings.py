"""Loss curves that cross during training: who leads in mid-training, and who at the end.

Each curve is an optimizer's loss minus that of the final winner at the same part of its run, so that the winner is the
zero line: a curve below it leads at that moment. Learning-rate decay moves losses late and by different amounts
(Wen et al., arXiv 2509.02046, section 4), which is why an early look picks another winner.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np

from tuneopt.analysis.names import optimizer_name, place_name
from tuneopt.analysis.ranking import Flip, Ranking
from tuneopt.analysis.runs import Array, Curves, RegimeKey, TrainingRun
from tuneopt.analysis.training import mean_curve
from tuneopt.analysis.winner import Winner
from tuneopt.reporting.blocks import Cell, Info
from tuneopt.reporting.drawing import Drawing, Mark
from tuneopt.reporting.palette import BAND, MUTED, look, stands_out
from tuneopt.reporting.panels import Label, Panel, Panels
from tuneopt.reporting.text import change_text, drawn_of, percent_text

MOST_PANELS = 3
MOST_CURVES = 6
"""Regimes of a figure and optimizers of a panel, the best ones: further ones would hide the crossings."""

MOST_POINTS = 60
"""Moments along a curve."""

MOST_DOTS = 12
"""Points of a curve that are drawn as such."""

RING = "circle-open-dot"
"""A crossing: a ring through which the lines can be seen, with a dot where they meet."""

SETTLED = 0.2
"""The part of training from which on the vertical scale holds every curve; before, losses fall by nats."""


@dataclass(frozen=True)
class Crossing:
    """Two curves that change places at ``fraction`` of training, ``nats`` above the final winner's.

    ``pair`` has first what led before. ``sure`` is whether noise explains neither order (`training_flips`).
    """

    pair: tuple[str, str]
    fraction: float
    nats: float
    sure: bool


@dataclass(frozen=True)
class CrossingPanel:
    """A regime: its optimizers with the final winner first, their curves, and the last crossing of each pair.

    ``losses`` (nats per token) are at ``fractions`` of the run, NaN where a curve is not known. ``decay`` is the
    fraction at which the learning rate of the final winner begins to decay, or of a cosine has fallen to half; None
    where the schedule is not known.
    """

    regime: RegimeKey
    title: str
    fractions: tuple[float, ...]
    losses: Mapping[str, tuple[float, ...]]
    crossings: tuple[Crossing, ...]
    decay: float | None

    @property
    def winner(self) -> str:
        """The optimizer with the lowest final loss."""
        return next(iter(self.losses))

    def above(self, name: str) -> list[float]:
        """A curve minus the final winner's."""
        return [one - best for one, best in zip(self.losses[name], self.losses[self.winner], strict=True)]


@dataclass(frozen=True)
class CrossingsInfo(Info):
    """Claim: the order in mid-training is not the final one.

    ``panels`` are regimes with curves of two optimizers or more, those with most crossings beyond noise first;
    ``every`` counts the regimes that there is no room for as well, and ``behind`` the regimes, of all, whose final
    winner trailed another optimizer during training by more than noise. ``known`` says whether any noise is known.
    """

    panels: tuple[CrossingPanel, ...]
    every: int
    behind: int
    known: bool = True

    columns = ("corpus", "scale", "ratio", "optimizer", "fraction", "report_loss_nats", "above_final_winner_nats")

    def _title(self) -> str:
        if not self.known:
            return "Curves against that of the final winner, the noise being unknown"
        if not self.behind:
            return "No final winner was behind during training by more than noise"
        where = "in the one regime" if self.every == 1 else f"in {self.behind} of {self.every} regimes"
        return f"The final winner was behind during training {where}, by more than noise"

    def _reading(self) -> str:
        decay = " Shaded: its learning rate decays (of a cosine: below half of the peak)." if any(
            panel.decay is not None for panel in self.panels) else ""  # fmt: skip
        return (
            "Loss minus that of the final winner at the same part of training, of the best optimizers of a regime. "
            f"Below 0 a curve leads. Rings are crossings, bold where noise explains neither order.{decay}"
            f"{drawn_of(len(self.panels), self.every, 'regimes')}"
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (*panel.regime, name, fraction, loss, above)
            for panel in self.panels
            for name, losses in panel.losses.items()
            for fraction, loss, above in zip(panel.fractions, losses, panel.above(name), strict=True)
            if math.isfinite(loss)
        ]


def crossings_info(
    winners: Sequence[Winner], rankings: Sequence[Ranking], runs: Sequence[TrainingRun], flips: Sequence[Flip]
) -> CrossingsInfo | None:
    """The curves of the optimizers' results; None where no regime has two of them."""
    samples = {run.trial: run.curve for run in runs if run.curve}
    if not samples:
        return None
    curves, by_place = Curves(samples), {(one.regime, one.optimizer): one for one in winners}
    sure: dict[RegimeKey, set[frozenset[str]]] = {}
    behind = set()
    for flip in flips:
        if flip.kind == "training" and flip.significant:
            sure.setdefault(flip.regime, set()).add(frozenset(flip.pair))
    several = len({ranking.regime.corpus for ranking in rankings}) > 1
    panels = []
    for ranking in rankings:
        regime = ranking.regime
        members = [by_place[regime, name] for name in ranking.order if (regime, name) in by_place]
        moments = {sample.fraction for one in members for trial in one.trials for sample in samples.get(trial, ())}
        fractions = _thinned(sorted(moments))
        known = [(one, _curve(one, curves, fractions)) for one in members if fractions]
        known = [(one, curve) for one, curve in known if np.isfinite(curve).sum() > 1]
        if len(known) < 2 or known[0][0].optimizer != ranking.order[0]:
            continue
        if any(ranking.order[0] == flip.pair[1] for flip in flips
               if flip.kind == "training" and flip.significant and flip.regime == regime):  # fmt: skip
            behind.add(regime)
        losses = {one.optimizer: tuple(map(float, curve)) for one, curve in known[:MOST_CURVES]}
        title = place_name(regime.scale, regime.ratio, regime.corpus if several else "")
        own = _crossings(fractions, losses, sure.get(regime, set()))
        panels.append(CrossingPanel(regime, title, tuple(fractions), losses, own, decay_start(known[0][0])))
    if not panels:
        return None
    ordered = sorted(panels, key=lambda panel: -sum(one.sure for one in panel.crossings))[:MOST_PANELS]
    kept = [panel for panel in panels if any(panel is one for one in ordered)]
    told = any(ranking.groups is not None for ranking in rankings)
    return CrossingsInfo(tuple(kept), len(panels), len(behind), told)


def _thinned(moments: Sequence[float]) -> list[float]:
    """At most `MOST_POINTS` of the moments at which something was measured, the last among them."""
    if len(moments) <= MOST_POINTS:
        return list(moments)
    return [moments[round(at * (len(moments) - 1) / (MOST_POINTS - 1))] for at in range(MOST_POINTS)]


def _curve(winner: Winner, curves: Curves, fractions: Sequence[float]) -> Array:
    """A result's curve on the report split, or on the select split where no other was recorded."""
    own = mean_curve(winner, curves, fractions)
    return own if np.isfinite(own).any() else mean_curve(winner, curves, fractions, "select_loss")


def decay_start(winner: Winner) -> float | None:
    """The part of training after which the learning rate decays; None where the schedule is not known.

    A cosine decays from the end of warmup on; told is where it has fallen to half of the peak.
    """
    config = dict(winner.config)
    kind, decay = config.get("lr_schedule"), config.get("decay")
    warmup = config.get("warmup", 0.0)
    if kind == "linear" and isinstance(decay, int | float):
        return max(0.0, 1.0 - float(decay))
    if kind == "cosine" and isinstance(warmup, int | float):
        return 0.5 * (1.0 + float(warmup)) if warmup < 1 else 0.5
    return None


def _crossings(
    fractions: Sequence[float], losses: Mapping[str, Sequence[float]], sure: set[frozenset[str]]
) -> tuple[Crossing, ...]:
    """The last crossing of each pair of curves, between two measured moments by a straight line."""
    winner = next(iter(losses))
    crossings = []
    for one, other in combinations(losses, 2):
        gaps = [(at, a - b) for at, (a, b) in enumerate(zip(losses[one], losses[other], strict=True))]
        # A moment of equal losses belongs to neither order: the curves cross there, or only touch.
        known = [(at, gap) for at, gap in gaps if math.isfinite(gap) and gap != 0]
        turns = [pair for pair in pairwise(known) if pair[0][1] * pair[1][1] < 0]
        if not turns:
            continue
        (before, gap), (after, turned) = turns[-1]
        share = gap / (gap - turned)
        fraction = fractions[before] + share * (fractions[after] - fractions[before])
        ends = [losses[one][at] - losses[winner][at] for at in (before, after)]
        pair = (other, one) if gap > 0 else (one, other)
        crossings.append(
            Crossing(pair, fraction, ends[0] + share * (ends[1] - ends[0]), frozenset((one, other)) in sure)
        )
    return tuple(crossings)


def draw_crossings(info: CrossingsInfo) -> Panels:
    """A panel for each regime, names at the ends, rings at the crossings, the decay of the learning rate shaded.

    The scale holds every curve from a fifth of training on; what lies beyond before is cut.
    """
    inside = [
        value
        for panel in info.panels
        for name in panel.losses
        for fraction, value in zip(panel.fractions, panel.above(name), strict=True)
        if fraction >= SETTLED and math.isfinite(value)
    ] or [0.0]
    low, high = min([0.0, *inside]), max([0.0, *inside])
    pad = 0.08 * ((high - low) or 1e-3)
    up = (low - pad, high + pad)
    panels = [_panel(panel, up) for panel in info.panels]
    return Panels(panels, "part of training done", "loss above the final winner (nats/token)", up, tall=240, most=3)


def _panel(panel: CrossingPanel, up: tuple[float, float]) -> Panel:
    drawing = Drawing(0, "", "")
    if panel.decay is not None:
        drawing.bar((panel.decay + 1) / 2, *up, (1 - panel.decay) / 2, BAND)
    drawing.level(0.0, MUTED)
    labels = []
    for name in reversed(list(panel.losses)):
        colour, best = look(name).colour, name == panel.winner
        points = [
            (fraction, value)
            for fraction, value in zip(panel.fractions, panel.above(name), strict=True)
            if math.isfinite(value)
        ]
        drawing.lines([points], colour, 3.0 if best else 2.0 if stands_out(name) else 1.4, name=name)
        texts = [f"{optimizer_name(name)} at {percent_text(fraction)}: {change_text(value)} nats"
                 for fraction, value in points]  # fmt: skip
        marks = [Mark(fraction, value, text, size=4) for (fraction, value), text in zip(points, texts, strict=True)
                 if up[0] <= value <= up[1]]  # fmt: skip
        # Many points would make a line of dots; they still answer to the pointer.
        drawing.marks(marks, colour, 1.0 if len(marks) <= MOST_DOTS else 0.0, name=name)
        labels.append(Label(1.0, min(max(points[-1][1], up[0]), up[1]), optimizer_name(name), colour, name, best))
    for one in sorted(panel.crossings, key=lambda one: one.sure):
        if up[0] <= one.nats <= up[1]:
            first, second = map(optimizer_name, one.pair)
            words = f"{second} passes {first} at {percent_text(one.fraction)}"
            words += "" if one.sure else "\nwithin noise"
            drawing.marks([Mark(one.fraction, one.nats, words, RING, 15 if one.sure else 11)],
                          look(one.pair[1]).colour, 1.0 if one.sure else 0.6)  # fmt: skip
    drawing.across.update(range=[0.0, 1.0], tickformat=".0%", nticks=5, tickangle=0)
    drawing.up.update(showgrid=True, tickformat="+.3~f", nticks=6)
    return Panel(panel.title, drawing, labels)
