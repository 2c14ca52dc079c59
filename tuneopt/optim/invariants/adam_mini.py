"""Adam-mini shown on parameters: the entries of a block share one denominator, and it is the block's own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tuneopt.optim.hyperparameters import Settings
from tuneopt.optim.invariants.base import SAMPLE, Invariant, Moment, Subject, Tally, excess, visible
from tuneopt.optim.partition import by_block

UPDATE = 1e-3
DENOMINATOR = 1e-3


class AdamMiniInvariant(Invariant):
    """Looks at whole blocks, spread evenly, with rate and decay divided out of their change.

    Claims: (1) ``one_denominator``: within each block the change is a multiple of a first moment that is followed in
    float64: the distance to the best multiple, over all blocks. AdamW's changes are no such multiples. (2) ``update``:
    the change equals an independent Adam-mini step, whose second moments are means over the blocks.
    """

    def __init__(self) -> None:
        super().__init__()
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        self.tallies = {
            "one_denominator": Tally(
                f"distance of a block's change to a multiple of its first moment, beyond rounding, <= {DENOMINATOR:g}"
            ),
            "update": Tally(f"distance to an independent update, relative and beyond rounding, <= {UPDATE:g}"),
        }

    def view(self, tensor: Tensor, settings: Settings) -> Tensor:
        """Blocks as rows."""
        return self._sample(by_block(tensor, settings).flatten(1), tensor.numel())

    def remember(self, subject: Subject) -> Any:
        """Start the own moments where they are not yet followed."""
        if self.missed(subject):
            zeros, settings = torch.zeros_like(subject.parameter), subject.settings
            first = self.view(subject.state.get("exp_avg", zeros), settings).to(torch.float64, copy=True)
            second = torch.zeros(len(first), 1, dtype=torch.float64, device=first.device)
            if "exp_avg_sq" in subject.state:
                second.copy_(self._sample(subject.state["exp_avg_sq"].flatten(1), zeros.numel()))
            self._moments[subject.name] = first, second
        return None

    def measure(self, moment: Moment) -> bool:
        """Compare with a multiple of the first moment, then with the multiple that is due."""
        settings, where = moment.settings, f"{moment.name}, step {moment.step}"
        beta1, beta2 = settings["betas"]
        first, second = self._moments[moment.name]
        first = beta1 * first + (1 - beta1) * moment.gradient
        second = beta2 * second + (1 - beta2) * moment.gradient.square().mean(dim=1, keepdim=True)
        self._moments[moment.name] = first, second
        root = (second / (1 - beta2**moment.step)).sqrt() + settings["eps"]
        ratio = first / (1 - beta1**moment.step) / root
        update = ratio + settings["weight_decay"] * moment.before
        if not bool(update.isfinite().all() & moment.change.isfinite().all()):
            self.tallies["update"].add(float("nan"), False, where)
            return True
        if not visible(update, moment.noise, settings["lr"]) or not visible(ratio, moment.noise, settings["lr"]):
            return False
        error = excess(moment.change + settings["lr"] * update, settings["lr"] * update, moment.noise)
        self.tallies["update"].add(error, error <= UPDATE, where)
        moved = -moment.change / settings["lr"] - settings["weight_decay"] * moment.before
        square = first.square().sum(dim=1, keepdim=True)
        multiple = torch.where(square > 0, (moved * first).sum(dim=1, keepdim=True) / square, 0.0)
        error = excess(moved - multiple * first, moved, moment.noise / settings["lr"])
        self.tallies["one_denominator"].add(error, error <= DENOMINATOR, where)
        return True

    def _sample(self, rows: Tensor, numel: int) -> Tensor:
        return rows[:: max(1, numel // SAMPLE)]
