"""Estimates of the Hessian's diagonal under ZeRO: every rank's share of the pass, summed where the state is."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from tuneopt.spec import TrialSpec
from tuneopt.train.distributed import Ranks
from tuneopt.train.model import Llama


def whole_copy(model: Llama, spec: TrialSpec) -> Llama:
    """A plain model with the gathered weights of one that stage 3 has cut up; all ranks together.

    A pass for second derivatives needs all weights at once, so each rank holds the whole model while it lasts.
    """
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters

    device = next(model.parameters()).device
    copy = Llama(spec.regime.scale, spec.regime.corpus.vocab_size).to(device)
    with torch.no_grad():
        for own, shard in zip(copy.parameters(), model.parameters(), strict=True):
            with GatheredParameters([shard]):
                own.copy_(shard)
            own.requires_grad_(shard.requires_grad)
    return copy


def reduced_to_owners(estimates: dict[str, Tensor], owners: Mapping[str, int], ranks: Ranks) -> dict[str, Tensor]:
    """The sum over ranks of each tensor, on its owner alone; one message per owner."""
    kept: dict[str, Tensor] = {}
    for owner in range(ranks.world):
        names = [name for name in estimates if owners[name] == owner]
        if not names:
            continue
        parcel = torch.cat([estimates[name].reshape(-1) for name in names])
        dist.reduce(parcel, owner)
        if owner == ranks.rank:
            position = 0
            for name in names:
                size = estimates[name].numel()
                kept[name] = parcel[position : position + size].view_as(estimates[name])
                position += size
    return kept
