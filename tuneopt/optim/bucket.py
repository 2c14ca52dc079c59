"""Buckets: parameters of one group that step together, and what one step does with them.

A group is sorted by device, dtype and, under a matrix rule, by shape. A `ListBucket` hands lists of tensors to its
elementwise rule; a `StackBucket` keeps the state of equal matrices stacked, so that a step stacks gradients only, and
the optimizer's state entries are views into the stacks. `tuneopt.optim.base` runs the loop over all buckets.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import MutableMapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, cast

import torch
from torch import Tensor

from tuneopt.optim.hyperparameters import Settings
from tuneopt.optim.portions import DEVICE_PORTION
from tuneopt.optim.probes import gaussian
from tuneopt.optim.rule import ElementwiseRule, MatrixRule, Rule, Shape, state_dtype
from tuneopt.optim.switches import apply_switched, laid_out, state_shapes
from tuneopt.spec import InputError

_FORM = operator.attrgetter("shape", "dtype", "device")

State = MutableMapping[Any, dict[str, Any]]
"""The optimizer's own state: parameter to names to tensors, and ``step`` as a whole number."""


@dataclass(slots=True)
class Batch:
    """Those members of a bucket that take one step with the same step number."""

    bucket: ParameterBucket
    rows: list[int] | None
    """Positions in the bucket; None when all of them step, the usual case, which needs no copies."""
    step: int
    gradients: list[Tensor]
    """One tensor per parameter; of a stack bucket on the CPU, a single stack (n, a, b) that belongs to the batch."""

    @property
    def settings(self) -> Settings:
        """The param group, as it is now."""
        return self.bucket.group

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters that step, in the order of ``gradients`` where those are one per parameter."""
        return self.select(self.bucket.parameters)

    def select(self, members: list[Any]) -> list[Any]:
        """Of a list with one entry for each member of the bucket, those of the members that step."""
        return members if self.rows is None else [members[row] for row in self.rows]


class ParameterBucket(ABC):
    """The common part: members, their state entries, and which of them have a gradient."""

    def __init__(self, rule: Rule, group: Settings, members: list[tuple[str, Tensor]], state: State) -> None:
        self.rule, self.group = rule, group
        self.names = [name for name, _ in members]
        self.parameters = [parameter for _, parameter in members]
        self.dtype = state_dtype(self.parameters[0])
        self._forms = list(map(_FORM, self.parameters))
        # Entries are filled in place: whoever holds one (a pretended optimizer of the update check) goes on seeing it.
        self.entries = [state.setdefault(parameter, {}) for parameter in self.parameters]
        for row, entry in enumerate(self.entries):
            self._check_whole(row)
            entry["step"] = int(entry.get("step", 0))
        for name, parameter in members:
            stale = parameter.grad  # torch compares the shapes when a gradient is set, and not when data is exchanged
            if stale is not None and stale.shape != parameter.shape:
                raise InputError(
                    f"the gradient of {name} has shape {tuple(stale.shape)}, and it has {tuple(parameter.shape)}; call "
                    "zero_grad() where its data is exchanged"
                )

    def holds(self, state: State) -> bool:
        """Whether ``state`` is still what this bucket steps with; it may have been reset, replaced or loaded.

        Parameters may have been given other data (``model.double()``, a vocabulary that grew). State of another size
        under a fused kernel would be written to past its end.
        """
        # By map, not by a loop: this runs at each step, and a step of a tiny model takes 0.3 ms.
        return (
            all(map(operator.is_, map(state.get, self.parameters), self.entries))
            and all(map(operator.contains, self.entries, repeat("step")))
            and list(map(_FORM, self.parameters)) == self._forms
        )

    def batches(self) -> list[Batch]:
        """What steps now; parameters without a gradient are left out and keep their state and step number.

        Raises `InputError` for a sparse gradient, which no rule here can use.
        """
        rows_at: dict[int, list[int]] = {}  # by the number of the step that they take; usually one for all
        for row, (parameter, entry) in enumerate(zip(self.parameters, self.entries, strict=True)):
            if parameter.grad is None:
                continue
            if parameter.grad.is_sparse:
                raise InputError(f"{self.names[row]} has a sparse gradient; build its embedding with sparse=False")
            # Step numbers belong to parameters, because bias corrections do: one that joins late starts at 1.
            rows_at.setdefault(int(entry["step"]) + 1, []).append(row)
        return [
            Batch(self, None if len(rows) == len(self.parameters) else rows, step, self._gather(rows))
            for step, rows in rows_at.items()
        ]

    def advance(self, batch: Batch, divisor: Tensor | None) -> None:
        """Take the step of ``batch``; its gradients are divided by ``divisor`` first."""
        for entry in batch.select(self.entries):
            entry["step"] = batch.step
        self._move(batch, divisor)

    def _check_whole(self, row: int) -> None:
        """Moments follow from all steps that are counted: one alone must not go on from zero, nor with another count.

        Without any tensor a state starts anew. Raises `InputError` where some are there and some are not.
        """
        entry, keys = self.entries[row], list(self._shapes(row))
        lacking = next((key for key in (*keys, "step") if key not in entry), None)
        if keys and entry.keys().isdisjoint(keys):
            entry["step"] = 0
        elif keys and lacking is not None:
            raise InputError(
                f"the state of {self.names[row]} lacks {lacking!r}; put it back, or let all of it start anew with "
                "optimizer.state.pop(parameter)"
            )

    def _saved(self, row: int, key: str, shape: Shape) -> Tensor | None:
        """What the state entry of a member holds already, from a checkpoint or an earlier bucket."""
        saved: Tensor | None = self.entries[row].get(key)
        if saved is not None and tuple(saved.shape) != shape:
            raise InputError(
                f"the state {key!r} of {self.names[row]} has shape {tuple(saved.shape)}, not {shape}; give it state of "
                "its own shape, or let it start anew with optimizer.state.pop(parameter)"
            )
        return saved

    @abstractmethod
    def _shapes(self, row: int) -> dict[str, Shape]:
        """The state tensors of a member, or of each of its logical matrices."""

    @abstractmethod
    def _gather(self, rows: list[int]) -> list[Tensor]: ...

    @abstractmethod
    def _move(self, batch: Batch, divisor: Tensor | None) -> None: ...


class ListBucket(ParameterBucket):
    """Tensors of any shape under an elementwise rule."""

    rule: ElementwiseRule

    def __init__(self, rule: Rule, group: Settings, members: list[tuple[str, Tensor]], state: State) -> None:
        super().__init__(rule, group, members, state)
        self.keys: tuple[str, ...] = ()
        for row, (parameter, entry) in enumerate(zip(self.parameters, self.entries, strict=True)):
            shapes = self._shapes(row)
            self.keys = tuple(shapes)
            for key, shape in shapes.items():
                saved = self._saved(row, key, shape)
                if saved is None:  # 0 is where every rule's state begins
                    entry[key] = torch.zeros(shape, dtype=self.dtype, device=parameter.device)
                else:
                    entry[key] = saved.to(parameter.device, self.dtype).contiguous()
        self._tensors = [entry[key] for entry in self.entries for key in self.keys]

    def _shapes(self, row: int) -> dict[str, Shape]:
        return self.rule.state_shapes(tuple(self.parameters[row].shape), self.group)

    def holds(self, state: State) -> bool:
        """As the base says; a tensor that was put into an entry may have another shape, order or dtype."""
        return super().holds(state) and all(
            map(operator.is_, [entry.get(key) for entry in self.entries for key in self.keys], self._tensors)
        )

    def _gather(self, rows: list[int]) -> list[Tensor]:
        return [cast(Tensor, self.parameters[row].grad) for row in rows]

    def _move(self, batch: Batch, divisor: Tensor | None) -> None:
        parameters, entries = batch.parameters, batch.select(self.entries)
        state = {key: [entry[key] for entry in entries] for key in self.keys}
        if self.rule.draws(self.group, batch.step):
            words = (self.group["probe_seed"], batch.step)
            state["probe"] = [
                gaussian(torch.empty(p.shape, dtype=self.dtype, device=p.device), *words, name)
                for p, name in zip(parameters, batch.select(self.names), strict=True)
            ]
        # Fused kernels and portions go through memory and not through strides, and state is fp32: a parameter that is
        # transposed, channels-last or of low precision steps as a contiguous copy, which is then written back.
        own, gradients = self._plain(parameters), self._plain(batch.gradients)
        self.rule.advance(own, gradients, state, self.group, batch.step, divisor)
        if own is not parameters:
            torch._foreach_copy_(parameters, own)

    def _plain(self, tensors: list[Tensor]) -> list[Tensor]:
        """The tensors themselves where a kernel can take them all, else with copies in the place of some."""
        if tensors[0].dtype == self.dtype and all(map(Tensor.is_contiguous, tensors)):
            return tensors
        return [tensor.to(self.dtype).contiguous() for tensor in tensors]


class StackBucket(ParameterBucket):
    """Logical matrices of one shape under a matrix rule, stacked as (n, a, b): `laid_out`, short side first."""

    rule: MatrixRule

    def __init__(self, rule: Rule, group: Settings, members: list[tuple[str, Tensor]], state: State) -> None:
        super().__init__(rule, group, members, state)
        # State is kept as stacks (members, pieces, ...), and each member's entry is a view of its row: rules run over
        # all matrices at once, while a checkpoint and torch's own functions find state by parameter, as everywhere.
        first, count, self.pieces = self.parameters[0], len(self.parameters), int(group["pieces"])
        self.stacks: dict[str, Tensor] = {
            key: torch.zeros((count, self.pieces, *shape), dtype=self.dtype, device=first.device)
            for key, shape in self._shapes(0).items()
        }
        for row, entry in enumerate(self.entries):
            for key, stack in self.stacks.items():
                saved = self._saved(row, key, tuple(stack.shape[1:]))
                if saved is not None:
                    stack[row].copy_(saved)
                entry[key] = stack[row]
        self._views = [dict(entry) for entry in self.entries]  # the very tensors, for `holds` to compare with
        out_in = [(m.shape[0], m.shape[1]) for p in self.parameters for m in logical(p, group)]
        constants = self.rule.constants(out_in, torch.empty(0, dtype=self.dtype, device=first.device))
        self.constants = {key: value.view(count, self.pieces, *value.shape[1:]) for key, value in constants.items()}

    def _shapes(self, row: int) -> dict[str, Shape]:
        matrix = laid_out(logical(self.parameters[row], self.group)[0], self.group)
        return state_shapes(self.rule, tuple(matrix.shape), self.group)

    def holds(self, state: State) -> bool:
        """As the base says; a tensor that was put in the place of a view would not be stepped with, either."""
        return super().holds(state) and all(
            entry.get(key) is views[key]
            for entry, views in zip(self.entries, self._views, strict=True)
            for key in self.stacks
        )

    def _gather(self, rows: list[int]) -> list[Tensor]:
        gradients = [cast(Tensor, self.parameters[row].grad) for row in rows]
        return gradients if bounded(self.parameters[0]) else [self._stacked(gradients)]

    def _stacked(self, gradients: list[Tensor]) -> Tensor:
        """Gradients as one stack (n, a, b) of logical matrices, short side first, in memory of its own."""
        return torch.stack([laid_out(m, self.group) for g in gradients for m in logical(g, self.group)]).to(self.dtype)

    def _move(self, batch: Batch, divisor: Tensor | None) -> None:
        rows = batch.rows
        gradients = self._stacked(batch.gradients) if bounded(self.parameters[0]) else batch.gradients[0]
        if divisor is not None:
            gradients.div_(divisor)
        # (count, pieces, ...) -> (n, ...): to the rule, a piece of a fused weight is a matrix like any other.
        tensors = {**self.stacks, **self.constants}
        state = {key: (stack if rows is None else stack[rows]).flatten(0, 1) for key, stack in tensors.items()}
        if self.rule.draws(self.group, batch.step):
            words = (self.group["probe_seed"], batch.step)
            state["probe"] = torch.empty_like(gradients)
            names = [(name, piece) for name in batch.select(self.names) for piece in range(self.pieces)]
            for matrix, which in zip(state["probe"], names, strict=True):
                matrix.copy_(gaussian(matrix, *words, *which))
        direction = self.rule.direction(gradients, state, self.group, batch.step)
        # Parameters are not stacked: each takes its own row of the update, written through views of its memory.
        targets = [laid_out(m, self.group) for parameter in batch.parameters for m in logical(parameter, self.group)]
        move = self.rule.move if self.rule.reads_weights else apply_switched
        move(targets, direction, state, self.group, batch.step)
        if rows is not None:  # an index made copies, which go back to their rows
            for key, stack in self.stacks.items():
                stack[rows] = state[key].view(len(rows), *stack.shape[1:])


def build_buckets(rule: Rule, group: Settings, state: State) -> list[ParameterBucket]:
    """Sort the parameters of one group into buckets; state that is there is taken over, the rest starts at 0."""
    members: dict[Any, list[tuple[str, Tensor]]] = {}
    stacked = isinstance(rule, MatrixRule)
    elements: dict[Any, int] = {}
    for name, parameter in zip(group["param_names"], group["params"], strict=True):
        if parameter.numel() == 0:  # as a sharded model holds on some ranks: there is nothing to move
            continue
        shape = tuple(laid_out(logical(parameter, group)[0], group).shape) if stacked else ()
        # Stacks hold equal shapes only; lists take any, and portions cut them.
        alike = (shape, parameter.device, parameter.dtype)
        part = elements.get(alike, 0) // DEVICE_PORTION if stacked and bounded(parameter) else 0
        elements[alike] = elements.get(alike, 0) + parameter.numel()
        members.setdefault((alike, part), []).append((name, parameter))
    kind = StackBucket if stacked else ListBucket
    return [kind(rule, group, some, state) for some in members.values()]


def state_elements(rule: Rule, parameter: Tensor, group: Settings) -> int:
    """Elements of the state tensors that a rule keeps for a parameter, which may be on the meta device."""
    if parameter.numel() == 0:  # `build_buckets` leaves it out
        return 0
    tensors = [parameter]
    if isinstance(rule, MatrixRule):
        tensors = [laid_out(matrix, group) for matrix in logical(parameter, group)]
    shapes = [shape for tensor in tensors for shape in state_shapes(rule, tuple(tensor.shape), group).values()]
    return sum(torch.Size(shape).numel() for shape in shapes)


def bounded(parameter: Tensor) -> bool:
    """Whether stacks have at most about `DEVICE_PORTION` elements and are made one after another, as they move.

    On a device, where memory is dear: all of Muon's stacks at 1.2b are 4.5 GiB, and what it computes with is three
    times that. On a CPU rules take slices of a few MiB, and one large stack costs less than many small ones.
    """
    return parameter.device.type != "cpu"


def logical(tensor: Tensor, settings: Settings) -> list[Tensor]:
    """The logical matrices of a parameter-shaped tensor, as (out, in) views: pieces of a fused weight, or it alone."""
    matrix = tensor.mT if settings["transposed"] else tensor
    side = 1 if settings.get("by_input") else 0  # a checkpoint of before `split_heads` does not say
    return [matrix] if settings["pieces"] == 1 else list(matrix.chunk(settings["pieces"], dim=side))


def norm_divisors(batches: list[Batch]) -> list[Tensor | None]:
    """For each batch the divisor max(1, ||g|| / max_grad_norm), or None where clipping is off.

    The norm is taken over all gradients of the batches that share one positive ``max_grad_norm``: a group that has
    its own rule of clipping, or none, carries another value or 0. A NaN norm gives a NaN divisor, so that divergence
    shows in the parameters. Everything stays on the device.
    """
    divisors: dict[float, Tensor] = {}  # by limit: groups with one limit have one norm, as one clip of all would
    limits = [float(batch.settings["max_grad_norm"]) for batch in batches]
    for limit in dict.fromkeys(limits):
        if limit > 0:
            gradients = [g for batch, own in zip(batches, limits, strict=True) if own == limit for g in batch.gradients]
            divisors[limit] = (total_norm(gradients) / limit).clamp_(min=1.0)
    return [
        divisors[limit].to(batch.gradients[0].device, batch.bucket.dtype) if limit > 0 else None
        for batch, limit in zip(batches, limits, strict=True)
    ]


def total_norm(tensors: list[Tensor]) -> Tensor:
    """The Euclidean norm of all entries together, fp32 (float64 if any is), on the first tensor's device; 0-dim."""
    wide = torch.float64 in set(map(operator.attrgetter("dtype"), tensors))
    norms = list(torch._foreach_norm(tensors, 2, torch.float64 if wide else torch.float32))
    if len(set(map(operator.attrgetter("device"), norms))) > 1:  # a model that is spread over devices
        norms = [norm.to(norms[0].device) for norm in norms]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm
