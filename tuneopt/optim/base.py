"""The common base of all optimizers: param groups, routing, state, and the loop of a step.

A subclass names its update rules (main first, fallback last) and declares its hyperparameters in the signature of its
constructor (`tuneopt.optim.hyperparameters`). It is a `torch.optim.Optimizer`: param groups, schedulers, hooks,
closures, `state_dict`. A step goes from here to the buckets of equal parameters (`tuneopt.optim.bucket`), from there to
the rule of each bucket, and from the rule to its update function.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tuneopt.optim import routing
from tuneopt.optim.bucket import Batch, ParameterBucket, build_buckets, norm_divisors, state_elements
from tuneopt.optim.hyperparameters import Bounds, OneOf, Only, Replaces, ScalesRate, Settings, checked, declared
from tuneopt.optim.routing import DEFAULT_RULES, FALLBACK, MAIN, Frozen, Kind, Route, RouteRule, kind_of, route
from tuneopt.optim.routing import Parameters as Parameters
from tuneopt.optim.rule import MatrixRule, Rule, state_dtype, without_autocast
from tuneopt.spec import InputError, Value, nearest


class Optimizer(torch.optim.Optimizer):
    """Base class; see `tuneopt.optim.AdamW` and `tuneopt.optim.Muon` for what a subclass adds.

    Every group carries the complete settings of its rule and ``param_names``. Parameters whose gradient is None are
    skipped: they keep their value, state and step number. Those that require no gradient are in no group until they
    do. State is fp32 for fp32 and bf16 parameters. A step makes no host synchronisation, and may leave ``p.grad``
    clipped, as torch's own clipping does.
    """

    source: ClassVar[str] = ""
    """Where the rule comes from (paper, section), for `tuneopt optimizers`."""
    rules: ClassVar[tuple[Rule, ...]]
    """Update rules; the first is ``main`` in routing rules, the last ``fallback``."""
    routing_rules: ClassVar[tuple[RouteRule, ...]] = DEFAULT_RULES
    bounds: ClassVar[Mapping[str, Bounds | OneOf]] = {}
    """Where settings may lie: those that annotations of the constructor declare, and those that a class writes here."""
    declared: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """What the constructor's annotations say of each argument; read from the signature."""
    fixed: ClassVar[Mapping[str, Value]] = {}
    """Hyperparameters of published configurations that have one value here."""
    model_facts: ClassVar[tuple[str, ...]] = ()
    """Arguments that describe the model and are no hyperparameters, in the words of `tuneopt.spec.Scale.facts`; whoever
    knows the model should pass them, as the training loop does."""
    run_facts: ClassVar[tuple[str, ...]] = ()
    """Likewise of the run: ``steps``, how many there will be."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        marks = declared(cls)
        limits = {name: m for name, found in marks.items() for m in found if isinstance(m, Bounds | OneOf)}
        inherited = next((base.bounds for base in cls.__mro__[1:] if issubclass(base, Optimizer)), {})
        cls.bounds = {**inherited, **limits, **vars(cls).get("bounds", {})}
        cls.declared = {**cls.declared, **marks}

    def __init__(self, params: Parameters, settings: Settings, rules: Sequence[RouteRule] | None = None) -> None:
        self._begin(params, self.routing_rules if rules is None else rules, settings)
        super().__init__(routing.as_groups(params), checked(settings, self.bounds))
        if not any(group["params"] for group in self.param_groups):
            raise InputError("the optimizer got no parameter that requires a gradient")

    def _begin(self, params: Parameters, rules: Sequence[RouteRule], settings: Mapping[str, Any]) -> None:
        """What is there before any group."""
        self._route_rules = routing.with_tables(rules) if settings.get("matrices") == "all" else tuple(rules)
        self._heads = routing.head_widths(params) if settings.get("split_heads") else {}
        self._routes: list[Route] = []
        self._modules = routing.owners(params) if isinstance(params, nn.Module) else {}
        self._names: dict[Tensor, str] = {}
        self._kinds: list[Kind] = []
        """For each group, what its members have in common."""
        self._frozen: list[Frozen] = []
        """Parameters that required no gradient when they were given."""
        self._buckets: list[ParameterBucket] | None = None
        self._built: list[tuple[Settings, list[Tensor]]] = []
        """The groups, and the parameters of each, when the buckets were built."""

    @property
    def main(self) -> Rule:
        """The rule that the optimizer is named after."""
        return self.rules[0]

    @property
    def routing(self) -> tuple[Route, ...]:
        """Which parameter went to which rule, and why; frozen parameters are listed too."""
        return tuple(self._routes)

    # ---- A step: from gradients to parameters.

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step for every parameter that has a gradient; returns the closure's loss, or None without one.

        Raises `InputError` for a sparse gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # Buckets are kept from step to step, because stacked state is dear to rebuild, and checked against groups and
        # state, which belong to the user. A batch is the part of a bucket that has gradients and one step number.
        buckets = self.buckets()
        with without_autocast():
            batches = [batch for bucket in buckets for batch in bucket.batches()]
            # Before the clip: a rule whose own gradient gets clipped (MARS) puts it in the place of the given one.
            self.prepare(batches)
            # The clip is a divisor that updates apply where they read gradients anyway, to save a pass over memory.
            divisors = self.clip_divisors(batches)
            for batch, divisor in zip(batches, divisors, strict=True):
                # The rule of the bucket updates its state and gives u; then p <- p - lr (u + wd p).
                batch.bucket.advance(batch, divisor)
            self.finish(batches)
            self.settle()
        return loss

    def prepare(self, batches: list[Batch]) -> None:
        """Hook between gradients and clipping, for rules that clip something else than the gradient."""

    def clip_divisors(self, batches: list[Batch]) -> list[Tensor | None]:
        """What the gradients of each batch are divided by; sharded training takes norms over all ranks here."""
        return norm_divisors(batches)

    def finish(self, batches: list[Batch]) -> None:
        """Hook after the parameters have moved, for what a rule keeps for its next step."""

    def settle(self) -> None:
        """Take over `joint_sums` at the end of a step; sharded training adds those of all buckets and ranks first."""
        sums = self.joint_sums()
        if sums is not None:
            self.take_sums(sums)

    def joint_sums(self) -> Tensor | None:
        """Sums over all parameters that the next step needs (Prodigy), fp32, 1-dim; None where there are none."""
        return None

    def take_sums(self, sums: Tensor) -> None:
        """Take over such sums; on several ranks all of them are given the same."""

    def evaluated(self) -> Mapping[Tensor, Tensor]:
        """Weights to evaluate and keep in the place of parameters, fresh, where those are others (Schedule-Free)."""
        return {}

    @property
    def evaluates_others(self) -> bool:
        """Whether `evaluated` weights are others than those that are trained."""
        return type(self).evaluated is not Optimizer.evaluated

    @property
    def hessian_interval(self) -> int:
        """Steps between the estimates of the Hessian's diagonal that training owes to `update_hessian`; 0 for none."""
        return 0

    def update_hessian(self, diagonal: Mapping[Tensor, Tensor]) -> None:
        """Take in an estimate, by parameter, after each of these steps; most optimizers want none and ignore it."""

    def buckets(self) -> list[ParameterBucket]:
        """Parameters by how they step together, as `param_groups` and `state` are now.

        Both belong to the user, as with torch's own optimizers: a parameter that was taken out of its group is left
        alone, one that was put in the place of another is trained, state that was cleared starts anew, and a parameter
        that was frozen when it was given joins once it requires a gradient. Raises `InputError` for a shard.
        """
        self._let_thawed_join()
        if self._buckets is None or not self._are_current(self._buckets):
            by_name = {rule.name: rule for rule in self.rules}
            self._name_members()
            self._built = [(group, list(group["params"])) for group in self.param_groups]
            self._buckets = [
                bucket
                for group in self.param_groups
                for bucket in build_buckets(by_name[group["rule"]], group, self.state)
            ]
        return self._buckets

    def _are_current(self, buckets: list[ParameterBucket]) -> bool:
        """Whether buckets are those of the groups and the state as they are: by identity, which costs microseconds."""
        if len(self._built) != len(self.param_groups):
            return False
        for group, (built, members) in zip(self.param_groups, self._built, strict=True):
            own = group["params"]
            if group is not built or len(own) != len(members) or not all(map(operator.is_, own, members)):
                return False
        return all(bucket.holds(self.state) for bucket in buckets)

    # ---- Param groups: from names and shapes to rules and settings.

    def rule_settings(self, rule: str, settings: Settings) -> Settings:
        """The settings of a group under ``rule``, from those given for the optimizer or for a mixed group."""
        own = dict(settings)
        roles = {MAIN: self.rules[0].name, FALLBACK: self.rules[-1].name}
        for name, marks in self.declared.items():
            for mark in marks:
                if isinstance(mark, Only) and roles.get(mark.rule, mark.rule) != rule:
                    own[name] = type(settings[name])(0)
                elif isinstance(mark, ScalesRate) and mark.rule == rule:
                    own["lr"] = settings["lr"] * settings[name]
                elif isinstance(mark, Replaces) and roles[mark.rule] == rule and settings[name] is not None:
                    own[mark.setting] = settings[name]
        return own

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, routed by name into one group per rule and decay.

        A group that names its ``rule`` is taken as it is. Raises `InputError` for unnamed parameters where names are
        needed, for one that its rule cannot take or that is given twice, and for settings out of their bounds.
        """
        groups = len(self.param_groups)
        books = {key: self.__dict__[key].copy() for key in ("_routes", "_names", "_kinds", "_frozen")}
        try:
            self._add(param_group)
        except BaseException:  # what is refused leaves nothing
            del self.param_groups[groups:]
            self.__dict__.update(books)
            raise

    def _add(self, param_group: Mapping[str, Any]) -> None:
        given = {key: value for key, value in param_group.items() if key not in ("params", "param_names")}
        named = self._named(param_group["params"], param_group.get("param_names"), explicit="rule" in given)
        names = [rule.name for rule in self.rules]
        if "rule" in given and given["rule"] not in names:
            raise InputError(f"unknown rule {given['rule']!r}; {nearest(str(given['rule']), names)}")
        origin = 1 + max([kind.origin for kind in self._kinds] + [entry.origin for entry in self._frozen], default=-1)
        # A parameter that waits, and is given once more, belongs to the later group, and keeps its place in the routes.
        places = {entry.parameter: entry.place for entry in self._frozen}
        again = {parameter for _, parameter in named}
        self._frozen = [entry for entry in self._frozen if entry.parameter not in again]
        kinds: dict[Kind, list[tuple[str, Tensor]]] = {}
        for (name, parameter), entry in zip(named, self._route(named, given), strict=True):
            place = places.get(parameter, len(self._routes))
            if entry.rule == "frozen":
                self._frozen.append(Frozen(place, origin, name, parameter, given))
            else:
                kinds.setdefault(kind_of(origin, entry), []).append((name, parameter))
            self._routes[place : place + 1] = [entry]
        for kind, members in kinds.items():
            self._add_group(kind, members, given)

    def _route(self, named: list[tuple[str, Tensor]], given: Settings) -> tuple[Route, ...]:
        rules: Sequence[RouteRule] = self._route_rules
        if "rule" in given:
            decays = given.get("weight_decay", self.defaults["weight_decay"]) > 0
            rules = (RouteRule("", given["rule"], decays, "named by its group"),)
        table = route(named, rules, {MAIN: self.rules[0].name, FALLBACK: self.rules[-1].name}, self._modules)
        takers = {rule.name: rule.takes for rule in self.rules}
        for one in table:
            if one.rule in takers and not takers[one.rule](one.shape):
                raise InputError(f"{one.parameter!r} of shape {one.shape} is no matrix; do not give it to {one.rule}")
        return tuple(routing.by_head(entry, self._heads) if entry.rule == self.main.name else entry for entry in table)

    def _add_group(self, kind: Kind, members: list[tuple[str, Tensor]], given: Settings) -> None:
        """Add one param group with the complete settings of its rule."""
        if "rule" in given:  # such a group's own settings are final; only the defaults become the rule's
            settings = {**self.rule_settings(kind.rule, {**self.defaults}), **given}
        else:
            settings = {**self.rule_settings(kind.rule, {**self.defaults, **given}), "rule": kind.rule}
        settings["weight_decay"] = settings["weight_decay"] if kind.decay else 0.0
        if settings.get("decay_follows_lr"):
            settings["peak_lr"] = settings["lr"]
        if any(rule.reads_weights for rule in self.rules if rule.name == kind.rule):
            settings["reads_weights"] = True
        layout = {"pieces": kind.pieces, "transposed": kind.transposed, **({"by_input": True} if kind.by_input else {})}
        super().add_param_group({"params": members, **checked(settings, self.bounds), **layout})
        self._names.update({parameter: name for name, parameter in members})
        self._kinds.append(kind)

    def _named(self, params: Any, names: Sequence[str] | None, explicit: bool) -> list[tuple[str, Tensor]]:
        by_name = "" if explicit or not isinstance(self.main, MatrixRule) else type(self).__name__
        return routing.named_tensors(params, names, len(self._routes), by_name)

    def _let_thawed_join(self, names: Collection[str] | None = None) -> None:
        """Parameters that were frozen when they were given, and require a gradient now, join the group of their kind.

        Each takes the place among its members that it would have had from the start. A kind without a group gets one at
        the end, because schedulers count groups. With ``names``, parameters of other names go on waiting.
        """
        thawed = [e for e in self._frozen if e.parameter.requires_grad and (names is None or e.name in names)]
        held = {parameter for group in self.param_groups for parameter in group["params"]} if thawed else set()
        for waiting in thawed:
            place, origin, name, parameter, given = waiting
            (entry,) = self._route([(name, parameter)], given)
            kind = kind_of(origin, entry)
            if parameter not in held and kind in self._kinds:
                group = self.param_groups[self._kinds.index(kind)]
                earlier = {known.parameter for known in self._routes[:place]}
                position = sum(other in earlier for other in group["param_names"])
                group["params"].insert(position, parameter)
                group["param_names"].insert(position, name)
            elif parameter not in held:  # else its owner has put it into a group
                self._add_group(kind, [(name, parameter)], given)
            self._names[parameter] = name
            self._routes[place] = entry
            self._frozen = [other for other in self._frozen if other is not waiting]

    def _name_members(self) -> None:
        """Keep ``param_names`` in step with ``params``, which users edit.

        A known tensor keeps its name, another one has taken the place of the name at its position. Raises `InputError`
        where it does not fit there: ZeRO and its kin put flat shards in the place of parameters.
        """
        shapes = {entry.parameter: entry.shape for entry in self._routes}
        for group in self.param_groups:
            params, names = group["params"], group["param_names"]
            for position, parameter in enumerate(params):
                if parameter not in self._names and len(names) == len(params):
                    self._names = {**self._names, parameter: names[position]}
                name = self._names.get(parameter, next(iter(names), "a parameter"))
                shape, own = shapes.get(name, ()), tuple(parameter.shape)
                # The first dimension may have grown or shrunk, as that of an embedding with its vocabulary.
                if parameter not in self._names or len(own) != len(shape) or own[1:] != shape[1:]:
                    raise InputError(
                        f"{type(self).__name__} works on whole tensors and was handed a shard: {name} of shape {shape} "
                        f"became {own}; do not hand this optimizer to a ZeRO engine, train with tuneopt.training.zero, "
                        "which computes updates from whole tensors; add parameters with add_param_group"
                    )
            group["param_names"] = [self._names[parameter] for parameter in params]

    # ---- State: saving, loading, counting.

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a `state_dict`, bit for bit; fp32 state stays fp32 under low-precision parameters.

        Hooks see it as torch's own optimizers show it, and what a pre-hook returns is what is loaded.
        """
        final: dict[str, Any] = {}

        def restore(_: torch.optim.Optimizer) -> None:
            # torch casts state to the dtype of its parameter; the saved tensors still have their own.
            order = [p for group in self.param_groups for p in group["params"]]
            saved_order = [i for group in final["param_groups"] for i in group["params"]]
            for index, parameter in zip(saved_order, order, strict=True):
                for key, value in final["state"].get(index, {}).items():
                    if key == "step":
                        self.state[parameter][key] = int(value)
                    elif isinstance(value, Tensor):
                        # Where it is: buckets copy it to its device, which may not have room for two copies of state.
                        near = value.device == parameter.device
                        self.state[parameter][key] = value.to(state_dtype(parameter), copy=near)

        def take(_: torch.optim.Optimizer, state: dict[str, Any]) -> None:
            final.update(state)
            known = [rule.name for rule in self.rules]
            others = {group.get("rule") for group in final["param_groups"]}.difference(known)
            if others:
                raise InputError(f"the state_dict is of another optimizer: its rule is {others.pop()}, not {known[0]}")
            self._take_order(final["param_groups"])

        # The last before the load sees what all others made of it; the first after it comes before theirs.
        keep = self.register_load_state_dict_pre_hook(take)
        again = self.register_load_state_dict_post_hook(restore, prepend=True)
        try:
            super().load_state_dict(state_dict)
        finally:
            keep.remove()
            again.remove()
        self._buckets = None
        if any(p.device.type != "cpu" for group in self.param_groups for p in group["params"]):
            self.buckets()  # state is on its device when this returns

    def _take_order(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Bring groups and their members into the order of saved ones, where names tell it: torch loads by position.

        A kind that thawed has the last group where it was saved, and another one in an optimizer that is built now.
        """
        names = [list(group.get("param_names", ())) for group in saved]
        place = {name: i for i, name in enumerate(name for members in names for name in members)}
        self._let_thawed_join(place)
        own = [[self._names.get(parameter, "") for parameter in group["params"]] for group in self.param_groups]
        theirs, mine = list(map(frozenset, names)), list(map(frozenset, own))
        if own != names and set(mine) == set(theirs) and len(own) == len(self._kinds):
            for group in self.param_groups:
                group["params"].sort(key=lambda parameter: place[self._names.get(parameter, "")])
            turned = sorted(range(len(own)), key=lambda i: theirs.index(mine[i]))
            self.param_groups[:] = [self.param_groups[i] for i in turned]
            self._kinds = [self._kinds[i] for i in turned]

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_route_rules", "_heads", "_routes", "_modules", "_names", "_kinds", "_frozen")
        return {**super().__getstate__(), **{key: self.__dict__[key] for key in kept}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._buckets, self._built = None, []

    def predicted_state_bytes(self) -> int:
        """Bytes of state tensors that training will hold, from shapes alone."""
        total, by_name = 0, {rule.name: rule for rule in self.rules}
        for group in self.param_groups:
            rule = by_name[group["rule"]]
            total += sum(state_elements(rule, p, group) * state_dtype(p).itemsize for p in group["params"])
        return total

    def state_bytes(self) -> int:
        """Bytes of state tensors held now; 0 before the first step."""
        held = (v for entry in self.state.values() for v in entry.values() if isinstance(v, Tensor))
        return sum(tensor.numel() * tensor.element_size() for tensor in held)
