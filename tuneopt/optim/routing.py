"""Which parameter goes to which rule: ordered patterns over full parameter names, the first match wins.

Embeddings, the output head, norms, biases and other vectors go to the ``fallback`` rule of an optimizer, every other
matrix to its ``main`` rule. Weight decay acts on matrices and the head, not on norms, vectors and embeddings
(arXiv 2509.02046; the weight-decay mask that the study ran).

In a model that a user brings, names say little. There each parameter gets a role first, and with it the rule that takes
such parameters. Embedding and head are the tensors whose shape follows the vocabulary, a fact that was measured
(`tuneopt.training.own_model`); norms, biases and tables of positions are told by their modules and shapes; what is left
with two dimensions is a matrix. A user's own patterns come before all of that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, TypeAlias, cast

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tuneopt.spec import InputError, OwnModel, nearest

Parameters: TypeAlias = (
    nn.Module | Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]] | Mapping[str, Tensor]
)
"""A model, its ``named_parameters()``, plain tensors (scalar family only), or param groups of any of these."""

MAIN = "main"
FALLBACK = "fallback"

WRAPPERS = re.compile(
    r"(^|(?<=\.))(module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|base_layer|original_module|"
    r"modules_to_save\.\w+)\.|^((base_)?model\.)+"
)
"""What DDP, torch.compile, FSDP, activation checkpointing and PEFT add to names, and what models are called in others.

A rule sees names with and without it, so that a head stays a head however it is wrapped.
"""


@dataclass(frozen=True, slots=True)
class RouteRule:
    """One line of a routing table; every condition that is given must hold.

    ``pattern`` is searched in the full parameter name, and in it without `WRAPPERS` (case ignored), ``module`` in the
    class name of the module that owns the parameter (known when the optimizer is built from a model). ``min_ndim`` and
    ``max_ndim`` bound the number of dimensions. ``rule`` is ``main``, ``fallback`` or the name of one of the
    optimizer's rules. ``pieces`` declares a fused weight, such as query, key and value in one matrix, as that many
    equal logical matrices, cut along the output features.
    """

    pattern: str
    rule: str
    decay: bool
    reason: str
    module: str = ""
    min_ndim: int = 0
    max_ndim: int = 99
    pieces: int = 1

    def matches(self, name: str, shape: tuple[int, ...], module: str) -> bool:
        """Whether the rule takes this parameter."""
        return (
            self.min_ndim <= len(shape) <= self.max_ndim
            and any(re.search(self.pattern, form, re.IGNORECASE) for form in (name, unwrapped(name)))
            and (not self.module or re.search(self.module, module) is not None)
        )


DEFAULT_RULES: tuple[RouteRule, ...] = (
    RouteRule(r"(^|[._])bias$", FALLBACK, False, "bias"),
    RouteRule(r"(^|[._])(\w*norm\d*|ln(_?\w+)?)\.[^.]+$", FALLBACK, False, "norm"),
    RouteRule("", FALLBACK, False, "norm", module=r"Norm"),
    RouteRule("", FALLBACK, False, "vector", max_ndim=1),
    RouteRule(r"(^|\.)(lm_head|embed_out|unembed)\.weight$", FALLBACK, True, "output head"),
    RouteRule(r"^(\w+\.)?(head|output|score|classifier)\.weight$", FALLBACK, True, "output head"),
    RouteRule(r"(^|[._])(\w*embed\w*|wte|wpe|(tok|pos)\w*_emb)(\.[^.]+)?$", FALLBACK, False, "embedding"),
    RouteRule("", FALLBACK, False, "embedding", module=r"Embedding"),
    RouteRule("", FALLBACK, True, "more than two dimensions", min_ndim=3),
    RouteRule("", MAIN, True, "matrix"),
)
"""Names of Llama, GPT-2, GPT-NeoX and kin. Own rules go in front: ``rules=(RouteRule(...), *DEFAULT_RULES)``."""

QUERY = re.compile(r"^(w?q|query)(_?proj)?$")
HEADS_OUT = re.compile(r"^(w?[qkv]|query|key|value)(_?proj)?$")
HEADS_IN = re.compile(r"^(w?o|out|output)(_?proj)?$")
"""Names of query projections, of those whose heads are rows, and of those whose heads are columns, within a module."""

TABLES = ("output head", "head", "embedding")
"""Reasons of what follows the vocabulary; ``head`` is the word of `ROLES`."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where one parameter went, and why. ``rule`` names the update rule, or ``frozen`` for what is not trained."""

    parameter: str
    shape: tuple[int, ...]
    rule: str
    decay: bool
    reason: str
    pieces: int = 1
    transposed: bool = False
    """Stored as (in, out) instead of torch's (out, in), as transformers' Conv1D does."""
    by_input: bool = False
    """Whether its logical matrices are cut along the input features, as the heads of an output projection lie."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; ``by_input`` only where it is so."""
        plain = {**asdict(self), "shape": list(self.shape)}
        return plain if self.by_input else {name: value for name, value in plain.items() if name != "by_input"}


class Kind(NamedTuple):
    """What the parameters of one group have in common: where they were given, and their route."""

    origin: int
    """Number of the given group, which a user's settings come with."""
    rule: str
    decay: bool
    pieces: int
    transposed: bool
    by_input: bool = False


class Frozen(NamedTuple):
    """A parameter that waits to be trained: its place among the routes, and the group that it was given in."""

    place: int
    origin: int
    name: str
    parameter: Tensor
    given: dict[str, Any]


def kind_of(origin: int, entry: Route) -> Kind:
    """The kind of a parameter with this route, given in the group of this number."""
    return Kind(origin, entry.rule, entry.decay, entry.pieces, entry.transposed, entry.by_input)


def with_tables(rules: Iterable[RouteRule]) -> tuple[RouteRule, ...]:
    """The same rules, but embedding and output head go to the main rule where they are matrices."""
    own: list[RouteRule] = []
    for rule in rules:
        if rule.rule == FALLBACK and rule.reason in TABLES:
            own.append(replace(rule, rule=MAIN, min_ndim=2, max_ndim=2))
        own.append(rule)
    return tuple(own)


def head_widths(model: Parameters) -> dict[str, tuple[int, bool]]:
    """The width of a head and whether heads lie along the inputs, for each projection of attention, by parameter name.

    Attention modules are those with a query projection that say their ``head_dim``, as ours and transformers' do.
    Raises `InputError` where there is none.
    """
    found: dict[str, tuple[int, bool]] = {}
    for prefix, module in model.named_modules() if isinstance(model, nn.Module) else ():
        width, children = getattr(module, "head_dim", None), dict(module.named_children())
        if isinstance(width, int) and any(QUERY.search(child) for child in children):
            for child in children:
                if HEADS_OUT.search(child) or HEADS_IN.search(child):
                    name = ".".join(filter(None, (prefix, child, "weight")))
                    found[name] = width, HEADS_IN.search(child) is not None
    if not found:
        raise InputError(
            "split_heads needs a model whose attention modules say their head_dim, and found none; pass the model"
        )
    return found


def by_head(route: Route, widths: Mapping[str, tuple[int, bool]]) -> Route:
    """The route of a projection of attention as one logical matrix for each head; any other, and a fused one, as it is.

    Raises `InputError` for a projection that does not divide into heads.
    """
    width, by_input = widths.get(route.parameter, (0, False))
    if not width or route.pieces > 1 or len(route.shape) != 2:
        return route
    features = route.shape[int(by_input != route.transposed)]
    if features % width:
        raise InputError(f"{route.parameter!r} of shape {route.shape} cannot be cut into heads of width {width}")
    return replace(route, pieces=features // width, by_input=by_input)


def unwrapped(name: str) -> str:
    """A parameter's name without what wrappers add to it, however many there are."""
    bare = WRAPPERS.sub("", name)
    return bare if bare == name else unwrapped(bare)


def owners(model: nn.Module) -> dict[str, str]:
    """Parameter name to the class name of the module that owns it."""
    return {
        f"{prefix}.{name}" if prefix else name: type(module).__name__
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }


def route(
    named_parameters: Iterable[tuple[str, Tensor]],
    rules: Sequence[RouteRule] = DEFAULT_RULES,
    aliases: Mapping[str, str] | None = None,
    modules: Mapping[str, str] | None = None,
) -> tuple[Route, ...]:
    """Route every parameter; ``aliases`` turns ``main`` and ``fallback`` into names of update rules.

    A matrix with a side of length 1 is a vector in disguise and never goes to the main rule. Raises `InputError` for
    a parameter that no rule takes, and for a fused weight that does not divide into its pieces.
    """
    aliases, modules = aliases or {}, modules or {}
    table = []
    for name, parameter in named_parameters:
        shape, module = tuple(parameter.shape), modules.get(name, "")
        if not parameter.requires_grad:
            table.append(Route(name, shape, "frozen", False, "requires no gradient"))
            continue
        found = next((rule for rule in rules if rule.matches(name, shape, module)), None)
        if found is None:
            raise InputError(f"no routing rule takes parameter {name!r}; end your rules with *DEFAULT_RULES")
        if found.rule == MAIN and len(shape) == 2 and min(shape) < 2:
            found = RouteRule("", FALLBACK, False, "vector")
        transposed = module == "Conv1D" and len(shape) == 2
        if shape and shape[1 if transposed else 0] % found.pieces:
            raise InputError(f"{name!r} of shape {shape} cannot be cut into {found.pieces} logical matrices")
        rule = aliases.get(found.rule, found.rule)
        table.append(Route(name, shape, rule, found.decay, found.reason, found.pieces, transposed))
    return tuple(table)


def as_groups(params: Parameters) -> list[dict[str, Any]]:
    """What a constructor may be given, as param groups."""
    if isinstance(params, nn.Module):
        return [{"params": list(params.named_parameters())}]
    if isinstance(params, Tensor):
        raise InputError("pass an iterable of parameters, not one tensor")
    entries = list(params.items() if isinstance(params, Mapping) else params)
    if entries and isinstance(entries[0], dict):
        return [
            {**group, "params": list(group["params"].named_parameters())}
            if isinstance(group["params"], nn.Module)
            else dict(group)
            for group in cast(list[dict[str, Any]], entries)
        ]
    return [{"params": entries}]


def named_tensors(params: Any, names: Sequence[str] | None, start: int, by_name: str) -> list[tuple[str, Tensor]]:
    """The parameters of one group as (name, tensor) pairs; tensors without names are numbered from ``start``.

    ``by_name`` is the class that needs real names, or empty. Raises `InputError` where those are missing, for what is
    no tensor, for complex ones and those of lazy modules, and for one that is given twice.
    """
    entries: list[Any] = [params] if isinstance(params, Tensor) else list(params)
    if names is not None:
        entries = list(zip(names, entries, strict=True))
    if entries and isinstance(entries[0], Tensor):
        if by_name:
            raise InputError(
                f"{by_name} routes parameters by name; pass the model, model.named_parameters() or groups with a 'rule'"
            )
        entries = [(f"parameter.{start + i}", parameter) for i, parameter in enumerate(entries)]
    given: set[Tensor] = set()
    for entry in entries:
        if not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], Tensor)):
            raise InputError(f"expected (name, tensor) pairs or tensors to optimize, not {entry!r}")
        if is_lazy(entry[1]):
            raise InputError(
                f"{entry[0]} has no shape yet; run a batch through the model first, then build its optimizer"
            )
        if entry[1].is_complex():
            raise InputError(f"{entry[0]} is complex; pass torch.view_as_real of it")
        if entry[1] in given:  # torch warns, and moves it twice in each step
            raise InputError(f"{entry[0]} is a tensor that was given before; give tied weights once")
        given.add(entry[1])
    return entries


def route_table(routes: Iterable[Route]) -> str:
    """The routes as aligned text, one line per parameter under a header."""
    rows = [("parameter", "shape", "rule", "decay", "reason")]
    for entry in routes:
        rule = entry.rule if entry.pieces == 1 else f"{entry.rule} (as {entry.pieces} matrices)"
        shape = "x".join(map(str, entry.shape)) or "scalar"
        rows.append((entry.parameter, shape, rule, "yes" if entry.decay else "no", entry.reason))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


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
