"""DeepSpeed's engine around a model: it shards, averages gradients and applies displacements, and nothing else."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tuneopt.optim.base import Optimizer
from tuneopt.spec import TrialSpec
from tuneopt.train.distributed import Placement, Ranks
from tuneopt.train.engine import LossFunction
from tuneopt.train.model import Llama
from tuneopt.train.zero.shards import FlatShards, PieceShards, Shards

BUCKET = 2**26
"""Elements that DeepSpeed averages or gathers at a time, 256 MiB in fp32; a buffer of this size is held throughout."""

LIVE = 2**28
"""Elements of fetched weights that stage 3 keeps before it drops some, 1 GiB in fp32."""


class Apply(torch.optim.Optimizer):
    """p <- p - lr wd p + g on flat shards, where g is a displacement in the place of the gradient; no state."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Every parameter that has a gradient moves by it."""
        for group in self.param_groups:
            moving = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not moving:
                continue
            if shrink := group["lr"] * group["weight_decay"]:
                torch._foreach_mul_(moving, 1 - shrink)
            torch._foreach_add_(moving, [parameter.grad for parameter in moving])


class LossModule(nn.Module):
    """A model whose forward pass is its loss, because an engine calls nothing else."""

    def __init__(self, model: Llama, loss: LossFunction) -> None:
        super().__init__()
        self.model = model
        self._loss = loss

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean nats per token for inputs of shape (B, T)."""
        return self._loss(tokens, targets)


@dataclass(frozen=True, slots=True)
class Sharded:
    """A model under DeepSpeed: the engine, the flat optimizer and the pieces that are here."""

    engine: Any
    apply: Apply
    shards: Shards


def shard(
    model: Llama, loss: LossFunction, whole: Optimizer, spec: TrialSpec, placement: Placement, ranks: Ranks
) -> Sharded:
    """Hand the model, with its weights as they are, to DeepSpeed; all ranks together, in one process group."""
    deepspeed = quiet_deepspeed(ranks.device)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups = [
        {"params": list(group["params"]), "lr": group["lr"], "weight_decay": group["weight_decay"]}
        for group in whole.param_groups
    ]
    apply = Apply(groups)
    engine, *_ = deepspeed.initialize(
        model=LossModule(model, loss), optimizer=apply, config=settings(spec, placement), dist_init_required=False
    )
    shards = PieceShards(parameters, ranks.rank) if placement.zero == 3 else FlatShards(parameters)
    return Sharded(engine, apply, shards)


def settings(spec: TrialSpec, placement: Placement) -> dict[str, Any]:
    """DeepSpeed's configuration. Weights stay fp32 whatever the precision of the compute, which autocast sets."""
    size = placement.micro_batch(spec)
    zero: dict[str, Any] = {
        "stage": placement.zero,
        "contiguous_gradients": True,
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
    }
    if placement.zero == 3:
        zero |= {"stage3_max_live_parameters": LIVE, "stage3_max_reuse_distance": LIVE}
        zero |= {"stage3_prefetch_bucket_size": BUCKET // 2}
    if placement.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": size,
        "gradient_accumulation_steps": spec.batch // placement.ranks // size,
        "zero_optimization": zero,
        # `Apply` is elementwise, which is all that the engine can ask for.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # The engine would clip displacements; gradients are clipped before, by each optimizer's own rule.
        "gradient_clipping": 0.0,
        "steps_per_print": 2**31,
    }


def quiet_deepspeed(device: torch.device) -> Any:
    """The module, imported with as little ado as it allows: no kernels are built, and it logs errors alone."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    from deepspeed import ops
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    # Its collectives in shared memory need a compiler and half a minute; torch's serve as well.
    ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
