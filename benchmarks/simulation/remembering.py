"""What pure functions of tuneopt said in earlier schedules, so that they are not asked the same again and again."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from simulation.scene import SWEEP
from tuneopt import checked
from tuneopt.ledger import TrialRecord, damage, store
from tuneopt.search import queue
from tuneopt.search.sweep import Sweep
from tuneopt.spec import TrialSpec

_PLAIN = SWEEP.to_dict()


@contextmanager
def quick() -> Iterator[None]:
    """Remember what pure functions said, and log nothing: schedules ask the same of them again and again."""
    before = queue.stand, queue.lookahead, dict(damage.DECODERS), TrialRecord.to_json, Sweep.to_dict
    queue.stand, queue.lookahead = _stand, _lookahead
    Sweep.to_dict = lambda sweep: _PLAIN  # type: ignore[method-assign]
    store.plain_tree, store.place.resolve = _plain_tree, _resolve
    damage._read_record = _DECODERS["trials"]
    damage.DECODERS.update(_DECODERS)
    TrialRecord.to_json = _to_json  # type: ignore[method-assign]
    disabled = logging.root.manager.disable
    if disabled < logging.CRITICAL:  # asking is cheap, and to set it empties the caches of all loggers
        logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        queue.stand, queue.lookahead = before[:2]
        TrialRecord.to_json, Sweep.to_dict = before[3:]  # type: ignore[method-assign]
        damage.DECODERS.update(before[2])
        damage._read_record = before[2]["trials"]
        store.plain_tree, store.place.resolve = checked.plain_tree, _resolve.__wrapped__
        if disabled < logging.CRITICAL:
            logging.disable(disabled)


_known: dict[Any, Any] = {}


def forget() -> None:
    """Forget everything: the code was changed."""
    _known.clear()
    for cached in (*_DECODERS.values(), _resolve):
        cached.cache_clear()


_real_stand, _real_lookahead = queue.stand, queue.lookahead


def _stand(task: Any, outcomes: Any, gave_up: Any) -> Any:
    key = task.id, task.evidence, frozenset(outcomes.items()), frozenset(gave_up)
    if key not in _known:
        _known[key] = _real_stand(task, outcomes, gave_up)
    return _known[key]


def _lookahead(sweep: Sweep, outcomes: Any, gave_up: Any, evidence: Any) -> Iterator[TrialSpec]:
    key = "ahead", sweep.id, evidence, frozenset(outcomes.items()), frozenset(gave_up)
    if key not in _known:
        _known[key] = tuple(_real_lookahead(sweep, outcomes, gave_up, evidence))
    return iter(_known[key])


def _plain_tree(tree: Any, what: str) -> Any:
    key = "plain", repr(tree)
    if key not in _known:
        _known[key] = checked.plain_tree(tree, what)
    return _known[key]


_DECODERS = {folder: functools.lru_cache(4096)(read) for folder, read in damage.DECODERS.items()}
_resolve = functools.lru_cache(8)(store.place.resolve)
_texts: dict[int, tuple[TrialRecord, str]] = {}
_real_to_json = TrialRecord.to_json


def _to_json(record: TrialRecord) -> str:
    if id(record) not in _texts:
        _texts[id(record)] = record, _real_to_json(record)  # held, so that its id is no other's
    return _texts[id(record)][1]
