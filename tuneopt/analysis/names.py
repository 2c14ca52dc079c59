"""How optimizers, scales and ratios are written for people: AdamW, 130M and 8x, not adamw, 130m and 8.0.

Records, tables and JSON keep the names as they came. Pages, figures and sentences take theirs from here, so that one
thing reads the same wherever it stands.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

_OPTIMIZERS = {
    "adamw": "AdamW",
    "nadamw": "NAdamW",
    "mars": "MARS",
    "cautious": "Cautious",
    "lion": "Lion",
    "adam_mini": "Adam-mini",
    "sophia": "Sophia",
    "muon": "Muon",
    "scion": "Scion",
    "kron": "Kron",
    "soap": "SOAP",
    "kl_soap": "KL-SOAP",
    "soap_muon": "SOAP-Muon",
    "shampoo": "Shampoo",
    "sf_muon": "SF-Muon",
    "dion": "Dion",
    "muonh": "MuonH",
    "normuon": "NorMuon",
    "muonc": "MuonC",
    "moonlight": "Moonlight",
    "adamh": "AdamH",
    "adamc": "AdamC",
    "ademamix": "AdEMAMix",
    "adopt": "ADOPT",
    "prodigy": "Prodigy",
    "schedule_free": "Schedule-Free AdamW",
}
"""As the papers of the built-in optimizers write them."""

MATRIX = frozenset(
    {
        "muon",
        "scion",
        "kron",
        "soap",
        "kl_soap",
        "soap_muon",
        "shampoo",
        "sf_muon",
        "dion",
        "muonh",
        "normuon",
        "muonc",
        "moonlight",
    }
)
"""Built-in optimizers that precondition a gradient as a matrix; the others scale each entry of it by itself (Wen et
al., arXiv 2509.02046, section 3)."""

_SIZE = re.compile(r"\d+(\.\d+)?[mb]")
"""A scale that is named by its size alone. The scales of the nano ladder are names, and stay as they are."""


_RAW = re.compile(
    rf"(?<![\w@./-])(?:{'|'.join(map(re.escape, sorted(_OPTIMIZERS, key=len, reverse=True)))}"
    r"|\d+(?:\.\d+)?[mb])(?![\w@-]|\.\w)"
)


def in_words(sentence: str) -> str:
    """A sentence with the built-in optimizers and the sizes in it written for people; all else stays as it is."""
    return _RAW.sub(lambda match: optimizer_name(scale_name(match[0])), sentence)


def optimizer_name(name: str) -> str:
    """An optimizer as its paper writes it; one that is not built in keeps the name that its user gave it."""
    return _OPTIMIZERS.get(name, name)


def scale_name(scale: str) -> str:
    """A scale as the field writes it: ``130M``, ``1.2B``, also where it is named ``1200m`` by its parameters."""
    if not _SIZE.fullmatch(scale):
        return scale
    size = float(scale[:-1])
    return f"{size / 1000:.10g}B" if scale[-1] == "m" and size >= 1000 else scale.upper()


def decimals(error: float | None) -> int:
    """Decimals of a loss or a difference (nats) whose error is ``error``: two digits of the error, four at most.

    Without an error there are four: a tenth of the smallest difference that counts at the scales of the paper.
    """
    if error is None or not 0 < error < math.inf:
        return 4
    return min(max(1 - math.floor(math.log10(error)), 2), 4)


def speedup_decimals(low: float | None, high: float | None) -> int:
    """Decimals of a speedup and its interval: two, or three where two would print 1.01 [1.00, 1.01].

    Without both ends there are two.
    """
    return 3 if low is not None and high is not None and high - low < 0.02 else 2


def count_name(count: float) -> str:
    """A count in short, for a sentence: ``655k``, ``1.3M``, ``2.6B``."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}" if count < 10 * size else f"{count / size:.0f}{letter}"
    return f"{count:g}"


def ratio_name(ratio: float) -> str:
    """Tokens over the Chinchilla optimum: ``8x``, ``0.05x``."""
    return f"{ratio:g}x"


def ratio_span(ratios: Sequence[float]) -> str:
    """The ratio of a line over sizes, or the span of those that are about the same, such as ``0.84x to 1x``."""
    low, high = min(ratios), max(ratios)
    return ratio_name(low) if low == high else f"{ratio_name(low)} to {ratio_name(high)}"


def place_name(scale: str, ratio: float, corpus: str = "") -> str:
    """A regime in short, such as ``130M/8x``, with its corpus in front where one is given."""
    place = f"{scale_name(scale)}/{ratio_name(ratio)}"
    return f"{corpus} {place}" if corpus else place
