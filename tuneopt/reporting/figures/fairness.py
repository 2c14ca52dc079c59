"""What unfair tuning would have shown: an under-tuned baseline, and hyperparameters taken over from another optimizer.

Both ask what a careless comparison reports for the same runs (Wen et al., arXiv 2509.02046). An under-tuned
baseline turns a tie into a speedup; hyperparameters that were tuned for one optimizer and given to another blindly
turn a good optimizer into a bad one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneopt.analysis.names import optimizer_name
from tuneopt.analysis.runs import RegimeKey
from tuneopt.reporting.blocks import Cell, Info
from tuneopt.reporting.drawing import Drawing, Mark, fitting, height, lay_out, shortened
from tuneopt.reporting.figures.speedups import interval_text
from tuneopt.reporting.palette import look, position
from tuneopt.reporting.text import change_text, drawn_of, percent_text, value_text

if TYPE_CHECKING:
    from tuneopt.analysis.fairness import Transfer, Undertuned

LARGEST = 4.0
"""Manufactured speedups are drawn to scale up to here; a broken run shows any number and would squeeze the others."""

CELL = 34
"""Pixels of a row of the matrix."""

ENOUGH = 0.3
"""The share of a regime's cells that must be known for a matrix; of fewer, a table lists them."""

SHADES = ((0.0, "rgba(16,166,148,0.10)"), (0.001, "rgba(250,170,60,0.25)"), (1.0, "rgba(204,6,92,0.60)"))
"""Green for no regret, amber to red for more: a cell that costs anything at all differs from one that does not.

See-through, so that they read on both pages.
"""


@dataclass(frozen=True)
class UndertunedInfo(Info):
    """Claim: an optimizer no better than the tuned baseline looks faster against a baseline tuned less.

    ``lanes`` are the under-tuned configurations of the baseline that were run, by regime. The manufactured speedup
    (tokens over tokens) is what the tuned baseline shows over them; ``level`` is the coverage of its interval.
    ``gpt3`` ones have the learning rate of GPT-3 (6e-4, Brown et al., arXiv 2005.14165) with all else tuned. Runs that
    diverged or broke have no speedup and are kept: they would have been reported too. ``regimes`` counts those not
    drawn too.
    """

    baseline: str
    level: float
    lanes: tuple[tuple[RegimeKey, tuple[Undertuned, ...]], ...]
    regimes: int

    columns = ("corpus", "scale", "ratio", "kind", "what", "gpt3_value", "status", "loss_nats", "regret_nats",
               "manufactured_speedup", "low", "high", "at_least", "trial")  # fmt: skip

    def _title(self) -> str:
        return f"Speedup that an under-tuned {optimizer_name(self.baseline)} would manufacture"

    def _reading(self) -> str:
        return (
            f"Each row is {optimizer_name(self.baseline)} tuned less than its rivals. A mark at 1.3 means that any "
            f"optimizer no better than the tuned {optimizer_name(self.baseline)} would have been reported as 1.3 times "
            "faster"
            f"{drawn_of(len(self.lanes), self.regimes, 'regimes')}."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (*regime, one.kind, one.what, one.gpt3, one.status, one.loss, one.regret, one.manufactured, one.low,
             one.high, one.at_least, one.trial)
            for regime, own in self.lanes
            for one in own
        ]  # fmt: skip


def undertuned_info(runs: Sequence[Undertuned], baseline: str, level: float) -> UndertunedInfo | None:
    """The under-tuned baselines whose cost is known; None without one."""
    regimes: dict[RegimeKey, list[Undertuned]] = {}
    for one in runs:
        if one.status in ("trial", "diverged", "broken"):
            regimes.setdefault(one.regime, []).append(one)
    lanes = [(regime, tuple(own)) for regime, own in regimes.items()]
    chosen = tuple(lanes[place] for place in fitting([len(own) for _, own in lanes]))
    return UndertunedInfo(baseline, level, chosen, len(lanes)) if chosen else None


def draw_undertuned(info: UndertunedInfo) -> Drawing:
    """A lane per regime, a row per way to tune too little.

    A star is the learning rate of GPT-3, an arrow a speedup beyond the scale, a cross a run that diverged, which stands
    at the right edge as well.
    """
    several = len({regime.corpus for regime, _ in info.lanes}) > 1
    lanes = [
        (regime.label if several else regime._replace(corpus="").label, [_what(one) for one in own])
        for regime, own in info.lanes
    ]
    drawing = Drawing(height(lanes), "manufactured speedup (tokens/tokens)")
    drawing.rule(1)
    texts = [[_amount(one) for one in own] for _, own in info.lanes]
    placed = lay_out(drawing, lanes, texts, f"speedup [{percent_text(info.level)}]")
    known = [one.manufactured for _, own in info.lanes for one in own if one.manufactured is not None]
    right = min(1.08 * max([1.5, *known]), LARGEST)
    colour = look(info.baseline).colour
    for (_, own), places in zip(info.lanes, placed, strict=True):
        for one, place in zip(own, places, strict=True):
            words, value = f"{_what(one)}: {_amount(one)}, {change_text(one.regret)} nats", one.manufactured
            symbol = "x-thin"
            if value is not None:
                drawing.bars([(min(one.low or value, right), min(one.high or value, right), place)], colour, 3, 0.5)
                symbol = "triangle-right" if value > right else "star" if one.gpt3 else "circle"
            end = right if value is None else min(value, right)
            drawing.marks([Mark(end, place, words, symbol, 11)], colour, cliponaxis=False)
    # An interval that is cut must not look as if it ended there: the scale holds those of marks within a half of 1.
    ends = [one.low for _, own in info.lanes for one in own if one.manufactured is not None and one.low is not None]
    left = max(min([0.95, *(end - 0.02 for end in ends)]), 0.5)
    drawing.scale(left, 1.01 * right, ".2~f")
    return drawing


def _what(run: Undertuned) -> str:
    words = run.what.replace("learning_rate = ", "rate ")
    return f"{words} (GPT-3)" if run.gpt3 else words


def _amount(run: Undertuned) -> str:
    if run.manufactured is None:
        if run.at_least is not None and run.status == "trial":
            return f"more than {run.at_least:.1f}"
        return change_text(run.regret) if run.status == "trial" else run.status
    return interval_text(run.manufactured, run.low, run.high)


@dataclass(frozen=True)
class TransferInfo(Info):
    """Claim: good hyperparameters of one optimizer are bad ones of another (Wen et al., arXiv 2509.02046).

    ``cells`` are those of one regime: rows are optimizers, columns the donors of the hyperparameters that both have.
    A cell is a regret: nats above the optimizer's own tuned loss. The diagonal is 0 by definition, and cells whose
    hyperparameters happen to be equal need no run.
    """

    regime: RegimeKey
    cells: tuple[Transfer, ...]
    label: str

    columns = ("optimizer", "donor", "status", "loss_nats", "regret_nats", "speedup_blind", "speedup_tuned",
               "speedup_lost", "taken", "trial")  # fmt: skip

    def _title(self) -> str:
        return f"Blind transfer of hyperparameters at {self.label}"

    def _reading(self) -> str:
        return (
            "Each row is an optimizer, each column whose tuned shared hyperparameters it was given; a cell is how many "
            "nats that costs it, \u00d7 is a run that diverged, and an empty cell was never run."
        )

    def _rows(self) -> list[tuple[Cell, ...]]:
        return [
            (cell.optimizer, cell.donor, cell.status, cell.loss, cell.regret, cell.speedup, cell.speedup_tuned,
             cell.speedup_regret, " ".join(f"{name}={value_text(value)}" for name, value in cell.taken), cell.trial)
            for cell in self.cells
        ]  # fmt: skip


def transfer_infos(cells: Sequence[Transfer], limit: int, label: Callable[[RegimeKey], str]) -> list[TransferInfo]:
    """A matrix for each regime where enough of the blind runs exist, those with most first, at most ``limit``.

    ``label`` names a regime for people.
    """
    regimes: dict[RegimeKey, list[Transfer]] = {}
    for cell in cells:
        regimes.setdefault(cell.regime, []).append(cell)
    known = {regime: sum(cell.status != "missing" for cell in own) / len(own) for regime, own in regimes.items()}
    full = [regime for regime, own in regimes.items() if known[regime] >= ENOUGH and any(map(was_run, own))]
    chosen = sorted(full, key=lambda regime: -known[regime])[:limit]
    return [TransferInfo(regime, tuple(regimes[regime]), label(regime)) for regime in regimes if regime in chosen]


def was_run(cell: Transfer) -> bool:
    """Whether a run, not an identity of the hyperparameters, fills the cell."""
    return cell.status in ("trial", "diverged")


def draw_transfer(info: TransferInfo) -> Drawing:
    """A heat map with its numbers written in, rows and columns in the palette's order; shade is the regret.

    A regret below zero, which noise can make, is shaded as none.
    """
    names = sorted({name for cell in info.cells for name in (cell.optimizer, cell.donor)}, key=position)
    by_pair = {(cell.optimizer, cell.donor): cell for cell in info.cells}

    def shown(optimizer: str, donor: str) -> tuple[float | None, str, str]:
        cell = by_pair.get((optimizer, donor))
        hover = "its own hyperparameters" if cell is None else _hover(cell)
        if optimizer == donor:
            return 0.0, "0", hover
        if cell is None or cell.status == "diverged" or cell.regret is None:
            return None, "\u00d7" if cell is not None and cell.status == "diverged" else "", hover
        words = "" if cell.status == "missing" else change_text(cell.regret).rstrip("0").rstrip(".") or "0"
        return max(cell.regret, 0.0), words, hover

    labels = [shortened(optimizer_name(name)) for name in names]
    x = "given the shared hyperparameters tuned for"
    drawing = Drawing(CELL * len(names) + 110, x, "optimizer")
    drawing.grid(labels, labels, [[shown(name, donor) for donor in names] for name in names], SHADES)
    return drawing


def _hover(cell: Transfer) -> str:
    taken = ", ".join(f"{name} = {value_text(value)}" for name, value in cell.taken)
    cost = {"missing": "never run", "diverged": "diverged"}.get(cell.status) or f"{change_text(cell.regret)} nats"
    lost = "" if cell.speedup_regret is None else f", speedup {cell.speedup:.2f} instead of {cell.speedup_tuned:.2f}"
    who, donor = optimizer_name(cell.optimizer), optimizer_name(cell.donor)
    return f"{who} with {taken or 'nothing changed'} of {donor}: {cost}{lost}"
