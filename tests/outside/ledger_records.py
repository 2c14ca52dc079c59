"""A sweep's records in a ledger, as workers would have written them after training on a surface."""

from __future__ import annotations

from collections.abc import Callable

from tuneopt.ledger import CurvePoint, Ledger, TrialRecord
from tuneopt.run.simulated import simulate
from tuneopt.search.sweep import Sweep
from tuneopt.spec import TrialSpec


def put_simulated(ledger: Ledger, sweep: Sweep, loss: Callable[[TrialSpec], float]) -> None:
    """The sweep and every trial that it needs, with the losses of a surface."""
    ledger.put_sweep(sweep.id, sweep.to_dict())
    for run in simulate(sweep, loss).clock.runs:
        ledger.put(_record(run.spec, loss(run.spec)))


def _record(spec: TrialSpec, loss: float) -> TrialRecord:
    return TrialRecord(
        trial=spec.id,
        status="completed",
        spec=spec,
        select_loss=loss,
        report_loss=loss,
        initial_loss=7.0,
        curve=(CurvePoint(spec.steps, spec.regime.tokens, 0.0, loss, loss, loss, 1.0),),
        tokens=spec.regime.tokens,
        steps=spec.steps,
        epochs=0.1,
        flops=spec.regime.flops,
        seconds={"train": 1.0, "eval": 0.1, "startup": 0.0, "checkpoint": 0.0},
        peak_bytes=None,
        checkpoint_bytes=None,
        optimizer_state_bytes=None,
        proof={"passed": True, "checks": []},
        routing=(),
        environment={},
        started="2026-01-01T00:00:00+00:00",
        ended="2026-01-01T00:00:01+00:00",
        resumes=0,
        tokens_per_second=1.0,
    )
