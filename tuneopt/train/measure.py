"""How fast a trial trains here: from the ledger's trials, or from a few steps trained now."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

from tuneopt.data import Corpus
from tuneopt.ledger import Ledger
from tuneopt.spec import TrialSpec
from tuneopt.train.loop import Training

TIMED_SECONDS = 2.0


def recorded_throughput(ledger: Ledger, spec: TrialSpec) -> float | None:
    """Median tokens per second, evaluation included, of the ledger's trials of the same optimizer, scale and mode."""
    rates = [
        record.tokens / (record.seconds["train"] + record.seconds["eval"])
        for record in ledger.records()
        if (record.spec.optimizer, record.spec.regime.scale, record.spec.compile, record.spec.precision)
        == (spec.optimizer, spec.regime.scale, spec.compile, spec.precision)
        and record.seconds["train"] > 0
    ]
    return statistics.median(rates) if rates else None


def trained_throughput(spec: TrialSpec, corpus: Corpus) -> float:
    """Tokens per second of a few optimizer steps on this machine, without compilation and evaluation."""
    training = Training(replace(spec, compile=False), corpus, None)
    training.train_step()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < TIMED_SECONDS and training.step < training.steps:
        training.train_step()
        steps += 1
    return steps * spec.batch * spec.regime.scale.seq_len / (time.perf_counter() - began)
