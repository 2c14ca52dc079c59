"""What an update rule is: a direction u computed from gradients and state, then p <- p - lr (u + wd p), elementwise.

The two parts are separate because a direction may need whole matrices while the apply never does, so that sharded
training can compute the direction where the state lives and apply it anywhere. A rule is either elementwise (lists of
tensors of any shape) or a matrix rule (stacks of equal matrices); it holds no data, all state lives in the optimizer.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from tuneopt.optim.hyperparameters import Settings
from tuneopt.optim.portions import portions

Shape = tuple[int, ...]
Tensors = list[Tensor]
ListState = dict[str, list[Tensor]]
"""Names of state tensors, and for each the tensors of all parameters, in their order."""
Divisor = Tensor | None
"""What gradients are divided by, the clip by norm, 0-dim; None for nothing."""


class Rule(ABC):
    """How the parameters of one group move."""

    name: ClassVar[str]
    state: ClassVar[tuple[str, ...]] = ()
    """State tensors that are shaped as the parameter; memory models count them."""
    reads_weights: ClassVar[bool] = False
    """Whether an update depends on the weights, which then travel to the owner rank under ZeRO."""

    def takes(self, shape: Shape) -> bool:
        """Whether the rule can move a parameter of this shape."""
        return True

    def state_shapes(self, shape: Shape, settings: Settings) -> dict[str, Shape]:
        """State tensors (all start at zero) of one parameter or logical matrix of ``shape``; fp32, 4 bytes each.

        Rules whose state has other shapes than the parameter override this.
        """
        return dict.fromkeys(self.state, shape)

    def draws(self, settings: Settings, step: int) -> bool:
        """Whether `direction` needs standard normal numbers at this step, as ``state["probe"]``, shaped as gradients.

        They follow from the setting ``probe_seed``, the parameter's name and the step, so they have no state.
        """
        return False


class ElementwiseRule(Rule):
    """A rule over lists of tensors of any shape."""

    separable: ClassVar[bool] = False
    """Whether rows move independently of each other, so that a step may be taken portion by portion, in cache."""

    @abstractmethod
    def direction(self, gradients: Tensors, state: ListState, settings: Settings, step: int) -> Tensors:
        """Update ``state`` in place and return fresh tensors u, to be applied as p <- p - lr (u + wd p).

        ``step`` counts from 1. Neither gradients nor parameters may be changed.
        """

    def advance(
        self, parameters: Tensors, gradients: Tensors, state: ListState, settings: Settings, step: int, divisor: Divisor
    ) -> None:
        """Move the parameters by one step; gradients are first divided by ``divisor``, the clip by norm.

        All tensors are contiguous. Rules with a fused kernel, or that need more than one round, override this.
        """
        columns = [parameters, gradients, *state.values()]
        for _, (own, grads, *held) in portions(columns) if self.separable else ((None, columns),):
            # No name for the direction: it would live until the next portion's is there, one more copy on a device.
            named = dict(zip(state, held, strict=True))
            apply_in_one_pass(own, self.direction(divided(grads, divisor), named, settings, step), settings)


class MatrixRule(Rule):
    """A rule over stacks of equal matrices, each with its short side first."""

    def takes(self, shape: Shape) -> bool:
        """Matrices alone."""
        return len(shape) == 2

    def constants(self, shapes: Sequence[tuple[int, int]], like: Tensor) -> dict[str, Tensor]:
        """Tensors with one entry per matrix that the rule needs at each step, made once and not saved.

        ``shapes`` are the (out, in) features of the matrices; ``like`` gives dtype and device.
        """
        return {}

    @abstractmethod
    def direction(self, gradients: Tensor, state: dict[str, Tensor], settings: Settings, step: int) -> Tensor:
        """Update ``state`` in place and return u of shape (n, a, b), a <= b, to be applied as p <- p - lr (u + wd p).

        ``gradients`` (n, a, b) may be overwritten; ``state`` holds tensors of shape (n, ...) and the constants;
        ``step`` counts from 1.
        """

    def move(
        self, targets: Tensors, direction: Tensor, state: dict[str, Tensor], settings: Settings, step: int
    ) -> None:
        """Move n views (a, b) of parameters by the update u, which may be overwritten, if the rule `reads_weights`."""
        raise NotImplementedError


def divided(gradients: list[Tensor], divisor: Tensor | None) -> list[Tensor]:
    """The gradients over their clip; fresh tensors where there is one."""
    return gradients if divisor is None else list(torch._foreach_div(gradients, divisor))


def apply(parameters: list[Tensor], direction: list[Tensor], settings: Settings) -> None:
    """p <- p - lr (u + wd p), elementwise, one rounding for low-precision parameters; ``direction`` is overwritten."""
    if settings["weight_decay"]:
        torch._foreach_add_(direction, parameters, alpha=settings["weight_decay"])
    torch._foreach_add_(parameters, direction, alpha=-settings["lr"])


def apply_in_one_pass(parameters: list[Tensor], direction: list[Tensor], settings: Settings) -> None:
    """`apply` through the kernel of ``torch.optim.SGD(fused=True)``, which reads and writes each parameter once.

    The kernel goes through memory and not through strides, so it takes dense tensors alone; others are applied plainly.
    """
    if not all(tensor.is_contiguous() for tensor in (*parameters, *direction)):
        apply(parameters, direction, settings)
        return
    torch._fused_sgd_(
        parameters,
        direction,
        [],
        weight_decay=settings["weight_decay"],
        momentum=0.0,
        lr=settings["lr"],
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
    )


_AUTOCAST = tuple(filter(torch.amp.is_autocast_available, ("cpu", "cuda", "xpu", "mps")))
_NOTHING = contextlib.nullcontext()


def without_autocast() -> contextlib.AbstractContextManager[object]:
    """Compute in the dtypes that tensors have, also where a step is taken within autocast, which rounds products."""
    on = list(filter(torch.is_autocast_enabled, _AUTOCAST))
    if not on:  # nearly always, and looking must cost nothing beside a step of 0.1 ms
        return _NOTHING
    stack = contextlib.ExitStack()
    for kind in on:
        stack.enter_context(torch.autocast(kind, enabled=False))
    return stack


def state_dtype(parameter: Tensor) -> torch.dtype:
    """fp32 state for every parameter but float64 ones."""
    return torch.float64 if parameter.dtype == torch.float64 else torch.float32
