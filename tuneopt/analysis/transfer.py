"""Blind transfer: each optimizer run with the hyperparameters that another one was tuned to.

A comparison that tunes one optimizer and hands its learning rate, weight decay and so on to the others favours the
one that was tuned (arXiv 2509.02046, section 3). A cell is the receiver's tuned configuration in which every coordinate
that both optimizers tune takes the donor's tuned value; it is filled from a trial that exists, or names the one to run.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tuneopt.analysis.best import Result
from tuneopt.analysis.lookup import Config, Lookup
from tuneopt.analysis.runs import RegimeKey, Run
from tuneopt.analysis.spaces import searched
from tuneopt.analysis.speedup import BaselineLaw
from tuneopt.spec import TrialSpec, Value


@dataclass(frozen=True, slots=True)
class Transfer:
    """A cell of the matrix: ``optimizer`` at ``donor``'s tuned shared coordinates.

    ``taken`` are the values that change the receiver's tuned configuration, ``config`` is the configuration that fills
    the cell. ``status`` is ``trial``, ``same`` (both were tuned to the same shared values: regret 0), ``diverged`` or
    ``missing``. ``regret`` is in nats over the receiver's own tuned loss; ``speedup_regret`` is its tuned speedup over
    the baseline minus that of the cell. Speedups are None where the baseline has no law.
    """

    regime: RegimeKey
    optimizer: str
    donor: str
    taken: tuple[tuple[str, Value], ...]
    config: Config
    status: str
    trial: str | None
    loss: float | None
    regret: float | None
    speedup: float | None
    speedup_tuned: float | None
    speedup_regret: float | None


def transfers(results: Sequence[Result], runs: Iterable[Run], laws: Iterable[BaselineLaw]) -> tuple[Transfer, ...]:
    """Every ordered pair of optimizers in every regime whose results carry configurations."""
    lookup = Lookup(runs)
    known = {(law.corpus, law.scale): law for law in laws}
    regimes: dict[RegimeKey, list[Result]] = defaultdict(list)
    for result in results:
        if result.config:
            regimes[result.regime].append(result)
    return tuple(
        _cell(receiver, donor, lookup, known.get(regime[:2]))
        for regime, members in regimes.items()
        for receiver in members
        for donor in members
        if donor is not receiver
    )


def _cell(receiver: Result, donor: Result, lookup: Lookup, law: BaselineLaw | None) -> Transfer:
    own, theirs = dict(receiver.config), dict(donor.config)
    scale = receiver.regime.scale
    shared = set(searched(receiver.optimizer, scale, own)) & set(searched(donor.optimizer, scale, theirs))
    taken = {name: theirs[name] for name in sorted(shared) if theirs[name] != own[name]}
    config = TrialSpec.freeze(own | taken)
    found = lookup.find(receiver, config if taken else receiver.config)
    tuned = _speedup(receiver.loss, receiver.tokens, law)
    blind = None if found.regret is None else _speedup(receiver.loss + found.regret, receiver.tokens, law)
    return Transfer(
        regime=receiver.regime,
        optimizer=receiver.optimizer,
        donor=donor.optimizer,
        taken=tuple(taken.items()),
        config=config,
        status=found.status,
        trial=found.trial,
        loss=found.loss,
        regret=found.regret,
        speedup=blind,
        speedup_tuned=tuned,
        speedup_regret=None if blind is None or tuned is None else tuned - blind,
    )


def _speedup(loss: float, tokens: float, law: BaselineLaw | None) -> float | None:
    """D_eff / D, None where no budget of the baseline is known to reach the loss."""
    if law is None:
        return None
    effective = float(law.law.budget(loss))
    return effective / tokens if 0 < effective < float("inf") else None
