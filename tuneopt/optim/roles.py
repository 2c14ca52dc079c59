"""Roles of parameters in a model that a user brings: what each one is, and so which rule of an optimizer takes it.

Names say little in a model that nobody here has seen. Its embedding and head are the tensors whose shape follows the
vocabulary, a fact that was measured (`tuneopt.training.own_model`); norms, biases and tables of positions are told by
their modules and shapes; what is left with two dimensions is a matrix. A user's own patterns come before all of that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from tuneopt.optim.routing import DEFAULT_RULES, RouteRule, owners, route
from tuneopt.spec import InputError, OwnModel, nearest

ROLES: Mapping[str, str] = {
    "embedding": "embedding",
    "head": "output head",
    "vector": "vector",
    "matrix": "matrix",
    "tensor": "more than two dimensions",
}
"""Each role, and the reason by which the routing rules of an optimizer name it."""

_KINDS = {"bias": "vector", "norm": "vector", "vector": "vector", "embedding": "embedding"}
"""What a name, a module or a shape shows for certain. A matrix that is called head or score may be anything."""


@dataclass(frozen=True, slots=True)
class ParameterRole:
    """What a parameter is, in the words of `ROLES`, in how many logical matrices, and why."""

    kind: str
    pieces: int
    reason: str


def read_role(word: str) -> tuple[str, int]:
    """A role and its pieces: ``vector``, or ``matrix*3`` for query, key and value in one weight."""
    kind, _, pieces = word.partition("*")
    if kind not in ROLES:
        raise InputError(f"unknown role {kind!r} of a parameter; {nearest(kind, ROLES)}")
    if pieces and (kind != "matrix" or not pieces.isdigit() or not 1 <= int(pieces) <= 64):
        raise InputError(f"{word!r} is no role; a fused weight is matrix*3, with as many pieces as it holds")
    return kind, int(pieces or 1)


def roles_of(
    model: nn.Module, tables: Mapping[str, str], routing: Sequence[tuple[str, str]]
) -> dict[str, ParameterRole]:
    """The role of each trained parameter, by name. A tied head is the embedding, under whose name it is listed.

    ``tables`` names what follows the vocabulary; ``routing`` are patterns, searched in the names, and roles: the first
    that fits decides. Raises `InputError` for a pattern that is none, that fits nothing, or that makes a matrix of an
    embedding, a head, or what has not two dimensions.
    """
    patterns = []
    for pattern, word in routing:
        try:
            patterns.append((re.compile(pattern), pattern, *read_role(word)))
        except re.error as error:
            raise InputError(f"{pattern!r} is no pattern of parameter names ({error})") from None
    modules = owners(model)
    roles: dict[str, ParameterRole] = {}
    used: set[str] = set()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        found = next((entry for entry in patterns if entry[0].search(name)), None)
        if found is None:
            roles[name] = _seen(name, parameter, modules.get(name, ""), tables)
            continue
        _, pattern, kind, pieces = found
        used.add(pattern)
        if kind == "matrix" and (name in tables or parameter.ndim != 2):
            what = (
                f"follows the vocabulary ({tables[name]})" if name in tables else f"has shape {tuple(parameter.shape)}"
            )
            raise InputError(f"{name} {what} and is no matrix for an update rule; change the pattern {pattern!r}")
        roles[name] = ParameterRole(kind, pieces, f"as {pattern!r} says")
    for _, pattern, _, _ in patterns:
        if pattern not in used:
            raise InputError(f"no trained parameter fits the pattern {pattern!r}; {nearest(pattern, roles)}")
    return roles


def model_roles(model: nn.Module, scale: OwnModel) -> dict[str, ParameterRole]:
    """`roles_of` a model that ``scale`` has described."""
    return roles_of(model, dict(scale.tables), scale.routing)


def _seen(name: str, parameter: Tensor, module: str, tables: Mapping[str, str]) -> ParameterRole:
    if name in tables:
        return ParameterRole(tables[name], 1, "its shape follows the vocabulary")
    if parameter.ndim < 2 or min(parameter.shape) < 2:
        return ParameterRole("vector", 1, "shape")
    (entry,) = route([(name, parameter)], DEFAULT_RULES, modules={name: module})
    if entry.reason in _KINDS:
        return ParameterRole(
            _KINDS[entry.reason], 1, f"module {module}" if entry.reason == "norm" else "name or module"
        )
    return ParameterRole("matrix" if parameter.ndim == 2 else "tensor", 1, "shape")


def role_rules(own: Iterable[RouteRule], roles: Mapping[str, ParameterRole]) -> tuple[RouteRule, ...]:
    """Routing rules that send each parameter where an optimizer, whose routing rules are ``own``, sends its role."""
    by_reason = {rule.reason: rule for rule in (*reversed(DEFAULT_RULES), *reversed(tuple(own)))}
    rules = []
    for name, role in roles.items():
        like = by_reason[ROLES[role.kind]]
        pattern = f"^{re.escape(name)}$"
        rules.append(RouteRule(pattern, like.rule, like.decay, role.kind, pieces=role.pieces))
    return tuple(rules)
