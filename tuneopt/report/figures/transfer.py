"""The transfer matrix: each optimizer run blindly with the hyperparameters that were tuned for another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneopt.analysis.runs import RegimeKey
from tuneopt.report.drawing import Drawing
from tuneopt.report.figure import Cell
from tuneopt.report.palette import position
from tuneopt.report.rows import shortened
from tuneopt.report.text import change_text, plain, value_text

if TYPE_CHECKING:
    from tuneopt.analysis.fairness import Transfer

CELL = 34
"""Pixels of a row of the matrix."""

ENOUGH = 0.3
"""The share of a regime's cells that must be known for a matrix; of fewer, a table lists them."""

STEPS = ((0.0, "rgba(16,166,148,0.10)"), (0.001, "rgba(250,170,60,0.25)"), (1.0, "rgba(204,6,92,0.60)"))
"""Colours from no regret to the largest; see-through, so that they read on both pages."""


@dataclass(frozen=True)
class TransferInfo:
    """The cells of one regime: rows are optimizers, columns the donors of the shared hyperparameters."""

    regime: RegimeKey
    cells: tuple[Transfer, ...]
    label: str

    @property
    def title(self) -> str:
        """What is shown."""
        return f"Blind transfer of hyperparameters at {self.label}"

    @property
    def reading(self) -> str:
        """How to read the figure."""
        return (
            "Each row is an optimizer, each column whose tuned shared hyperparameters it was given; a cell is how many "
            "nats that costs it, \u00d7 is a run that diverged, and an empty cell was never run."
        )

    @property
    def optimizers(self) -> tuple[str, ...]:
        """Rows and columns, in the palette's order."""
        return tuple(sorted({name for cell in self.cells for name in (cell.optimizer, cell.donor)}, key=position))

    def data(self) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
        """One row per cell."""
        columns = ("optimizer", "donor", "status", "loss_nats", "regret_nats", "speedup_blind", "speedup_tuned",
                   "speedup_lost", "taken", "trial")  # fmt: skip
        return columns, [
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
    """A heat map with its numbers written in."""
    names = info.optimizers
    found = {(cell.optimizer, cell.donor): cell for cell in info.cells}
    grid = [[found.get((row, column)) for column in names] for row in names]
    drawing = Drawing(CELL * len(names) + 110, "given the shared hyperparameters tuned for", "optimizer")
    drawing.traces.append(
        {
            "type": "heatmap",
            "x": list(range(len(names))),
            "y": list(range(len(names))),
            "z": [[_regret(cell, row == column) for column, cell in zip(names, cells, strict=True)]
                  for row, cells in zip(names, grid, strict=True)],
            "customdata": [[plain(_hover(cell)) for cell in cells] for cells in grid],
            "hovertemplate": "%{customdata}<extra></extra>",
            "colorscale": [list(step) for step in STEPS],
            "zmin": 0.0,
            "showscale": False,
            "xgap": 2,
            "ygap": 2,
            "hoverongaps": False,
        }
    )  # fmt: skip
    for row, cells in enumerate(grid):
        for column, cell in enumerate(cells):
            words = _words(cell, row == column)
            if words:  # notes, not the map's own text: they take the ink of the page
                drawing.note(words, x=column, y=row, font={"size": 11})
    ticks = {"tickmode": "array", "tickvals": list(range(len(names))), "showgrid": False,
             "ticktext": [plain(shortened(name)) for name in names]}  # fmt: skip
    drawing.across.update(ticks, tickangle=-40)
    drawing.up.update(ticks, autorange="reversed")
    return drawing


def _regret(cell: Transfer | None, own: bool) -> float | None:
    if own:
        return 0.0
    return None if cell is None or cell.regret is None else max(cell.regret, 0.0)


def _words(cell: Transfer | None, own: bool) -> str:
    if own:
        return "0"
    if cell is None or cell.status == "missing":
        return ""
    if cell.status == "diverged":
        return "\u00d7"
    return "" if cell.regret is None else change_text(cell.regret).rstrip("0").rstrip(".") or "0"


def _hover(cell: Transfer | None) -> str:
    if cell is None:
        return "its own hyperparameters"
    taken = ", ".join(f"{name} = {value_text(value)}" for name, value in cell.taken)
    cost = {"missing": "never run", "diverged": "diverged"}.get(cell.status) or f"{change_text(cell.regret)} nats"
    lost = "" if cell.speedup_regret is None else f", speedup {cell.speedup:.2f} instead of {cell.speedup_tuned:.2f}"
    return f"{cell.optimizer} with {taken or 'nothing changed'} of {cell.donor}: {cost}{lost}"
