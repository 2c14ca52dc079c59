"""DeepSpeed's engine around a model: it shards, averages gradients and applies updates, and nothing else.

DeepSpeed never sees the optimizer of the trial, because that needs whole tensors and DeepSpeed would hand it flat
shards. It gets `Apply`, which adds to the weights what it finds in the place of the gradient: the finished update.
At stage 3 a model's weights never exist whole: they are drawn tensor by tensor, and each is cut into shards at once
(`scatter`).
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tuneopt.optim.base import Optimizer
from tuneopt.spec import TrialSpec
from tuneopt.training.building import BuiltModel, LossModule
from tuneopt.training.config import ParallelConfig
from tuneopt.training.memory import BUCKET, LIVE
from tuneopt.training.ranks import Ranks
from tuneopt.training.zero.shards import FlatShards, PieceShards, Shards


class Apply(torch.optim.Optimizer):
    """p <- p - lr wd p + g on flat shards, where g is the finished update in the place of the gradient; no state."""

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


def shard(
    built: BuiltModel, whole: Optimizer, spec: TrialSpec, parallel: ParallelConfig, ranks: Ranks
) -> tuple[Any, Apply, Shards]:
    """Hand the model, with its weights as they are, to DeepSpeed; all ranks together, in one process group.

    Gives DeepSpeed's engine, what applies updates in it, and the shards that are here.
    """
    deepspeed = quiet_deepspeed(ranks.device)
    parameters = {name: p for name, p in built.model.named_parameters() if p.requires_grad}
    # The optimizer's own groups, because they differ in decay; `Zero.step` sets the rates of each step.
    apply = Apply(
        [
            {"params": list(group["params"]), "lr": group["lr"], "weight_decay": group["weight_decay"]}
            for group in whole.param_groups
        ]
    )
    with _one_copy() if parallel.zero == 3 and not parallel.offload else nullcontext():
        engine, *_ = deepspeed.initialize(
            model=LossModule(built),
            optimizer=apply,
            config=deepspeed_settings(spec, parallel),
            dist_init_required=False,  # the process group is there (`tuneopt.training.ranks.joined`)
        )
    shards = PieceShards(parameters, ranks.rank) if parallel.zero == 3 else FlatShards(parameters)
    return engine, apply, shards


def scatter(model: nn.Module, values: Iterable[tuple[str, Tensor]], settings: dict[str, Any], deepspeed: Any) -> None:
    """Give a model without storage its weights, in the order of its parameters, keeping this rank's shards alone.

    ``values`` are (name, whole tensor) in that order, equal on all ranks; one of them exists at a time. ``settings``
    is DeepSpeed's configuration, of stage 3. Afterwards the model has other parameters than before, which DeepSpeed
    fetches where they are used.
    """
    places: dict[int, list[tuple[nn.Module, str]]] = {}  # by parameter: a tied one is in two modules
    for module in model.modules():
        for own, parameter in module.named_parameters(recurse=False):
            places.setdefault(id(parameter), []).append((module, own))
    for name, value in values:
        before = model.get_parameter(name)
        # DeepSpeed takes modules; one that holds this parameter alone is cut up whole.
        holder = nn.ParameterList([nn.Parameter(value, requires_grad=before.requires_grad)])
        deepspeed.zero.Init(module=holder, config_dict_or_path=settings)
        for module, own in places.pop(id(before)):
            setattr(module, own, holder[0])
        del value
    assert not places, f"no values for {len(places)} parameters"


def follow(optimizer: Optimizer, model: nn.Module) -> None:
    """Let an optimizer that was built for the model before `scatter` name its parameters of now; it must not step."""
    parameters = dict(model.named_parameters())
    for group in optimizer.param_groups:
        group["params"] = [parameters[name] for name in group["param_names"]]


def saved_values(model: nn.Module, saved: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The weights of a checkpoint in the order of the model's parameters, each in memory of its own."""
    return ((name, saved[name].clone()) for name, _ in model.named_parameters())


@torch.no_grad()
def install(
    model: nn.Module, values: Mapping[str, Tensor], owners: Mapping[str, int], stage: int, ranks: Ranks
) -> None:
    """Give a sharded model the flat ``values`` of each tensor's owner, one tensor after another; all ranks together.

    At stages 1 and 2 the master weights, which every step starts from, stay what they are.
    """
    for name, owner in owners.items():
        parameter, own = model.get_parameter(name), values.get(name)
        if stage < 3:
            message = torch.empty(parameter.numel(), device=ranks.device) if own is None else own.to(ranks.device)
            if ranks.world > 1:
                dist.broadcast(message, owner)
            parameter.copy_(message.view(parameter.shape))
        else:
            import deepspeed

            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=owner):
                if own is not None:
                    parameter.copy_(own.view(parameter.shape))


def destroy(engine: Any) -> None:
    """End a DeepSpeed engine, and let go of its memory for the next trial of this process."""
    from deepspeed.runtime.zero import parameter_offload
    from deepspeed.runtime.zero.partitioned_param_coordinator import PartitionedParameterCoordinator

    engine.destroy()
    # Both keep modules for ever, and by their hooks and parameters all that the engine has.
    parameter_offload.FWD_MODULE_STACK.clear()
    for method in vars(PartitionedParameterCoordinator).values():
        for cell in getattr(method, "__closure__", None) or ():
            if hasattr(cell.cell_contents, "cache_clear"):
                cell.cell_contents.cache_clear()
    gc.collect()


@contextmanager
def _one_copy() -> Iterator[None]:
    """Let stage 3 move the very shards that it gathers, where it would keep a second copy as master weights.

    It means to keep one when weights are fp32 already, but compares a device with its name and finds them unequal.
    """
    from deepspeed.runtime.zero.stage3 import DeepSpeedZeroOptimizer_Stage3 as Stage3

    create = Stage3._create_fp32_partitions

    def create_on_device(self: Any) -> None:
        name, self.device = self.device, torch.device(self.device)
        create(self)
        self.device = name

    Stage3._create_fp32_partitions = create_on_device
    try:
        yield
    finally:
        Stage3._create_fp32_partitions = create


def deepspeed_settings(spec: TrialSpec, parallel: ParallelConfig) -> dict[str, Any]:
    """DeepSpeed's configuration. Weights stay fp32 whatever the precision of the compute, which autocast sets."""
    size = parallel.micro_batch(spec)
    zero: dict[str, Any] = {
        "stage": parallel.zero,
        "contiguous_gradients": True,
        "reduce_bucket_size": BUCKET,
        "allgather_bucket_size": BUCKET,
    }
    if torch.cuda.is_available():
        # DeepSpeed averages gradients of stages 1 and 2 after the backward pass unless it is told otherwise. On a CPU
        # it has no streams to do so on.
        zero["overlap_comm"] = True
    if parallel.zero == 3:
        zero |= {"stage3_max_live_parameters": LIVE, "stage3_max_reuse_distance": LIVE}
        # Updates are copied once more, group by group, before they are applied.
        zero |= {"stage3_prefetch_bucket_size": BUCKET // 2, "sub_group_size": BUCKET}
    if parallel.offload:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "train_micro_batch_size_per_gpu": size,
        "gradient_accumulation_steps": spec.batch // parallel.ranks // size,
        "zero_optimization": zero,
        # `Apply` is elementwise, which is all that the engine can ask for.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        # The engine would clip updates; gradients are clipped before, by each optimizer's own rule.
        "gradient_clipping": 0.0,
        "steps_per_print": 2**31,
    }


def quiet_deepspeed(device: torch.device) -> Any:
    """The module, imported with as little ado as it allows: no kernels are built, and it logs errors alone."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("LOCAL_RANK", str(device.index or 0))  # where stage 3 looks for its device
    import deepspeed
    from deepspeed import ops
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    # Its collectives in shared memory need a compiler and half a minute; torch's serve as well.
    ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
