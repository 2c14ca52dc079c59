"""Bad input and how it is told: one sentence, the nearest known word, and nothing that a terminal would obey."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

LONGEST_SENTENCE = 2000
"""Characters of an error's sentence; a file that is one huge word must not fill a terminal."""

LONGEST_WORD = 80
"""Characters up to which a word is compared with the known ones: the comparison takes the product of both lengths."""

_UNSEEN = ("Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp")
"""Unicode categories that are no part of a line of text: control codes, direction marks, half surrogates, line ends."""


class InputError(ValueError):
    """Bad input from a user. Its message is one sentence that says what is wrong and how to mend it.

    Text from the input may stand in it: control characters are spelt out, so that the message is always one line.
    """

    def __init__(self, sentence: object = "") -> None:
        text = visible(" ".join(str(sentence).split()))
        super().__init__(text if len(text) <= LONGEST_SENTENCE else text[: LONGEST_SENTENCE - 1] + "\u2026")


def visible(text: str, keep: str = "") -> str:
    """``text`` with every character that would steer a terminal spelt out (``\\x1b``), but those in ``keep``."""
    if text.isprintable():
        return text
    return "".join(
        ascii(letter)[1:-1] if unicodedata.category(letter) in _UNSEEN and letter not in keep else letter
        for letter in text
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint naming the known word closest to ``word``, or the list of all when nothing is close."""
    words = list(known)
    if len(word) <= LONGEST_WORD:
        close = min(words, key=lambda each: _typing_errors(word.lower(), each.lower()), default="")
        if close and _typing_errors(word.lower(), close.lower()) <= max(1, len(close) // 3):
            return f"did you mean {close!r}?"
    return f"known: {', '.join(words)}"


def _typing_errors(typed: str, meant: str) -> int:
    """Letters added, lost, changed or swapped with their neighbour (optimal string alignment distance)."""
    before: list[int] = []
    row = list(range(len(meant) + 1))
    for i, letter in enumerate(typed, 1):
        before, above, row = row, before, [i]
        for j, wanted in enumerate(meant, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == meant[j - 2] and typed[i - 2] == wanted:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]
