"""Axes of a picture: ranges, ticks and their texts, from the words that plotly has for them.

Of plotly's axes the part that the drawers use: linear and logarithmic, ticks that are given or found, and the number
formats of d3 (``.2~f``, ``+.4~g``, ``~s``, ``.0%``, ``d``).
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

_FORMAT = re.compile(r"(\+?)(?:\.(\d+))?(~?)([fgsd%]?)")
_PREFIXES = {-2: "\u00b5", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T", 5: "P", 6: "E", 7: "Z"}
_MINUS = "\u2212"

MOST_DIGITS = 8
"""Digits that a tick is given so that it is not rounded."""

PIXELS_ACROSS, PIXELS_UP = 80, 42
"""Pixels between two ticks of an axis that does not say how many it wants."""


@dataclass(frozen=True)
class PixelAxis:
    """An axis that knows where its values lie: ``start`` and ``end`` are the pixels of ``low`` and ``high``.

    On a logarithmic axis ``low`` and ``high`` are powers of ten. ``ticks`` are (value in the axis' own terms, text).
    """

    low: float
    high: float
    log: bool
    ticks: tuple[tuple[float, str], ...]
    start: float = 0.0
    end: float = 1.0

    def at(self, value: float) -> float:
        """The pixel of a value of the data; what a logarithmic axis cannot hold is far out."""
        if self.log:
            value = math.log10(value) if value > 0 else -1e6
        return self.inner(value)

    def inner(self, value: float) -> float:
        """The pixel of a value in the axis' own terms, powers of ten on a logarithmic one."""
        return self.start + (value - self.low) / self._span * self._pixels

    def all(self, values: Iterable[float | None]) -> list[float | None]:
        """The pixels of many values of the data, None where there is none; as `at`, without a call for each."""
        start, low, span, pixels = self.start, self.low, self._span, self._pixels
        if self.log:
            values = [None if value is None else math.log10(value) if value > 0 else -1e6 for value in values]
        return [None if value is None else start + (value - low) / span * pixels for value in values]

    @cached_property
    def _span(self) -> float:
        return (self.high - self.low) or 1.0

    @cached_property
    def _pixels(self) -> float:
        return self.end - self.start


def axis(plain: Mapping[str, Any], values: Iterable[float], pixels: float, up: bool = False) -> PixelAxis:
    """The axis that plotly's ``plain`` words describe, for the ``values`` drawn on it and a length in pixels."""
    log = plain.get("type") == "log"
    if "range" in plain:
        low, high = (float(end) for end in plain["range"])
    else:
        known = [math.log10(value) if log else value for value in values if not log or value > 0] or [0.0, 1.0]
        low, high = min(known), max(known)
        pad = 0.06 * (high - low) or 0.5
        low, high = low - pad, high + pad
        if plain.get("autorange") == "reversed":
            low, high = high, low
    if plain.get("tickmode") == "array":
        pairs = list(zip(plain.get("tickvals", ()), plain.get("ticktext", plain.get("tickvals", ())), strict=True))
        ticks = [(math.log10(value) if log else float(value), str(text)) for value, text in pairs]
    else:
        most = max(2, int(plain.get("nticks") or pixels / (PIXELS_UP if up else PIXELS_ACROSS)))
        places = _powers(low, high, most) if log else nice(low, high, most)
        form = _enough(places, str(plain.get("tickformat", "")))
        ticks = [(math.log10(place) if log else place, number_text(place, form)) for place in places]
    inside = tuple((value, text) for value, text in ticks if min(low, high) - 1e-9 <= value <= max(low, high) + 1e-9)
    return PixelAxis(low, high, log, inside)


def _enough(places: Sequence[float], form: str) -> str:
    """``form`` with as many digits as the ticks have: rounded ones would seem to stand at unequal distances."""
    match = _FORMAT.fullmatch(form)
    if match is None or match[2] is None or (match[3], match[4]) not in (("~", "f"), ("~", "g"), ("", "f")):
        return form
    for digits in range(int(match[2]), MOST_DIGITS + 1):
        longer = f"{match[1]}.{digits}{match[3]}{match[4]}"
        texts = [number_text(place, longer).lstrip("+").replace(_MINUS, "-") for place in places]
        if all(math.isclose(float(text), place, rel_tol=1e-9, abs_tol=1e-12)
               for text, place in zip(texts, places, strict=True)):  # fmt: skip
            return longer
    return form


def nice(low: float, high: float, most: int) -> list[float]:
    """Round numbers between two bounds: a step of 1, 2, 2.5 or 5 times a power of ten, at most ``most`` of them."""
    low, high = min(low, high), max(low, high)
    if not high > low:
        return [low]
    raw = (high - low) / max(most, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * times for times in (1, 2, 2.5, 5, 10, 20) if power * times >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + number) * step, 12) + 0.0 for number in range(count)]


def _powers(low: float, high: float, most: int) -> list[float]:
    """1, 2 and 5 times powers of ten, or powers alone where those would be too many."""
    for digits in ((1, 2, 5), (1,)):
        places = [
            digit * 10.0**power
            for power in range(math.floor(low), math.ceil(high) + 1)
            for digit in digits
            if low <= math.log10(digit) + power <= high
        ]
        if len(places) <= most:
            return places
    return places[:: -(-len(places) // most)]


@lru_cache(maxsize=8192)
def number_text(value: float, form: str) -> str:
    """A number in a format of d3; without one in the fewest digits."""
    match = _FORMAT.fullmatch(form)
    sign, digits, trim, kind = match.groups() if match else ("", None, "", "")
    precision = 6 if digits is None else int(digits)
    suffix = ""
    if kind == "%":
        value, kind, suffix = 100 * value, "f", "%"
    if kind == "s":
        power = max(-2, min(7, math.floor(math.log10(abs(value)) / 3 + 1e-9))) if value else 0
        value, suffix, kind = value / 1000.0**power, _PREFIXES[power], "g"
    text = f"{value:.0f}" if kind == "d" else f"{value:.{precision}{kind or 'g'}}"
    if (trim or not kind) and "." in text and "e" not in text:
        text = text.rstrip("0").rstrip(".")
    if float(text) == 0:
        text = text.lstrip("-")
    plus = "+" if sign and value > 0 and float(text) else ""
    return f"{plus}{text.replace('-', _MINUS)}{suffix}"


def thinned(texts: Sequence[str], places: Sequence[float], width: float) -> list[int]:
    """Which of the texts at ascending ``places`` (pixels) can stand without touching: every second, third, ..."""
    for step in range(1, len(texts) + 1):
        kept = list(range(0, len(texts), step))
        if all(abs(places[two] - places[one]) >= width for one, two in itertools.pairwise(kept)):
            return kept
    return [0] if texts else []
