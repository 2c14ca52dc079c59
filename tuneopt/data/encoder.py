r"""Texts to token ids: what the tokenizer gives for the whole text, put together from parts that are encoded once.

Byte-level BPE first cuts a text by a regular expression, then merges inside each cut. For the expressions of GPT-2 and
Llama 3 some places are cuts whatever stands around them, and what stands on one side never changes the cuts on the
other. With S a character that is no white space, they are

    before a space in front of S, and after a line feed between two S.

A text falls into parts there, and few different parts make up most text, so a table from part to ids saves almost all
of the tokenizer's work. A long text can be encoded piece by piece. Other tokenizers get whole texts, and so do pieces
with the NUL character.

Why these places, in both expressions: A word or a run of signs takes at most one space, the one before it. A run of
white space in front of S gives its last character to what follows (``\s+(?!\S)``), or ends at its last line feed
(``\s*[\r\n]+``). A lone line feed after S is a cut of its own, or the end of a run of signs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tuneopt.spec import InputError

MAX_PARTS = 1 << 19
"""Parts in the table, about 100 MB; beyond them it begins anew."""

MAX_PART = 64
"""Characters of a part that is kept; longer ones hardly ever come back."""

GPT_2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

PIECE_CHARACTERS = 1 << 18
"""A longer document falls into pieces where cuts are known: an encoding takes about 100 bytes a token."""

_CUT = "\0"
_PLACE = re.compile(r"(?<=\S\n)(?=\S)|(?= \S)")

Ids = NDArray[np.uint32]


class _Table(dict[str, int]):
    """From part to its number; -1 for one that is not there, so that a text is looked up without a Python loop."""

    def __missing__(self, part: str) -> int:
        return -1


class Encoder:
    """A tokenizer with its table of parts. Ids equal those of the tokenizer alone, special tokens not added.

    A part has a number; `_table` leads from its text to the number, `_ends` from the number to its ids in `_ids`. So a
    batch of texts becomes a list of numbers, and one gather turns it into ids.
    """

    def __init__(self, tokenizer: Tokenizer, max_parts: int = MAX_PARTS) -> None:
        self._tokenizer = tokenizer
        self._max_parts = max_parts
        # A special token inside a text stays text, or it would be matched before any cut.
        self.by_parts = bool(tokenizer.encode_special_tokens) and cuts_are_known(json.loads(tokenizer.to_str()))
        self._forget()

    def _forget(self) -> None:
        """Begin with an empty table. Keeping the parts in use would need a count of uses, and slow every look-up."""
        self._table = _Table()
        self._ids = np.empty(1 << 16, np.uint32)
        self._ends = np.zeros(1 << 14, np.int64)  # part number i has the ids from end i to end i + 1
        self._parts = 0

    def encode(self, texts: Sequence[str]) -> tuple[Ids, NDArray[np.int64]]:
        """Ids of all texts in one array, shape (tokens,), and where each text ends in it, shape (texts,)."""
        if not self.by_parts:
            return _joined(self._whole(texts))
        if self._parts >= self._max_parts:  # between two calls alone: numbers of a batch must stay what they are
            self._forget()
        numbers: list[int] = []  # of the parts of all texts, one after another (p of them)
        new: list[str] = []
        counts = np.zeros(len(texts), np.int64)  # parts of each text
        for row, text in enumerate(texts):
            before = len(numbers)
            if text:
                self._look_up(text, numbers, new)
            counts[row] = len(numbers) - before
        self._learn(new)
        # From here on without a loop in Python: the ids of all parts, gathered from the table by p slices at once.
        rows = np.array(numbers, np.int64)  # (p,)
        starts = self._ends[rows]  # (p,), where the ids of each part begin in the table
        lengths = self._ends[rows + 1] - starts
        totals = np.cumsum(lengths)  # (p,), where they end in the result
        # Place i of the result takes the id that lies as far behind its part's start as i behind the part's begin here.
        places = np.repeat(starts - totals + lengths, lengths) + np.arange(totals[-1] if len(rows) else 0)
        return self._ids[places], np.concatenate([[0], totals])[np.cumsum(counts)]

    def pieces(self, text: str, limit: int = PIECE_CHARACTERS) -> Iterator[str]:
        """Pieces of little more than ``limit`` characters whose ids in a row are those of the text.

        The text itself where no cut is known.
        """
        start = 0
        while self.by_parts and len(text) - start > limit:
            place = _PLACE.search(text, start + limit)
            if place is None:
                break
            yield text[start : place.start()]
            start = place.start()
        yield text[start:]

    def _look_up(self, text: str, numbers: list[int], new: list[str]) -> None:
        """Append the numbers of a text's parts; those that are new get the next numbers, and are noted."""
        if _CUT in text:  # it cannot be cut by replacing: the whole text is one part, which is not kept
            numbers.append(self._number(text, new))
            return
        # Cut before every space and after every line feed first, which takes two passes in C. Where that is no cut of
        # the tokenizer, the parts are joined again, but only around parts that the table lacks: it holds no part that
        # could belong to a neighbour (`_is_kept`).
        parts = text.replace(" ", "\0 ").replace("\n", "\n\0").split(_CUT)
        found = list(map(self._table.__getitem__, parts))
        done = 0
        place = -1
        while True:
            try:
                place = found.index(-1, max(done, place + 1))
            except ValueError:
                break
            # An unknown part may belong to the one before it, and the ones after may belong to it.
            first = place
            while first > done and _continues(parts, first):
                first -= 1
            last = place + 1
            while last < len(parts) and _continues(parts, last):
                last += 1
            numbers.extend(found[done:first])
            done = last
            part = "".join(parts[first:last])
            if part:
                known = self._table[part]
                numbers.append(self._number(part, new) if known < 0 else known)
        numbers.extend(found[done:])

    def _number(self, part: str, new: list[str]) -> int:
        """The next number, for a part that is encoded with the others of this batch (`_learn`)."""
        number = self._parts
        self._parts += 1
        new.append(part)
        if _is_kept(part):
            self._table[part] = number
        return number

    def _learn(self, new: Sequence[str]) -> None:
        """Encode the parts that got the last numbers."""
        known = self._parts - len(new)
        used = int(self._ends[known])
        ids, ends = _joined(self._whole(new))  # one call for all new parts: the library encodes them in parallel
        self._ends = _room(self._ends, self._parts + 1)
        self._ends[known + 1 : self._parts + 1] = used + ends
        self._ids = _room(self._ids, used + len(ids))
        self._ids[used : used + len(ids)] = ids

    def _whole(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids from the tokenizer itself, in parallel where it has threads; the fast call leaves offsets out."""
        if not texts:
            return []
        try:
            return [one.ids for one in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        except BaseException as error:  # the library's own errors are plain Exceptions, its panics not even that
            if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise InputError(
                f"the tokenizer cannot encode the text ({reason}); take one that knows all text, as byte-level BPE does"
            ) from None


def cuts_are_known(tokenizer: dict[str, Any]) -> bool:
    """Whether a tokenizer, as its file has it, cuts texts where this module says."""
    model = tokenizer.get("model") or {}
    return (
        model.get("type") == "BPE"
        and not model.get("dropout")
        and not tokenizer.get("normalizer")
        and not tokenizer.get("truncation")
        and not tokenizer.get("padding")
        and all(token.get("special") for token in tokenizer.get("added_tokens") or ())
        and _known_cut(tokenizer.get("pre_tokenizer") or {})
    )


def _known_cut(pre_tokenizer: dict[str, Any]) -> bool:
    """GPT-2's expression inside the byte-level step, or Llama 3's in front of it; nothing else was proven."""
    if pre_tokenizer.get("type") == "ByteLevel":
        return {key: pre_tokenizer.get(key) for key in GPT_2} == GPT_2
    # Word for word as its file has it: an expression that is nearly the same cuts elsewhere in rare places.
    steps: list[dict[str, Any]] = pre_tokenizer.get("pretokenizers") or []
    if pre_tokenizer.get("type") != "Sequence" or len(steps) != 2:
        return False
    split, bytes_ = steps
    return bool(
        split.get("type") == "Split"
        and split.get("pattern") == {"Regex": LLAMA_3}
        and split.get("behavior") == "Isolated"
        and not split.get("invert")
        and bytes_.get("type") == "ByteLevel"
        and not bytes_.get("add_prefix_space")
        and not bytes_.get("use_regex")
    )


def _continues(parts: list[str], place: int) -> bool:
    """Whether the place before this part is no cut: no S follows, or no S stands before the line feed."""
    part = parts[place]
    follows = part[1:2] if part.startswith(" ") else part[:1]
    if not follows or follows.isspace():
        return True
    before = parts[place - 1] if place else ""
    return part[0] != " " and before.endswith("\n") and (before[-2:-1] or " ").isspace()


def _is_kept(part: str) -> bool:
    """Whether a part may be found again by itself: it is short, and no neighbour can belong to it at its cuts."""
    return (
        len(part) <= MAX_PART and _CUT not in part and not _continues([part, "S"], 0) and not _continues([part, "S"], 1)
    )


def _room(array: NDArray[Any], size: int) -> NDArray[Any]:
    """The array, or a copy of at least twice its length with that many elements."""
    if len(array) >= size:
        return array
    larger = np.zeros(max(size, 2 * len(array)), array.dtype)
    larger[: len(array)] = array
    return larger


def _joined(encoded: list[list[int]]) -> tuple[Ids, NDArray[np.int64]]:
    """Lists of ids as one array, shape (tokens,), and where each ends in it, shape (lists,)."""
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), dtype=np.int64)
    return np.fromiter(chain.from_iterable(encoded), np.uint32, int(ends[-1]) if len(ends) else 0), ends
