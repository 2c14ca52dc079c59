"""Several ranks for one trial: who they are, and how they share a batch and an evaluation.

Ranks do not change which tokens a step sees: rank r of W takes the r-th of W equal parts of every batch, and the mean
gradient over all of it moves the parameters. So the loss is that of one process, up to the order of its sums.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tuneopt.spec import InputError, TrialSpec
from tuneopt.train.engine import LossFunction
from tuneopt.train.evaluate import HeldOut

STAGES = (0, 1, 2, 3)
"""0: every rank holds everything; 1: state and master weights are sharded; 2: gradients too; 3: weights too."""

TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others before it gives up; the first compilation of a large model takes minutes."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one trial runs. It is no part of the trial's identity: the loss does not depend on it.

    ``ranks`` processes, one per device; ZeRO stage ``zero`` (`STAGES`); ``offload`` keeps master weights, gradients
    and optimizer state in host memory (stages 1 to 3). ``checkpointing`` computes each block's activations again in
    the backward pass; a pass takes at most ``sequences`` sequences, None for what `tuneopt.train.fitting` finds;
    ``deterministic`` asks CUDA for kernels that give the same bits each time. Raises `InputError` for what cannot be.
    """

    ranks: int = 1
    zero: int = 0
    offload: bool = False
    checkpointing: bool = False
    sequences: int | None = None
    deterministic: bool = False

    def __post_init__(self) -> None:
        if self.ranks < 1:
            raise InputError(f"ranks must be at least 1, not {self.ranks}")
        if self.sequences is not None and self.sequences < 1:
            raise InputError(f"a pass takes at least 1 sequence, not {self.sequences}; leave it out for what fits")
        if self.zero not in STAGES:
            raise InputError(f"zero must be one of the stages {', '.join(map(str, STAGES))}, not {self.zero}")
        if self.offload and self.zero == 0:
            raise InputError("offload needs ZeRO; choose zero=1, 2 or 3")

    @property
    def distributed(self) -> bool:
        """Whether this is anything else than training in one plain process."""
        return self.ranks > 1 or self.zero > 0

    def micro_batch(self, spec: TrialSpec) -> int:
        """Sequences that a rank takes per forward pass: the largest part of its share within ``sequences`` or ``spec``.

        Raises `InputError` where the batch does not divide among the ranks.
        """
        if spec.batch % self.ranks:
            raise InputError(
                f"train_batch_size {spec.batch} does not divide among {self.ranks} ranks; choose a number of ranks "
                "that divides it"
            )
        share = spec.batch // self.ranks
        most = self.sequences or spec.micro_batch
        return max(size for size in range(1, min(share, most) + 1) if share % size == 0)

    def facts(self, spec: TrialSpec) -> dict[str, str]:
        """What a trial record says about the placement, in its environment."""
        facts = {"ranks": str(self.ranks), "zero": str(self.zero)} if self.distributed else {}
        facts["micro_batch"] = str(self.micro_batch(spec))
        chosen = {"offload": self.offload and "cpu", "checkpointing": self.checkpointing and "blocks"}
        chosen["deterministic"] = self.deterministic and "yes"
        return facts | {name: str(value) for name, value in chosen.items() if value}


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among all of a trial, once `joined`."""

    rank: int
    world: int
    device: torch.device

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        dist.all_reduce(tensor)
        return tensor

    def all(self, flag: bool) -> bool:
        """Whether the flag is set on every rank."""
        word = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(word, op=dist.ReduceOp.MIN)
        return bool(word)

    def least(self, count: int) -> int:
        """The least count of all ranks."""
        word = torch.tensor(count, dtype=torch.int64, device=self.device)
        dist.all_reduce(word, op=dist.ReduceOp.MIN)
        return int(word)

    def first_says(self, flag: bool) -> bool:
        """The flag of rank 0."""
        word = torch.tensor(int(flag), device=self.device)
        dist.broadcast(word, 0)
        return bool(word)

    def gather(self, value: Any) -> list[Any]:
        """Plain values of all ranks, by rank."""
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait for all ranks."""
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
