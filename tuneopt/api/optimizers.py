"""Optimizers by name, by entry point or by file: what there is, and the search space that one is tuned in.

A name goes three ways. A built-in one stands for itself. ``PATH.py:Class``, and a class of an installed package, become
``Class@DIGEST`` (`tuneopt.optim.external`), so that two versions of a file never mix in a ledger; what is before the
``@`` is what people call it, and what its search space says.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from tuneopt import outside
from tuneopt.optim import external
from tuneopt.optim.info import MEMORY_FACTS, info
from tuneopt.outside import installed
from tuneopt.scale_files import find_scale
from tuneopt.search.space import GROUP, SearchSpace, load_space
from tuneopt.spec import InputError, Scale, Value

if TYPE_CHECKING:
    from tuneopt.search.space import LadderSpace


def optimizers() -> list[dict[str, Any]]:
    """Every optimizer as plain data; those of installed packages are imported to read what they say of themselves.

    Raises `InputError` for a package whose optimizer cannot be imported, or has a name that is taken.
    """
    entries = list(info())
    if not all(entry.family for entry in entries):  # built-in ones are listed without torch, in tenths of a second
        from tuneopt.optim.factory import describe

        entries = [describe(entry) for entry in entries]
    return [{name: value for name, value in asdict(entry).items() if name not in MEMORY_FACTS} for entry in entries]


def space_of(optimizer: str, space: str | None = None) -> SearchSpace:
    """The search space of an optimizer, under the name by which its trials run.

    ``optimizer`` is a name that `optimizers` lists or ``PATH.py:Class``; ``space`` is the name or the file of a search
    space, needed where the optimizer brings none. The space is run, the optimizer is not. Raises `InputError` for what
    is missing, and for a space that is one for another optimizer.
    """
    name = external.resolve(optimizer)
    plain = name.partition("@")[0]  # differs from `name` for classes from outside alone
    if space is None and plain != name:
        if outside.source_of(name):
            raise InputError(f"{optimizer} needs a search space; add --space PATH.py, a file that defines SPACE")
        if plain not in installed(GROUP):
            raise InputError(f"the package of {plain} brings no search space; add --space PATH.py")
    declared = load_space(space or plain)
    if declared.optimizer != plain:
        raise InputError(
            f"the search space {space} is one for {declared.optimizer!r}, not for {plain!r}; "
            f"write optimizer={plain!r} in it or choose another"
        )
    return replace(declared, optimizer=name)


def check_outside(space: LadderSpace) -> None:
    """Build a class from outside tuneopt once, on a small model with the start of its space.

    Raises `InputError` when it is no optimizer, cannot be imported, or does not take the hyperparameters of the space,
    before a whole sweep of workers finds that out.
    """
    if "@" not in space.optimizer:
        return
    from tuneopt.optim.factory import LOOP, create, implementation
    from tuneopt.training.model import Decoder

    scale: Scale = find_scale("nano-65k")  # the smallest: it is built in a moment, and 64 words are vocabulary enough
    facts = scale.facts(implementation(space.optimizer).model_facts)
    config: dict[str, Value] = {word: value for word, value in space.start if word not in LOOP}
    try:
        create(space.optimizer, Decoder(scale, 64), **facts, **config)
    except InputError:
        raise
    except Exception as error:  # a user's code may raise anything
        plain = space.optimizer.partition("@")[0]
        reason = " ".join(f"{type(error).__name__}: {error}".split())  # one line
        raise InputError(f"{plain} cannot be built from the start of its search space: {reason}") from error
