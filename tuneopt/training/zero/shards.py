"""The shards of a rank under DeepSpeed, and how tensors travel between the ranks that hold shards and their owners.

Stages 1 and 2 cut the flattened parameters of a group into one piece per rank, so that a tensor lies on one rank or
runs over a border. Stage 3 cuts every tensor into one piece per rank, the last one padded. `Shards` hides which.

An `Exchange` moves whole buckets of tensors: every rank sends each owner only the pieces that it holds (all-to-all), so
one direction moves a W-th of the parameters per rank, not all of them. A transfer travels while its caller computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tuneopt.training.ranks import Ranks

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
        """A view of DeepSpeed's averaged gradient."""
        parameter = self.parameters[name]
        position = parameter._index_in_param_group  # type: ignore[attr-defined]
        piece: Tensor = self._mapping(parameter).get_lp_grad_fragment(position)
        start, count = self.extents[name]
        flat = piece.reshape(-1)
        # A rank that alone holds the tensor may be handed all of it, padding and neighbours not included.
        return flat if flat.numel() == count else flat.narrow(0, start, count)

    def set_gradient(self, name: str, value: Tensor) -> None:
        """Copied into the view."""
        self.gradient(name).copy_(value)

    def master(self, name: str) -> Tensor:
        """A view of what DeepSpeed's step moves."""
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
        """What DeepSpeed holds of it, less the padding."""
        from deepspeed.utils import safe_get_local_grad

        piece: Tensor = safe_get_local_grad(self.parameters[name])
        return piece[: self.extents[name][1]]

    def set_gradient(self, name: str, value: Tensor) -> None:
        """DeepSpeed takes the piece with its padding."""
        from deepspeed.utils import safe_set_local_grad

        padded = torch.zeros(self.parameters[name].ds_tensor.numel(), dtype=value.dtype, device=value.device)  # type: ignore[attr-defined]
        padded[: value.numel()] = value
        safe_set_local_grad(self.parameters[name], padded)

    def master(self, name: str) -> Tensor:
        """What DeepSpeed holds of it, less the padding."""
        from deepspeed.utils import safe_get_local_fp32_param

        piece: Tensor = safe_get_local_fp32_param(self.parameters[name])
        return piece[: self.extents[name][1]]


FlatTensors = Callable[[str], Tensor]
"""Flat tensors by name: whole ones, or this rank's pieces of them."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of one tensor: elements ``start`` to ``start + count - 1``."""

    name: str
    start: int
    count: int

    def within(self, whole: FlatTensors) -> Tensor:
        """Its place in the whole tensor, a view."""
        return whole(self.name)[self.start : self.start + self.count]


@dataclass(slots=True)
class PieceTransfer:
    """Pieces under way between ranks; what was sent must live until they have arrived."""

    _handle: Any
    _sent: Tensor | None
    _arriving: Tensor | None
    _pieces: list[Piece]

    def hand_out(self, write: Callable[[Piece, Tensor], Any]) -> None:
        """Wait for it, call ``write(piece, values)`` for everything that arrived, and let go of its memory."""
        assert self._arriving is not None, "a transfer is handed out once"
        self._handle.wait()
        sizes = [piece.count for piece in self._pieces]
        for piece, values in zip(self._pieces, torch.split(self._arriving, sizes), strict=True):
            write(piece, values)
        self._sent = self._arriving = None

    def fill(self, whole: FlatTensors) -> None:
        """`hand_out` at an owner: every piece to its place in the whole tensor."""
        self.hand_out(lambda piece, values: piece.within(whole).copy_(values))


class Exchange:
    """Who holds and who owns what, bucket by bucket; built together on all ranks, from each rank's own extents."""

    def __init__(
        self, ranks: Ranks, buckets: Sequence[Sequence[str]], owners: Mapping[str, int], extents: Mapping[str, Extent]
    ) -> None:
        self._ranks = ranks
        self.owners = {name: owners[name] for names in buckets for name in names}
        extents_by_rank: list[dict[str, Extent]] = ranks.gather(dict(extents))
        # For each bucket and rank, in the same order on both ends: the pieces that go there, those that come back.
        self._outgoing: list[list[list[Piece]]] = []
        self._incoming: list[list[list[Piece]]] = []
        me, world = ranks.rank, range(ranks.world)
        for names in buckets:
            pieces = [[Piece(name, *held[name]) for name in names if held[name][1]] for held in extents_by_rank]
            self._outgoing.append([[piece for piece in pieces[me] if owners[piece.name] == to] for to in world])
            self._incoming.append([[piece for piece in pieces[of] if owners[piece.name] == me] for of in world])

    def __len__(self) -> int:
        """The number of buckets."""
        return len(self._outgoing)

    def to_owners(self, number: int, pieces: FlatTensors) -> PieceTransfer:
        """Send bucket ``number`` to its owners, from this rank's ``pieces``; all ranks together."""
        return self._send(self._outgoing[number], self._incoming[number], lambda piece: pieces(piece.name))

    def to_holders(self, number: int, whole: FlatTensors) -> PieceTransfer:
        """Send bucket ``number`` back to those who hold its pieces, from the owners' ``whole`` tensors."""
        return self._send(self._incoming[number], self._outgoing[number], lambda piece: piece.within(whole))

    def _send(
        self, outgoing: list[list[Piece]], incoming: list[list[Piece]], read: Callable[[Piece], Tensor]
    ) -> PieceTransfer:
        device = self._ranks.device  # offloaded gradients and updates travel through the device, too
        values = [read(piece).to(device, torch.float32) for pieces in outgoing for piece in pieces]
        sent = torch.cat(values) if values else torch.empty(0, device=device)
        arriving_counts, sent_counts = (
            [sum(piece.count for piece in pieces) for pieces in by_rank] for by_rank in (incoming, outgoing)
        )
        arriving = torch.empty(sum(arriving_counts), device=device)
        handle = dist.all_to_all_single(arriving, sent, arriving_counts, sent_counts, async_op=True)
        return PieceTransfer(handle, sent, arriving, [piece for pieces in incoming for piece in pieces])
