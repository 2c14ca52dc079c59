"""The tokenizer of a recipe: read from a file, fetched by its name, or trained on the recipe's own sources."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from tuneopt.data.manifest import TOKENIZER_FILE
from tuneopt.data.recipe.guard import fingerprint
from tuneopt.data.recipe.hub import tokenizer_text
from tuneopt.data.recipe.recipe import TRAINING_BYTES, Recipe, TokenizerRecipe
from tuneopt.data.recipe.units import documents, units
from tuneopt.data.tokenizer import parse_tokenizer, read_tokenizer, train_tokenizer
from tuneopt.spec import InputError

ENDS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>")
"""Names under which the end of a text is looked for, where a recipe gives none."""


def identity(recipe: TokenizerRecipe) -> list[str]:
    """What tells one tokenizer from another before it is there."""
    if recipe.file is not None:
        text = read_tokenizer(recipe.file)
        parse_tokenizer(text, str(recipe.file))
        return ["file", hashlib.sha256(text.encode()).hexdigest(), recipe.end_of_text or ""]
    if recipe.hub is not None:
        return ["hub", recipe.hub, recipe.revision or "", recipe.end_of_text or ""]
    return ["train", str(recipe.train)]


def find_tokenizer(recipe: Recipe, work: Path, held_out: int) -> tuple[str, Tokenizer, int]:
    """Text of its file, the tokenizer, and the bytes it was trained on; kept in ``work`` for the next attempt."""
    kept, count = work / TOKENIZER_FILE, work / "training_bytes"
    if not kept.exists():
        wanted = recipe.tokenizer
        size = 0
        if wanted.file is not None:
            text = read_tokenizer(wanted.file)
        elif wanted.hub is not None:
            text = tokenizer_text(wanted.hub, wanted.revision)
        else:
            assert wanted.train is not None
            sample = _Sample(recipe, held_out)
            text = train_tokenizer(sample.texts(), wanted.train).to_str(pretty=True)
            size = sample.bytes
        count.write_text(str(size))
        aside = kept.with_suffix(".part")
        aside.write_text(text, encoding="utf-8")
        aside.replace(kept)
    text = kept.read_text(encoding="utf-8")
    return text, parse_tokenizer(text, str(recipe.tokenizer.hub or kept)), int(count.read_text())


class _Sample:
    """The first training documents of every source, in proportion to the weights, up to `TRAINING_BYTES`."""

    def __init__(self, recipe: Recipe, held_out: int) -> None:
        self._recipe, self._held_out = recipe, held_out
        self.bytes = 0

    def texts(self) -> Iterator[str]:
        total = sum(source.weight for source in self._recipe.sources)
        for index, source in enumerate(self._recipe.sources):
            left = int(TRAINING_BYTES * source.weight / total)
            for text in (text for unit in units(source, index, self._recipe) for text in documents(source, unit)):
                if left <= 0:
                    break
                if int.from_bytes(fingerprint(text)[:2], "big") < 2 * self._held_out:
                    continue
                size = len(text.encode())
                left -= size
                self.bytes += size
                yield text


def read_end(tokenizer: Tokenizer, recipe: TokenizerRecipe) -> int:
    """The id that follows every document; raises `InputError` for a tokenizer without such a token."""
    for name in (recipe.end_of_text,) if recipe.end_of_text else ENDS:
        number = tokenizer.token_to_id(name)
        if number is not None:
            return int(number)
    if recipe.end_of_text:
        raise InputError(
            f"the tokenizer has no token {recipe.end_of_text!r}; give end_of_text as the tokenizer spells it"
        )
    raise InputError(f"the tokenizer has none of {', '.join(ENDS)}; say end_of_text: the token that ends a document")
