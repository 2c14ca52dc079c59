"""What else differs between optimizers that are compared: schedules, warmup and batch, which the training loop reads.

A comparison of optimizers as their authors run them is fair as it stands. But what they gain may then come from the
schedule, and a reader has to be told (`Circumstance`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from tuneopt.analysis.names import optimizer_name
from tuneopt.analysis.vocabulary import is_coordinate
from tuneopt.analysis.winner import Winner, by_regime
from tuneopt.search.space import load_space, space_names

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

    ``differs`` where two winners of one regime had other values; ``whole`` where every optimizer has one. A name that
    is not in `WORDS` is one of which nobody here knows whether it belongs to an update rule.
    """

    name: str
    values: tuple[tuple[str, tuple[str, ...]], ...]
    differs: bool
    whole: bool = True


def circumstances(winners: Sequence[Winner]) -> tuple[Circumstance, ...]:
    """The loop's hyperparameters as far as winners in regimes with several optimizers have them.

    Of settings that no search space knows, such as a sequence length, those that differ: they may be the cause as well.
    """
    regimes = [members for members in by_regime(winners).values() if len(members) > 1]
    every = {name for members in regimes for one in members for name, _ in one.config}
    found = []
    for name in (*WORDS, *sorted(every - WORDS.keys())):
        here = [[(one.optimizer, _text(dict(one.config).get(name))) for one in members] for members in regimes]
        known = [pairs for pairs in here if sum(bool(text) for _, text in pairs) > 1]
        if not known:
            continue
        values: dict[str, dict[str, None]] = {}
        for optimizer, text in (pair for pairs in known for pair in pairs if pair[1]):
            values.setdefault(optimizer, {})[text] = None
        differs = any(len({text for _, text in pairs if text}) > 1 for pairs in known)
        if name in WORDS or (differs and not _is_of_a_rule(name)):
            # Who names a schedule and no decay phase has none: that is no gap.
            silent = {
                one.optimizer
                for members in regimes
                for one in members
                if one.optimizer not in values and not (name == "decay" and "lr_schedule" in dict(one.config))
            }
            told = tuple((key, tuple(texts)) for key, texts in values.items())
            found.append(Circumstance(name, told, differs, not silent))
    return tuple(found)


def _is_of_a_rule(name: str) -> bool:
    """Whether a hyperparameter is one of the declared search spaces, and so may be a part of what is compared."""
    return is_coordinate(name) or name in _settings()


@cache
def _settings() -> frozenset[str]:
    spaces = [load_space(name) for name in space_names()]
    return frozenset(name for space in spaces for ladder in space.ladders for name, _ in space.on(ladder).start)


def circumstances_sentence(found: Sequence[Circumstance]) -> str:
    """What differs besides the update rules, and what does not; empty where nothing is known."""
    same = [WORDS[one.name] for one in found if not one.differs and one.whole]
    partly = [WORDS[one.name] for one in found if not one.differs and not one.whole]
    other = [_difference(one) for one in found if one.differs and one.name in WORDS]
    unknown = [_difference(one) for one in found if one.name not in WORDS]
    unknown = unknown if len(unknown) <= NAMED else [f"{len(unknown)} further settings"]
    alike = "; ".join(
        f"{_listed(names)} {'is' if len(names) == 1 else 'are'} the same {where}"
        for names, where in ((same, "for all"), (partly, "wherever the runs say it"))
        if names
    )
    told = []
    if other:
        told.append(f"The update rules are not all that differs: {'; '.join(other)}.")
    elif alike and not unknown:
        return f"Besides the update rules nothing is known to differ: {alike}."
    if alike:
        told.append(f"{_capital(alike)}.")
    if unknown:
        told.append(f"Also different, and not known here to belong to the update rules: {'; '.join(unknown)}.")
    return " ".join(told)


def _difference(one: Circumstance) -> str:
    """A hyperparameter with its values, by value while the optimizers are few."""
    words = WORDS.get(one.name, one.name)
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
