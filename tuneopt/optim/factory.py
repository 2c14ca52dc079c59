"""Building an optimizer from the words of its search space."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tuneopt.optim import external
from tuneopt.optim.adapter import adapted
from tuneopt.optim.base import Optimizer
from tuneopt.optim.info import BUILT_IN
from tuneopt.spec import InputError, Value, nearest

LOOP = ("train_batch_size", "warmup", "decay", "lr_schedule", "min_lr_ratio")
"""Hyperparameters that belong to the training loop."""

RENAMED = {"learning_rate": "lr", "epsilon": "eps"}

BETAS = ("beta1", "beta2")


def create(
    name: str,
    model_or_named_parameters: nn.Module | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]],
    **hyperparameters: Value | Any,
) -> Optimizer:
    """The optimizer ``name`` with search-space hyperparameters (``learning_rate``, ``beta1``, ``epsilon``, ...).

    What is left out takes the default of the class; ``rules`` replaces the routing rules. Hyperparameters that
    published configurations carry with one value (``nesterov``, ``partition_grads_into_blocks``) are accepted and
    checked. Raises `InputError` for an unknown name or hyperparameter, naming the nearest known one, and for values
    out of their bounds.
    """
    kind = implementation(name)
    known, accepted = hyperparameter_names(kind), inspect.signature(kind).parameters
    arguments: dict[str, Any] = {}
    for word, value in hyperparameters.items():
        if word in kind.fixed:
            if value != kind.fixed[word]:
                raise InputError(f"{word} is always {kind.fixed[word]} for {name}, not {value!r}; leave it out")
        elif word in LOOP:
            raise InputError(f"{word} belongs to the training loop, not to the optimizer {name}; leave it out")
        elif word not in known and word != "rules":
            raise InputError(f"{name} has no hyperparameter {word!r}; {nearest(word, known)}")
        elif word not in BETAS or word in accepted:
            arguments[RENAMED.get(word, word)] = value
    if "betas" in accepted:
        defaults = accepted["betas"].default
        defaults = (None, None) if defaults is inspect.Parameter.empty else defaults
        arguments["betas"] = tuple(hyperparameters.get(word, defaults[i]) for i, word in enumerate(BETAS))
    for each in list(accepted.values())[1:]:
        if each.default is each.empty and (arguments.get(each.name) is None or None in _parts(arguments[each.name])):
            words = [word for word in known if RENAMED.get(word, word) == each.name] or list(BETAS)
            raise InputError(f"{name} needs {' and '.join(words)}, which its class gives no default; give a value")
    return kind(model_or_named_parameters, **arguments)


def _parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else ()


def implementation(name: str) -> type[Optimizer]:
    """The class behind a name of `info`, or behind ``Name@digest``, as trials name classes from outside tuneopt.

    A plain `torch.optim.Optimizer` class comes in an adapter (`tuneopt.optim.adapter`). Raises `InputError` for an
    unknown name, naming the nearest one, and for what is no optimizer or cannot be imported.
    """
    homes = {entry.name: entry.implementation for entry in BUILT_IN}
    if name in homes:
        module, _, attribute = homes[name].partition(":")
        kind: type[Optimizer] = getattr(importlib.import_module(module), attribute)
        return kind
    return _from_outside(name, external.load(name))


def _from_outside(name: str, found: Any) -> type[Optimizer]:
    if not (isinstance(found, type) and issubclass(found, torch.optim.Optimizer)):
        raise InputError(
            f"{name} is no torch optimizer; derive it from tuneopt.optim.Optimizer or torch.optim.Optimizer"
        )
    if not issubclass(found, Optimizer):
        kind: Any = found
        return adapted(kind)
    if not getattr(found, "rules", ()):
        raise InputError(f"{name} declares no update rules; give the class `rules`, the main one first")
    return found


def hyperparameter_names(kind: type[Optimizer]) -> tuple[str, ...]:
    """The hyperparameters of a class in search-space words, from its signature; fixed ones are not among them."""
    back = {argument: word for word, argument in RENAMED.items()}
    names: list[str] = []
    for argument in list(inspect.signature(kind).parameters)[1:]:
        names.extend(BETAS if argument == "betas" else (back.get(argument, argument),))
    return tuple(name for name in names if name != "rules")
