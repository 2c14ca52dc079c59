"""NAdamW shown on parameters: an independent step with its look-ahead, which AdamW lacks."""

from __future__ import annotations

from torch import Tensor

from tuneopt.optim.hyperparameters import Settings
from tuneopt.optim.invariants.base import Moment
from tuneopt.optim.invariants.variant import VariantInvariant, adam_ratio


class NAdamWInvariant(VariantInvariant):
    """Recomputes the average that looks one step ahead as beta1 m_hat' + (1 - beta1) g_hat, each with its own t."""

    trait = "look_ahead"
    described = "the look-ahead"

    def ratios(self, moment: Moment) -> tuple[Tensor, Tensor]:
        """With and without the look-ahead."""
        settings, step = moment.settings, moment.step
        beta1, beta2 = settings["betas"]
        first, second = self.averaged(moment.name, moment.gradient, settings)
        plain = adam_ratio(first, second, settings, step)
        ahead = step + (settings["bias_correction"] == "next")
        target = beta1 * first / (1 - beta1**ahead) + (1 - beta1) * moment.gradient / (1 - beta1**step)
        return target / ((second / (1 - beta2**step)).sqrt() + settings["eps"]), plain

    def has_trait(self, settings: Settings) -> bool:
        """Without a first moment there is nothing to look ahead to."""
        return bool(settings["betas"][0] > 0)
