"""Moving tensors between the ranks that hold their pieces and the ranks that own them, many at a time.

A rank sends each owner only the pieces that it holds, so one direction moves a W-th of the parameters per rank, not all
of them. Tensors go in parcels of a bounded size; while one travels, the next is packed and the one before unpacked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tuneopt.train.distributed import Ranks
from tuneopt.train.zero.shards import Extent

PARCEL = 33_554_432
"""Elements per parcel over all ranks, 128 MiB in fp32; a larger tensor travels alone."""

Read = Callable[[str], Tensor]
Write = Callable[[str, Tensor], None]


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of one tensor: elements ``start`` to ``start + count - 1``."""

    name: str
    start: int
    count: int


class Exchange:
    """Who holds and who owns what; built together on all ranks, from each rank's own extents."""

    def __init__(
        self, ranks: Ranks, sizes: Mapping[str, int], owners: Mapping[str, int], extents: Mapping[str, Extent]
    ) -> None:
        self._ranks = ranks
        self.owners, self.sizes = dict(owners), dict(sizes)
        everybody: list[dict[str, Extent]] = ranks.gather(dict(extents))
        self._sent: list[list[list[Piece]]] = []
        self._received: list[list[list[Piece]]] = []
        for names in _parcels(self.sizes):
            held = [[Piece(name, *extents[name]) for name in names if extents[name][1]] for extents in everybody]
            me, world = ranks.rank, range(ranks.world)
            self._sent.append([[piece for piece in held[me] if owners[piece.name] == to] for to in world])
            self._received.append([[piece for piece in held[of] if owners[piece.name] == me] for of in world])

    @property
    def owned(self) -> list[str]:
        """The names of the tensors that this rank owns."""
        return [name for name, owner in self.owners.items() if owner == self._ranks.rank]

    def to_owners(self, piece: Read, whole: Read) -> None:
        """Fill the flat tensor ``whole(name)`` of every owned name from everybody's flat ``piece(name)``."""

        def write(part: Piece, value: Tensor) -> None:
            whole(part.name)[part.start : part.start + part.count].copy_(value)

        self._move(self._sent, self._received, lambda part: piece(part.name), write)

    def to_holders(self, whole: Read, keep: Write) -> None:
        """The way back: ``keep(name, piece)`` for every piece held here, from the owners' flat ``whole(name)``."""

        def read(part: Piece) -> Tensor:
            return whole(part.name)[part.start : part.start + part.count]

        self._move(self._received, self._sent, read, lambda part, value: keep(part.name, value))

    def _move(
        self,
        outgoing: list[list[list[Piece]]],
        incoming: list[list[list[Piece]]],
        read: Callable[[Piece], Tensor],
        write: Callable[[Piece, Tensor], None],
    ) -> None:
        under_way: tuple[Any, Tensor, Tensor, list[list[Piece]]] | None = None
        for sent, expected in zip(outgoing, incoming, strict=True):
            parts = [read(part).to(self._ranks.device, torch.float32) for lot in sent for part in lot]
            parcel = torch.cat(parts) if parts else torch.empty(0, device=self._ranks.device)
            counts = [[sum(part.count for part in lot) for lot in lots] for lots in (expected, sent)]
            arriving = torch.empty(sum(counts[0]), device=self._ranks.device)
            handle = dist.all_to_all_single(arriving, parcel, counts[0], counts[1], async_op=True)
            if under_way:
                _unpack(*under_way, write)
            under_way = handle, parcel, arriving, expected
        if under_way:
            _unpack(*under_way, write)


def _unpack(
    handle: Any, parcel: Tensor, arriving: Tensor, lots: list[list[Piece]], write: Callable[[Piece, Tensor], None]
) -> None:
    """Wait for a parcel and hand out its pieces; ``parcel``, what was sent, must live until then."""
    handle.wait()
    position = 0
    for lot in lots:
        for part in lot:
            write(part, arriving[position : position + part.count])
            position += part.count


def _parcels(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    names: list[str] = []
    held = 0
    for name, size in sizes.items():
        if names and held + size > PARCEL:
            yield names
            names, held = [], 0
        names.append(name)
        held += size
    yield names
