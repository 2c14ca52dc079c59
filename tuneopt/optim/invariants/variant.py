"""Variants of AdamW shown on parameters: the change equals the variant's own step, and differs from AdamW's by a trait.

The first claim bounds the error relative to the update, the second one relative to the difference between the variant
and AdamW. A run of plain AdamW under a variant's name misses the second by 1, however small the difference is.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from tuneopt.optim.hyperparameters import Settings
from tuneopt.optim.invariants.adamw import AdamWInvariant
from tuneopt.optim.invariants.base import Check, Moment, Tally, excess, visible

UPDATE = 1e-3
TRAIT = 0.02


class VariantInvariant(AdamWInvariant):
    """Follows two moments in float64 and predicts every change of the parameters, as the variant and as AdamW."""

    trait: str
    """Name of the second claim."""
    described: str
    """What the variant does differently."""

    def __init__(self) -> None:
        super().__init__()
        self._absent = False
        self.tallies = {
            "update": Tally(f"distance to an independent update, relative and beyond rounding, <= {UPDATE:g}"),
            self.trait: Tally(f"distance to AdamW plus {self.described}, relative to that, <= {TRAIT:g}"),
        }

    @abstractmethod
    def ratios(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """What the variant and AdamW subtract at rate 1, decay apart; moves the own moments on by one step."""

    @abstractmethod
    def has_trait(self, settings: Settings) -> bool:
        """Whether the variant differs from AdamW under these settings."""

    def measure(self, moment: Moment) -> bool:
        """Predict the change and compare; a step in which the trait is hidden does not count."""
        settings, where = moment.settings, f"{moment.name}, step {moment.step}"
        ratio, plain = self.ratios(moment)
        update = ratio + settings["weight_decay"] * moment.before
        if not bool(update.isfinite().all() & moment.change.isfinite().all()):
            self.tallies["update"].add(float("nan"), False, where)
            return True
        if not visible(update, moment.noise, settings["lr"]):
            return False
        wrong = moment.change + settings["lr"] * update
        error = excess(wrong, settings["lr"] * update, moment.noise)
        self.tallies["update"].add(error, error <= UPDATE, where)
        self.look(moment, update, where)
        self._absent = not self.has_trait(settings)
        if self._absent:
            return True
        if not visible(ratio - plain, moment.noise, settings["lr"]):
            return False
        error = excess(wrong, settings["lr"] * (ratio - plain), moment.noise)
        self.tallies[self.trait].add(error, error <= TRAIT, where)
        return True

    def look(self, moment: Moment, update: Tensor, where: str) -> None:
        """More claims about a visible step."""

    def checks(self, rule: str) -> tuple[Check, ...]:
        """The claims; the trait is left out where the settings switch it off."""
        names = (name for name in self.tallies if not (self._absent and name == self.trait))
        return tuple(self.tallies[name].check(f"{rule}.{name}") for name in names)

    def averaged(self, name: str, gradient: Tensor, settings: Settings) -> tuple[Tensor, Tensor]:
        """Both own moments of a parameter after taking in a gradient."""
        beta1, beta2 = settings["betas"]
        first, second = self._moments[name]
        self._moments[name] = averaged(first, second, gradient, beta1, beta2)
        return self._moments[name]


def averaged(first: Tensor, second: Tensor, gradient: Tensor, beta1: float, beta2: float) -> tuple[Tensor, Tensor]:
    """Both moments one step on."""
    return beta1 * first + (1 - beta1) * gradient, beta2 * second + (1 - beta2) * gradient**2


def adam_ratio(first: Tensor, second: Tensor, settings: Settings, step: int) -> Tensor:
    """The bias-corrected ratio of moments, Adam's update at rate 1."""
    beta1, beta2 = settings["betas"]
    ratio: Tensor = first / (1 - beta1**step) / ((second / (1 - beta2**step)).sqrt() + settings["eps"])
    return ratio
