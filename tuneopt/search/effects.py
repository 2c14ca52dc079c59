"""What every value changes, estimated from all trials of a sweep at once.

An additive model: the loss of a configuration is the sum of one effect per value, plus an offset of the star that the
trial belongs to. Stars at several incumbents share coordinates, so each comparison of two values rests on all trials
that differ in them and not on one pair; that halves its noise and unmasks an incumbent that was merely lucky. The
offsets, with a prior of about the tolerance, absorb what additivity misses. The model proposes; trials decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tuneopt.search.ladder import Config, LadderSpace
from tuneopt.spec import Value

NOISE = 2.33
"""Standard deviations of one run in a tolerance: 1.645 sqrt(2), as a sweep sets its tolerance from the noise."""

OFFSET = 1.33
"""Prior standard deviation of a star's offset, in tolerances."""

EFFECT = 1000.0
"""Prior standard deviation of an effect, in those of a run: so wide that it only settles what nothing tells."""


class Effects:
    """The fitted effects, in nats per token; ``known`` are the values that some finished trial holds.

    ``losses`` are finished trials in the order in which they were asked for, ``centres`` the stars' incumbents.
    """

    def __init__(
        self, space: LadderSpace, losses: Mapping[Config, float], centres: Sequence[Config], tolerance: float
    ) -> None:
        self.space = space
        self.axes = tuple(axis for axis in space.axes if not axis.held)
        order = {name: place for place, (name, _) in enumerate(space.start)}
        places = [(axis.name, order[axis.name]) for axis in self.axes]
        column: dict[tuple[str, Value], int] = {}
        rows = np.array(
            [[column.setdefault((name, config[at][1]), len(column)) for name, at in places] for config in losses],
            dtype=np.intp,
        ).reshape(len(losses), len(places))
        self.known: dict[str, list[Value]] = {name: [] for name, _ in places}
        for name, value in column:
            self.known[name].append(value)
        values, stars = len(column), len(centres)
        x = np.zeros((len(rows), values + stars + 1))
        every = np.arange(len(rows))
        x[every[:, None], rows] = 1.0
        # A trial belongs to the star whose centre is the fewest coordinates away, the later of equals.
        middles = np.array([[column.get((name, each[at][1]), -1) for name, at in places] for each in centres], np.intp)
        away = (rows[:, None, :] != middles.reshape(1, stars, len(places))).sum(axis=2)
        x[every, values + stars - 1 - np.argmin(away[:, ::-1], axis=1)] = 1.0
        x[:, -1] = 1.0
        y = np.array(list(losses.values()))
        sigma = max(tolerance, 1e-9) / NOISE
        prior = np.full(x.shape[1], 1e-8)
        prior[:values] = EFFECT**-2
        prior[values:-1] = (sigma / (OFFSET * max(tolerance, 1e-9))) ** 2
        solved = np.linalg.solve(x.T @ x + np.diag(prior), x.T @ (y - y.min())) if len(y) else prior
        # Rounded, so that the last bits of a linear algebra library never choose a configuration.
        self.tolerance, self._places = tolerance, places
        self._level = float(solved[-1]) + float(y.min()) if len(y) else 0.0
        self._effect: dict[tuple[str, Value], float] = {
            key: round(effect, 9) for key, effect in zip(column, solved.tolist(), strict=False)
        }

    def of(self, name: str, value: Value) -> float:
        """The effect of one known value; only differences within a coordinate mean something."""
        return self._effect[name, value]

    def believed(self, config: Config, loss: float) -> float:
        """The loss of a finished trial as all trials together tell it, in nats; its own where the model misses it.

        The model misses where it is off by more than the tolerance: its coordinates interact there.
        """
        told = self._level + sum(self._effect[name, config[at][1]] for name, at in self._places)
        return told if abs(told - loss) <= self.tolerance else loss

    def gains(self, config: Config, least: float) -> list[tuple[float, str, Value]]:
        """By how much the best known value of each coordinate is better, where more than ``least``; largest first."""
        found = []
        for axis in self.axes:
            here = self.space.value(config, axis.name)
            if here in self.known[axis.name]:
                best = min(self.known[axis.name], key=lambda value: self.of(axis.name, value))
                gain = self.of(axis.name, here) - self.of(axis.name, best)
                if gain > least:
                    found.append((gain, axis.name, best))
        return sorted(found, key=lambda each: -each[0])
