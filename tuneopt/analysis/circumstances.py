"""What else differs between optimizers that are compared: schedules, warmup and batch, which the training loop reads.

A comparison of optimizers as their authors run them is fair as it stands. But what they gain may then come from the
schedule, and a reader has to be told (`Circumstance`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuneopt.analysis.names import optimizer_name
from tuneopt.analysis.winner import Winner, by_regime

WORDS = {
    "lr_schedule": "learning-rate schedule",
    "warmup": "warmup",
    "decay": "decay phase",
    "min_lr_ratio": "final learning rate",
    "train_batch_size": "batch size",
}
"""The hyperparameters that the training loop reads and no update rule (`tuneopt.optim.factory.LOOP`), in words."""

NAMED = 4
"""Optimizers whose values a sentence gives; of more it only says that they differ."""


@dataclass(frozen=True, slots=True)
class Circumstance:
    """A hyperparameter of the training loop, and what the winners of each optimizer had, in text, without repeats.

    ``differs`` where two winners of one regime had other values.
    """

    name: str
    values: tuple[tuple[str, tuple[str, ...]], ...]
    differs: bool


def circumstances(winners: Sequence[Winner]) -> tuple[Circumstance, ...]:
    """The loop's hyperparameters as far as they are known of every winner in regimes with several optimizers."""
    regimes = [members for members in by_regime(winners).values() if len(members) > 1]
    found = []
    for name in WORDS:
        here = [[(one.optimizer, _text(dict(one.config).get(name))) for one in members] for members in regimes]
        known = [pairs for pairs in here if sum(bool(text) for _, text in pairs) > 1]
        if not known:
            continue
        values: dict[str, dict[str, None]] = {}
        for optimizer, text in (pair for pairs in known for pair in pairs if pair[1]):
            values.setdefault(optimizer, {})[text] = None
        differs = any(len({text for _, text in pairs if text}) > 1 for pairs in known)
        found.append(Circumstance(name, tuple((key, tuple(texts)) for key, texts in values.items()), differs))
    return tuple(found)


def circumstances_sentence(found: Sequence[Circumstance]) -> str:
    """What differs besides the update rules, and what does not; empty where nothing is known."""
    if not found:
        return ""
    same = [WORDS[one.name] for one in found if not one.differs]
    other = [_difference(one) for one in found if one.differs]
    alike = f"{_listed(same)} {'is' if len(same) == 1 else 'are'} the same for all" if same else ""
    if not other:
        return f"Besides the update rules nothing is known to differ: {alike}."
    return f"The update rules are not all that differs: {'; '.join(other)}." + (f" {_capital(alike)}." if same else "")


def _difference(one: Circumstance) -> str:
    """A hyperparameter with its values, by value while the optimizers are few."""
    words = WORDS[one.name]
    if len(one.values) > NAMED or any(len(texts) > 1 for _, texts in one.values):
        return words
    by_text: dict[str, list[str]] = {}
    for optimizer, (text,) in one.values:
        by_text.setdefault(text, []).append(optimizer_name(optimizer.partition("@")[0]))
    return f"{words} ({', '.join(f'{text} for {_listed(names)}' for text, names in by_text.items())})"


def _text(value: object) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
