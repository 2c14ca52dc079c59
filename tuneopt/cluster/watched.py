"""Everything that watches the trials of a run on Ray Tune, set up and taken down in one place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from tuneopt.cluster.events import Events
from tuneopt.cluster.holders import look_at_cluster
from tuneopt.cluster.ray_fixes.output import errors_as_asked
from tuneopt.cluster.waits import Waits
from tuneopt.observe.board import Board
from tuneopt.observe.narrator import Narrator
from tuneopt.observe.observer import Observer
from tuneopt.observe.timer import Times, WaitTimer

TIMES = Times()
"""When a run says why it waits."""


@contextmanager
def watched(searcher: Any, slots: int, observers: Sequence[Observer]) -> Iterator[Events]:
    """Tune's callback for the trials that ``searcher`` hands out; in the meantime a thread says why a run waits.

    Whoever made ``observers`` closes them: they may watch more than one run.
    """
    board, narrator = Board(), Narrator(searcher.ledger)
    machines = sum(bool(node["Alive"]) for node in ray.nodes())
    waits = Waits(searcher.running, board, searcher.ledger, slots, lambda: look_at_cluster(machines))
    try:
        with errors_as_asked(), WaitTimer(waits, TIMES):
            yield Events([narrator, board, *observers], searcher.ledger)
    finally:
        narrator.close()
