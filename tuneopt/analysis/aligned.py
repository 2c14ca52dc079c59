"""Learning curves at equal fractions of the run, so that runs with different batch sizes line up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tuneopt.analysis.scaling import Array

if TYPE_CHECKING:
    import pyarrow as pa

FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Curves:
    """The curves of many trials, sorted once. ``table`` has the columns trial, fraction, select_loss, report_loss."""

    def __init__(self, table: pa.Table) -> None:
        encoded = table.combine_chunks()["trial"].dictionary_encode()
        encoded = encoded.chunk(0) if encoded.num_chunks else encoded.combine_chunks()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        fraction = np.asarray(table["fraction"].to_numpy(), float)
        order = np.lexsort((fraction, codes))
        names = encoded.dictionary.to_pylist()
        ends = np.searchsorted(codes[order], np.arange(len(names) + 1))
        self._places = {name: slice(ends[code], ends[code + 1]) for code, name in enumerate(names)}
        self._fraction = fraction[order]
        self._losses = {
            name: np.asarray(table[name].to_numpy(), float)[order]
            for name in ("select_loss", "report_loss")
            if name in table.column_names
        }

    def at(self, trials: Sequence[str], fractions: Sequence[float] = FRACTIONS, loss: str = "select_loss") -> Array:
        """Losses (nats) of ``trials`` at ``fractions``, shape (trials, fractions), by linear interpolation.

        A place before a trial's first measurement or after its last is NaN, which every comparison leaves out. So is
        all of a trial that has no curve.
        """
        found = np.full((len(trials), len(fractions)), np.nan)
        every = self._losses[loss]
        for row, trial in enumerate(trials):
            place = self._places.get(trial)
            if place is not None:
                x, y = self._fraction[place], every[place]
                known = np.isfinite(y)
                if known.any():
                    found[row] = np.interp(fractions, x[known], y[known], left=np.nan, right=np.nan)
        return found
