"""Orthogonalized momentum shown on parameters: singular values of the change lie where Newton-Schulz sends them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.bucket import logical, short_first
from tuneopt.optim.hyperparameters import Settings
from tuneopt.optim.invariants.base import Invariant, Moment, Subject, Tally, excess, visible
from tuneopt.optim.orthogonalize import REACHED, band, spectral_map

MARGIN = (0.88, 1.08)
"""Room around the band of the map, for bf16: the quintic's [0.681, 1.203] becomes [0.60, 1.30]."""
SHARE = 0.9
TOLERANCE = {"fp32": 0.02, "bf16": 0.3}


class OrthogonalInvariant(Invariant):
    """Divides out rate, decay and shape scale, and looks at the singular values of what is left, O.

    Claims: (1) no singular value of O is above the band to which the map sends [0.002, 1] ([0.60, 1.30] for the study's
    quintic, margin included), and inside it lie at least 90% as many as an independent float64 momentum, divided by its
    Frobenius norm, has above 0.002.
    An AdamW or sign update has values far above, a plain momentum update (Frobenius norm 1) mostly below. (2) O equals
    U q(S) V^T, the map applied through the singular value decomposition instead of matrix products.
    """

    momentum_key = "momentum_buffer"

    def __init__(self) -> None:
        super().__init__()
        self._momentum: dict[str, Tensor] = {}
        self.tallies["singular_values"] = Tally(
            f"none above the band of the map, at least {SHARE:.0%} of the reached ones in it", True
        )
        self.tallies["orthogonal_map"] = Tally(
            f"distance to the map through an SVD, relative and beyond rounding, <= {TOLERANCE['fp32']:g} "
            f"(bf16 products: {TOLERANCE['bf16']:g})"
        )

    def view(self, tensor: Tensor, settings: Settings) -> Tensor:
        """Logical matrices, short side first, as a stack."""
        return torch.stack([short_first(matrix) for matrix in logical(tensor, settings)])

    def cost(self, parameter: Tensor) -> int:
        """The work of a singular value decomposition."""
        return parameter.numel() * min(parameter.shape)

    def remember(self, subject: Subject) -> Any:
        """The (out, in) features; starts the own momentum where it is not yet followed."""
        matrices = logical(subject.parameter, subject.settings)
        if self.missed(subject):
            start = subject.state.get(self.momentum_key)
            zeros = torch.zeros_like(self.view(subject.parameter.detach(), subject.settings))
            self._momentum[subject.name] = (zeros if start is None else start).to(torch.float64, copy=True)
        return float(matrices[0].shape[0]), float(matrices[0].shape[1])

    def lookahead(self, momentum: Tensor, gradient: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        """The new momentum and the matrix that is orthogonalized; Muon's by default."""
        momentum = settings["momentum"] * momentum + gradient
        return momentum, settings["momentum"] * momentum + gradient

    def epsilon(self, settings: Settings) -> float:
        """What is added to the Frobenius norm."""
        return float(settings["muon_epsilon"])

    def measure(self, moment: Moment) -> bool:
        """Compare singular values and the whole matrix with the map through an SVD."""
        settings = moment.settings
        momentum, target = self.lookahead(self._momentum[moment.name], moment.gradient, settings)
        self._momentum[moment.name] = momentum
        if settings["lr"] == 0:
            return False
        where = f"{moment.name}, step {moment.step}"
        if not bool(target.isfinite().all() & moment.change.isfinite().all()):
            self.tallies["singular_values"].add(float("nan"), False, where)
            return True
        out, fan_in = moment.memory
        scale = max(1.0, out / fan_in) ** 0.5
        left, values, right = torch.linalg.svd(target, full_matrices=False)
        values = values / (values.norm(dim=-1, keepdim=True) + self.epsilon(settings))
        steps, coefficients = settings["ns_steps"], settings["ns_coefficients"]
        expected = (left * spectral_map(values, steps, coefficients).unsqueeze(-2)) @ right
        if not visible(expected * scale, moment.noise, settings["lr"]):
            return False
        measured = (-moment.change / settings["lr"] - settings["weight_decay"] * moment.before) / scale
        spectrum = torch.linalg.svdvals(measured)
        reached = int((values >= REACHED).sum())
        low, high = (edge * room for edge, room in zip(band(steps, coefficients), MARGIN, strict=True))
        inside = int(((spectrum >= low) & (spectrum <= high)).sum())
        share = min(1.0, inside / reached) if reached else 0.0
        self.tallies["singular_values"].add(share, share >= SHARE and float(spectrum.max()) <= high, where)
        distance = excess(measured - expected, expected, moment.noise / (settings["lr"] * scale))
        self.tallies["orthogonal_map"].add(distance, distance <= TOLERANCE[settings["ns_precision"]], where)
        return True


class MuonInvariant(OrthogonalInvariant):
    """`OrthogonalInvariant` with Muon's Nesterov momentum."""
