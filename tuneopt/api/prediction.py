"""Hyperparameters for a regime that nobody tuned, from own ledgers or from the published tuned points."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tuneopt.api.reading import Readable
from tuneopt.constants import LEAST_PARAMETERS
from tuneopt.spec import InputError

if TYPE_CHECKING:
    from tuneopt.ledger import Ledger
    from tuneopt.search.prediction import Forecast, TunedRegime
    from tuneopt.search.space import LadderSpace
    from tuneopt.spec import Regime


@dataclass(frozen=True, slots=True, repr=False)
class PredictedConfig(Readable):
    """A predicted configuration, and what the prediction rests on."""

    optimizer: str
    ladder: str
    source: str  # what the prediction rests on, in words
    forecast: Forecast

    @property
    def ground(self) -> str:
        """How many regimes the prediction rests on, and which."""
        return f"from {self.forecast.regimes} regime{'' if self.forecast.regimes == 1 else 's'}: {self.source}"

    def _headline(self) -> str:
        regime = f"{self.forecast.params:.4g} parameters, ratio {self.forecast.ratio:g}"
        return f"{self.optimizer} at {regime}, {self.ground}"

    def _facts(self) -> Mapping[str, str]:
        far = {name: factor for name, factor in self.forecast.extrapolation.items() if factor > 1}
        return {
            **{row["coordinate"]: _value_text(row) for row in self._rows()},
            **({"beyond what was tuned": ", ".join(f"{far[name]:.3g}x in {name}" for name in far)} if far else {}),
        }

    def _rows(self) -> list[Mapping[str, Any]]:
        """A row for each coordinate: its value with a 90% interval, and how it was predicted."""
        return [
            {"coordinate": name, "value": one.value, "low": one.low, "high": one.high, "method": one.method,
             "support": one.support}
            for name, one in self.forecast.coordinates.items()
        ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """The JSON shape of ``predict``."""
        return {
            "optimizer": self.optimizer,
            "ladder": self.ladder,
            "source": self.source,
            **self.forecast.to_dict(),
        }


def _value_text(row: Mapping[str, Any]) -> str:
    if row["low"] == row["high"] or not isinstance(row["value"], float):
        return str(row["value"])
    return f"{row['value']:.4g} ({row['low']:.4g} to {row['high']:.4g})"


def predict(
    optimizer: str, params: float, ratio: float, ledger: Ledger | str | None = None, *, space: str | None = None
) -> PredictedConfig:
    """The configuration to expect at ``params`` non-embedding parameters and ``ratio``.

    ``optimizer`` and ``space`` are what `space_of` takes: names, or files of a user's own. Without a ledger the
    published tuned points of the search space are the ground, for the built-in ones those of arXiv 2509.02046; with one
    the winners of certified sweeps that varied something, for which no space is needed. Raises `InputError` when there
    is no ground, when a figure is not positive, and for fewer than `LEAST_PARAMETERS` parameters.
    """
    from tuneopt.api.optimizers import space_of
    from tuneopt.optim import external
    from tuneopt.search.prediction import forecast, published_regimes

    if 0 < params < LEAST_PARAMETERS:
        raise InputError(
            f"params must be at least {LEAST_PARAMETERS:,}, not {params:g}; write 124 million as 124e6 (--params 124M)"
        )
    if ledger is None:
        declared = space_of(optimizer, space)
        if not declared.published:
            raise InputError(f"{optimizer} has no published tuned points; give the --ledger of your own sweeps")
        # Published points are the paper's: its ladder counts warmups and batches as they do.
        plane, regimes = declared.on("paper"), published_regimes(declared)
        source = f"published tuned points ({declared.source.split(';')[0]})"
    else:
        from tuneopt.ledger import open_ledger

        opened = open_ledger(ledger, must_exist=True) if isinstance(ledger, str) else ledger
        swept = {str(plain.get("space", {}).get("optimizer")) for plain in opened.sweeps().values()}
        # A name that the ledger has is taken as it is: its file may have been edited or be gone since.
        name = optimizer if optimizer in swept else external.resolve(optimizer)
        plane, regimes = _certified(opened, name, params)
        source = f"certified sweeps in {opened.address}"
    return PredictedConfig(plane.optimizer, plane.ladder, source, forecast(plane, regimes, params, ratio))


def _other_versions(ledger: Ledger, optimizer: str) -> str:
    """What to do where nothing is certified; an edited file is another optimizer, whose old name still works."""
    spaces = [plain.get("space") for plain in ledger.sweeps().values()]
    swept = {str(space.get("optimizer")) for space in spaces if isinstance(space, dict)}
    others = sorted(name for name in swept - {optimizer} if name.partition("@")[0] == optimizer.partition("@")[0])
    if others:
        return f"of other versions it has sweeps: give --optimizer {' or '.join(others)}"
    return "finish one, or leave out --ledger"


def _certified(ledger: Ledger, optimizer: str, params: float) -> tuple[LadderSpace, tuple[TunedRegime, ...]]:
    """The winners of an optimizer's certified sweeps on the ladder nearest to ``params``, one for each regime.

    With them the space of the sweep that varies most, where what it held varies as in another sweep. Ladders are not
    mixed: their warmups and batches count different things. A sweep that varies nothing has tuned nothing: its
    certificate is complete whatever its values are. Of several sweeps in a regime the one that varies most counts, and
    the last of equals.
    """
    from tuneopt.search.prediction import star_regime
    from tuneopt.search.records import replay, stored_task

    found: dict[str, dict[Regime, tuple[LadderSpace, TunedRegime]]] = {}  # by ladder
    for name, plain in ledger.sweeps().items():
        space = plain.get("space")
        if not isinstance(space, dict) or space.get("optimizer") != optimizer or "policy" not in plain:
            continue  # a sampled search has no star and no certificate
        task = stored_task(plain, name, ledger)
        sweep = task.sweep
        here = found.setdefault(sweep.space.ladder, {})
        rival = here.get(sweep.regime)
        if len(sweep.space.varied) < (1 if rival is None else len(rival[0].varied)):
            continue
        state = replay(task, ledger)[0].state
        # A complete star is what a prediction needs, around the incumbent that the finish ended on: where noise is
        # large it is often another one than the search's.
        if state.finished and state.certificate.complete:
            regime = star_regime(sweep.regime.scale.parameters, sweep.regime.ratio, state.descent)
            # What a sweep held is not what tuning found there.
            tuned = {axis.name: regime.config[axis.name] for axis in sweep.space.varied}
            here[sweep.regime] = sweep.space, replace(regime, config=tuned)
    found = {ladder: here for ladder, here in found.items() if here}
    if not found:
        raise InputError(
            f"the ledger holds no certified sweep of {optimizer} that varies anything; "
            f"{_other_versions(ledger, optimizer)}"
        )

    def far(ladder: str) -> float:
        if not (math.isfinite(params) and params > 0):
            return 0.0  # refused, with its sentence, by the forecast
        return min(abs(math.log(regime.params / params)) for _, regime in found[ladder].values())

    chosen = found[min(found, key=far)].values()
    spaces = sorted((space for space, _ in chosen), key=lambda space: -len(space.varied))
    varied = {axis.name: axis for space in reversed(spaces) for axis in space.varied}
    plane = replace(spaces[0], axes=tuple(varied.get(axis.name, axis) for axis in spaces[0].axes))
    return plane, tuple(regime for _, regime in chosen)
