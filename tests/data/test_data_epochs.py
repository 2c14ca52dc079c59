from __future__ import annotations

import pytest

from tuneopt.data import Corpus, describe


def test_epochs_are_passes_over_the_train_split(corpus: Corpus) -> None:
    tokens = corpus.split("train").tokens
    found = describe(corpus, tokens * 3 // 2)
    assert found.epochs == pytest.approx(1.5, rel=1e-4)
    assert (found.budget_tokens, found.train_tokens, found.warning) == (tokens * 3 // 2, tokens, None)


def test_four_epochs_are_fine_and_more_are_warned_about(corpus: Corpus) -> None:
    tokens = corpus.split("train").tokens
    assert describe(corpus, 4 * tokens).warning is None
    warning = describe(corpus, 4 * tokens + 1).warning
    assert warning is not None
    assert "2305.16264" in warning
    assert "'two-files'" in warning
    assert " 9.0 times" in (describe(corpus, 9 * tokens).warning or "")
