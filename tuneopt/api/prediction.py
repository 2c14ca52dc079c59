"""Hyperparameters for a regime that nobody tuned, from own ledgers or from the published tuned points."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tuneopt.spec import InputError

if TYPE_CHECKING:
    from tuneopt.ledger import Ledger
    from tuneopt.search.ladder import LadderSpace
    from tuneopt.search.prediction import TunedRegime


def predict(optimizer: str, params: float, ratio: float, ledger: Ledger | str | None = None) -> dict[str, Any]:
    """The configuration to expect at ``params`` non-embedding parameters and ``ratio``: what ``predict --json`` prints.

    Without a ledger the published tuned points of the optimizer's search space (arXiv 2509.02046) are the ground, with
    one the winners of its certified sweeps. Raises `InputError` when there is no ground, or a figure is not positive.
    """
    from tuneopt.search.prediction import forecast, published_regimes
    from tuneopt.search.space import load_space

    if ledger is None:
        declared = load_space(optimizer)
        if not declared.published:
            raise InputError(f"{optimizer} has no published tuned points; give the --ledger of your own sweeps")
        space, regimes = declared.on("paper"), published_regimes(declared)
        source = f"published tuned points ({declared.source.split(';')[0]})"
    else:
        from tuneopt.ledger import open_ledger

        opened = open_ledger(ledger, must_exist=True) if isinstance(ledger, str) else ledger
        space, regimes = _certified(opened, optimizer, params)
        source = f"certified sweeps in {opened.uri}"
    found = forecast(space, regimes, params, ratio)
    return {"optimizer": space.optimizer, "ladder": space.ladder, "source": source, **found.to_dict()}


def _certified(ledger: Ledger, optimizer: str, params: float) -> tuple[LadderSpace, tuple[TunedRegime, ...]]:
    """The winners of an optimizer's certified sweeps on the ladder nearest to ``params``, and the space of the last.

    Ladders are not mixed: their warmups and batches count different things.
    """
    from tuneopt.search.prediction import star_regime
    from tuneopt.search.replay import replay
    from tuneopt.search.stored import stored_sweep

    found: dict[str, list[tuple[LadderSpace, TunedRegime]]] = {}
    for plain in ledger.sweeps().values():
        if plain.get("space", {}).get("optimizer") != optimizer or "policy" not in plain:
            continue  # a sampled search has no star and no certificate
        sweep = stored_sweep(plain)
        state, _ = replay(sweep, ledger)
        if state.finished and state.descent.certificate.complete:
            regime = star_regime(sweep.regime.scale.parameters, sweep.regime.ratio, state.descent)
            found.setdefault(sweep.space.ladder, []).append((sweep.space, regime))
    if not found:
        raise InputError(f"the ledger holds no certified sweep of {optimizer}; finish one, or leave out --ledger")

    def far(ladder: str) -> float:
        if not (math.isfinite(params) and params > 0):
            return 0.0  # refused, with its sentence, by the forecast
        return min(abs(math.log(regime.params / params)) for _, regime in found[ladder])

    chosen = found[min(found, key=far)]
    return chosen[-1][0], tuple(regime for _, regime in chosen)
