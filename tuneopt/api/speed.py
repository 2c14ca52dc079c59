"""How fast a study's trials train: as given, as a share of peak FLOPs, or as measured."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneopt.spec import InputError, Regime

if TYPE_CHECKING:
    from tuneopt.ledger import Ledger
    from tuneopt.search.study.planner import StudyPlan

Rate = Callable[[Regime], float | None]
"""Tokens per second of a trial by regime; None where nothing is known."""


@dataclass(frozen=True)
class Speed:
    """How fast a trial trains: tokens per second at the study's smallest scale, or a share of peak FLOPs.

    Other scales follow by their FLOPs per token. Nothing given: measured, from the ledger or a few steps.
    """

    tokens_per_second: float | None = None
    mfu: float | None = None
    peak_flops: float | None = None

    def __post_init__(self) -> None:
        if (self.mfu is None) != (self.peak_flops is None):
            raise InputError("--mfu and --peak-flops belong together, such as --mfu 0.4 --peak-flops 312e12")
        if self.mfu is not None and self.tokens_per_second is not None:
            raise InputError("give --tokens-per-second, or --mfu with --peak-flops, not both")
        for name in ("tokens_per_second", "mfu", "peak_flops"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} must be a positive number, not {value:g}")


def rate(plan: StudyPlan, ledger: Ledger, speed: Speed) -> tuple[Rate, str]:
    """Tokens per second of a trial by regime, and where that is from."""
    if speed.mfu is not None and speed.peak_flops is not None:
        flops = speed.mfu * speed.peak_flops
        return (lambda regime: flops / _flops_per_token(regime)), f"{speed.mfu:.0%} of {speed.peak_flops:.3g} FLOP/s"
    smallest = min(plan.regimes("I"), key=lambda regime: regime.scale.parameters)
    tokens, origin = speed.tokens_per_second, "as given, at the smallest scale"
    if tokens is None:
        tokens, origin = _measured(plan, ledger)
    if tokens is None:
        return (lambda regime: None), origin
    flops = tokens * _flops_per_token(smallest)
    return (lambda regime: flops / _flops_per_token(regime)), origin


def _flops_per_token(regime: Regime) -> int:
    return regime.scale.flops_per_token(regime.corpus.vocab_size)


def _measured(plan: StudyPlan, ledger: Ledger) -> tuple[float | None, str]:
    from tuneopt.data import load_corpus
    from tuneopt.train.run import recorded_throughput, trained_throughput

    tasks = [task for held in plan.first.values() for task in held]
    sweep = min(tasks, key=lambda task: task.sweep.regime.scale.parameters).sweep
    spec = sweep.spec(sweep.space.start)
    tokens = recorded_throughput(ledger, spec)
    if tokens is not None:
        return tokens, "from trials in the ledger"
    if plan.study.ladder != "nano":
        return None, "unknown here; give --tokens-per-second, or --mfu with --peak-flops"
    corpus = load_corpus(plan.study.corpus, vocab_size=plan.study.vocabulary)
    return trained_throughput(spec, corpus), "measured now on a few steps, uncompiled"
