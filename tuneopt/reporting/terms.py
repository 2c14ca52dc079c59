"""The page's glossary: words of the field whose meaning a pointer shows, at their first place in a text.

The entries are those of ``docs/glossary.md``, shortened; `tests` hold the words to it.
"""

from __future__ import annotations

import re
from html import escape

from markupsafe import Markup

TERMS = {
    "nats": "the unit of every loss: natural-log cross entropy per token",
    "1x": "the Chinchilla optimum: 20 tokens for each non-embedding parameter. 8x is eight times as many",
    "speedup": "D_eff / D: how many times fewer tokens the optimizer needs than the baseline for the same loss",
    "D_eff": "the tokens at which the baseline reaches a rival's loss",
    "regime": "scale, ratio and corpus: everything that is equal for all optimizers compared",
    "tie group": "optimizers of a regime that noise cannot tell apart",
    "sigma": "the standard deviation of a loss over seeds, in nats",
    "flip": "two optimizers whose order differs between regimes, or during training",
    "tau": "Kendall's rank correlation of two orders: 1 is the same order, 0 says nothing, -1 is the reverse",
    "regret": "the loss above the best that a choice would have cost, in nats",
    "incumbent": "the best configuration so far",
    "star": "an incumbent and every change of it in one coordinate",
    "certificate": "the statement at the end of a sweep: the star is complete, and no change in it beats the incumbent "
    "by more than the tolerance",
    "tolerance": "nats that a change must win by to move the incumbent, at least 0.003",
    "near-optimal": "within 0.007 nats of the best, or within the noise where that is larger",
    "blind transfer": "hyperparameters tuned for one optimizer used for another without tuning",
    "extrapolated": "read from a law beyond the budgets that it was fitted to: a guess, not a measurement",
}

_WORDS = re.compile(
    r"(?<![\w-])(" + "|".join(sorted(map(re.escape, TERMS), key=len, reverse=True)) + r")(s|es)?(?![\w-])",
    re.IGNORECASE,
)
_POWER = re.compile(
    r"\b(?P<base>[A-Z])\^(?P<power>-?\d+(?:\.\d+)?)|\b(?P<factor>\d\.?\d*)e(?P<tens>-?0?[1-9]\d*)(?= [A-Z]\^)"
)
"""``N^-0.86``, and the factor in front of it: the form of a law in a text that has no raised letters."""

_COMMAND = re.compile(r"`(tuneopt [^`]+)`")

_BY_WORD = {word.lower(): meaning for word, meaning in TERMS.items()}


def terms(text: str) -> Markup:
    """A sentence as HTML in which the first place of each word of the glossary carries its meaning."""
    told: set[str] = set()

    def mark(match: re.Match[str]) -> str:
        word = match[1].lower()
        if word in told:
            return match[0]
        told.add(word)
        return f'<dfn tabindex="0" data-g="{escape(_BY_WORD[word])}">{match[0]}</dfn>'

    # Escaped first: what is put around a word is then the only markup. No entity holds a word of the glossary.
    marked = _WORDS.sub(mark, escape(text))
    return Markup(_COMMAND.sub(r"<code>\1</code>", _POWER.sub(_power, marked)))


def _power(match: re.Match[str]) -> str:
    """A power as it is set in print; of a number such as 4.2e-05 the ten is written out."""
    base, exponent = match["base"] or "10", (match["power"] or f"{int(match['tens'])}").replace("-", "\u2212")
    factor = "" if match["factor"] is None else f"{match['factor']} \u00d7 "
    return f"{factor}{base}<sup>{exponent}</sup>"
