"""The update check under ZeRO: each watched parameter is followed where its state is, on the weights that really moved.

Before and after a step the owner of a watched parameter gathers its gradient and its master weights from the shards,
one parameter after another, in the buffers that its buckets share. What was measured is put together from all ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from tuneopt.optim.base import Optimizer
from tuneopt.optim.proof import UpdateCheck, trial_arguments
from tuneopt.spec import TrialSpec
from tuneopt.training.ranks import Ranks
from tuneopt.training.zero.owned import Owned
from tuneopt.training.zero.shards import Exchange, Shards


class ShardedUpdateCheck(UpdateCheck):
    """An update check on each rank; all ranks must call its methods together.

    `before_step` leaves other gradients in the buckets than were there.
    """

    def __init__(
        self,
        spec: TrialSpec,
        whole: Optimizer,
        model: nn.Module,
        owned: Owned,
        exchange: Exchange,
        shards: Shards,
        ranks: Ranks,
    ) -> None:
        self._owned, self._shards, self._ranks = owned, shards, ranks
        super().__init__(whole, **trial_arguments(spec, type(whole), model))
        self._names = list(dict.fromkeys(follower.watch.name for follower in self._followers))
        self._exchange = Exchange(ranks, [[name] for name in self._names], exchange.owners, shards.extents)

    # Overrides `UpdateCheck`: the stand-ins of the parameters that this rank owns.
    def _named(self, model: nn.Module | None) -> dict[str, Tensor]:
        return dict(self._owned.parameters)

    def _value(self, name: str) -> Tensor | None:
        return self._gathered(name, self._owned.updates, self._shards.master)

    def _gradient(self, name: str) -> Tensor | None:
        return self._gathered(name, self._owned.gradients, self._shards.gradient)

    def _gathered(self, name: str, buffer: Tensor, piece: Any) -> Tensor | None:
        """The whole tensor on its owner, in ``buffer`` until that is used again; None elsewhere."""
        own = self._parameters.get(name)
        self._exchange.to_owners(self._names.index(name), piece).fill(lambda _: buffer)  # no piece comes to non-owners
        return None if own is None else buffer[: own.numel()].view(own.shape)

    def _state(self, name: str) -> Mapping[str, Any]:
        bucket = next(bucket for bucket in self._owned.buckets if name in bucket.parameters)
        state: Mapping[str, Any] = bucket.optimizer.state.get(bucket.parameters[name], {})
        return state

    def _pieces(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, self._shards.gradient(name)) for name in self._routes if self._shards.extents[name][1])

    def _summed(self, square: float) -> float:
        return float(sum(self._ranks.gather(square)))

    def _all_say(self, done: bool) -> bool:
        return self._ranks.all(done)

    def _seen(self, follower: Any) -> bool:
        return follower.watch.name not in self._parameters or super()._seen(follower)

    def _share(self) -> None:
        """Take over from each rank what it measured."""
        mine = [
            follower.measured() if follower.watch.name in self._parameters else None for follower in self._followers
        ]
        for found in self._ranks.gather(mine):
            for follower, measured in zip(self._followers, found, strict=True):
                for key, value in (measured or {}).items():
                    setattr(follower, key, value)
