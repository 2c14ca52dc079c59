"""Building a model whose weights never exist whole: drawn tensor by tensor, and each cut into shards at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from tuneopt.optim.base import Optimizer


def scatter(model: nn.Module, values: Iterable[tuple[str, Tensor]], settings: dict[str, Any], deepspeed: Any) -> None:
    """Give a model without storage its weights, in the order of its parameters, keeping this rank's shards alone.

    ``values`` are (name, whole tensor) in that order, equal on all ranks; one of them exists at a time. ``settings``
    is DeepSpeed's configuration, of stage 3. Afterwards the model has other parameters than before, which DeepSpeed
    fetches where they are used.
    """
    modules = {
        f"{prefix}.{name}" if prefix else name: (module, name)
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }
    for name, value in values:
        module, own = modules.pop(name)
        before = module.get_parameter(own)
        # DeepSpeed takes modules; one that holds this parameter alone is cut up whole.
        holder = nn.ParameterList([nn.Parameter(value, requires_grad=before.requires_grad)])
        deepspeed.zero.Init(module=holder, config_dict_or_path=settings)
        setattr(module, own, holder[0])
        del value
    assert not modules, f"no values for {', '.join(modules)}"


def follow(optimizer: Optimizer, model: nn.Module) -> None:
    """Let an optimizer that was built for the model before `scatter` name its parameters of now; it must not step."""
    parameters = dict(model.named_parameters())
    for group in optimizer.param_groups:
        group["params"] = [parameters[name] for name in group["param_names"]]


def saved_values(model: nn.Module, saved: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The weights of a checkpoint in the order of the model's parameters, each in memory of its own."""
    return ((name, saved[name].clone()) for name, _ in model.named_parameters())
