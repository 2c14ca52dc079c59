"""What cannot be true of a document, whoever wrote it: its own fields contradict each other.

`tuneopt.ledger.record` checks each field alone. Here they are compared: what was trained with what was asked for, the
curve with the final losses, a verdict with the checks that it rests on. A digit that was changed in a record without a
seal is found by these comparisons alone. Each function returns what is wrong in a few words, or nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from itertools import pairwise
from typing import Any

from tuneopt.ledger.record import TrialRecord

CURVE_NATS = 1.0
"""Nats by which the last curve point may differ from the final loss of the same weights. Both are means over parts of
one split, by default over 32 and 512 sequences; a mean over `FEWEST_SEQUENCES` stays within a few tenths of the
other's, and a larger difference is a changed digit."""

FEWEST_SEQUENCES = 16
"""Sequences of a curve point below which its loss is too noisy to be compared with the final one."""

_TRIAL = re.compile(r"[0-9a-f]{16}")
_WORD = re.compile(r"[a-z0-9_]+")
"""Names of built-in optimizers; those of others hold a path or a version."""

_RULES = {
    **dict.fromkeys(("muonh", "normuon", "muonc", "moonlight"), "muon"),
    **dict.fromkeys(("kl_soap", "soap_muon"), "soap"),
    **dict.fromkeys(("adamh", "adamc"), "adamw_matrix"),
}
"""The main rule of built-in optimizers that are another one with switches on; that of others has their own name."""


ROUNDING = 1e-6
"""Seconds below 0 that a difference of sums may be: earlier releases wrote them."""


def in_record(record: TrialRecord) -> str:
    """What cannot be true of a record; empty when nothing contradicts itself."""
    checks = (_training(record), _curve(record), _losses(record), _proof(record), _routing(record), _times(record))
    return next((wrong for check in checks for wrong in check), "")


def in_account(plain: Mapping[str, Any]) -> str:
    """What cannot be true of a run's account; empty when nothing is wrong.

    Its lists name trials by their ids, which are looked up in the ledger.
    """
    for name in ("run", "reused", "failed", "cut"):
        trials = plain.get(name, ())
        if not isinstance(trials, list | tuple | dict):
            return f"{name} is no list of trials"
        for trial in trials:
            if not isinstance(trial, str) or not _TRIAL.fullmatch(trial):
                return f"{name} holds {str(trial)[:40]!r}, which is no id of a trial"
    for name in ("slots", "wall_seconds", "busy_seconds"):
        value = plain.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not -ROUNDING <= value < math.inf:
            return f"{name} is {str(value)[:40]!r}, and should be a number from 0 up"
    return ""


def _training(record: TrialRecord) -> Iterator[str]:
    """Steps and tokens against the specification."""
    spec = record.spec
    per_step = spec.batch * spec.regime.scale.seq_len
    if record.steps > spec.steps or (record.status == "completed" and record.steps != spec.steps):
        yield f"{record.steps} steps of a {record.status} trial whose specification has {spec.steps}"
    if record.tokens != record.steps * per_step:
        yield f"{record.tokens} tokens in {record.steps} steps of {per_step} tokens"


def _curve(record: TrialRecord) -> Iterator[str]:
    """Points in their order, each where its step says, the last one at the end."""
    spec = record.spec
    per_step = spec.batch * spec.regime.scale.seq_len
    for before, after in pairwise(record.curve):
        if after.step <= before.step or after.seconds < before.seconds:
            yield f"the curve goes back from step {before.step} to step {after.step}"
    for point in record.curve:
        if point.tokens != point.step * per_step:
            yield f"{point.tokens} tokens at step {point.step} of the curve"
    if record.curve and record.curve[-1].step != record.steps:
        yield f"the curve ends at step {record.curve[-1].step} of {record.steps}"
    if record.curve and record.curve[0].step == 0 and record.curve[0].select_loss != record.initial_loss:
        yield f"the curve begins at a loss of {record.curve[0].select_loss}, and initial_loss is {record.initial_loss}"


def _losses(record: TrialRecord) -> Iterator[str]:
    """Losses are cross entropies: none is negative, and the final ones are where the curve ends."""
    points = [loss for point in record.curve for loss in (point.train_loss, point.select_loss, point.report_loss)]
    final = (record.select_loss, record.report_loss, record.initial_loss)
    if any(loss is not None and loss < 0 for loss in (*points, *final)):
        yield "a negative loss"
    if not record.curve or record.spec.evaluation.curve_sequences < FEWEST_SEQUENCES:
        return
    last = record.curve[-1]
    for split, loss, end in (
        ("select", record.select_loss, last.select_loss),
        ("report", record.report_loss, last.report_loss),
    ):
        if loss is not None and end is not None and abs(loss - end) > CURVE_NATS:
            yield f"{split}_loss is {loss:g} nats, and the curve ends at {end:g}"


def _proof(record: TrialRecord) -> Iterator[str]:
    """The verdict against the checks that it rests on."""
    proof = record.proof
    if proof is None:
        return
    passed, checks = proof.get("passed"), proof.get("checks", [])
    if not isinstance(passed, bool) or not isinstance(checks, list) or not all(isinstance(c, dict) for c in checks):
        yield "the proof has another form than any release gave it"
        return
    if "status" in proof and passed != (proof["status"] == "passed"):
        yield f"the proof says passed: {str(passed).lower()} and status: {str(proof['status'])[:40]}"
    if checks and passed != all(check.get("passed") is True for check in checks):
        yield f"the proof says passed: {str(passed).lower()}, which its own checks do not"


def _routing(record: TrialRecord) -> Iterator[str]:
    """Rules and proof of the optimizer that the specification names."""
    rules = {str(route.get("rule")) for route in record.routing}
    name = record.spec.optimizer
    main = _RULES.get(name, name)
    if rules and _WORD.fullmatch(name) and main not in rules:
        yield f"no parameter is routed to {main}, but to {', '.join(sorted(rules))[:80]}"
    checks = (record.proof or {}).get("checks", [])
    proven = {str(check.get("name")).partition(".")[0] for check in checks if "." in str(check.get("name"))}
    if rules and not proven <= rules:
        yield f"the proof is of {', '.join(sorted(proven - rules))[:80]}, to which no parameter is routed"


def _times(record: TrialRecord) -> Iterator[str]:
    """A trial ends after it started."""
    if datetime.fromisoformat(record.ended) < datetime.fromisoformat(record.started):
        yield f"it ended at {record.ended}, before it started at {record.started}"
