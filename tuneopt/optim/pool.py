"""Parameters that step together, with their state kept in the layout that the step wants.

A pool holds parameters of one group on one device. `MatrixPool` keeps every state tensor of same-shape matrices
stacked, so that a step stacks gradients only; the optimizer's per-parameter state entries are views into the stacks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from tuneopt.optim.probes import gaussian
from tuneopt.optim.rule import ElementwiseRule, MatrixRule, Rule, apply, state_dtype
from tuneopt.optim.settings import Settings, check_gradient

State = MutableMapping[Any, dict[str, Any]]
"""The optimizer's own state: parameter to names to tensors, and ``step`` as a whole number."""


@dataclass(slots=True)
class Batch:
    """Those members of a pool that take one step with the same step number."""

    pool: Pool[Any]
    rows: list[int] | None
    """Positions in the pool; None when all of them step, the usual case, which needs no copies."""
    step: int
    gradients: list[Tensor]
    """One tensor per parameter, or a single stack (n, a, b) that belongs to the batch."""
    settings: Settings

    @property
    def parameters(self) -> list[Tensor]:
        """The parameters that step, in the order of ``gradients`` where those are one per parameter."""
        every = self.pool.parameters
        return every if self.rows is None else [every[row] for row in self.rows]

    @property
    def names(self) -> list[str]:
        """The names of `parameters`."""
        every = self.pool.names
        return every if self.rows is None else [every[row] for row in self.rows]


def logical(tensor: Tensor, settings: Settings) -> list[Tensor]:
    """The logical matrices of a parameter-shaped tensor, as (out, in) views."""
    matrix = tensor.mT if settings["transposed"] else tensor
    return [matrix] if settings["pieces"] == 1 else list(matrix.chunk(settings["pieces"]))


def short_first(matrix: Tensor) -> Tensor:
    """The matrix or its transpose, whichever has its short side first."""
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


R = TypeVar("R", bound=Rule)


class Pool(ABC, Generic[R]):
    """Common part: which members have a gradient, and their step numbers."""

    def __init__(self, rule: R, settings: Settings, members: list[tuple[str, Tensor]], state: State) -> None:
        self.rule, self.settings, self._state = rule, settings, state
        self.names = [name for name, _ in members]
        self.parameters = [parameter for _, parameter in members]
        self.steps = [int(state[p]["step"]) if state.get(p) else 0 for p in self.parameters]

    def batches(self) -> list[Batch]:
        """What steps now; parameters without a gradient are left out and keep their state and step number."""
        with_gradient: dict[int, list[int]] = {}
        for row, (name, parameter) in enumerate(zip(self.names, self.parameters, strict=True)):
            if parameter.grad is not None:
                check_gradient(name, parameter.grad)
                with_gradient.setdefault(self.steps[row] + 1, []).append(row)
        return [
            Batch(self, None if len(rows) == len(self.parameters) else rows, step, self._gather(rows), self.settings)
            for step, rows in with_gradient.items()
        ]

    def advance(self, batch: Batch, divisor: Tensor | None) -> None:
        """Take the step; gradients are divided by ``divisor`` first."""
        rows = range(len(self.parameters)) if batch.rows is None else batch.rows
        for row in rows:
            self.steps[row] = self._state[self.parameters[row]]["step"] = batch.step
        self._move(batch, batch.parameters, divisor)

    @abstractmethod
    def _gather(self, rows: list[int]) -> list[Tensor]: ...

    @abstractmethod
    def _move(self, batch: Batch, parameters: list[Tensor], divisor: Tensor | None) -> None: ...


class ListPool(Pool[ElementwiseRule]):
    """Tensors of any shape under an elementwise rule."""

    def __init__(
        self, rule: ElementwiseRule, settings: Settings, members: list[tuple[str, Tensor]], state: State
    ) -> None:
        super().__init__(rule, settings, members, state)
        for parameter, step in zip(self.parameters, self.steps, strict=True):
            if not state.get(parameter):
                # zeros_like keeps the strides of the parameter, which fused kernels rely on.
                state[parameter] = {"step": step}
                dtype, device = state_dtype(parameter), parameter.device
                for key, shape in rule.state_shapes(tuple(parameter.shape), settings).items():
                    same = shape == tuple(parameter.shape)
                    state[parameter][key] = (
                        torch.zeros_like(parameter, dtype=dtype)
                        if same
                        else torch.zeros(shape, dtype=dtype, device=device)
                    )
        self.keys = list(rule.state_shapes(tuple(self.parameters[0].shape), settings))

    def _gather(self, rows: list[int]) -> list[Tensor]:
        return [self.parameters[row].grad for row in rows]  # type: ignore[misc]

    def _move(self, batch: Batch, parameters: list[Tensor], divisor: Tensor | None) -> None:
        state = {key: [self._state[parameter][key] for parameter in parameters] for key in self.keys}
        settings, dtype = self.settings, state_dtype(parameters[0])
        if self.rule.draws(settings, batch.step):
            words = (settings["probe_seed"], batch.step)
            likes = (torch.empty_like(parameter, dtype=dtype) for parameter in parameters)
            state["probe"] = [gaussian(like, *words, name) for name, like in zip(batch.names, likes, strict=True)]
        if parameters[0].dtype == dtype:
            self.rule.advance(parameters, batch.gradients, state, settings, batch.step, divisor)
            return
        wide = [parameter.to(dtype) for parameter in parameters]
        gradients = [gradient.to(dtype) for gradient in batch.gradients]
        self.rule.advance(wide, gradients, state, settings, batch.step, divisor)
        torch._foreach_copy_(parameters, wide)


class MatrixPool(Pool[MatrixRule]):
    """Logical matrices of one shape (short side first) under a matrix rule, stacked as (n, a, b)."""

    def __init__(self, rule: MatrixRule, settings: Settings, members: list[tuple[str, Tensor]], state: State) -> None:
        super().__init__(rule, settings, members, state)
        self.pieces = int(settings["pieces"])
        first, count = self.parameters[0], len(self.parameters)
        matrix = short_first(logical(first, settings)[0])
        self.dtype = state_dtype(first)
        shapes = rule.state_shapes(tuple(matrix.shape), settings)
        self.stacks: dict[str, Tensor] = {
            key: torch.zeros((count, self.pieces, *shape), dtype=self.dtype, device=first.device)
            for key, shape in shapes.items()
        }
        for row, parameter in enumerate(self.parameters):
            saved = state.get(parameter) or {}
            for key, stack in self.stacks.items():
                if key in saved:
                    stack[row].copy_(saved[key])
            state[parameter] = {"step": self.steps[row], **{key: stack[row] for key, stack in self.stacks.items()}}
        out_in = [(m.shape[0], m.shape[1]) for p in self.parameters for m in logical(p, settings)]
        constants = rule.constants(out_in, torch.empty(0, dtype=self.dtype, device=first.device))
        self.constants = {key: value.view(count, self.pieces, *value.shape[1:]) for key, value in constants.items()}

    def _gather(self, rows: list[int]) -> list[Tensor]:
        matrices = [short_first(m) for row in rows for m in logical(self.parameters[row].grad, self.settings)]  # type: ignore[arg-type]
        return [torch.stack(matrices).to(self.dtype)]

    def _move(self, batch: Batch, parameters: list[Tensor], divisor: Tensor | None) -> None:
        rows, (gradients,) = batch.rows, batch.gradients
        if divisor is not None:
            gradients.div_(divisor)
        every = {**self.stacks, **self.constants}
        chosen = {key: (stack if rows is None else stack[rows]).flatten(0, 1) for key, stack in every.items()}
        if self.rule.draws(self.settings, batch.step):
            words = (self.settings["probe_seed"], batch.step)
            names = [(name, piece) for name in batch.names for piece in range(self.pieces)]
            chosen["probe"] = torch.empty_like(gradients)
            for matrix, which in zip(chosen["probe"], names, strict=True):
                matrix.copy_(gaussian(matrix, *words, *which))
        direction = self.rule.direction(gradients, chosen, self.settings, batch.step)
        if rows is not None:
            for key, stack in self.stacks.items():
                stack[rows] = chosen[key].view(len(rows), *stack.shape[1:])
        targets = [short_first(matrix) for parameter in parameters for matrix in logical(parameter, self.settings)]
        apply(targets, list(direction.unbind(0)), self.settings)


def build_pools(rule: Rule, settings: Settings, state: State) -> list[Pool[Any]]:
    """Sort the parameters of one group into pools; state that is already there is taken over, the rest starts at 0."""
    groups: dict[Any, list[tuple[str, Tensor]]] = {}
    for name, parameter in zip(settings["param_names"], settings["params"], strict=True):
        shape: tuple[int, ...] = ()
        if isinstance(rule, MatrixRule):
            shape = tuple(short_first(logical(parameter, settings)[0]).shape)
        groups.setdefault((shape, parameter.device, parameter.dtype), []).append((name, parameter))
    if isinstance(rule, MatrixRule):
        return [MatrixPool(rule, settings, members, state) for members in groups.values()]
    assert isinstance(rule, ElementwiseRule)
    return [ListPool(rule, settings, members, state) for members in groups.values()]
