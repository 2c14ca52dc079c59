"""The update check: the proof that a trial's named optimizer ran.

During the first steps of a trial it runs the optimizer's reference (`tuneopt.optim.reference`) in float64 on a few
watched parameters: the gradients as the optimizer gets them, averages followed independently from step 0,
hyperparameters from the trial's specification, routes from names and shapes. It compares with what the parameters
really did. Nothing of the optimizer's own is trusted: neither state nor settings, groups or routes. Only a class
without a reference is asked for its state, one whose rule leaves something open for its answer, which is tested first
(`tuneopt.optim.reference.soap_choices`), and a check without a trial for what the optimizer was built with.

Watched are, of every kind of parameter (square, tall and wide matrices, embedding, head, vectors), the first and the
last one (`tuneopt.optim.watching`). Elementwise rules follow `reference.SAMPLE` entries of each, SOAP one block of a
large matrix, the others whole matrices. At 1.2b that is at most 1 GiB, and for Muon 1 TFLOP a step in float64, for
three steps; a trial at nano-65k spends 0.02 to 0.6 s on it. Nothing is changed, and all is dropped at the end.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from tuneopt.errors import InputError
from tuneopt.optim.base import Optimizer
from tuneopt.optim.hyperparameters import in_words
from tuneopt.optim.info import BUILT_IN, entry_of
from tuneopt.optim.reference import whole
from tuneopt.optim.routing import ParameterRole, model_roles
from tuneopt.optim.watching import (
    Check,
    Follower,
    JointFollower,
    Mover,
    Watch,
    declared_routes,
    default_routes,
    generic_claims,
    references_of,
)
from tuneopt.spec import OwnModel, TrialSpec

__all__ = ["Check", "Proof", "UpdateCheck"]

MEASURED_STEPS = 3
"""Steps of each watched parameter that must be seen with a learning rate above 0."""

PATIENCE = 200
"""Steps after which a check stops waiting for more; a trial writes no checkpoint before."""

LARGE, TOO_LARGE = 2**22, 2**25
"""Elements above which one parameter of a kind is watched, not two; above which none is where the rule needs all of
it in float64 (embedding and head of the larger paper scales under Cautious and Kron)."""


@dataclass(frozen=True, slots=True)
class Proof:
    """All checks of one trial. ``status`` is passed, failed (another rule ran) or not measurable, ``reason`` why."""

    status: str
    reason: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether the named optimizer is shown to have run."""
        return self.status == "passed"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; numbers are finite or null."""
        checks = [asdict(check) for check in self.checks]
        return {"passed": self.passed, "status": self.status, "reason": self.reason, "checks": checks}


class UpdateCheck:
    """Watches the first steps of an optimizer from outside, without changing them.

    Call `before_step` and `after_step` around every ``optimizer.step()``, with gradients in place, and `see_hessian`
    with what ``update_hessian`` gets; all return at once when enough was seen. It must be built before the first step.

    A trial builds it by `of_trial`. Built from an optimizer alone, it takes what the optimizer was constructed with as
    its specification: ``defaults`` as hyperparameters, the routing table as routes. ``name`` says which built-in
    optimizer is claimed; left out, it follows from the class.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        name: str = "",
        *,
        hyperparameters: Mapping[str, Any] | None = None,
        model: nn.Module | None = None,
        rate: Callable[[int], float] | None = None,
        roles: Mapping[str, ParameterRole] | None = None,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise InputError(
                f"{type(optimizer).__name__} is no tuneopt.optim.Optimizer; build it by tuneopt.optim.create"
            )
        self._optimizer, self._rate = optimizer, rate
        group = optimizer.param_groups[0]
        self._peak = float(group.get("initial_lr", group["lr"]))
        self._references = references_of(optimizer, name)
        self._h = dict(in_words(optimizer.defaults) if hyperparameters is None else hyperparameters)
        self._parameters = self._named(model)
        if model is None or not name:
            self._routes = declared_routes(optimizer)
        else:
            width = int(self._h["head_width"]) if self._h.get("split_heads") else 0
            self._routes = default_routes(model, name, roles, self._h.get("matrices", "hidden"), width)
        self._late = any(optimizer.state.values())
        self._followers = list(self._chosen({entry.parameter: entry.shape for entry in optimizer.routing}))
        self._steps = 0
        self._clip = 1.0
        self._estimates: list[int] = []
        self._previous: dict[str, Any] = {}
        self._joint = JointFollower(self._references)
        self._without_gradient = 0
        self.complete = self._late
        """Whether nothing more will be measured."""

    @classmethod
    def of_trial(cls, spec: TrialSpec, optimizer: Optimizer, model: nn.Module) -> Self:
        """The check of a trial: everything from its specification and the model."""
        return cls(optimizer, **trial_arguments(spec, type(optimizer), model))

    def before_step(self) -> None:
        """Take one step of each watched parameter's reference."""
        if self.complete:
            return
        self._step_h = self._hyperparameters()
        self._clip = self._divisor()
        self._step_h |= self._joint.number(self._step_h)
        for watch in dict.fromkeys(follower.watch for follower in self._followers):
            parameter, gradient = self._value(watch.name), self._gradient(watch.name)
            if parameter is not None and gradient is None:
                self._without_gradient += 1
            elif parameter is not None and gradient is not None:
                for follower in self._of(watch):
                    follower.before(parameter, gradient, self._for(watch), partial(self._state, watch.name))
        self._joint.advance(self._weighed_pieces(), {**self._step_h, "clip": self._clip}, self._summed)

    def after_step(self) -> None:
        """Measure the step that was just taken."""
        if self.complete:
            return
        self._steps += 1
        for watch in dict.fromkeys(follower.watch for follower in self._followers):
            parameter = self._value(watch.name)
            if parameter is None:
                continue
            for follower in self._of(watch):
                if isinstance(follower, Mover):
                    follower.after(parameter, self._for(watch), self._state(watch.name))
                else:
                    follower.after(parameter, self._for(watch))
        seen = self._joint.seen and all(self._seen(follower) for follower in self._followers)
        done = seen or self._steps >= PATIENCE
        self.complete = self._all_say(done)

    def see_hessian(self, diagonal: Mapping[Tensor, Tensor]) -> None:
        """Take in what ``optimizer.update_hessian`` is given after the step that was just measured."""
        if self.complete:
            return
        self._estimates.append(self._steps)
        for follower in self._followers:
            parameter = self._parameters.get(follower.watch.name)
            if isinstance(follower, Follower) and parameter is not None and parameter in diagonal:
                follower.average_hessian(diagonal[parameter], self._for(follower.watch))

    def proof(self) -> Proof:
        """What has been shown so far; a rule that could not be measured is not shown."""
        self._share()
        checks = [self._count(), *self._claims(), *self._generic_claims(), *self._refreshes()]
        return judged(checks, self._obstacles())

    # What a sharded run does its own way.

    def _named(self, model: nn.Module | None) -> dict[str, Tensor]:
        """All parameters by name, as the model has them."""
        if model is not None:
            return {name: p for name, p in model.named_parameters() if p.requires_grad}
        groups = self._optimizer.param_groups
        return {name: p for group in groups for name, p in zip(group["param_names"], group["params"], strict=True)}

    def _value(self, name: str) -> Tensor | None:
        """The parameter, in its whole shape; None where it is not followed here."""
        return self._parameters[name]

    def _gradient(self, name: str) -> Tensor | None:
        """Its gradient before the step; None where there is none."""
        return self._parameters[name].grad

    def _state(self, name: str) -> Mapping[str, Any]:
        """The optimizer's state of it, for generic claims and for what a rule leaves open."""
        state: Mapping[str, Any] = self._optimizer.state.get(self._parameters[name], {})
        return state

    def _pieces(self) -> Iterator[tuple[str, Tensor]]:
        """All gradients, or the pieces of them that are here, by name."""
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                yield name, parameter.grad

    def _weighed_pieces(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Likewise with the entries of the parameters that they belong to: name, parameter, gradient."""
        return ((name, self._parameters[name], gradient) for name, gradient in self._pieces())

    def _summed(self, square: float) -> float:
        """The sum over all ranks."""
        return square

    def _all_say(self, done: bool) -> bool:
        """Whether all ranks have seen enough."""
        return done

    def _share(self) -> None:
        """Take over what other ranks have measured."""

    # The measurement.

    def _of(self, watch: Watch) -> list[Any]:
        return [follower for follower in self._followers if follower.watch == watch]

    def _seen(self, follower: Follower | Mover) -> bool:
        if isinstance(follower, Mover):
            return len(follower.moved) >= MEASURED_STEPS
        seen = len(follower.errors) + follower.undetermined if follower.errors else 0
        return seen >= MEASURED_STEPS and self._steps >= follower.reference.steps(self._h)

    def _hyperparameters(self) -> dict[str, Any]:
        """Those of this step, with the rate that the schedule gives it."""
        if self._rate is not None:
            multiple = self._rate(self._steps)
        else:
            multiple = self._optimizer.param_groups[0]["lr"] / self._peak if self._peak else 0.0
        return {**self._h, "learning_rate": self._h["learning_rate"] * multiple, "schedule": multiple}

    def _for(self, watch: Watch) -> dict[str, Any]:
        decay = self._step_h.get("weight_decay", 0.0) if watch.decays else 0.0
        return {**self._step_h, "weight_decay": decay, "decays": watch.decays, "clip": self._clip}

    def _divisor(self) -> float:
        """max(1, norm / max_grad_norm), with the joint norm of everything that the references clip, in float64."""
        limit, total = float(self._h.get("max_grad_norm", 0.0)), 0.0
        if limit == 0:
            return 1.0
        for name, gradient in self._pieces():
            reference = self._references.get(self._routes[name].rule)
            if reference is None or not reference.clipped(self._h):
                continue
            gradient = gradient.detach()
            if reference.prepare:
                # The norm needs every gradient of the step before. In bf16 a large one errs by 1e-6 in norm; so this
                # takes 2 bytes a parameter while the check lasts.
                before = self._previous.get(name, torch.zeros((), device=gradient.device)).double()
                raw, (gradient, _) = gradient, reference.prepare(gradient.double(), {"previous": before}, self._h)
                self._previous[name] = raw.to(torch.bfloat16 if raw.numel() > LARGE else torch.float32, copy=True)
            total += float(torch.linalg.vector_norm(gradient, dtype=torch.float64)) ** 2
        return max(1.0, math.sqrt(self._summed(total)) / limit)

    def _chosen(self, shapes: Mapping[str, Sequence[int]]) -> Iterator[Follower | Mover]:
        """The first and the last parameter of every kind, as far as their size allows."""
        kinds: dict[tuple[Any, ...], list[Watch]] = {}
        for watch in self._routes.values():
            kinds.setdefault((watch.rule, watch.kind, watch.decays, watch.pieces, watch.by_input), []).append(watch)
        for watches in kinds.values():
            size = math.prod(shapes[watches[0].name])
            for watch in dict.fromkeys((watches[0], watches[-1 if size <= LARGE else 0])):
                reference = self._references.get(watch.rule)
                if reference is None:
                    yield Mover(watch)
                elif size <= TOO_LARGE or reference.part is not whole:
                    yield from (Follower(watch, piece, reference) for piece in range(watch.pieces))

    # What was found.

    def _count(self) -> Check:
        main = next(iter(self._references), self._optimizer.main.name)
        count = sum(watch.rule == main for watch in self._routes.values())
        return Check(f"{main}.parameters", count > 0, float(count), ">= 1", "parameters under the optimizer's own rule")

    def _claims(self) -> Iterator[Check]:
        """The error of each rule on each kind of parameter."""
        claims: dict[str, list[Follower]] = {}
        for follower in self._followers:
            if isinstance(follower, Follower):
                claims.setdefault(f"{follower.watch.rule}.{follower.watch.kind}", []).append(follower)
        for name, followers in claims.items():
            errors = {
                (follower.watch.name, step): error for follower in followers for step, error in follower.errors.items()
            }
            bound = followers[0].bound
            failed = [where for where, error in errors.items() if not error <= bound]
            finite = [where for where, error in errors.items() if math.isfinite(error)]
            worst = max(finite, key=errors.__getitem__, default=None)
            detail = f"{len(errors)} measurements, {len(failed)} failed"
            detail += f"; worst at {worst[0]}, step {worst[1]}" if worst else ""
            expected = f"distance to the reference step, relative and beyond rounding, <= {bound:g}"
            measured = errors[worst] if worst else None
            lost = any(follower.diverged for follower in followers)
            passed = bool(errors) and not failed and not lost
            yield Check(name, passed, measured, expected, detail if errors else "not measured")

    def _generic_claims(self) -> Iterator[Check]:
        movers = [follower for follower in self._followers if isinstance(follower, Mover)]
        for rule in dict.fromkeys(mover.watch.rule for mover in movers):
            own = [mover for mover in movers if mover.watch.rule == rule]
            yield from generic_claims(rule, own)

    def _refreshes(self) -> Iterator[Check]:
        """Whether estimates of the Hessian came when they were due; nothing where none was due yet."""
        if not any(isinstance(f, Follower) and f.reference.hessian for f in self._followers):
            return
        due = [step for step in range(1, self._steps) if step % self._h["hessian_interval"] == 0]
        came = [step for step in self._estimates if step < self._steps]
        if due or came:
            expected = "steps with an estimate of the Hessian that was not due, or without one that was, 0"
            wrong = set(due) ^ set(came)
            detail = f"estimates came after steps {came}, and were due after {due}"
            yield Check(f"{next(iter(self._references))}.refresh", not wrong, float(len(wrong)), expected, detail)

    def _obstacles(self) -> list[str]:
        """Why nothing can be said about the rule, if so: no other words of a failed check would be true."""
        if self._late:
            return ["the check was built after the optimizer's first steps; build it before"]
        followers = [follower for follower in self._followers if isinstance(follower, Follower)]
        movers = [follower for follower in self._followers if isinstance(follower, Mover)]
        found = []
        for step in dict.fromkeys(step for follower in followers for step in follower.errors):
            # All of them: a single parameter that stays in place is a wrong rule.
            if all(step in follower.stuck for follower in followers if step in follower.errors):
                found.append(
                    f"the optimizer dropped gradients: in step {step} no watched parameter moved by more than its "
                    "weight decay, though every one had a gradient"
                )
                break
        if movers and all(mover.moved and not any(mover.moved) for mover in movers):
            found.append("the optimizer dropped gradients: no watched parameter moved, though every one had a gradient")
        if self._without_gradient and not any(f.errors for f in followers) and not any(m.moved for m in movers):
            found.append("no watched parameter had a gradient before the step")
        if any(follower.diverged for follower in followers):
            found.append("gradients were not finite")
        return found


def judged(checks: Sequence[Check], obstacles: Iterable[str]) -> Proof:
    """The verdict on all checks; obstacles count only where a check did not pass."""
    failed = [check for check in checks if not check.passed]
    obstacles = list(dict.fromkeys(obstacles))
    if not failed:
        return Proof("passed", "", tuple(checks))
    if obstacles:
        return Proof("not measurable", "; ".join(obstacles), tuple(checks))
    unseen = [check.name for check in failed if check.measured is None]
    if len(unseen) == len(failed):
        return Proof("not measurable", f"{', '.join(unseen)}: no step stood out from rounding", tuple(checks))
    worst = ", ".join(check.name for check in failed if check.measured is not None)
    return Proof("failed", f"parameters did not move as the named optimizer moves them: {worst}", tuple(checks))


def trial_arguments(spec: TrialSpec, kind: type[Optimizer], model: nn.Module) -> dict[str, Any]:
    """What an `UpdateCheck` needs to know about a trial: its specification, and what the class declares as defaults."""
    scale = spec.regime.scale
    parameters = inspect.signature(kind).parameters.values()
    declared = {each.name: each.default for each in parameters if each.default not in (each.empty, None)}
    facts = {"heads": scale.groups, "head_width": scale.head_width, "steps": spec.steps}
    return {
        "name": spec.optimizer if spec.optimizer in {entry.name for entry in BUILT_IN} else "",
        "hyperparameters": {**in_words(declared), **facts, **entry_of(spec.optimizer).preset, **spec.config},
        "model": model,
        "roles": model_roles(model, scale) if isinstance(scale, OwnModel) else None,
        "rate": lambda step: scheduled(step, spec.steps, spec.config),
    }


def scheduled(step: int, steps: int, config: Mapping[str, Any]) -> float:
    """The multiple of the peak rate at ``step``, counted from 0: linear warmup, then a cosine or a linear fall.

    Written once more, from the study's text (arXiv 2509.02046), so that a wrong schedule shows in the updates.
    """
    warmup, floor = float(config.get("warmup", 0)), float(config.get("min_lr_ratio", 0.0))
    warmup = round(warmup * steps) if warmup < 1 else int(warmup)
    if step < warmup:
        return step / warmup
    if config.get("lr_schedule", "cosine") == "cosine":
        left = (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup)))) / 2
    else:
        falling = min(int(float(config.get("decay", 1.0)) * steps), steps - warmup)
        left = min(1.0, (steps - step) / falling) if falling > 0 else 1.0
    return floor + (1 - floor) * left
