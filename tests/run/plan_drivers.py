"""Small sweeps, and a worker without Ray or training that runs a plan over a ledger."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tuneopt.ledger import Ledger, TrialRecord
from tuneopt.scale_files import find_scale
from tuneopt.search.plan import Plan
from tuneopt.search.records import recorded
from tuneopt.search.sampled import marked
from tuneopt.search.space import load_space
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, Regime, TrialSpec

HELD = ("beta1", "beta2", "epsilon", "max_grad_norm", "warmup")

REGIME = Regime(find_scale("nano-65k"), 0.02, CorpusId("made-up", "00ff", 1024))


def small_sweep(grids: dict[str, list[Any]], **changes: Any) -> Sweep:
    """A sweep of AdamW over these grids alone, with two seeds of the start and the winner."""
    declared = load_space("adamw").on("nano")
    held = {name: declared.value(declared.start, name) for name in HELD}
    return Sweep(load_space("adamw").on("nano", held, grids), REGIME, **{"replicates": 2, **changes})


class Worker:
    """Ends trials as a backend and its workers would: it writes the record, then the plan is told."""

    def __init__(self, plan: Plan, ledger: Ledger, record: Callable[[TrialSpec], TrialRecord]) -> None:
        self.plan, self.record, self.ledger = plan, record, marked(ledger, plan.marks)
        self.look_up = recorded(ledger)
        self.suggested: list[TrialSpec] = []
        self.live: dict[str, TrialSpec] = {}

    def start(self) -> TrialSpec | None:
        """Ask for a trial; the ledger keeps what the plan then says of itself."""
        spec = self.plan.next()
        if spec is not None:
            self.suggested.append(spec)
            self.live[spec.id] = spec
            self.keep()
        return spec

    def keep(self) -> None:
        for name, plain in self.plan.documents():
            self.ledger.put_sweep(name, plain)

    def end(self, spec: TrialSpec) -> None:
        self.ledger.put(self.record(self.live.pop(spec.id)))
        self.plan.tell(spec, self.look_up(spec))

    def lose(self, spec: TrialSpec) -> None:
        """The trial fails without a record."""
        del self.live[spec.id]
        self.plan.tell(spec, None)

    def run(self, slots: int = 1, stop_after: int = 10**6) -> None:
        while len(self.suggested) < stop_after:
            while len(self.live) < slots and len(self.suggested) < stop_after and self.start() is not None:
                pass
            if not self.live:
                assert self.plan.finished and self.plan.idle and self.plan.next() is None
                return
            self.end(next(iter(self.live.values())))
