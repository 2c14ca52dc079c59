"""Each update rule once more, in float64, as its paper writes it: what the fast code is compared with.

A reference is two pure functions. They share nothing with the fast code: no kernels, no stacks, no state layout, and
none of its settings. The tests run them for whole trainings, and the update check of a trial (`tuneopt.optim.proof`)
runs them along with the first steps. A file holds a family (`FAMILIES`), and its ``RULES`` give by optimizer the rules
of its parameters by name.

Hyperparameters ``h`` carry the words of the search spaces (``learning_rate``, ``beta1``, ``epsilon``, ...) and:
``learning_rate`` is the rate of this step and ``schedule`` its share of the peak, ``weight_decay`` is 0 for a parameter
that does not decay, ``decays`` says whether it does, ``name`` is the parameter's name, ``piece`` the number of the
logical matrix in a fused weight, ``shape`` the shape of all of that matrix, ``clip`` what the joint norm clip divided
the gradient by, and ``joint`` the number that all parameters share, where there is one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tuneopt.optim.info import entry_of

Hyperparameters: TypeAlias = Mapping[str, Any]
State: TypeAlias = dict[str, Any]
Shape: TypeAlias = tuple[int, ...]

FAMILIES = ("scalar", "matrix", "soap", "shampoo", "kron")
"""The modules that hold the rules."""

SAMPLE = 65_536
"""Entries of a large tensor that are followed where a rule allows a part: a relative error needs no more."""


def entries(tensor: Tensor, h: Hyperparameters) -> Tensor:
    """A sample of single entries, evenly spaced, as a vector: for rules in which no entry sees another."""
    return tensor.reshape(-1)[:: max(1, tensor.numel() // SAMPLE)]


def whole(tensor: Tensor, h: Hyperparameters) -> Tensor:
    """All of it: for rules in which every entry sees every other."""
    return tensor


def all_entries(difference: Tensor, state: State) -> Tensor:
    """A difference as it is: the rule determines every entry."""
    return difference


def but_flipped_signs(difference: Tensor, state: State) -> Tensor:
    """A difference without its largest thousandth, for rules that take a sign.

    Where the sign hangs on the last bit, fp32 and float64 disagree: about one entry in ten million, whose error is
    twice the rate. Vectors of less than a thousand entries are taken whole.
    """
    flat = difference.reshape(-1)
    return flat.abs().sort().values[: flat.numel() - flat.numel() // 1000]


@dataclass(frozen=True, slots=True)
class Joint:
    """A number that all parameters of an optimizer share, and that follows from sums over all of their entries.

    It reaches `Reference.update` as ``h["joint"]``. All functions are pure.
    """

    init: Callable[[Hyperparameters], State]
    """Before the first step: the number as ``joint``, and what else is carried on."""
    terms: Callable[[Tensor, Tensor, State, Hyperparameters], tuple[State, tuple[float, ...]]]
    """From p, g (clipped) and the state {} at first, of any entries, before they step: their state after it, shaped as
    p, and their parts of the sums."""
    value: Callable[[State, Sequence[float], Hyperparameters], State]
    """What `init` gives, after a step with these sums over all entries."""
    count: int
    """How many sums there are."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One update rule in float64, and how far an fp32 step may be from it.

    ``init(shape, h)`` gives the state before the first step, ``update(p, g, state, step, h)`` the parameter and the
    state after one step; g is clipped already, ``step`` counts from 1. Neither changes what it is given.
    """

    init: Callable[[Shape, Hyperparameters], State]
    update: Callable[[Tensor, Tensor, State, int, Hyperparameters], tuple[Tensor, State]]
    bound: Callable[[Hyperparameters], float] = lambda h: 2e-5
    """Largest relative error of a step. Elementwise rules err by 3e-7 in fp32, so that this leaves room and still shows
    a missing weight decay (2e-3 of a step at the usual 0.1 x 0.02)."""
    part: Callable[[Tensor, Hyperparameters], Tensor] = whole
    """What of a parameter, its gradient and its Hessian is followed; `entries` where no entry sees another."""
    determined: Callable[[Tensor, State], Tensor] = all_entries
    """What of a difference to the rule is more than amplified rounding; the state is that before the step."""
    clipped: Callable[[Hyperparameters], bool] = lambda h: True
    """Whether the gradient is part of the joint norm that is clipped to ``max_grad_norm``."""
    prepare: Callable[[Tensor, State, Hyperparameters], tuple[Tensor, State]] | None = None
    """For rules that clip something made of the gradient: that, and the state for the next step. Elementwise."""
    hessian: Callable[[Tensor, State, Hyperparameters], State] | None = None
    """The state after an estimate of the Hessian's diagonal, due every ``hessian_interval`` steps."""
    joint: Joint | None = None
    """For rules with a number that all parameters share."""
    steps: Callable[[Hyperparameters], int] = lambda h: 3
    """Least number of steps that show all of the rule, such as the one after a refresh."""
    adopt: Callable[[State, Callable[[], Mapping[str, Any]], Hyperparameters], State] | None = None
    """For rules that leave something open, such as eigenvectors of equal eigenvalues: the state with the answer of the
    optimizer, whose own state the function gives, in as far as that answer is one that the rule allows."""


def references(optimizer: str) -> dict[str, Reference]:
    """The rules of a built-in optimizer by name, the main one first, the one of embeddings, head and vectors last."""
    name = entry_of(optimizer).reference or optimizer
    # By name and late: the families import this module.
    tables = (importlib.import_module(f"{__name__}.{family}").RULES for family in FAMILIES)
    rules: dict[str, Reference] = next(table[name] for table in tables if name in table)
    return rules


def rule_of(optimizer: str, name: str, kind: str, matrices: str = "hidden") -> str:
    """The rule of a parameter of this name and kind (see `tuneopt.optim.proof.kind_of`): matrices have the main one."""
    if optimizer == "adam_mini":  # the one whose rules go by names as well
        by_heads = name.endswith(("q_proj.weight", "k_proj.weight"))
        return "adamw" if kind == "vector" else "adam_mini_heads" if by_heads else "adam_mini"
    main = ("square", "tall", "wide", *(("embedding", "head") if matrices == "all" else ()))
    return list(references(optimizer))[0 if kind in main else -1]


def zeros(shape: Shape) -> Tensor:
    """Where averages start; float64."""
    return torch.zeros(shape, dtype=torch.float64)
