"""From names to optimizers: the class behind a name, what it says of itself, and building one from its words."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from tuneopt.optim import external
from tuneopt.optim.adapter import Adapted, adapted, keeping_dtype
from tuneopt.optim.base import Optimizer
from tuneopt.optim.hyperparameters import BETAS, WORDS
from tuneopt.optim.info import BUILT_IN, OptimizerInfo, entry_of
from tuneopt.optim.rule import MatrixRule
from tuneopt.outside import covered
from tuneopt.spec import InputError, Value, nearest

LOOP = ("train_batch_size", "warmup", "decay", "lr_schedule", "min_lr_ratio")
"""Hyperparameters that belong to the training loop."""

ARGUMENTS = {word: argument for argument, word in WORDS.items()}
"""Search-space words to constructor arguments, where they differ."""

LAYER = ((1024, 1024),) * 4 + ((4096, 1024),) * 2 + ((1024, 4096),)
"""The matrices of one transformer layer at d = 1024, f = 4096, the size that state bytes are stated for."""


def implementation(name: str) -> type[Optimizer]:
    """The class behind a name of `info`, or behind ``Name@digest``, as trials name classes from outside tuneopt.

    A plain `torch.optim.Optimizer` class comes in an adapter (`tuneopt.optim.adapter`). Raises `InputError` for an
    unknown name, naming the nearest one, and for what is no optimizer or cannot be imported.
    """
    homes = {entry.name: entry.implementation for entry in BUILT_IN}
    if name not in homes:
        with keeping_dtype(name):
            return from_outside(name, external.load(name))
    module, _, attribute = homes[name].partition(":")
    kind: type[Optimizer] = getattr(importlib.import_module(module), attribute)
    return kind


def from_outside(name: str, kind: Any) -> type[Optimizer]:
    """What an outside file or package calls ``name``, adapted where it is no class of tuneopt's own.

    That is a plain torch optimizer class, or a function that makes one or several (`tuneopt.optim.adapter.Made`).
    """
    if inspect.isfunction(kind):
        return adapted(kind)
    if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
        raise InputError(
            f"{name} is no torch optimizer; derive it from tuneopt.optim.Optimizer or torch.optim.Optimizer, or write "
            "a function that returns one"
        )
    if not issubclass(kind, Optimizer):
        return adapted(cast(Callable[..., Any], kind))
    if not getattr(kind, "rules", ()):
        raise InputError(f"{name} declares no update rules; give the class `rules`, the main one first")
    return kind


def hyperparameter_names(kind: type[Optimizer]) -> tuple[str, ...]:
    """The hyperparameters of a class in search-space words, from its signature; fixed ones are not among them."""
    names: list[str] = []
    for argument in list(inspect.signature(kind).parameters)[1:]:
        names.extend(BETAS if argument == "betas" else (WORDS.get(argument, argument),))
    return tuple(name for name in names if name != "rules")


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
    preset = entry_of(name).preset
    for word in preset:
        if hyperparameters.get(word, preset[word]) == accepted[word].default:
            raise InputError(f"{name} is named after its switch {word}, which is on; leave it out")
    hyperparameters = {**preset, **hyperparameters}
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
            arguments[ARGUMENTS.get(word, word)] = value
    if "betas" in accepted:  # one of the two alone leaves the other at its default
        defaults = accepted["betas"].default
        defaults = (None, None) if defaults is inspect.Parameter.empty else defaults
        betas = (hyperparameters.get(word, defaults[i]) for i, word in enumerate(BETAS))
        arguments["betas"] = (*betas, *defaults[len(BETAS) :])  # some classes have three
    for argument, parameter in list(accepted.items())[1:]:
        value = arguments.get(argument)
        missing = value is None or (isinstance(value, tuple) and None in value)
        if parameter.default is parameter.empty and missing:
            words = [word for word in known if ARGUMENTS.get(word, word) == argument] or list(BETAS)
            raise InputError(f"{name} needs {' and '.join(words)}, which its class gives no default; give a value")
    with covered(name), keeping_dtype(name):
        return kind(model_or_named_parameters, **arguments)


def describe(entry: OptimizerInfo) -> OptimizerInfo:
    """``entry`` completed from its class, which is imported; a built-in entry comes back as it is.

    A plain `torch.optim.Optimizer` class declares nothing, so its family and state bytes stay None. Raises `InputError`
    for a class that cannot be imported or is no optimizer.
    """
    if entry.family is not None:
        return entry
    kind = implementation(entry.name)
    if issubclass(kind, Adapted):
        return replace(entry, source=entry.origin)
    return replace(
        entry,
        family="matrix" if isinstance(kind.rules[0], MatrixRule) else "scalar",
        fallback=kind.rules[-1].name if len(kind.rules) > 1 else None,
        source=kind.source or entry.origin,
        state_bytes_per_parameter=state_bytes_per_parameter(cast(Callable[[nn.Module], Optimizer], kind)),
    )


def state_bytes_per_parameter(kind: Callable[[nn.Module], Optimizer]) -> float:
    """Bytes of fp32 state per parameter of a transformer layer's matrices under the class's defaults, from shapes."""
    matrices = nn.Module()
    with torch.device("meta"):
        for index, shape in enumerate(LAYER):
            matrices.register_parameter(f"matrix{index}", nn.Parameter(torch.empty(shape, dtype=torch.float32)))
    return kind(matrices).predicted_state_bytes() / sum(p.numel() for p in matrices.parameters())
