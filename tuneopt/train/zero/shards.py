"""Which part of each parameter DeepSpeed keeps on this rank, and its gradient and master weights there.

Stages 1 and 2 cut the flattened parameters of a group into one piece per rank, so that a tensor lies on one rank or
runs over a border. Stage 3 cuts every tensor into one piece per rank, the last one padded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Extent = tuple[int, int]
"""First element and number of elements of a piece within the flattened tensor; (0, 0) where there is none."""


class Shards(ABC):
    """The pieces on this rank; pieces are flat, fp32, and carry no padding."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.parameters = dict(parameters)
        self.extents = {name: self._extent(parameter) for name, parameter in self.parameters.items()}

    @abstractmethod
    def _extent(self, parameter: nn.Parameter) -> Extent: ...

    @abstractmethod
    def gradient(self, name: str) -> Tensor:
        """The piece of the averaged gradient; only between the last backward pass and the step."""

    def gradients(self, names: Iterable[str]) -> Iterator[Tensor]:
        """`gradient` of those tensors that have a piece here."""
        return (self.gradient(name) for name in names if self.extents[name][1])

    @abstractmethod
    def set_gradient(self, name: str, value: Tensor) -> None:
        """Put something else in its place."""

    @abstractmethod
    def master(self, name: str) -> Tensor:
        """The piece of the fp32 master weights."""


class FlatShards(Shards):
    """Stages 1 and 2."""

    def _extent(self, parameter: nn.Parameter) -> Extent:
        mapping = self._mapping(parameter)
        return (0, 0) if mapping is None else (mapping.lp_fragment_address.start, mapping.lp_fragment_address.numel)

    def gradient(self, name: str) -> Tensor:
        """See `Shards.gradient`."""
        parameter = self.parameters[name]
        position = parameter._index_in_param_group  # type: ignore[attr-defined]
        piece: Tensor = self._mapping(parameter).get_lp_grad_fragment(position)
        start, count = self.extents[name]
        flat = piece.reshape(-1)
        # A rank that alone holds the tensor may be handed all of it, padding and neighbours not included.
        return flat if flat.numel() == count else flat.narrow(0, start, count)

    def set_gradient(self, name: str, value: Tensor) -> None:
        """See `Shards.set_gradient`."""
        self.gradient(name).copy_(value)

    def master(self, name: str) -> Tensor:
        """See `Shards.master`."""
        piece: Tensor = self._mapping(self.parameters[name]).get_hp_fragment()
        return piece

    @staticmethod
    def _mapping(parameter: nn.Parameter) -> Any:
        return parameter._hp_mapping  # type: ignore[attr-defined]


class PieceShards(Shards):
    """Stage 3."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], rank: int) -> None:
        self._rank = rank
        super().__init__(parameters)

    def _extent(self, parameter: nn.Parameter) -> Extent:
        size = parameter.ds_tensor.numel()  # type: ignore[attr-defined]
        first = self._rank * size
        count = max(0, min(parameter.ds_numel - first, size))  # type: ignore[attr-defined]
        return (first, count) if count else (0, 0)

    def gradient(self, name: str) -> Tensor:
        """See `Shards.gradient`."""
        from deepspeed.utils import safe_get_local_grad

        piece: Tensor = safe_get_local_grad(self.parameters[name])
        return piece[: self.extents[name][1]]

    def set_gradient(self, name: str, value: Tensor) -> None:
        """See `Shards.set_gradient`."""
        from deepspeed.utils import safe_set_local_grad

        padded = torch.zeros(self.parameters[name].ds_tensor.numel(), dtype=value.dtype, device=value.device)  # type: ignore[attr-defined]
        padded[: value.numel()] = value
        safe_set_local_grad(self.parameters[name], padded)

    def master(self, name: str) -> Tensor:
        """See `Shards.master`."""
        from deepspeed.utils import safe_get_local_fp32_param

        piece: Tensor = safe_get_local_fp32_param(self.parameters[name])
        return piece[: self.extents[name][1]]
