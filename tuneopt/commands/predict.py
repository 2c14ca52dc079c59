"""``tuneopt predict``: a configuration for a scale that nobody tuned, with how far it may be trusted.

A predicted value without its interval reads like a tuned one, so both are always printed, and so is the distance from
what was tuned.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneopt.commands.options import Json, Optimizer, Space, show

if TYPE_CHECKING:
    from tuneopt.api.prediction import PredictedConfig


def predict(
    optimizer: Optimizer,
    params: Annotated[float, typer.Option("--params", help="Non-embedding parameters, such as 1.2e9.")],
    ratio: Annotated[float, typer.Option("--ratio", help="Tokens over the Chinchilla optimum (20 per parameter).")],
    ledger: Annotated[
        str | None, typer.Option("--ledger", help="Certified sweeps to learn from; default: the published points.")
    ] = None,
    space: Space = None,
    json_: Json = False,
) -> int:
    """Predict hyperparameters, with intervals, for a scale and ratio that nobody tuned."""
    from tuneopt import api

    predicted = api.predict(optimizer, params, ratio, ledger, space=space)
    return show(predicted.to_dict(), json_, lambda plain: _print_prediction(predicted, plain))


def _print_prediction(predicted: PredictedConfig, plain: Mapping[str, Any]) -> None:
    """Values with 90% intervals, the laws behind them, and how far they reach beyond what was tuned."""
    from tuneopt.console import out, say, table

    forecast = predicted.forecast

    def text(value: Any) -> str:
        return f"{value:g}" if isinstance(value, float) else str(value)

    def law(name: str) -> str:
        # For averages such as beta2 the law is one of 1 - h: their distance from 1 is what scales.
        fitted = forecast.coordinates[name].law
        if fitted is None:
            return ""
        left = "1 - h = " if fitted.complement else "h = "
        offset = f" + {fitted.e:.3g}" if fitted.e else ""
        return f"{left}{fitted.a:.3g} N^{fitted.b:.2f} ratio^{fitted.c:.2f}{offset}"

    table(
        ("coordinate", "value", "90% interval", "how", "support", "law"),
        [
            (
                name,
                text(one.value),
                "" if one.low == one.high else f"{text(one.low)} to {text(one.high)}",
                one.method,
                f"{one.support:.0%}",
                law(name),
            )
            for name, one in forecast.coordinates.items()
        ],
        f"{predicted.optimizer} at {forecast.params:.4g} parameters, ratio {forecast.ratio:g}",
    )
    fixed = ", ".join(f"{name}={value}" for name, value in plain["fixed"].items())
    out.print(f"fixed: {fixed or 'nothing'}", markup=False)
    out.print(f"from {forecast.regimes} regimes: {predicted.source}; N in units of 1e8 parameters", markup=False)
    # Inside the tuned range the factor is 1, however far the nearest tuned regime is.
    beyond = {name: factor for name, factor in forecast.extrapolation.items() if factor > 1}
    if beyond:
        far = " and ".join(f"{factor:.3g} times in {name}" for name, factor in beyond.items())
        say(f"note: this extrapolates {far} beyond what was tuned")
