"""Who a process is among the ranks of its trial, and the collectives that training asks for by name.

Ranks do not change which tokens a step sees: rank r of W takes the r-th of W equal parts of every batch, and the mean
gradient over all of it moves the parameters. So the loss is that of one process, up to the order of its sums. One
process alone is rank 0 of 1: then every collective is the identity and needs no process group.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tuneopt.training.launch import MEETING

TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others before it gives up; the first compilation of a large model takes minutes."""

_M_MMAP_THRESHOLD = -3
_PR_SET_PDEATHSIG = 1
"""The names of these settings in glibc's malloc.h and Linux's prctl.h."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all of a trial. All ranks call the same methods in the same order.

    The process group must be there (`joined`, or a launcher's own) unless ``world`` is 1.
    """

    rank: int
    world: int
    device: torch.device

    def sum(self, tensor: Tensor) -> Tensor:
        """All-reduce: the sum over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def all(self, flag: bool) -> bool:
        """Whether the flag is set on every rank."""
        return self.least(int(flag)) == 1

    def least(self, count: int) -> int:
        """The least count of all ranks."""
        if self.world == 1:
            return count
        word = torch.tensor(count, dtype=torch.int64, device=self.device)
        dist.all_reduce(word, op=dist.ReduceOp.MIN)
        return int(word)

    def first_says(self, flag: bool) -> bool:
        """Broadcast: the flag of rank 0. Clocks and file systems differ between ranks; decisions must not."""
        if self.world == 1:
            return flag
        word = torch.tensor(int(flag), device=self.device)
        dist.broadcast(word, 0)
        return bool(word)

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks, which have one shape, as (W, *shape)."""
        if self.world == 1:
            return tensor[None]
        gathered = [torch.empty_like(tensor) for _ in range(self.world)]
        dist.all_gather(gathered, tensor)
        return torch.stack(gathered)

    def gather(self, value: Any) -> list[Any]:
        """Plain values of all ranks, by rank."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.world > 1:
            dist.barrier()


@contextmanager
def joined(rank: int, world: int, device: torch.device, address: str = "env://") -> Iterator[Ranks]:
    """Join the process group of a trial (gloo on CPUs, NCCL on GPUs), and leave it at the end.

    ``address`` is torch's: ``env://`` reads MASTER_ADDR and MASTER_PORT, ``file://PATH`` meets in a shared file.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif address.startswith("file://"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # one machine: its name need not resolve
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=address, rank=rank, world_size=world, timeout=TIMEOUT)
    try:
        yield Ranks(rank, world, device)
    finally:
        dist.destroy_process_group()


@contextmanager
def rank_of_environment() -> Iterator[Ranks]:
    """Join the others as the rank that the launcher's variables name; GPUs are dealt out by LOCAL_RANK."""
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", rank)) % torch.cuda.device_count())
    else:
        # glibc keeps freed blocks of up to 32 MiB for later, in fragments: several buckets' worth on every rank. Now
        # it returns blocks of 4 MiB and more at once.
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 2**22)
    meeting = os.environ.get(MEETING)
    if meeting:
        # Started by `launch`: Linux ends this process when the one that started it dies. Nobody else would wait for it.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with joined(rank, world, device, f"file://{meeting}" if meeting else "env://") as ranks:
        yield ranks
