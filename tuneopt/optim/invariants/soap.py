"""SOAP shown on parameters: its bases are orthogonal eigenbases of the real gradient, and it runs Adam in them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.bucket import logical, short_first
from tuneopt.optim.hyperparameters import Settings
from tuneopt.optim.invariants.base import Invariant, Moment, Subject, Tally, excess, relative, visible

ORTHOGONAL = 1e-3
DIAGONAL = 1e-2
TURNED = 0.05
UPDATE = 0.05
WAIT = 16
"""Largest precondition_frequency for which a refresh is waited for."""

KEYS = ("left_basis", "right_basis", "exp_avg", "exp_avg_sq")


class SOAPInvariant(Invariant):
    """Claims about the blocks of a matrix.

    ``orthogonal``: largest entry of |Q^T Q - I| of every basis. ``eigenbasis``: after the initialising step
    Q^T (G G^T) Q is diagonal, for the gradient seen from outside. ``turned``: bases are not the identity, nor a
    permutation of it: the mean over columns of 1 - max_i Q_ij^2. ``update``: the parameter's change equals Adam's in
    those bases, recomputed from the gradient. ``refresh``: bases change exactly on the steps where they are due.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tallies = {
            "orthogonal": Tally(f"max |Q^T Q - I| <= {ORTHOGONAL:g}"),
            "eigenbasis": Tally(f"off-diagonal share of Q^T F Q after initialising <= {DIAGONAL:g}"),
            "turned": Tally(f"distance of the bases from a permuted identity >= {TURNED:g}", True),
            "update": Tally(f"distance to Adam in the eigenbasis, relative and beyond rounding, <= {UPDATE:g}"),
            "refresh": Tally("bases change when due and only then (1 = wrong)"),
        }
        self._due_seen = False
        self._resumed = False

    def view(self, tensor: Tensor, settings: Settings) -> Tensor:
        """Logical matrices, short side first, as a stack."""
        return torch.stack([short_first(matrix) for matrix in logical(tensor, settings)])

    def cost(self, parameter: Tensor) -> int:
        """The work of a few products with the bases."""
        return 4 * parameter.numel() * max(parameter.shape)

    def done(self, settings: Settings) -> bool:
        """After the usual steps, and one refresh where that is near."""
        return super().done(settings) and (self._due_seen or settings["precondition_frequency"] > WAIT)

    def wants(self, subject: Subject) -> bool:
        """Once the usual steps are seen, only a step on which a refresh is due."""
        if not super().done(subject.settings):
            return True
        due = (int(subject.state.get("step", 0)) + 1) % subject.settings["precondition_frequency"] == 0
        return due and not self.done(subject.settings)

    def remember(self, subject: Subject) -> Any:
        """Bases and moments before the step; None before the first."""
        if not subject.state:
            return None
        return {key: value.clone() for key, value in subject.state.items() if key.startswith(KEYS)}

    def measure(self, moment: Moment) -> bool:
        """Look at the bases, then compare the change with Adam in them."""
        settings, where = moment.settings, f"{moment.name}, step {moment.step}"
        self._bases(moment, where)
        if moment.memory is None:
            return False
        self._resumed |= self.tallies["eigenbasis"].count == 0
        expected = self._expected(moment)
        update = expected + settings["weight_decay"] * moment.before
        if not bool(update.isfinite().all() & moment.change.isfinite().all()):
            self.tallies["update"].add(float("nan"), False, where)
            return True
        if not visible(update, moment.noise, settings["lr"]):
            return False
        distance = excess(moment.change + settings["lr"] * update, settings["lr"] * update, moment.noise)
        self.tallies["update"].add(distance, distance <= UPDATE, where)
        return True

    def checks(self, rule: str) -> tuple[Any, ...]:
        """The claims; what a resumed run can no longer show (its first step) is left out, and so is a far refresh."""
        absent = {"eigenbasis"} if self._resumed else set()
        absent |= {"refresh"} if self.tallies["refresh"].count == 0 else set()
        return tuple(tally.check(f"{rule}.{name}") for name, tally in self.tallies.items() if name not in absent)

    def _bases(self, moment: Moment, where: str) -> None:
        for block, gradient, piece, position in _blocks(moment):
            for side in ("left", "right"):
                basis = moment.state[f"{side}_basis_{block}"][piece, position].double()
                size = basis.shape[0]
                if not bool(basis.isfinite().all()):
                    self.tallies["orthogonal"].add(float("nan"), False, where)
                    continue
                identity = torch.eye(size, dtype=basis.dtype, device=basis.device)
                error = float((basis.T @ basis - identity).abs().max())
                self.tallies["orthogonal"].add(error, error <= ORTHOGONAL, where)
                if size > 1:
                    turned = float((1 - (basis**2).max(dim=0).values).mean())
                    self.tallies["turned"].add(turned, turned >= TURNED, where)
                if moment.memory is None:
                    factor = gradient @ gradient.T if side == "left" else gradient.T @ gradient
                    rotated = basis.T @ factor @ basis
                    share = relative(rotated - rotated.diag().diag(), rotated)
                    self.tallies["eigenbasis"].add(share, share <= DIAGONAL, where)
                else:
                    before = moment.memory[f"{side}_basis_{block}"][piece, position].double()
                    due = moment.step % moment.settings["precondition_frequency"] == 0
                    self._due_seen |= due
                    wrong = bool((before != basis).any()) is not due
                    self.tallies["refresh"].add(float(wrong), not wrong, where)

    def _expected(self, moment: Moment) -> Tensor:
        """Adam in the bases that stood before the step, from the moments that stood before it."""
        settings = moment.settings
        beta1, beta2 = settings["betas"]
        count = moment.step if settings["bias_correction"] == "steps" else moment.step - 1
        correction = (1 - beta2**count) ** 0.5 / (1 - beta1**count)
        expected = torch.zeros_like(moment.before)
        for block, gradient, piece, position in _blocks(moment):
            left, right, first, second = (moment.memory[f"{key}_{block}"][piece, position].double() for key in KEYS)
            rotated = left.T @ gradient @ right
            first = beta1 * first + (1 - beta1) * rotated
            second = beta2 * second + (1 - beta2) * rotated**2
            rows, columns = _place(moment, block, position)
            expected[piece, rows, columns] = left @ (first / (second.sqrt() + settings["eps"])) @ right.T * correction
        return expected


def _grid(length: int, block: int) -> list[list[slice]]:
    """Slices of one side by kind: the full blocks, then the rest."""
    edges = list(range(0, length - length % block, block))
    kinds = [[slice(start, start + block) for start in edges]] if edges else []
    return kinds + ([[slice(length - length % block, length)]] if length % block else [])


def _places(moment: Moment) -> list[list[tuple[slice, slice]]]:
    """Rows and columns of every block, by kind and position, in the order in which state is kept."""
    _, height, width = moment.before.shape
    block = moment.settings["block_size"]
    return [
        [(rows, columns) for rows in down for columns in across]
        for down in _grid(height, block)
        for across in _grid(width, block)
    ]


def _place(moment: Moment, block: int, position: int) -> tuple[slice, slice]:
    return _places(moment)[block][position]


def _blocks(moment: Moment) -> list[tuple[int, Tensor, int, int]]:
    """(kind, gradient block, piece, position) of every block of every logical matrix."""
    return [
        (kind, moment.gradient[piece, rows, columns], piece, position)
        for piece in range(moment.before.shape[0])
        for kind, places in enumerate(_places(moment))
        for position, (rows, columns) in enumerate(places)
    ]
