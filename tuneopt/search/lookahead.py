"""What a sweep will probably need next, so that no slot idles while the last trials of a wave run.

The guess: every pending change of a star wins nothing, and a pending combination gains what its parts gained. What is
launched on a wrong guess costs a trial; it never changes the path, which follows from finished trials alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from tuneopt.search.descent import Descent
from tuneopt.search.outcome import Outcome
from tuneopt.search.sweep import Sweep, SweepState
from tuneopt.spec import TrialSpec

DEPTH = 2
"""Waves to look ahead: a combination, then the star around it."""


def lookahead(
    sweep: Sweep, outcomes: Mapping[str, Outcome], gave_up: Collection[str] = frozenset()
) -> Iterator[TrialSpec]:
    """The trials of the coming waves in launch order, if what is pending ends as guessed; the current wave left out.

    Nothing comes before the start has finished: until then there is no ground for a guess.
    """
    imagined = dict(outcomes)
    state = sweep.state(imagined, gave_up)
    for _ in range(DEPTH):
        if state.finished or state.descent.incumbent_loss is None:
            return
        for spec in state.pending:
            imagined[spec.id] = Outcome("completed", _guess(state, spec), None)
        state = sweep.state(imagined, gave_up)
        yield from (spec for spec in state.pending if spec.id not in imagined)


def _guess(state: SweepState, spec: TrialSpec) -> float:
    """The incumbent's loss, less what each changed value gained on its own where that is known."""
    descent, config = state.descent, spec.config
    assert descent.incumbent_loss is not None, "a guess starts from a finished incumbent"
    changed = {name: config[name] for name, value in descent.incumbent if config[name] != value}
    return descent.incumbent_loss - (sum(_gain(descent, *item) for item in changed.items()) if len(changed) > 1 else 0)


def _gain(descent: Descent, name: str, value: object) -> float:
    assert descent.incumbent_loss is not None, "a gain is measured against a finished incumbent"
    for change in descent.star:
        if (change.coordinate, change.value) == (name, value) and change.loss is not None:
            return descent.incumbent_loss - change.loss
    return 0.0
