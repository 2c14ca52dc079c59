"""The part of ``tuneopt tune`` that runs a sampled search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tuneopt.commands.options import DONE, INTERRUPTED, NO_CERTIFICATE, show

if TYPE_CHECKING:
    from tuneopt.commands.observing import Watching
    from tuneopt.data import Corpus
    from tuneopt.ledger import Ledger
    from tuneopt.search.sampled import SampledSearch
    from tuneopt.train.config import ParallelConfig


def sampled(
    search: SampledSearch,
    loaded: Corpus,
    ledger: Ledger,
    path: Path,
    *,
    corpus: str,
    trials: int | None,
    address: str | None,
    max_concurrent: int | None,
    gpus_per_trial: float,
    placement: ParallelConfig | None,
    keep_weights: bool,
    dry_run: bool,
    json_: bool,
    watching: Watching,
) -> int:
    """Run the search and write its report; the exit code says whether its best happens to be certified."""
    from tuneopt import api, console
    from tuneopt.display import SweepDisplay, resume_hint
    from tuneopt.ledger.store import mending

    if dry_run:
        return show(api.search_cost(search, loaded, ledger, trials), json_, console.cost)
    regime = search.sweep.regime
    if trials is None and not json_:
        watching.say(f"{search.search} gets {search.expected} trials: what coordinate descent is expected to need")
    title = f"{search.sweep.space.optimizer} at {regime.label} on {loaded.id.name} by {search.search}"
    quiet = json_ or not watching.display
    with SweepDisplay(title, quiet=quiet) as display, watching.trackers() as observers:
        result = api.sample(
            search, ledger, trials=trials, corpus=corpus, address=address, max_concurrent=max_concurrent,
            gpus_per_trial=gpus_per_trial, placement=placement, keep_weights=keep_weights, listener=display.update,
            observers=observers,
        )  # fmt: skip
    if result.interrupted:
        watching.say(resume_hint(sys.argv, result))
        return INTERRUPTED
    mending(ledger, lambda: api.report(ledger, path, [search.id]))
    show(api.search_summary(search, result, path), json_, console.search_summary)
    return DONE if result.state.descent.certificate.complete else NO_CERTIFICATE
