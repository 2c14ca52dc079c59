"""How a trial is run, which is no part of what it is: `ParallelConfig`, and how often checkpoints are written.

Nothing here changes a trial's id. The loss stays the same up to the order of floating-point sums, so a ledger that
holds a trial from one process returns it to eight ranks. Imports no torch, so that plans and command lines stay quick.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from tuneopt.errors import InputError
from tuneopt.spec import OwnModel, Scale, TrialSpec

STAGES = (0, 1, 2, 3)
"""ZeRO stages. 0: every rank holds everything; 1: state and master weights are sharded; 2: gradients too; 3: weights
too (Rajbhandari et al., arXiv 1910.02054)."""

PAUSE_VARIABLE = "TUNEOPT_CHECKPOINT_SECONDS"

PAUSE_SECONDS = 10.0
"""Least time between checkpoints, unless the environment says another."""


HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}
"""In the environment of a process before its first question to CUDA: there are no GPUs (ROCm's torch reads it too)."""


@dataclass(frozen=True, slots=True)
class ParallelConfig:
    """How the work of one trial is split over processes and devices.

    ``ranks`` processes, one per device; ZeRO stage ``zero`` (`STAGES`); ``offload`` keeps master weights, gradients
    and optimizer state in host memory (stages 1 to 3). ``checkpointing`` is activation checkpointing: each block
    computes its activations again in the backward pass. A pass takes at most ``sequences`` sequences, None for what
    `tuneopt.training.fitting` finds; ``deterministic`` asks CUDA for kernels that give the same bits each time. Raises
    `InputError` for what cannot be.
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

    def check_model(self, scale: Scale) -> None:
        """Raise `InputError` for what a model of a user's own cannot have: nothing is known of its inside."""
        if not isinstance(scale, OwnModel):
            return
        word = scale.model.partition("@")[0]
        if self.zero:
            raise InputError(f"{word} is a model of your own, which ZeRO cannot cut up; leave out --zero and --offload")
        if self.checkpointing:
            raise InputError(f"{word} is a model of your own, so its layers are not known; checkpoint inside of it")

    @property
    def distributed(self) -> bool:
        """Whether this is anything else than training in one plain process."""
        return self.ranks > 1 or self.zero > 0

    def micro_batch(self, spec: TrialSpec) -> int:
        """Micro-batch size of a rank: the largest divisor of its share within ``sequences``, or what ``spec`` says.

        Raises `InputError` where the batch does not divide among the ranks.
        """
        if spec.batch % self.ranks:
            raise InputError(
                f"train_batch_size {spec.batch} does not divide among {self.ranks} ranks; choose a number of ranks "
                "that divides it"
            )
        share = spec.batch // self.ranks
        most = self.sequences or spec.micro_batch
        # A divisor, so that all passes of a step weigh the same and compiled code meets one shape.
        return max(size for size in range(1, min(share, most) + 1) if share % size == 0)

    def facts(self, spec: TrialSpec) -> dict[str, str]:
        """What a trial record says about this in its environment."""
        facts = {"ranks": str(self.ranks), "zero": str(self.zero)} if self.distributed else {}
        facts["micro_batch"] = str(self.micro_batch(spec))
        if self.offload:
            facts["offload"] = "cpu"
        if self.checkpointing:
            facts["checkpointing"] = "blocks"
        if self.deterministic:
            facts["deterministic"] = "yes"
        return facts


def pause_seconds() -> float:
    """Least seconds between checkpoints; raises `InputError` where the environment names no such time."""
    text = os.environ.get(PAUSE_VARIABLE, "")
    try:
        seconds = float(text) if text else PAUSE_SECONDS
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise InputError(f"{PAUSE_VARIABLE} must be a number of seconds from 0 up, not {text!r}; leave it out for 10")
    return seconds
