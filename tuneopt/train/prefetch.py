"""Batches gathered ahead of the training loop, off its thread.

A thread reads windows from the memory map while the step before is computed, in the order of the run, and never more
than a few ahead: memory stays constant. On CUDA they wait in page-locked memory, from which a copy does not stop the
training thread. The thread idles between requests and ends with its `Prefetch`, however that ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tuneopt.data import SampleOrder, Windows

Range = tuple[int, int]
"""The first sample of a micro-batch in the order of the run, and how many it has."""

DEPTH = 2
"""Micro-batches that are gathered ahead of the one in use."""


@dataclass(frozen=True, slots=True)
class Part:
    """What is trained here of every batch: ``count`` micro-batches of ``size`` sequences, from the ``first`` on."""

    batch: int
    first: int
    count: int
    size: int

    def of(self, step: int) -> list[Range]:
        """Its micro-batches in a step."""
        first = step * self.batch + self.first
        return [(first + number * self.size, self.size) for number in range(self.count)]

    def from_step(self, step: int, steps: int) -> Iterator[Range]:
        """Its micro-batches from a step on, to the end of a run of ``steps``."""
        for each in range(step, steps):
            yield from self.of(each)


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
        while len(self._ahead) <= DEPTH and (wanted := next(self._ranges, None)) is not None:
            self._ahead.append((wanted, self._pool.submit(self._gather, *wanted)))


def gathering(windows: Windows, order: SampleOrder, device: torch.device) -> Callable[[int, int], Tensor]:
    """A function of ``first`` and ``count`` that gathers those samples of a run on the host, (count, T + 1) int64."""

    def gather(first: int, count: int) -> Tensor:
        window = torch.from_numpy(windows.take(order.indices(first, count)).astype(np.int64))
        return window.pin_memory() if device.type == "cuda" else window

    return gather
