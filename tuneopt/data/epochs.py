"""How often a token budget repeats the training text."""

from __future__ import annotations

from dataclasses import dataclass

from tuneopt.data.corpus import Corpus

CHEAP_EPOCHS = 4.0
"""Up to here repeated text is worth nearly as much as new text (Muennighoff et al., arXiv 2305.16264)."""


@dataclass(frozen=True, slots=True)
class Epochs:
    """A budget against a corpus: tokens, passes over the train split, and a warning or None."""

    budget_tokens: int
    train_tokens: int
    epochs: float
    warning: str | None


def describe(corpus: Corpus, budget_tokens: int) -> Epochs:
    """Passes that a budget makes over the train split, with a warning above four (arXiv 2305.16264)."""
    tokens = corpus.split("train").tokens
    epochs = budget_tokens / tokens
    warning = None
    if epochs > CHEAP_EPOCHS:
        warning = (
            f"a budget of {budget_tokens} tokens repeats the {tokens} training tokens of corpus "
            f"{corpus.id.name!r} {epochs:.1f} times; above {CHEAP_EPOCHS:g} epochs repeated text is worth clearly less "
            "than new text (Muennighoff et al., arXiv 2305.16264), so compare with care or use a larger corpus"
        )
    return Epochs(budget_tokens, tokens, epochs, warning)
