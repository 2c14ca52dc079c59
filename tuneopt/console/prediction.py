"""A predicted configuration and how far it reaches beyond what was tuned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuneopt.console.plain import out, say, table


def prediction(plain: Mapping[str, Any]) -> None:
    """Show what ``tuneopt predict`` found: values with 90% intervals, and the laws behind them."""
    table(
        ("coordinate", "value", "90% interval", "how", "support", "law"),
        [
            (
                name,
                _text(each["value"]),
                "" if each["low"] == each["high"] else f"{_text(each['low'])} to {_text(each['high'])}",
                each["method"],
                f"{each['support']:.0%}",
                _law(each["law"]),
            )
            for name, each in plain["config"].items()
        ],
        f"{plain['optimizer']} at {plain['params']:.4g} parameters, ratio {plain['ratio']:g}",
    )
    held = ", ".join(f"{name}={value}" for name, value in plain["fixed"].items())
    out.print(f"fixed: {held or 'nothing'}", markup=False)
    out.print(f"from {plain['regimes']} regimes: {plain['source']}; N in units of 1e8 parameters", markup=False)
    beyond = {name: factor for name, factor in plain["extrapolation"].items() if factor > 1}
    if beyond:
        far = " and ".join(f"{factor:.3g} times in {name}" for name, factor in beyond.items())
        say(f"note: this extrapolates {far} beyond what was tuned")


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _law(law: Mapping[str, Any] | None) -> str:
    if law is None:
        return ""
    left = "1 - h = " if law["complement"] else "h = "
    offset = f" + {law['e']:.3g}" if law["e"] else ""
    return f"{left}{law['a']:.3g} N^{law['b']:.2f} ratio^{law['c']:.2f}{offset}"
