"""Optimizers by name, by entry point or by file: what there is, and the search space that one is tuned in.

A name goes four ways. A built-in one stands for itself. ``PATH.py:Class``, a class that an installed package offers,
and ``LIBRARY:Class`` become ``Class@DIGEST`` (`tuneopt.optim.external`), so that two versions never mix in a ledger.
What is before the ``@`` is what people call it, and what its search space says. A class of a library gets a space from
its signature.
"""

from __future__ import annotations

import inspect
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from tuneopt import outside
from tuneopt.errors import in_words
from tuneopt.optim import external
from tuneopt.optim.info import MEMORY_FACTS, info
from tuneopt.outside import installed
from tuneopt.scale_files import find_scale
from tuneopt.search.axis import is_number
from tuneopt.search.space import (
    GROUP,
    SearchSpace,
    average,
    beta1,
    beta2,
    learning_rate,
    load_space,
    train_batch_size,
    warmup,
    weight_decay,
)
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

    ``optimizer`` is a name that `optimizers` lists, ``PATH.py:Class`` or ``LIBRARY:Class``; ``space`` is the name or
    the file of a search space, needed where a file's optimizer brings none. The space is run; of optimizers, only a
    library's class without a space is imported, for its signature. Raises `InputError` for what is missing, and for a
    space that is one for another optimizer.
    """
    name = external.resolve(optimizer)
    plain = name.partition("@")[0]  # differs from `name` for classes from outside alone
    if space is None and external.of_library(optimizer):
        return replace(signature_space(optimizer, plain, external.load(name)), optimizer=name)
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


RATE_FACTOR = 8.0
"""A space made of a signature starts at so many times the library's learning rate, since AdamW does: 0.001 in torch,
0.008 at 130m in the published study. From `RATE_OF_ITS_OWN` on a rate is on a scale of its own, and stays."""

RATE_OF_ITS_OWN = 0.1


def signature_space(word: str, name: str, kind: Any) -> SearchSpace:
    """A search space for a class of a library, from the arguments and defaults of its ``__init__``.

    Learning rate, weight decay, two betas or a momentum where the class has them, batch and warmup; all else keeps the
    default of the class. ``name`` is what trials call it, ``word`` what the user did. Raises `InputError` for a class
    without a learning rate ``lr``.
    """
    if not inspect.isclass(kind):
        raise InputError(f"{word} is no class; name one that derives from torch.optim.Optimizer")
    own = {argument: each.default for argument, each in inspect.signature(kind).parameters.items()}
    if "lr" not in own:
        raise InputError(f"{word} has no learning rate 'lr' to search; write a function that makes it, in a file")

    def both(value: Any) -> dict[str, Any]:
        return {"paper": value, "nano": value}

    def around(default: float, *usual: float) -> tuple[dict[str, Any], dict[str, Any]]:
        return both(tuple(sorted({*usual, default}))), both(default)

    rate = float(own["lr"]) if is_number(own["lr"]) else 1e-3
    rate = rate if rate >= RATE_OF_ITS_OWN else RATE_FACTOR * rate
    coordinates = [learning_rate(both((rate / 2, rate, 2 * rate)), both(rate))]
    if is_number(own.get("weight_decay")):
        decay = weight_decay(*around(float(own["weight_decay"]), 0, 0.01, 0.1))
        coordinates.append(replace(decay, meaning="as the class applies it; norms and embeddings are not spared"))
    betas = own.get("betas")
    if isinstance(betas, tuple) and len(betas) >= 2 and all(map(is_number, betas)):
        coordinates += [beta1(*around(float(betas[0]), 0.8, 0.9, 0.95)), beta2(*around(float(betas[1]), 0.95, 0.98))]
    elif is_number(own.get("momentum")):
        coordinates.append(
            average("momentum", "decay of the momentum", *around(float(own["momentum"]) or 0.9, 0.9, 0.95))
        )
    loop = {"lr_schedule": "cosine", "min_lr_ratio": 0, **({} if "max_grad_norm" in own else {"max_grad_norm": 1.0})}
    return SearchSpace(
        optimizer=name,
        coordinates=(*coordinates, train_batch_size(), warmup()),
        fixed=both(loop),
        source=f"the defaults of {word}",
        grid_source="around the defaults of its signature; nobody has tuned them here",
    )


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
    except (InputError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a user's code may raise anything
        plain = space.optimizer.partition("@")[0]
        raise InputError(f"{plain} cannot be built from the start of its search space: {in_words(error)}") from error
