"""Runs a plain `torch.optim.Optimizer` subclass, or what a function makes of such, that knows nothing of tuneopt.

All parameters of a class go into one param group, weight decay acts on whatever the class lets it act on, and the proof
is the generic one: parameters move and stay finite. Which rule moved them, only a class with a `reference` can show. A
function puts parameters into groups as it likes, of one optimizer or of several: `torch.optim.Muon` for matrices, say,
and `torch.optim.AdamW` for the rest.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tuneopt.optim.base import Optimizer, Parameters
from tuneopt.optim.bucket import ParameterBucket
from tuneopt.optim.hyperparameters import COMMON, Settings
from tuneopt.optim.routing import DEFAULT_RULES, ROLES, Frozen, Kind, Route, RouteRule, as_groups, route
from tuneopt.optim.rule import Rule, Shape
from tuneopt.spec import InputError

CLIP = "max_grad_norm"

ROLE_OF = {**dict.fromkeys(("bias", "norm"), "vector"), **{reason: role for role, reason in ROLES.items()}}
"""The role of a parameter, by the reason for which the routing rules send it where they do."""


class UndeclaredRule(Rule):
    """The place of a rule that nobody declared; ``name`` is that of the class."""

    def __init__(self, name: str) -> None:
        self.name = name  # type: ignore[misc]

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """Raises `InputError`: a plain class does not say."""
        raise InputError(f"{self.name} does not declare its state; derive it from tuneopt.optim.Optimizer")


class Adapted(Optimizer):
    """A plain optimizer, ``inner``, under the interface of tuneopt's; built by classes that `adapted` makes.

    Arguments are those of the class, and ``max_grad_norm`` (0 = off), a joint clip of all gradients, where the class
    has none of its own. Groups and state are the inner optimizer's.
    """

    kind: ClassVar[Callable[..., Any]]

    def __init__(self, params: Parameters, **settings: Any) -> None:
        groups = as_groups(params)
        if len(groups) != 1:
            raise InputError(f"{self.kind.__name__} declares no rules and takes one param group, not {len(groups)}")
        # What tuneopt's own optimizers are asked for (routes, kinds, frozen parameters) is made up here, as one group
        # that everything is in; what steps is the inner optimizer alone.
        self._begin(params, (), {})
        named = self._named(groups[0]["params"], None, explicit=True)
        decays = float(settings.get("weight_decay", 0) or 0) > 0
        self._modules = {}
        self._route_rules = (RouteRule("", self.main.name, decays, "the class declares no routing: one group for all"),)
        self._routes = list(self._route(named, {}))
        self._kinds = [Kind(0, self.main.name, decays, 1, False)]
        waiting = [(i, *pair) for i, pair in enumerate(named) if not pair[1].requires_grad]
        self._frozen = [Frozen(place, 0, name, parameter, {}) for place, name, parameter in waiting]
        trained = [(name, parameter) for name, parameter in named if parameter.requires_grad]
        if not trained:
            raise InputError("the optimizer got no parameter that requires a gradient")
        self._limit = 0.0
        if CLIP not in inspect.signature(self.kind).parameters:
            self._limit = settings.pop(CLIP, 0.0)
            COMMON[CLIP].checked(CLIP, self._limit)
        self.inner = self.kind([parameter for _, parameter in trained], **settings)
        if len(self.inner.param_groups) != 1 or "lr" not in self.inner.param_groups[0]:
            raise InputError(f"{self.kind.__name__} has no learning rate 'lr' in one param group; adapt its class")
        # The words by which the rest of training reads a group: the loop sets ``lr``, the check reads names and the
        # clip.
        group = self.inner.param_groups[0]
        group |= {"rule": self.main.name, "param_names": [name for name, _ in trained]}
        group.setdefault(CLIP, self._limit)
        torch.optim.Optimizer.__init__(self, self.inner.param_groups, self.inner.defaults)
        self._share()

    def _share(self) -> None:
        # The very same objects, also after a load, which makes new ones: a schedule that sets ``lr`` here sets it
        # there.
        self.param_groups, self.state = self.inner.param_groups, self.inner.state

    def buckets(self) -> list[ParameterBucket]:
        """Raises `InputError`: sharded training needs rules, and a plain class has none."""
        raise InputError(f"{self.kind.__name__} declares no rules, so it runs unsharded only")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raises `InputError` for a second group."""
        if getattr(self, "param_groups", None):  # the first call comes from torch's own constructor
            raise InputError(f"{self.kind.__name__} declares no rules and takes one param group")
        torch.optim.Optimizer.add_param_group(self, param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Clip, then one step of the inner optimizer; returns the closure's loss, or None without one.

        Raises `InputError` where the step changes what it steps, or its learning rate, which the schedule sets.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._let_thawed_join()
        if self._limit > 0:
            members = [parameter for group in self.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(members, self._limit)
        before, name = _held(self.param_groups), self.kind.__name__
        with keeping_dtype(name):
            self._advance()
        after = _held(self.param_groups)
        if [members for members, _ in before] != [members for members, _ in after]:
            raise InputError(f"{name} changes in a step which parameters it has; all of them stay to the end")
        for (_, rate), (_, other) in zip(before, after, strict=True):
            if rate != other:
                raise InputError(
                    f"{name} changes its learning rate from {rate:g} to {other:g} in a step, and the schedule of the "
                    "trial sets it; take that out of the class"
                )
        return loss

    def _advance(self) -> None:
        self.inner.step()

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's; raises `InputError` for one that leaves out state, which a checkpoint would lose."""
        plain: dict[str, Any] = self.inner.state_dict()
        if len(plain.get("state", ())) < len(self.inner.state) or "param_groups" not in plain:
            raise InputError(
                f"{self.kind.__name__}.state_dict leaves out state, so no run could go on from a checkpoint"
            )
        return plain

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Into the inner optimizer, as it loads it."""
        self._take_order(state_dict["param_groups"])
        self.inner.load_state_dict(state_dict)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "inner": self.inner, "_limit": self._limit}


class Made(Adapted):
    """What a function of a user's own made of a model's parameters, under the interface of tuneopt's optimizers.

    The function's first argument is the model where it is called ``model``, else a list of the trained parameters as
    (name, tensor) pairs. One called ``roles`` gets what each of them is, by name: matrix, embedding, head, vector or
    tensor. The others are hyperparameters. It returns an optimizer, or a list of optimizers that step together, with
    every trained parameter in one of their groups. Raises `InputError` for anything else.
    """

    def __init__(self, params: Parameters, *, rules: Sequence[RouteRule] | None = None, **settings: Any) -> None:
        own, name = inspect.signature(self.kind).parameters, self.kind.__name__
        groups = as_groups(params)
        if len(groups) != 1 or (takes_model(self.kind) and not isinstance(params, nn.Module)):
            raise InputError(f"{name} makes the param groups by itself; pass it the model")
        self._begin(params, DEFAULT_RULES if rules is None else rules, {})
        named = self._named(groups[0]["params"], None, explicit=True)
        table = route(named, self._route_rules, modules=self._modules)
        self._limit = 0.0
        if CLIP not in own:
            self._limit = settings.pop(CLIP, 0.0)
            COMMON[CLIP].checked(CLIP, self._limit)
        trained = [(word, parameter) for word, parameter in named if parameter.requires_grad]
        given = {**settings, "roles": _roles(table)} if "roles" in own else settings
        self.inners = _optimizers(name, self.kind(params if takes_model(self.kind) else trained, **given))
        self._place(dict(trained), table)
        defaults = {word: each.default for word, each in own.items() if each.default is not each.empty}
        # One group, so that torch sets up what every optimizer has; `_share` puts the function's groups in its place.
        torch.optim.Optimizer.__init__(self, [parameter for _, parameter in trained], {**defaults, **settings})
        self._share()

    def _place(self, trained: dict[str, Tensor], table: Sequence[Route]) -> None:
        """Name the members of all groups, and note which optimizer took which; checks that each took its own."""
        name, words = self.kind.__name__, {parameter: word for word, parameter in trained.items()}
        taken: dict[str, tuple[str, bool]] = {}
        for optimizer in self.inners:
            for group in optimizer.param_groups:
                if "lr" not in group:
                    raise InputError(f"{type(optimizer).__name__} of {name} has no learning rate 'lr' in a param group")
                if any(parameter not in words for parameter in group["params"]):
                    raise InputError(f"{name} took a tensor that is no trained parameter; take those that it is given")
                group.setdefault("rule", type(optimizer).__name__)
                group.setdefault(CLIP, self._limit)
                group["param_names"] = [words[parameter] for parameter in group["params"]]
                twice = taken.keys() & set(group["param_names"])
                if twice:
                    raise InputError(f"{name} puts {min(twice)} into two param groups; put every parameter into one")
                decays = float(group.get("weight_decay", 0) or 0) > 0
                taken |= dict.fromkeys(group["param_names"], (group["rule"], decays))
        # A parameter in no group would keep the weights of its seed, and the trial would train another model.
        left = [word for word in trained if word not in taken]
        if left:
            raise InputError(f"{name} leaves out {left[0]} ({len(left)} in all); put every parameter into a group")
        self.rules = tuple(map(UndeclaredRule, dict.fromkeys(rule for rule, _ in taken.values())))  # type: ignore[misc]
        self._routes = [
            Route(entry.parameter, entry.shape, *taken[entry.parameter], f"a group of {name}")
            if entry.parameter in taken
            else entry
            for entry in table
        ]

    @property  # type: ignore[override]
    def state(self) -> dict[Tensor, Any]:
        """The state of all optimizers, each of which keeps its own."""
        return {parameter: entry for optimizer in self.inners for parameter, entry in optimizer.state.items()}

    @state.setter
    def state(self, _: Any) -> None:
        """What torch sets up for an optimizer without others inside."""

    def _share(self) -> None:
        self.param_groups = [group for optimizer in self.inners for group in optimizer.param_groups]

    def _advance(self) -> None:
        for optimizer in self.inners:
            optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """As that of one torch optimizer that has all groups."""
        # torch numbers parameters through the groups of one optimizer; the numbers of later ones are moved behind them.
        whole: dict[str, Any] = {"state": {}, "param_groups": []}
        for optimizer in self.inners:
            part, first = optimizer.state_dict(), sum(len(group["params"]) for group in whole["param_groups"])
            whole["state"] |= {first + number: entry for number, entry in part["state"].items()}
            whole["param_groups"] += [
                {**group, "params": [first + number for number in group["params"]]} for group in part["param_groups"]
            ]
        return whole

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Each optimizer's part into it, as it loads it."""
        # The numbers are left as they are: torch's load goes by the order of a group's members, whatever they are
        # called.
        groups, state = list(state_dict["param_groups"]), state_dict["state"]
        for optimizer in self.inners:
            own, groups = groups[: len(optimizer.param_groups)], groups[len(optimizer.param_groups) :]
            members = {number for group in own for number in group["params"]}
            kept = {number: entry for number, entry in state.items() if number in members}
            optimizer.load_state_dict({"state": kept, "param_groups": own})
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        return {**Optimizer.__getstate__(self), "inners": self.inners, "_limit": self._limit, "rules": self.rules}


@contextlib.contextmanager
def keeping_dtype(name: str) -> Iterator[None]:
    """Refuse code of ``name`` that changes torch's default dtype: the model would go on in another than recorded.

    It is set back, because a process trains one after the other. Raises `InputError` at the end of the block.
    """
    before = torch.get_default_dtype()
    try:
        yield
    finally:
        after = torch.get_default_dtype()
        torch.set_default_dtype(before)
    if after != before:
        raise InputError(
            f"{name} changes torch's default dtype to {after}, in which the model would train while its record says "
            f"{before}; give a dtype to single tensors instead"
        )


def _held(groups: Sequence[dict[str, Any]]) -> list[tuple[list[int], float]]:
    """The parameters of each group, by identity, and its learning rate."""
    return [([id(parameter) for parameter in group["params"]], float(group["lr"])) for group in groups]


def _roles(table: Sequence[Route]) -> dict[str, str]:
    """What each trained parameter is, by the reason for its route."""
    return {
        entry.parameter: "vector" if min(entry.shape, default=0) < 2 else ROLE_OF.get(entry.reason, entry.reason)
        for entry in table
        if entry.rule != "frozen"
    }


def _optimizers(name: str, made: Any) -> list[torch.optim.Optimizer]:
    """What a function returned, as a list of optimizers that can be used here."""
    optimizers = list(made) if isinstance(made, list | tuple) else [made]
    strange = [type(each).__name__ for each in optimizers if not isinstance(each, torch.optim.Optimizer)]
    if strange or not optimizers:
        got = f"a list with {strange[0]}" if strange and isinstance(made, list | tuple) else "".join(strange[:1])
        got = got or "an empty list"
        raise InputError(f"{name} returned {got}; return a torch optimizer, or a list of them")
    for each in optimizers:
        check_fits(type(each))
    return optimizers


def takes_model(function: Callable[..., Any]) -> bool:
    """Whether the first argument of a user's function is the model, and not its named parameters."""
    return next(iter(inspect.signature(function).parameters), "") == "model"


def check_fits(kind: type[torch.optim.Optimizer]) -> None:
    """Raise `InputError` for a class whose step needs a closure, and for a schedule-free one.

    The latter would be judged by the wrong weights.
    """
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise InputError(f"{kind.__name__}.step needs a closure, and training evaluates each batch once; use another")
    if all(callable(getattr(kind, name, None)) for name in ("train", "eval")):
        raise InputError(
            f"{kind.__name__} is schedule-free: it keeps other weights for train() than for eval(), which nobody "
            "switches here, and takes the place of a learning rate's schedule; use schedule_free, which is built in"
        )


@cache
def adapted(kind: Callable[..., Any]) -> type[Adapted]:
    """The class that runs ``kind``, a class or a function that makes optimizers, under tuneopt's interface.

    Raises `InputError` where a step needs a closure, for a schedule-free class, and for a function without arguments.
    """
    own = inspect.signature(kind)
    base: type[Adapted] = Adapted
    parameters = [each for each in own.parameters.values() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer):
        check_fits(kind)
    else:
        base = Made
        if not parameters:
            raise InputError(f"{kind.__name__} takes no argument; its first one is the model or named_parameters")
        # The signature is what hyperparameters are read from, so it names those of the function and no others.
        parameters = [each for each in parameters if each.name != "roles"]
        # What routing rules say of a model of a user's own becomes ``roles``.
        parameters.append(inspect.Parameter("rules", inspect.Parameter.KEYWORD_ONLY, default=None))
    if CLIP not in own.parameters:
        parameters.append(inspect.Parameter(CLIP, inspect.Parameter.KEYWORD_ONLY, default=0.0))
    members = {
        "kind": kind if isinstance(kind, type) else staticmethod(kind),
        "rules": (UndeclaredRule(kind.__name__),),
        "__signature__": inspect.Signature(parameters),
        "__doc__": kind.__doc__,
    }
    return type(kind.__name__, (base,), members)
