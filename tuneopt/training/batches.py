"""The text that a rank trains on, gathered ahead of the loop and off its thread, and what a trial is measured on.

A batch is a function of the trial's order seed, step and batch size alone: step s takes the samples ``s * batch`` and
on, in the order that the seed gives, and rank r of W the r-th of W equal parts. A thread reads windows from the memory
map while the step before is computed, in the order of the run, and never more than a few ahead: memory stays constant.
On CUDA they wait in page-locked memory, from which a copy does not stop the training thread. The thread idles between
requests and ends with its `Prefetch`, however that ends.

Losses are measured on fixed batches of the two held-out splits: ``select`` chooses configurations, ``report`` is what
gets published; they share no document. Every trial of a regime is measured on the same windows, spread evenly over each
split, so that no source of a mixed corpus is left out. Ranks share the passes and get the same two losses, summed in
the order of one process.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tuneopt.data import Corpus, SampleOrder, Windows
from tuneopt.errors import InputError
from tuneopt.spec import TrialSpec
from tuneopt.training.building import LossFunction
from tuneopt.training.ranks import Ranks

Range = tuple[int, int]
"""The first sample of a micro-batch in the order of the run, and how many it has."""

DEPTH = 2
"""Micro-batches that are gathered ahead of the one in use: one hides a slow read, the second a late thread."""


class Prefetch:
    """Micro-batches of a run, one after the other: ``take()`` gives the next as an int64 tensor (count, T + 1)."""

    def __init__(self, gather: Callable[[int, int], Tensor], ranges: Iterable[Range]) -> None:
        self._gather = gather
        self._ranges = iter(ranges)
        self._ahead: deque[tuple[Range, Future[Tensor]]] = deque()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._fill()

    @property
    def next(self) -> Range | None:
        """What `take` will give; None at the end of the run."""
        return self._ahead[0][0] if self._ahead else None

    def take(self) -> Tensor:
        """The next micro-batch; raises what reading it raised, and `IndexError` at the end of the run."""
        if not self._ahead:
            raise IndexError("the run has no further micro-batch")
        _, future = self._ahead.popleft()
        self._fill()
        return future.result()

    def close(self) -> None:
        """Drop what was gathered; nothing can be taken afterwards."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._ahead.clear()

    def _fill(self) -> None:
        while len(self._ahead) <= DEPTH and (ahead := next(self._ranges, None)) is not None:
            self._ahead.append((ahead, self._pool.submit(self._gather, *ahead)))


class TrainBatches:
    """This rank's micro-batches of a trial, by step and number; `waited` counts the seconds that `take` took."""

    def __init__(self, corpus: Corpus, spec: TrialSpec, ranks: Ranks, micro_batch: int) -> None:
        self.windows = corpus.split("train").windows(spec.regime.scale.seq_len)
        self.order = SampleOrder(len(self.windows), spec.order_seed)
        self.device, self.steps, self.batch, self.micro_batch = ranks.device, spec.steps, spec.batch, micro_batch
        self.share = spec.batch // ranks.world
        self.first = ranks.rank * self.share
        self.waited = 0.0
        self._prefetch: Prefetch | None = None

    def take(self, step: int, number: int) -> Tensor:
        """Micro-batch ``number`` of a step, (micro-batch, T + 1) int64 on the device."""
        began = time.perf_counter()
        batch, first, size, passes = self.batch, self.first, self.micro_batch, self.share // self.micro_batch
        if self._prefetch is None or self._prefetch.next != (step * batch + first + number * size, size):
            # The first step, or the first after a resume. Nothing here refers to this object, so one that is dropped
            # frees its memory and its thread at once.
            ranges = ((s * batch + first + n * size, size) for s in range(step, self.steps) for n in range(passes))
            gather = gathering(self.windows, self.order, self.device)
            self._prefetch = Prefetch(gather, itertools.islice(ranges, number, None))
        window = self._prefetch.take().to(self.device, non_blocking=True)
        self.waited += time.perf_counter() - began
        return window

    def window(self, first: int, count: int) -> Tensor:
        """Samples ``first`` to ``first + count - 1`` of the run, (count, T + 1) int64 on the device, read now."""
        gather = gathering(self.windows, self.order, self.device)
        return gather(first, count).to(self.device, non_blocking=True)

    def close(self) -> None:
        """End the thread that reads ahead."""
        if self._prefetch is not None:
            self._prefetch.close()


def gathering(windows: Windows, order: SampleOrder, device: torch.device) -> Callable[[int, int], Tensor]:
    """A function of ``first`` and ``count`` that gathers those samples of a run on the host, (count, T + 1) int64."""

    def gather(first: int, count: int) -> Tensor:
        window = torch.from_numpy(windows.take(order.indices(first, count)).astype(np.int64))
        return window.pin_memory() if device.type == "cuda" else window

    return gather


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
