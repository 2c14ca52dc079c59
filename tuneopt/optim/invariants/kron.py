"""Kron shown on parameters: factors are fitted when due, stay triangular, and precondition the momentum."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tuneopt.optim.bucket import logical, short_first
from tuneopt.optim.hyperparameters import Settings
from tuneopt.optim.invariants.base import Invariant, Moment, Subject, Tally, excess, relative, visible
from tuneopt.optim.probes import gaussian
from tuneopt.optim.psgd import BALANCE_EVERY, DAMPING, fit_diagonal, fit_number, fit_triangular
from tuneopt.optim.tiles import cut, paste, tiles

MOVED = 1e-3
FIT = 0.05
UPDATE = 1e-3
RMS = 1.1

Factors: TypeAlias = list[tuple[Tensor, Tensor]]
"""Left and right factors, by kind of block, each a stack over the blocks of all logical matrices."""


class PreconditionedInvariant(Invariant):
    """Follows the momentum in float64 and reads the factors before and after each step.

    Claims: ``refresh``: factors change on the steps on which a fit is due, and on no other. ``fit``: their change is
    the one that the momentum and the probe of that step ask for. ``moved``: after it they are not a multiple of the
    identity. ``update``: the parameter's change equals the momentum preconditioned by the factors.
    """

    def __init__(self) -> None:
        super().__init__()
        self._momentum: dict[str, Tensor] = {}
        self._due_seen = False
        self.tallies = {
            "refresh": Tally("factors change when a fit is due and only then (1 = wrong)"),
            "fit": Tally(f"distance of a factor's change from an independent fit, relative, <= {FIT:g}"),
            "moved": Tally(
                f"distance of fitted factors from a multiple of the identity, relative, >= {MOVED:g} "
                "(in proportion less for a preconditioner_lr below 0.1)",
                True,
            ),
            "update": Tally(f"distance to the preconditioned momentum, relative and beyond rounding, <= {UPDATE:g}"),
        }

    @abstractmethod
    def factors(self, state: dict[str, Any], settings: Settings, like: Tensor) -> Factors:
        """Copies of the factors in float64; ``like`` is a parameter in the layout of `view`."""

    @abstractmethod
    def momentum(self, state: dict[str, Any], settings: Settings, like: Tensor) -> Tensor:
        """The optimizer's momentum in the layout of `view`."""

    @abstractmethod
    def probe(self, moment: Moment) -> Tensor:
        """The random numbers of this step in the layout of `view`, in float64."""

    @abstractmethod
    def fitted(self, factors: Factors, damped: Tensor, probe: Tensor, settings: Settings, balance: bool) -> None:
        """One fit, in place."""

    @abstractmethod
    def preconditioned(self, factors: Factors, momentum: Tensor, settings: Settings) -> Tensor:
        """The momentum after both factors, each applied twice."""

    @abstractmethod
    def off_identity(self, factor: Tensor) -> float:
        """Relative distance of a stack of factors from multiples of the identity; NaN where a side is 1."""

    def done(self, settings: Settings) -> bool:
        """After the usual steps and one fit."""
        return super().done(settings) and self._due_seen

    def remember(self, subject: Subject) -> Any:
        """The factors before the step, None before the first; starts the own momentum where it is not yet followed."""
        like = self.view(subject.parameter.detach(), subject.settings)
        known = bool(subject.state)
        if self.missed(subject):
            start = self.momentum(subject.state, subject.settings, like) if known else torch.zeros_like(like)
            self._momentum[subject.name] = start.to(torch.float64, copy=True)
        return self.factors(subject.state, subject.settings, like) if known else None

    def measure(self, moment: Moment) -> bool:
        """Look at the factors, then compare the change with what they make of the momentum."""
        settings, where = moment.settings, f"{moment.name}, step {moment.step}"
        beta1 = settings["beta1"]
        gradient = moment.gradient
        if settings["normalize_grads"]:
            gradient = gradient / (torch.linalg.vector_norm(gradient, dim=(1, 2), keepdim=True) + 1e-16)
        momentum = beta1 * self._momentum[moment.name] + (1 - beta1) * gradient
        self._momentum[moment.name] = momentum
        corrected = momentum / (1 - beta1**moment.step)
        after = self.factors(moment.state, settings, moment.before)
        if not all(bool(factor.isfinite().all()) for pair in after for factor in pair):
            self.tallies["update"].add(float("nan"), False, where)
            return True
        self._fit(moment, after, corrected, where)
        expected = self.preconditioned(after, corrected, settings)
        rms = torch.linalg.vector_norm(expected, dim=(1, 2), keepdim=True) / expected[0].numel() ** 0.5
        update = expected / (rms / RMS).clamp(min=1) + settings["weight_decay"] * moment.before
        if settings["lr"] == 0:
            return False
        if not bool(update.isfinite().all() & moment.change.isfinite().all()):
            self.tallies["update"].add(float("nan"), False, where)
            return True
        if not visible(update, moment.noise, settings["lr"]):
            return False
        distance = excess(moment.change + settings["lr"] * update, settings["lr"] * update, moment.noise)
        self.tallies["update"].add(distance, distance <= UPDATE, where)
        return True

    def _fit(self, moment: Moment, after: Factors, corrected: Tensor, where: str) -> None:
        settings = moment.settings
        plan = settings["preconditioner_update_probability"], settings["update_prob_flat_start"]
        number = fit_number(moment.step, *plan)
        before = moment.memory
        if before is None:
            before = self._initial(after, settings)
        pairs = [(a, b) for old, new in zip(before, after, strict=True) for a, b in zip(old, new, strict=True)]
        wrong = any(bool((old != new).any()) for old, new in pairs) is not (number > 0)
        self.tallies["refresh"].add(float(wrong), not wrong, where)
        if number == 0:
            return
        self._due_seen = True
        probe = self.probe(moment)
        damped = corrected + DAMPING * corrected.abs().mean(dim=(1, 2), keepdim=True) * probe
        own = [(left.clone(), right.clone()) for left, right in before]
        self.fitted(own, damped, probe, settings, number % BALANCE_EVERY == 0)
        expected = [factor for pair in own for factor in pair]
        for (old, new), goal in zip(pairs, expected, strict=True):
            if goal.numel():
                distance = relative(new - goal, goal - old)
                self.tallies["fit"].add(distance, distance <= FIT, where)
            moved = self.off_identity(new)
            if moved == moved:
                self.tallies["moved"].add(moved, moved >= MOVED * min(1.0, settings["preconditioner_lr"] / 0.1), where)

    def _initial(self, like: Factors, settings: Settings) -> Factors:
        """Factors before the first step: multiples of the identity."""
        scale = settings["preconditioner_init_scale"]
        sides = [(left, right, scale if right.numel() == 0 else scale**0.5) for left, right in like]
        return [(self.identity(left, each), self.identity(right, each)) for left, right, each in sides]

    @abstractmethod
    def identity(self, like: Tensor, scale: float) -> Tensor:
        """A stack of identities times ``scale``."""


class KronInvariant(PreconditionedInvariant):
    """`PreconditionedInvariant` for blocks with triangular factors; ``triangular``: nothing lies below a diagonal."""

    def __init__(self) -> None:
        super().__init__()
        self.tallies["triangular"] = Tally("largest entry below the diagonal of a factor, <= 0")

    def view(self, tensor: Tensor, settings: Settings) -> Tensor:
        """Logical matrices, short side first, as a stack."""
        return torch.stack([short_first(matrix) for matrix in logical(tensor, settings)])

    def cost(self, parameter: Tensor) -> int:
        """The work of a few products with the factors."""
        return 4 * parameter.numel() * max(parameter.shape)

    def factors(self, state: dict[str, Any], settings: Settings, like: Tensor) -> Factors:
        """By tile; also looks whether they are triangular."""
        found = []
        for tile in tiles(tuple(like.shape[1:]), settings["block_size"]):
            left, right = (
                state[f"{side}_{tile.index}"].flatten(0, 1).to(torch.float64, copy=True) for side in ("left", "right")
            )
            below = max(float(factor.tril(-1).abs().max()) for factor in (left, right))
            self.tallies["triangular"].add(below, below <= 0, f"tile {tile.index}")
            found.append((left, right))
        return found

    def momentum(self, state: dict[str, Any], settings: Settings, like: Tensor) -> Tensor:
        """Put together from its blocks."""
        whole = torch.empty_like(like, memory_format=torch.contiguous_format)
        for tile in tiles(tuple(like.shape[1:]), settings["block_size"]):
            paste(whole, tile, state[f"momentum_{tile.index}"].flatten(0, 1).to(whole.dtype))
        return whole

    def probe(self, moment: Moment) -> Tensor:
        """One for each logical matrix."""
        words = (moment.settings["probe_seed"], moment.step, moment.name)
        like = torch.empty_like(moment.before, dtype=torch.float32)
        return torch.stack([gaussian(matrix, *words, piece) for piece, matrix in enumerate(like)]).double()

    def fitted(self, factors: Factors, damped: Tensor, probe: Tensor, settings: Settings, balance: bool) -> None:
        """By tile."""
        parts = tiles(tuple(damped.shape[1:]), settings["block_size"])
        for tile, (left, right) in zip(parts, factors, strict=True):
            blocks, noise = cut(damped, tile), cut(probe, tile)
            fit_triangular(left, right, blocks, noise, lr=settings["preconditioner_lr"], balance=balance)

    def preconditioned(self, factors: Factors, momentum: Tensor, settings: Settings) -> Tensor:
        """L^T L M R^T R of every block, from the two preconditioners."""
        result = torch.empty_like(momentum)
        for tile, (left, right) in zip(tiles(tuple(momentum.shape[1:]), settings["block_size"]), factors, strict=True):
            paste(result, tile, (left.mT @ left) @ cut(momentum, tile) @ (right.mT @ right))
        return result

    def off_identity(self, factor: Tensor) -> float:
        """For the stack as a whole."""
        if factor.shape[-1] == 1:
            return float("nan")
        mean = factor.diagonal(dim1=1, dim2=2).mean(dim=1).view(-1, 1, 1)
        return relative(factor - mean * torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device), factor)

    def identity(self, like: Tensor, scale: float) -> Tensor:
        """Matrices."""
        return scale * torch.eye(like.shape[-1], dtype=like.dtype, device=like.device).expand_as(like)


class KronDiagonalInvariant(PreconditionedInvariant):
    """`PreconditionedInvariant` for whole tensors with diagonal factors."""

    def view(self, tensor: Tensor, settings: Settings) -> Tensor:
        """The tensor as a stack of one matrix; vectors get one column."""
        return tensor.reshape(1, tensor.shape[0] if tensor.ndim else 1, -1)

    def cost(self, parameter: Tensor) -> int:
        """A few passes."""
        return 16 * parameter.numel()

    def factors(self, state: dict[str, Any], settings: Settings, like: Tensor) -> Factors:
        """As stacks of one."""
        left, right = (state[side].unsqueeze(0).to(torch.float64, copy=True) for side in ("left", "right"))
        return [(left, right)]

    def momentum(self, state: dict[str, Any], settings: Settings, like: Tensor) -> Tensor:
        """As it is kept."""
        return self.view(state["momentum"], settings)

    def probe(self, moment: Moment) -> Tensor:
        """One for the tensor."""
        like = torch.empty(moment.before.shape[1:], dtype=torch.float32, device=moment.before.device)
        words = (moment.settings["probe_seed"], moment.step, moment.name)
        return gaussian(like, *words).double().unsqueeze(0)

    def fitted(self, factors: Factors, damped: Tensor, probe: Tensor, settings: Settings, balance: bool) -> None:
        """Both diagonals."""
        for left, right in factors:
            fit_diagonal(left, right, damped, probe, lr=settings["preconditioner_lr"], balance=balance)

    def preconditioned(self, factors: Factors, momentum: Tensor, settings: Settings) -> Tensor:
        """l^2 M r^2."""
        ((left, right),) = factors
        scaled = momentum * left.square().unsqueeze(2)
        return scaled * right.square().unsqueeze(1) if right.numel() else scaled

    def off_identity(self, factor: Tensor) -> float:
        """Spread of the diagonal."""
        return relative(factor - factor.mean(), factor) if factor.shape[-1] > 1 else float("nan")

    def identity(self, like: Tensor, scale: float) -> Tensor:
        """Diagonals of it."""
        return torch.full_like(like, scale)
