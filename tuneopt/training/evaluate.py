"""Evaluation on fixed batches of the two held-out splits.

``select`` chooses configurations, ``report`` is what gets published; they share no document. Every trial of a regime
is measured on the same windows, spread evenly over each split, so that no source of a mixed corpus is left out. Ranks
share the passes and get the same two losses, summed in the order of one process.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tuneopt.data import Corpus
from tuneopt.errors import InputError
from tuneopt.spec import TrialSpec
from tuneopt.training.building import LossFunction
from tuneopt.training.ranks import Ranks

SPLITS = ("select", "report")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Fixed windows of both splits, each (sequences, T + 1) int64, and how many of them one forward pass takes."""

    windows: dict[str, Tensor]
    curve_sequences: int
    micro_batch: int
    ranks: Ranks
    compiled: bool = False

    @classmethod
    def of(
        cls, corpus: Corpus, spec: TrialSpec, ranks: Ranks, micro_batch: int | None = None, compiled: bool = False
    ) -> HeldOut:
        """The windows that ``spec`` is evaluated on; `InputError` when a split holds less than one micro-batch.

        A pass takes ``micro_batch`` sequences, by default those of ``spec``. Which windows count does not depend on it.
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
            windows[split] = torch.from_numpy(source.take(spread).astype(np.int64)).to(ranks.device)
        curve = max(spec.micro_batch, spec.evaluation.curve_sequences // spec.micro_batch * spec.micro_batch)
        return cls(windows, curve, micro_batch or spec.micro_batch, ranks, compiled)

    def losses(self, loss: LossFunction, *, final: bool) -> tuple[float, float]:
        """(select, report) loss in nats per token, over the curve's windows or, when ``final``, over all of them."""
        select, report = (self._mean(loss, self.windows[split], final) for split in SPLITS)
        return select, report

    def _mean(self, loss: LossFunction, windows: Tensor, final: bool) -> float:
        count = min(len(windows), self.curve_sequences)
        chosen = windows if final else windows[torch.arange(count, device=windows.device) * len(windows) // count]
        parts = torch.split(chosen, self.micro_batch)
        # Parts are dealt out to the ranks in turn. Every rank takes equally many, the last one over again where they
        # do not divide: ranks that shard weights must run the model together.
        rank, world = self.ranks.rank, self.ranks.world
        own = [parts[min(first + rank, len(parts) - 1)] for first in range(0, len(parts), world)]
        # With gradients on, a compiled loss runs the forward kernels of training; off, it would compile others.
        with torch.set_grad_enabled(self.compiled):
            measured = torch.stack([loss(part[:, :-1], part[:, 1:]).detach().double() for part in own])
        losses = self.ranks.all_gather(measured).T.flatten()[: len(parts)]  # (W, parts of a rank) -> parts in order
        if len(parts[-1]) == self.micro_batch:
            return float(losses.sum()) / len(parts)
        # The last pass is a smaller one: each counts by its sequences.
        counts = torch.tensor([len(part) for part in parts], dtype=torch.float64, device=losses.device)
        return float((losses * counts).sum() / len(chosen))
