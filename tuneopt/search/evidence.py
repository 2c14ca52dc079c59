"""The replicates that a sweep's noise is known by: its own, and those of other runs in reach.

Sigma belongs to an optimizer and a regime, and three seeds of one start say little of it. So a sweep also rests on what
is known already when its plan begins: every configuration of the same corpus that the ledger holds with two seeds or
more; and on its peers, the sweeps of its study whose starts run at the same time. The first is gathered once and kept
with the sweep in the ledger (`Evidence.to_dict`), so that a run that is resumed, and a report, decide on the same
figures whatever the ledger holds by then. Peers are named, and nothing is decided before their starts' seeds are in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneopt import checked
from tuneopt.search.plan import Outcome
from tuneopt.spec import CorpusId, InputError, TrialSpec

if TYPE_CHECKING:
    from tuneopt.search.noise import Replicate, SpreadModel


@dataclass(frozen=True)
class Evidence:
    """What a sweep knows of noise besides its own runs: ``replicates`` that had ended, and ``peers`` that will run.

    ``optimizers`` are those that are judged by one bar in the sweep's regime, whether or not anything is known of their
    noise there: without them, who has no replicates would not raise the bar of the others, but these raise its own.
    """

    replicates: tuple[Replicate, ...] = ()
    peers: tuple[TrialSpec, ...] = ()
    optimizers: tuple[str, ...] = ()
    whole: bool = False
    """Whether a study has nothing to add: the sweep was begun elsewhere, and goes on by what it knew there."""

    def to_dict(self) -> list[list[Any]]:
        """The replicates as rows for JSON: optimizer, N, ratio, configuration, seed, loss (nats)."""
        return [[one.cell.optimizer, *one.cell.regime, one.config, one.seed, one.loss] for one in self.replicates]


ALONE = Evidence()
"""No evidence of noise but a sweep's own."""


def replicate(spec: TrialSpec, loss: float) -> Replicate:
    """A finished trial as evidence of noise; configurations are equal where all but the seed is."""
    from tuneopt.search.noise import Cell, NoiseRegime, Replicate  # numpy: a listing of spaces does without

    cell = Cell(spec.optimizer, NoiseRegime(float(spec.regime.scale.parameters), float(spec.regime.ratio)))
    return Replicate(cell, spec.replicate_id, spec.seed, loss)


def replicates_of(specs: Iterable[TrialSpec], outcomes: Mapping[str, Outcome]) -> list[Replicate]:
    """The completed ones among trials, as evidence."""
    ended = ((spec, outcomes[spec.id].loss) for spec in specs if spec.id in outcomes)
    return [replicate(spec, loss) for spec, loss in ended if loss is not None]


def in_reach(trials: Iterable[tuple[TrialSpec, float]], corpus: CorpusId) -> tuple[Replicate, ...]:
    """Of finished trials with their losses: the configurations on this corpus that ran with two seeds or more."""
    found: dict[tuple[Any, Any], list[Replicate]] = defaultdict(list)
    for spec, loss in trials:
        other = spec.regime.corpus
        if (other.fingerprint, other.vocab_size) == (corpus.fingerprint, corpus.vocab_size):
            one = replicate(spec, loss)
            found[one.cell, one.config].append(one)
    several = [one for seeds in found.values() if len(seeds) > 1 for one in seeds]
    return tuple(sorted(several, key=lambda one: (one.cell, str(one.config), one.seed)))


def spread_model(own: Iterable[Replicate], others: Iterable[Replicate]) -> SpreadModel:
    """The noise by all replicates; a run that both name counts once."""
    from tuneopt.search.noise import SpreadModel

    runs = {(one.cell, one.config, one.seed): one for one in (*others, *own)}
    return SpreadModel(runs.values())


def read_replicates(rows: object) -> tuple[Replicate, ...]:
    """The inverse of `Evidence.to_dict`; raises `InputError` for anything that is not its result."""
    from tuneopt.search.noise import Cell, NoiseRegime, Replicate

    try:
        found = []
        for optimizer, parameters, ratio, config, seed, loss in rows:  # type: ignore[attr-defined]
            if not all(checked.is_number(number) for number in (parameters, ratio, seed, loss)):
                raise InputError(f"{checked.shown(loss)} is no loss of a replicate")
            regime = NoiseRegime(float(parameters), float(ratio))
            found.append(Replicate(Cell(str(optimizer), regime), str(config), int(seed), float(loss)))
        return tuple(found)
    except (TypeError, ValueError) as error:
        raise InputError(f"not the evidence of a sweep: {error}") from None
