"""Moving tensors between the ranks that hold their pieces and the ranks that own them, one parcel at a time.

A rank sends each owner only the pieces that it holds, so one direction moves a W-th of the parameters per rank, not all
of them. A parcel travels while its caller does something else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tuneopt.train.distributed import Ranks
from tuneopt.train.zero.shards import Extent

Read = Callable[[str], Tensor]
Write = Callable[[str, Tensor], Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of one tensor: elements ``start`` to ``start + count - 1``."""

    name: str
    start: int
    count: int


@dataclass(slots=True)
class Parcel:
    """Pieces under way; what was sent must live until they have arrived."""

    _handle: Any
    _sent: Tensor | None
    _arriving: Tensor | None
    _pieces: list[Piece]

    def hand_out(self, write: Callable[[Piece, Tensor], Any]) -> None:
        """Wait for the parcel, call ``write(piece, values)`` for everything in it, and let go of its memory."""
        assert self._arriving is not None, "a parcel is opened once"
        self._handle.wait()
        position = 0
        for piece in self._pieces:
            write(piece, self._arriving[position : position + piece.count])
            position += piece.count
        self._sent = self._arriving = None

    def fill(self, whole: Read) -> None:
        """`hand_out` at an owner: every piece to its place in the flat tensor ``whole(name)``."""

        def write(piece: Piece, values: Tensor) -> None:
            whole(piece.name)[piece.start : piece.start + piece.count].copy_(values)

        self.hand_out(write)


class Exchange:
    """Who holds and who owns what, parcel by parcel; built together on all ranks, from each rank's own extents."""

    def __init__(
        self, ranks: Ranks, parcels: Sequence[Sequence[str]], owners: Mapping[str, int], extents: Mapping[str, Extent]
    ) -> None:
        self._ranks = ranks
        self.owners = {name: owners[name] for names in parcels for name in names}
        everybody: list[dict[str, Extent]] = ranks.gather(dict(extents))
        self._outgoing: list[list[list[Piece]]] = []
        self._incoming: list[list[list[Piece]]] = []
        me, world = ranks.rank, range(ranks.world)
        for names in parcels:
            held = [[Piece(name, *each[name]) for name in names if each[name][1]] for each in everybody]
            self._outgoing.append([[piece for piece in held[me] if owners[piece.name] == to] for to in world])
            self._incoming.append([[piece for piece in held[of] if owners[piece.name] == me] for of in world])

    def __len__(self) -> int:
        """The number of parcels."""
        return len(self._outgoing)

    def to_owners(self, number: int, piece: Read) -> Parcel:
        """Send parcel ``number`` to its owners, from this rank's flat ``piece(name)``; all ranks together."""
        return self._send(self._outgoing[number], self._incoming[number], lambda part: piece(part.name))

    def to_holders(self, number: int, whole: Read) -> Parcel:
        """Send parcel ``number`` back to those who hold its pieces, from the owners' flat ``whole(name)``."""

        def read(part: Piece) -> Tensor:
            return whole(part.name)[part.start : part.start + part.count]

        return self._send(self._incoming[number], self._outgoing[number], read)

    def _send(self, sent: list[list[Piece]], expected: list[list[Piece]], read: Callable[[Piece], Tensor]) -> Parcel:
        device = self._ranks.device
        parts = [read(part).to(device, torch.float32) for lot in sent for part in lot]
        parcel = torch.cat(parts) if parts else torch.empty(0, device=device)
        counts = [[sum(part.count for part in lot) for lot in lots] for lots in (expected, sent)]
        arriving = torch.empty(sum(counts[0]), device=device)
        handle = dist.all_to_all_single(arriving, parcel, counts[0], counts[1], async_op=True)
        return Parcel(handle, parcel, arriving, [piece for lot in expected for piece in lot])
