"""The common base of all optimizers: groups, routing, state, clipping and the step itself.

A subclass names its update rules (main first, fallback last) and says how the settings of a group follow from the
constructor's arguments. It is a `torch.optim.Optimizer`: param groups, schedulers, hooks, closures, `state_dict`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, ClassVar, TypeAlias, cast

import torch
from torch import Tensor, nn

from tuneopt.optim.clip import norm_divisors
from tuneopt.optim.pool import Batch, Pool, build_pools, logical, short_first
from tuneopt.optim.routing import DEFAULT_RULES, FALLBACK, MAIN, Route, RouteRule, owners, route
from tuneopt.optim.rule import MatrixRule, Rule, state_dtype
from tuneopt.optim.settings import Bounds, Settings, checked
from tuneopt.spec import InputError, Value, nearest

Parameters: TypeAlias = (
    nn.Module | Iterable[Tensor] | Iterable[tuple[str, Tensor]] | Iterable[dict[str, Any]] | Mapping[str, Tensor]
)
"""A model, its ``named_parameters()``, plain tensors (scalar family only), or param groups of any of these."""


class Optimizer(torch.optim.Optimizer):
    """Base class; see `tuneopt.optim.AdamW` and `tuneopt.optim.Muon` for what a subclass adds.

    Every group carries the complete settings of its rule, ``initial_lr`` and ``param_names``. Parameters whose
    gradient is None are skipped: they keep their value, state and step number. State is fp32 for fp32 and bf16
    parameters. A step makes no host synchronisation, and may leave ``p.grad`` clipped, as torch's own clipping does.
    """

    source: ClassVar[str] = ""
    """Where the rule comes from (paper, section), for `tuneopt optimizers`."""
    rules: ClassVar[tuple[Rule, ...]]
    """Update rules; the first is ``main`` in routing rules, the last ``fallback``."""
    routing_rules: ClassVar[tuple[RouteRule, ...]] = DEFAULT_RULES
    bounds: ClassVar[Mapping[str, Bounds]] = {}
    """Where the settings that are special to this optimizer may lie."""
    fixed: ClassVar[Mapping[str, Value]] = {}
    """Hyperparameters of published configurations that have one value here."""
    model_facts: ClassVar[tuple[str, ...]] = ()
    """Arguments that describe the model and are no hyperparameters, in the words of `tuneopt.spec.Scale`.

    Whoever knows the model should pass them, as the training loop does.
    """

    def __init__(self, params: Parameters, settings: Settings, rules: Sequence[RouteRule] | None = None) -> None:
        settings = checked(settings, self.bounds)
        self._route_rules = tuple(rules) if rules is not None else self.routing_rules
        self._routes: list[Route] = []
        self._modules = owners(params) if isinstance(params, nn.Module) else {}
        self._pools: list[Pool[Any]] | None = None
        super().__init__(_as_groups(params), settings)
        if not any(group["params"] for group in self.param_groups):
            raise InputError("the optimizer got no parameter that requires a gradient")

    @property
    def main(self) -> Rule:
        """The rule that the optimizer is named after."""
        return self.rules[0]

    @property
    def routing(self) -> tuple[Route, ...]:
        """Which parameter went to which rule, and why; frozen parameters are listed too."""
        return tuple(self._routes)

    def rule_settings(self, rule: str, settings: Settings) -> Settings:
        """The settings of a group under ``rule``, from those given for the optimizer or for a mixed group."""
        return settings

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, routed by name into one group per rule and decay.

        A group that names its ``rule`` is taken as it is. Raises `InputError` for unnamed parameters where names are
        needed, for complex ones, and for settings out of their bounds.
        """
        given = {key: value for key, value in param_group.items() if key not in ("params", "param_names", "initial_lr")}
        named = self._named(param_group["params"], param_group.get("param_names"), explicit="rule" in given)
        names = [rule.name for rule in self.rules]
        if "rule" in given:
            if given["rule"] not in names:
                raise InputError(f"unknown rule {given['rule']!r}; {nearest(str(given['rule']), names)}")
            decays = given.get("weight_decay", self.defaults["weight_decay"]) > 0
            rules: tuple[RouteRule, ...] = (RouteRule("", given["rule"], decays, "named by its group"),)
        else:
            rules = self._route_rules
        routes = route(named, rules, {MAIN: names[0], FALLBACK: names[-1]}, self._modules)
        buckets: dict[tuple[Any, ...], list[tuple[str, Tensor]]] = {}
        for (name, parameter), entry in zip(named, routes, strict=True):
            if entry.rule != "frozen":
                key = (entry.rule, entry.decay, entry.pieces, entry.transposed)
                buckets.setdefault(key, []).append((name, parameter))
        for (rule, decay, pieces, transposed), members in buckets.items():
            if "rule" in given:
                settings = {**self.rule_settings(rule, {**self.defaults}), **given}
            else:
                settings = {**self.rule_settings(rule, {**self.defaults, **given}), "rule": rule}
            settings["weight_decay"] = settings["weight_decay"] if decay else 0.0
            settings = checked(settings, self.bounds)
            super().add_param_group(
                {
                    "params": members,
                    **settings,
                    "pieces": pieces,
                    "transposed": transposed,
                    "initial_lr": param_group.get("initial_lr", settings["lr"]),
                }
            )
        self._routes.extend(routes)
        self._pools = None

    def _named(self, params: Any, names: Sequence[str] | None, explicit: bool) -> list[tuple[str, Tensor]]:
        entries: list[Any] = [params] if isinstance(params, Tensor) else list(params)
        if names is not None:
            entries = list(zip(names, entries, strict=True))
        if entries and isinstance(entries[0], Tensor):
            if isinstance(self.main, MatrixRule) and not explicit:
                raise InputError(
                    f"{type(self).__name__} routes parameters by name; pass the model, model.named_parameters() "
                    "or groups with a 'rule'"
                )
            start = len(self._routes)
            entries = [(f"parameter.{start + i}", parameter) for i, parameter in enumerate(entries)]
        for entry in entries:
            if not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], Tensor)):
                raise InputError(f"expected (name, tensor) pairs or tensors to optimize, not {entry!r}")
            if entry[1].is_complex():
                raise InputError(f"{entry[0]} is complex; pass torch.view_as_real of it")
        return entries

    @property
    def pools(self) -> list[Pool[Any]]:
        """Parameters by how they step together; built at the first step and after every change of groups or state."""
        if self._pools is None:
            self._refuse_shards()
            by_name = {rule.name: rule for rule in self.rules}
            self._pools = [
                pool for group in self.param_groups for pool in build_pools(by_name[group["rule"]], group, self.state)
            ]
        return self._pools

    def _refuse_shards(self) -> None:
        """Raise `InputError` where parameters were replaced since they were routed, as ZeRO and its kin do."""
        shapes = {entry.parameter: entry.shape for entry in self._routes}
        for group in self.param_groups:
            wanted = [shapes.get(name) for name in group["param_names"]]
            found = [tuple(parameter.shape) for parameter in group["params"]]
            if found != wanted:
                pairs = zip_longest(group["param_names"], wanted, found)
                name, shape, given = next(pair for pair in pairs if pair[1] != pair[2])
                raise InputError(
                    f"{type(self).__name__} works on whole tensors and was handed a shard: {name} of shape {shape} "
                    f"became {given}; do not hand this optimizer to a ZeRO engine, train with tuneopt.train.zero, "
                    "which computes directions from whole tensors"
                )

    @property
    def hessian_interval(self) -> int:
        """Steps between the estimates of the Hessian's diagonal that training owes to `update_hessian`; 0 for none."""
        return 0

    def update_hessian(self, diagonal: Mapping[Tensor, Tensor]) -> None:
        """Take in an estimate, by parameter, after each of these steps; most optimizers want none and ignore it."""

    def prepare(self, batches: list[Batch]) -> None:
        """Hook between gradients and clipping, for rules that clip something else than the gradient."""

    def clip_divisors(self, batches: list[Batch]) -> list[Tensor | None]:
        """What the gradients of each batch are divided by; sharded training takes norms over all ranks here."""
        return norm_divisors(batches)

    def finish(self, batches: list[Batch]) -> None:
        """Hook after the parameters have moved, for what a rule keeps for its next step."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step for every parameter that has a gradient; returns the closure's loss, or None without one.

        Raises `InputError` for a sparse gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        batches = [batch for pool in self.pools for batch in pool.batches()]
        self.prepare(batches)
        for batch, divisor in zip(batches, self.clip_divisors(batches), strict=True):
            batch.pool.advance(batch, divisor)
        self.finish(batches)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a `state_dict`, bit for bit; fp32 state stays fp32 under low-precision parameters."""
        super().load_state_dict(state_dict)
        order = [p for group in self.param_groups for p in group["params"]]
        saved_order = [i for group in state_dict["param_groups"] for i in group["params"]]
        for index, parameter in zip(saved_order, order, strict=True):
            # torch casts state to the dtype of its parameter; the saved tensors still have their own.
            for key, value in state_dict["state"].get(index, {}).items():
                if key == "step":
                    self.state[parameter][key] = int(value)
                elif isinstance(value, Tensor):
                    self.state[parameter][key] = value.to(parameter.device, state_dtype(parameter), copy=True)
        self._pools = None

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_route_rules", "_routes", "_modules")
        return {**super().__getstate__(), **{key: self.__dict__[key] for key in kept}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._pools = None

    def predicted_state_bytes(self) -> int:
        """Bytes of state tensors that training will hold, from shapes alone."""
        total = 0
        by_name = {rule.name: rule for rule in self.rules}
        for group in self.param_groups:
            rule = by_name[group["rule"]]
            for parameter in group["params"]:
                tensors = [parameter]
                if isinstance(rule, MatrixRule):
                    tensors = [short_first(matrix) for matrix in logical(parameter, group)]
                size = torch.empty(0, dtype=state_dtype(parameter)).element_size()
                shapes = [s for t in tensors for s in rule.state_shapes(tuple(t.shape), group).values()]
                total += size * sum(torch.Size(shape).numel() for shape in shapes)
        return total

    def state_bytes(self) -> int:
        """Bytes of state tensors held now; 0 before the first step."""
        held = (v for entry in self.state.values() for v in entry.values() if isinstance(v, Tensor))
        return sum(tensor.numel() * tensor.element_size() for tensor in held)


def _as_groups(params: Parameters) -> list[dict[str, Any]]:
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
