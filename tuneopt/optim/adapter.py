"""Runs a plain `torch.optim.Optimizer` subclass that knows nothing of tuneopt.

All parameters go into one param group, weight decay acts on whatever the class lets it act on, and the proof is the
generic one: parameters move and stay finite. Which rule moved them, only a class with a `reference` can show.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar

import torch

from tuneopt.optim.base import Frozen, Kind, Optimizer, Parameters, as_groups
from tuneopt.optim.bucket import ParameterBucket
from tuneopt.optim.hyperparameters import COMMON, Settings
from tuneopt.optim.routing import RouteRule
from tuneopt.optim.rule import Rule, Shape
from tuneopt.spec import InputError

CLIP = "max_grad_norm"


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

    kind: ClassVar[type[torch.optim.Optimizer]]

    def __init__(self, params: Parameters, **settings: Any) -> None:
        groups = as_groups(params)
        if len(groups) != 1:
            raise InputError(f"{self.kind.__name__} declares no rules and takes one param group, not {len(groups)}")
        self._begin(params, ())
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
        group = self.inner.param_groups[0]
        group |= {"rule": self.main.name, "param_names": [name for name, _ in trained]}
        group.setdefault(CLIP, self._limit)
        torch.optim.Optimizer.__init__(self, self.inner.param_groups, self.inner.defaults)
        self._share()

    def _share(self) -> None:
        self.param_groups, self.state = self.inner.param_groups, self.inner.state

    def buckets(self) -> list[ParameterBucket]:
        """Raises `InputError`: sharded training needs rules, and a plain class has none."""
        raise InputError(f"{self.kind.__name__} declares no rules, so it runs unsharded only")

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Raises `InputError` for a second group."""
        if getattr(self, "param_groups", None):
            raise InputError(f"{self.kind.__name__} declares no rules and takes one param group")
        torch.optim.Optimizer.add_param_group(self, param_group)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Clip, then one step of the inner optimizer; returns the closure's loss, or None without one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._let_thawed_join()
        if self._limit > 0:
            torch.nn.utils.clip_grad_norm_(self.param_groups[0]["params"], self._limit)
        self.inner.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's."""
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Into the inner optimizer, as it loads it."""
        self.inner.load_state_dict(state_dict)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "inner": self.inner, "_limit": self._limit}


@cache
def adapted(kind: Callable[..., Any]) -> type[Adapted]:
    """The class that runs ``kind`` under tuneopt's interface.

    Raises `InputError` where a step needs a closure, and for a schedule-free one, which would be judged by the wrong
    weights.
    """
    assert isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise InputError(f"{kind.__name__}.step needs a closure, and training evaluates each batch once; use another")
    if all(callable(getattr(kind, name, None)) for name in ("train", "eval")):
        raise InputError(
            f"{kind.__name__} is schedule-free: it keeps other weights for train() than for eval(), which nobody "
            "switches here, and takes the place of a learning rate's schedule; use another, such as its plain form"
        )
    own = inspect.signature(kind)
    parameters: Sequence[inspect.Parameter] = [
        each for each in own.parameters.values() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]
    if CLIP not in own.parameters:
        parameters = [*parameters, inspect.Parameter(CLIP, inspect.Parameter.KEYWORD_ONLY, default=0.0)]
    members = {
        "kind": kind,
        "rules": (UndeclaredRule(kind.__name__),),
        "__signature__": inspect.Signature(parameters),
        "__doc__": kind.__doc__,
    }
    return type(kind.__name__, (Adapted,), members)
