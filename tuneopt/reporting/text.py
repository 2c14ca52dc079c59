"""Numbers as people read them: losses with their error, values as they were typed, large counts, durations.

All figures, tables and sentences take their texts from here, so that a number reads the same wherever it stands. Losses
have the digits that their error leaves them, four decimals at most. A number is tied to its error by spaces that do not
break.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from tuneopt.analysis.names import decimals, optimizer_name, scale_name
from tuneopt.constants import NEAR_OPTIMAL
from tuneopt.spec import Value

MINUS = "\u2212"
NONE = "\u2013"
"""Stands where there is no number."""

_COUNTS = ((1e21, "Z"), (1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def value_text(value: Value) -> str:
    """A hyperparameter as a user would type it: ``0.016``, ``1e-15``, ``true``, ``cosine``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def loss_text(loss: float | None, error: float | None = None) -> str:
    """A loss in nats, and its standard error where there is one, with as many decimals as two digits of it need."""
    if loss is None:
        return NONE
    places = decimals(error)
    return f"{loss:.{places}f}" if error is None else f"{loss:.{places}f}\u00a0\u00b1\u00a0{error:.{places}f}"


def bound_text(nats: float) -> str:
    """A bound in nats, four decimals: "by more than 0.0000 nats" would promise what no trial has shown."""
    return f"{max(nats, 0.0001):.4f}"


def change_text(difference: float | None, error: float | None = None) -> str:
    """A difference in nats with its sign, in the digits that its ``error`` leaves it; zero carries no sign."""
    if difference is None:
        return NONE
    digits = f"{abs(difference):.{decimals(error)}f}"
    if float(digits) == 0:
        return digits
    return f"{'+' if difference > 0 else MINUS}{digits}"


def count_text(count: float | None) -> str:
    """A count with three significant digits and a prefix: ``1.31 M``; whole numbers below 10,000 are spelt out."""
    if count is None:
        return NONE
    if abs(count) < 1e4 and float(count).is_integer():
        return f"{int(count):,}"
    for size, prefix in _COUNTS:
        if abs(count) >= size:
            return f"{_three(count / size)} {prefix}"
    return f"{count:.3g}"


def _three(number: float) -> str:
    """Three significant digits without an exponent."""
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"


def duration_text(seconds: float | None) -> str:
    """A span of time in the unit that suits it."""
    if seconds is None:
        return NONE
    for size, unit in ((172_800, "days"), (7200, "h"), (120, "min")):
        if seconds >= size:
            return f"{_three(seconds / {'days': 86_400, 'h': 3600, 'min': 60}[unit])} {unit}"
    return f"{seconds:.3g} s"


def bytes_text(count: float | None) -> str:
    """Bytes in binary units."""
    if count is None:
        return NONE
    for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{_three(count / 1024**power)} {unit}"
    return f"{count:.0f} B"


def percent_text(share: float | None) -> str:
    """A share as a percentage without decimals."""
    return NONE if share is None else f"{100 * share:.0f}%"


def near_text(largest: float) -> str:
    """What counts as near-optimal, where ``largest`` (nats) is the largest threshold of any regime."""
    words = f"within {NEAR_OPTIMAL:g} nats of the best value"
    return (
        words
        if largest <= NEAR_OPTIMAL
        else f"{words}, or within a regime's noise where that is more (up to {largest:.2g})"
    )


def plural(count: int, word: str, words: str | None = None) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"


def listed(words: Iterable[str], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    items = list(words)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}" if items else ""


def changes_text(changes: Sequence[tuple[str, Value, Value]]) -> str:
    """What a move changed: ``beta1 0.9 to 0.95, warmup 0.1 to 0.2``."""
    return ", ".join(f"{name} {value_text(before)} \u2192 {value_text(after)}" for name, before, after in changes)


def plain(text: object) -> str:
    """Text for a plotly label, which reads a few HTML tags: what looks like one is spelt out.

    Names come from tables that anybody may have made; plotly would turn ``<a href=...>`` in one into a link.
    """
    return html.escape(str(text), quote=False)


def drawn_of(shown: int, every: int, words: str) -> str:
    """What a figure has no room for, such as `` (8 of 40 regimes are drawn)``; empty where all are drawn."""
    return f" ({shown} of {every} {words} are drawn)" if shown < every else ""


def shown(cell: str, column: str) -> str:
    """A cell of a table as people read it: optimizers and scales by the names that their papers use."""
    if column in ("optimizer", "led first", "leads after", "order among", "tuned for"):
        return optimizer_name(cell)
    return scale_name(cell) if column == "scale" else cell


def shareable(path: str) -> str:
    """A path as a report that is passed on may show it: of a place on its maker's machine the last part alone.

    Paths that begin at the working folder and addresses such as ``s3://`` say nothing of a machine, and stay whole.
    """
    away = path.startswith(("/", "~", "..", "\\\\")) or path[1:3] in (":\\", ":/")
    return path.rstrip("/\\").replace("\\", "/").rpartition("/")[2] if away else path
