"""The tokenizer of a recipe: read from a file, fetched by its name, or trained on the recipe's own sources.

It is found once and kept in the folder of the unfinished corpus: a later attempt must encode with the very same one,
even if the file or the hub's branch has changed since (which `identity`, or the manifest's checksum, then shows).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer

from tuneopt.data.cache import write_whole
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
    """What tells one tokenizer from another before it is there: content of a file, name on the hub, size to train.

    A file is parsed as well, so that a bad one is answered before anything is done.
    """
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
    if not (kept.is_file() and count.is_file()):  # another kind, a FIFO say, would be waited for
        asked = recipe.tokenizer
        sizes: list[int] = []
        if asked.file is not None:
            text = read_tokenizer(asked.file)
        elif asked.hub is not None:
            text = tokenizer_text(asked.hub, asked.revision)
        else:
            assert asked.train is not None
            text = train_tokenizer(_sample(recipe, held_out, sizes), asked.train).to_str(pretty=True)
        count.write_text(str(sum(sizes)))
        write_whole(kept, text)  # after the count: who finds it finds both
    text = kept.read_text(encoding="utf-8")
    return text, parse_tokenizer(text, str(recipe.tokenizer.hub or kept)), int(count.read_text())


def _sample(recipe: Recipe, held_out: int, sizes: list[int]) -> Iterator[str]:
    """The first training documents of every source, in proportion to the weights, up to `TRAINING_BYTES`.

    ``sizes`` takes in the bytes of each. Documents whose bucket is that of an evaluation split are left out.
    """
    total = sum(source.weight for source in recipe.sources)
    for index, source in enumerate(recipe.sources):
        left = int(TRAINING_BYTES * source.weight / total)
        for text in (text for unit in units(source, index, recipe) for text in documents(source, unit)):
            if left <= 0:
                break
            if int.from_bytes(fingerprint(text)[:2], "big") < 2 * held_out:
                continue
            sizes.append(len(text.encode()))
            left -= sizes[-1]
            yield text


def read_end(tokenizer: Tokenizer, recipe: TokenizerRecipe) -> int:
    """The id that follows every document; raises `InputError` for a tokenizer without such a token.

    Without one a model could not tell where one document ends and the next begins.
    """
    for name in (recipe.end_of_text,) if recipe.end_of_text else ENDS:
        number = tokenizer.token_to_id(name)
        if number is not None:
            return int(number)
    if recipe.end_of_text:
        raise InputError(
            f"the tokenizer has no token {recipe.end_of_text!r}; give end_of_text as the tokenizer spells it"
        )
    raise InputError(f"the tokenizer has none of {', '.join(ENDS)}; say end_of_text: the token that ends a document")
