"""What runs and watches the trials of a sampled search: workers that record who proposed, a count of what was cut."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tuneopt.cluster.progress import Progress
from tuneopt.cluster.sampling import SampledSearcher
from tuneopt.cluster.trainable import REPORT_SECONDS, TrialTrainable
from tuneopt.cluster.watcher import Watcher
from tuneopt.ledger import Ledger, TrialRecord


class MarkedLedger(Ledger):
    """A ledger whose new records say which search proposed them; what it reads is as it is."""

    def __init__(self, uri: str, marks: Mapping[str, str]) -> None:
        super().__init__(uri)
        self.marks = dict(marks)

    def __reduce__(self) -> tuple[Any, ...]:
        return MarkedLedger, (self.uri, self.marks)

    def put(self, record: TrialRecord) -> bool:
        """Store a record with the marks in its environment, and in words among its notes."""
        notes = [f"proposed by {self.marks['search']}"]
        if self.marks["scheduler"] != "none":
            notes.append(f"ran under {self.marks['scheduler']}, which ranks on intermediate loss")
        environment = {**record.environment, **self.marks}
        return super().put(replace(record, environment=environment, notes=(*record.notes, *notes)))


class ProposedTrainable(TrialTrainable):
    """The worker of every sweep; its configuration has "search" as well, JSON of the marks that its record gets.

    Under a scheduler it reports every curve point, so that trials are compared at equal fractions of their runs.
    """

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another trial in this warm worker."""
        taken = super().reset_config(new_config)
        marks = json.loads(new_config["search"])
        self.ledger = MarkedLedger(new_config["ledger"], marks)
        self.report_seconds = REPORT_SECONDS if marks["scheduler"] == "none" else 0.0
        return taken


class CutWatcher(Watcher):
    """Counts as every watcher does; a trial that the scheduler stopped is no finished one."""

    def __init__(
        self, searcher: SampledSearcher, slots: int, began: float, listener: Callable[[Progress], None]
    ) -> None:
        super().__init__(searcher, slots, began, lambda progress: None)
        self.search, self.told = searcher, listener

    def on_trial_result(self, *, result: dict[str, Any], **info: Any) -> None:
        """A trial reached a curve point, its end, or the scheduler's."""
        super().on_trial_result(result={**result, "done": result["done"] and "status" in result}, **info)

    def on_trial_complete(self, **info: Any) -> None:
        """A trial gave its slot back: at its end, or because it was cut."""
        self.running.pop(info["trial"].last_result.get("trial", ""), None)
        super().on_trial_complete(**info)

    def tell(self) -> None:
        """Tell the listener where the search stands now."""
        self.told(
            Progress(
                running=dict(self.running),
                done=len(self.done),
                reused=len(self.search.reused),
                diverged=sum(outcome.status == "diverged" for outcome in self.search.outcomes.values()),
                failed=len(self.search.failed),
                slots=self.slots,
                elapsed=time.perf_counter() - self.began,
                busy=self.busy_seconds,
                state=self.search.state,
            )
        )
