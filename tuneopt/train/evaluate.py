"""Evaluation on fixed batches of the two held-out splits.

``select`` chooses configurations, ``report`` is what gets published; they share no document. Every trial of a regime
is measured on the same windows, spread evenly over each split, so that no source of a mixed corpus is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from tuneopt.data import Corpus
from tuneopt.spec import InputError, TrialSpec
from tuneopt.train.building import LossFunction
from tuneopt.train.ranks import Ranks

SPLITS = ("select", "report")

EachLoss = Callable[[LossFunction, list[Tensor]], list[Tensor]]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Fixed windows of both splits, each (sequences, T + 1) int64, and how many of them one forward pass takes."""

    windows: dict[str, Tensor]
    curve_sequences: int
    micro_batch: int
    compiled: bool = False

    @classmethod
    def of(cls, corpus: Corpus, spec: TrialSpec, device: torch.device, most: int | None = None) -> HeldOut:
        """The windows that ``spec`` is evaluated on; `InputError` when a split holds less than one micro-batch.

        A pass takes the micro-batch of ``spec``, or ``most`` sequences where a device was fitted with that many. Which
        windows count does not depend on it.
        """
        windows = {}
        for split in SPLITS:
            source = corpus.split(split).windows(spec.regime.scale.seq_len)
            # Whole micro-batches only, so that a compiled loss meets one shape.
            count = min(len(source), spec.evaluation.final_sequences) // spec.micro_batch * spec.micro_batch
            if count == 0:
                raise InputError(
                    f"the {split} split of corpus {corpus.id.name!r} holds {len(source)} sequences of "
                    f"{spec.regime.scale.seq_len} tokens, fewer than one micro-batch of {spec.micro_batch}; add text"
                )
            spread = np.arange(count) * len(source) // count
            windows[split] = torch.from_numpy(source.take(spread).astype(np.int64)).to(device)
        curve = max(spec.micro_batch, spec.evaluation.curve_sequences // spec.micro_batch * spec.micro_batch)
        return cls(windows, curve, most or spec.micro_batch, spec.compile)

    def losses(self, loss: LossFunction, *, final: bool, each: EachLoss | None = None) -> tuple[float, float]:
        """(select, report) loss in nats per token, over the curve's windows or, when ``final``, over all of them.

        ``each`` gives the loss of every micro-batch, where this process is not to compute all of them by itself.
        """
        select, report = (self._mean(loss, self.windows[split], final, each or each_loss) for split in SPLITS)
        return select, report

    def _mean(self, loss: LossFunction, windows: Tensor, final: bool, each: EachLoss) -> float:
        count = min(len(windows), self.curve_sequences)
        chosen = windows if final else windows[torch.arange(count, device=windows.device) * len(windows) // count]
        parts = torch.split(chosen, self.micro_batch)
        # With gradients on, a compiled loss runs the forward kernels of training; off, it would compile others.
        with torch.set_grad_enabled(self.compiled):
            losses = each(loss, list(parts))
        if len(parts[-1]) == self.micro_batch:
            return float(torch.stack(losses).sum()) / len(parts)
        # The last pass is a smaller one: each counts by its sequences.
        counts = torch.tensor([len(part) for part in parts], dtype=torch.float64, device=losses[0].device)
        return float((torch.stack(losses) * counts).sum() / len(chosen))


def each_loss(loss: LossFunction, parts: list[Tensor]) -> list[Tensor]:
    """The mean loss of each micro-batch (B, T + 1), float64."""
    return [loss(part[:, :-1], part[:, 1:]).detach().double() for part in parts]


class SharedHeldOut:
    """Evaluation whose micro-batches are dealt out to the ranks; every rank gets the same two losses.

    The sum runs over micro-batches in the order of one process. Every rank takes equally many, the last ones over
    again where they do not divide, because ranks that shard weights must run the model together.
    """

    def __init__(self, held_out: HeldOut, ranks: Ranks) -> None:
        self._held_out, self._ranks = held_out, ranks

    def losses(self, loss: LossFunction, *, final: bool) -> tuple[float, float]:
        """(select, report) loss in nats per token, as `HeldOut.losses`."""
        return self._held_out.losses(loss, final=final, each=self._each)

    def _each(self, loss: LossFunction, parts: list[Tensor]) -> list[Tensor]:
        rank, world = self._ranks.rank, self._ranks.world
        rounds = -(-len(parts) // world)
        own = [parts[min(number * world + rank, len(parts) - 1)] for number in range(rounds)]
        measured = torch.stack([loss(part[:, :-1], part[:, 1:]).detach().double() for part in own])
        gathered = [torch.empty_like(measured) for _ in range(world)]
        dist.all_gather(gathered, measured)
        return list(torch.stack(gathered, dim=1).flatten()[: len(parts)].unbind())
