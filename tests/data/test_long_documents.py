"""Documents of more than 262,144 characters get the ids that the tokenizer gives the whole text."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_world import jsonl, llama_like
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.trainers import BpeTrainer

from tuneopt.data.recipe.recipe import SourceRecipe
from tuneopt.data.recipe.units import EncodingJob, Unit, encode_unit
from tuneopt.data.tokenizer import train_tokenizer


def metaspace(prose: tuple[str, ...]) -> Tokenizer:
    """In the form of SentencePiece's tokenizers: a text begins with a space of its own."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = Metaspace()
    tokenizer.train_from_iterator(
        prose, BpeTrainer(vocab_size=400, special_tokens=["</s>", "<unk>"], show_progress=False)
    )
    tokenizer.encode_special_tokens = True
    return tokenizer


@pytest.mark.parametrize("kind", ["gpt-2", "llama-3", "metaspace"])
@pytest.mark.parametrize("breaks", [True, False])
def test_a_long_document_is_encoded_as_a_whole(prose: tuple[str, ...], tmp_path: Path, kind: str, breaks: bool) -> None:
    make = {"gpt-2": lambda some: train_tokenizer(some, 400), "llama-3": llama_like, "metaspace": metaspace}[kind]
    tokenizer = make(prose[:10])
    # Cut every 262,144 characters, one of these letters, digits or spaces would be torn from what it belongs to.
    long = "\n\n\n".join(prose)[:500_000] if breaks else "the cat 12345678 sat\x00  on" * 25_000
    assert len(long) >= 500_000
    path = jsonl(tmp_path / "a.jsonl", ["short", long, "behind"])
    job = EncodingJob((SourceRecipe("a", files=(path,)),), tokenizer.to_str(), 0, 400, 0, 0)
    (rows,) = encode_unit(job, Unit(0, 0, path, 0, path.stat().st_size))
    found = [list(each) for each in rows.column("tokens").to_pylist()]
    texts = ["short", long.strip("\n"), "behind"]
    assert found == [[*one.ids, 0] for one in tokenizer.encode_batch(texts, add_special_tokens=False)]
