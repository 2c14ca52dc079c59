"""The proof that the named optimizer ran, measured where its state is, on the weights that really moved.

Every rank watches some of the tensors that it owns: their master weights before and after a step, gathered from the
shards. A claim holds when it holds on every rank that has something to show for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tuneopt.optim.base import Optimizer
from tuneopt.optim.invariants.base import Invariant, Subject
from tuneopt.optim.proof import WATCHED, Check, Proof, Witness
from tuneopt.train.ranks import Ranks
from tuneopt.train.zero.owned import Owned, part
from tuneopt.train.zero.owners import needs_all, shapes
from tuneopt.train.zero.shards import Exchange, Shards

SEEN = 2**24
"""Elements of one group that a rank watches, beside one tensor that it always does; they travel three times a step."""


def watched(optimizer: Optimizer, owners: Mapping[str, int], ranks: int) -> list[list[str]]:
    """The names of the tensors that each rank watches: of each group some, spread evenly over what the rank owns."""
    chosen: list[list[str]] = [[] for _ in range(ranks)]
    whole = shapes(optimizer)
    for group in optimizer.param_groups:
        sizes = {name: whole[name].numel() for name in group["param_names"]}
        for rank, found in enumerate(chosen):
            own = [name for name in sizes if owners[name] == rank]
            wanted, held = min(WATCHED, len(own)), 0
            for name in (own[index * len(own) // wanted] for index in range(wanted)):
                held += sizes[name]
                if held == sizes[name] or held <= SEEN:
                    found.append(name)
    return chosen


class ShardedWitness(Witness):
    """A witness on each rank; all ranks must call its methods and read `complete` together.

    Tensors are looked at one after another, in the buffers that their owner's buckets share.
    """

    def __init__(self, whole: Optimizer, owned: Owned, exchange: Exchange, shards: Shards, ranks: Ranks) -> None:
        self._whole, self._owned, self._buckets = whole, owned, exchange
        self._shards, self._ranks = shards, ranks
        names = watched(whole, exchange.owners, ranks.world)
        self._names = [name for each in names for name in each]
        self._exchange = Exchange(ranks, [[name] for name in self._names], exchange.owners, shards.extents)
        mine = set(names[ranks.rank])
        shapes = {name: parameter.shape for name, parameter in owned.parameters.items() if name in mine}
        self._weights = {name: owned.updates[: shape.numel()] for name, shape in shapes.items()}
        self._gradients = {name: owned.gradients[: shape.numel()] for name, shape in shapes.items()}
        seen = {name: nn.Parameter(self._weights[name].view(shape)) for name, shape in shapes.items()}
        for name, parameter in seen.items():
            parameter.grad = self._gradients[name].view(parameter.shape)
        self._seen = part(whole, seen)
        self._count = _owned_by_main(whole, owned)
        self._joint: dict[float, float] = {}
        super().__init__(self._seen)

    def before_step(self) -> None:
        """Take the snapshots that the next step is measured against.

        The joint norms are computed apart from the step's own. Leaves other gradients in the buckets than were there.
        """
        for group, rates in zip(self._seen.param_groups, self._whole.param_groups, strict=True):
            group["lr"] = rates["lr"]
        if needs_all(self._whole):
            self._buckets.to_owners(0, self._shards.gradient).fill(self._owned.buckets[0].gradients.__getitem__)
            squares = squares_of_limited(self._owned)
        else:
            squares = squares_of_shards(self._whole, self._shards)
        parts = self._ranks.gather(squares)
        limits = sorted({limit for each in parts for limit in each})
        self._joint = {limit: sum(each.get(limit, 0.0) for each in parts) for limit in limits}
        divisors = self._divisors()
        for number, name in enumerate(self._names):
            self._exchange.to_owners(number, self._shards.master).fill(self._weights.__getitem__)
            self._exchange.to_owners(number, self._shards.gradient).fill(self._gradients.__getitem__)
            for invariant, subject in self._subjects(name):
                if invariant.wants(subject):
                    subject.divisor = divisors.get(subject.settings["max_grad_norm"], 1.0)
                    invariant.before(subject)

    def after_step(self) -> None:
        """Measure the step that was just taken."""
        self._steps += any(group["lr"] > 0 for group in self._seen.param_groups)
        self._owned.show_state(self._seen)
        for number, name in enumerate(self._names):
            self._exchange.to_owners(number, self._shards.master).fill(self._weights.__getitem__)
            for invariant, subject in self._subjects(name):
                invariant.after(subject)

    def _subjects(self, name: str) -> list[tuple[Invariant, Subject]]:
        """The tensor of that name under its invariant, where this rank watches it and has not seen enough."""
        if super().complete:
            return []
        found = ((watch.invariant, subject) for watch in self._watches for subject in watch.subjects(self._seen))
        return [(invariant, subject) for invariant, subject in found if subject.name == name]

    def _squares(self) -> dict[float, float]:
        return self._joint

    @property
    def complete(self) -> bool:
        """Whether no rank measures anything more."""
        return self._ranks.all(super().complete)

    def proof(self) -> Proof:
        """The checks of all ranks in one."""
        main = self._optimizer.main.name
        return merged(self._ranks.gather((super().proof(), self._count)), main)


def squares_of_shards(optimizer: Optimizer, shards: Shards) -> dict[float, float]:
    """The squared norms, in float64, of this rank's shards of the gradients that are clipped together, by limit."""
    found: dict[float, float] = {}
    for group in optimizer.param_groups:
        if limit := float(group["max_grad_norm"]):
            pieces = shards.gradients(group["param_names"])
            squares = [float(torch.linalg.vector_norm(piece, dtype=torch.float64)) ** 2 for piece in pieces]
            found[limit] = found.get(limit, 0.0) + sum(squares)
    return found


def squares_of_limited(owned: Owned) -> dict[float, float]:
    """The same at the owners, of what the invariants say is clipped; every bucket holds its gradients."""
    found: dict[float, float] = {}
    for bucket in owned.buckets:
        rules = {rule.name: rule.invariant() for rule in bucket.optimizer.rules}
        bucket.show_gradients(True)
        for group in bucket.optimizer.param_groups:
            for parameter in group["params"] if (limit := float(group["max_grad_norm"])) else ():
                state = bucket.optimizer.state.get(parameter, {})
                clipped: Tensor = rules[group["rule"]].limited(parameter, group, state)
                norm = float(torch.linalg.vector_norm(clipped, dtype=torch.float64))
                found[limit] = found.get(limit, 0.0) + norm**2
        bucket.show_gradients(False)
    return found


def merged(proofs: Sequence[tuple[Proof, int]], main: str) -> Proof:
    """One proof out of each rank's: a failed check stands for its name, else the first.

    Beside its proof each rank tells how many parameters it owns under the main rule; they are added up.
    """
    counted = f"{main}.parameters"
    found: dict[str, Check] = {}
    for check in (check for proof, _ in proofs for check in proof.checks):
        if check.name not in found or (found[check.name].passed and not check.passed):
            found[check.name] = check
    total = float(sum(count for _, count in proofs))
    found[counted] = Check(counted, total > 0, total, found[counted].expected, found[counted].detail)
    return Proof(all(check.passed for check in found.values()), tuple(found.values()))


def _owned_by_main(whole: Optimizer, owned: Owned) -> int:
    mine, main = set(owned.parameters), whole.main.name
    return sum(name in mine for group in whole.param_groups if group["rule"] == main for name in group["param_names"])
