"""The proof that the named optimizer ran, measured where its state is, on the weights that really moved.

Every rank watches the tensors that it owns: their master weights before and after a step, gathered from the shards.
A claim holds when it holds on every rank that has something to show for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tuneopt.optim.base import Optimizer
from tuneopt.optim.proof import Check, Proof, Witness
from tuneopt.train.distributed import Ranks


class ShardedWitness(Witness):
    """A witness on each rank; `before_step`, `finished` and `proof` must be called on all ranks together."""

    def __init__(self, watched: Optimizer, ranks: Ranks) -> None:
        super().__init__(watched)
        self.watched = watched
        self._ranks = ranks
        self._joint: dict[float, float] = {}

    def before_step(self, rates: Sequence[float] = ()) -> None:
        """See `Witness.before_step`; ``rates`` are the learning rates of the coming step, group by group.

        Clipping is judged by the norm over all ranks, computed apart from the step.
        """
        for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        parts = self._ranks.gather(super()._squares())
        limits = sorted({limit for squares in parts for limit in squares})
        self._joint = {limit: sum(squares.get(limit, 0.0) for squares in parts) for limit in limits}
        super().before_step()

    def _squares(self) -> dict[float, float]:
        return self._joint

    @property
    def finished(self) -> bool:
        """Whether no rank measures anything more."""
        return self._ranks.all(self.complete)

    def proof(self) -> Proof:
        """The checks of all ranks in one."""
        return merged(self._ranks.gather(super().proof()), self._optimizer.main.name)


def merged(proofs: list[Proof], main: str) -> Proof:
    """One proof out of each rank's: a failed check stands for its name, else the first; parameters are added up."""
    counted = f"{main}.parameters"
    found: dict[str, Check] = {}
    total = 0.0
    for check in (check for proof in proofs for check in proof.checks):
        if check.name == counted:
            total += check.measured or 0.0
        if check.name not in found or (found[check.name].passed and not check.passed):
            found[check.name] = check
    sample = found[counted]
    found[counted] = Check(counted, total > 0, total, sample.expected, sample.detail)
    return Proof(all(check.passed for check in found.values()), tuple(found.values()))
