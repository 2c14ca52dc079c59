"""How long trials take: by what the ledger has seen, a few steps trained now, what the user says, or a known core.

Every cost that is said of a sweep, a study or a comparison rests on this, with how far it may be off. Other scales
follow by their FLOPs per token, as if training reached the same share of peak along a ladder.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from tuneopt.search.study.budget import TrialTime
from tuneopt.search.study.study import PHASES
from tuneopt.spec import InputError, Regime, Scale, TrialSpec

if TYPE_CHECKING:
    from tuneopt.data import Corpus
    from tuneopt.ledger import Ledger
    from tuneopt.search.study.planner import StudyPlan

Key = TypeVar("Key", bound=Hashable)

FORWARD = 1 / 3
"""Share of a training step's FLOPs that a forward pass has: evaluation does no more."""

KNOWN_FLOPS = 3.5e10
"""Model FLOPs per second of one core of an AMD EPYC at the nano ladder, compiled: 52 thousand tokens a second of AdamW
at nano-65k (docs/compare.md). What stands in for a machine that nobody has measured."""

BUSY_CORE = """
import select, sys, numpy
square = numpy.ones((256, 256), "float32")
print("busy", flush=True)
while not select.select([sys.stdin], [], [], 0)[0]:
    square @ square
"""
"""A program that keeps a core as busy as training does, until its input closes: with whoever started it, too."""

TENTH = 10
"""The part of recorded trials, fastest and slowest, that is left aside: the rest says how far times may be off."""


@dataclass(frozen=True, slots=True)
class TimeSource:
    """Where step times are from, in words, and the factors between which what trials take may be off."""

    words: str
    low: float
    high: float


GIVEN = TimeSource("as given", 0.9, 1.2)
RECORDED = TimeSource("trials in the ledger", 0.95, 1.1)
MEASURED = TimeSource("a few steps, measured now", 0.9, 1.2)
KNOWN = TimeSource("a known core (--measure times yours)", 0.5, 2.0)
UNKNOWN = TimeSource("unknown here; --measure trains a few steps", 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class TrialTimes:
    """About how long trials take at one scale, by optimizer; empty where nothing is known."""

    by_name: Mapping[str, TrialTime]
    origin: TimeSource


Note = Callable[[str], None]
"""What is told of work that takes a while before anything runs."""


@dataclass(frozen=True)
class Speed:
    """How fast a trial trains: tokens per second at the study's smallest scale, or a share of peak FLOPs.

    Nothing given: from the ledger, or a known core.
    """

    tokens_per_second: float | None = None
    mfu: float | None = None  # 0 to 1
    peak_flops: float | None = None  # FLOPs per second of a slot

    def __post_init__(self) -> None:
        if (self.mfu is None) != (self.peak_flops is None):
            raise InputError("--mfu and --peak-flops belong together, such as --mfu 0.4 --peak-flops 312e12")
        if self.mfu is not None and self.tokens_per_second is not None:
            raise InputError("give --tokens-per-second, or --mfu with --peak-flops, not both")
        for name in ("tokens_per_second", "mfu", "peak_flops"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"--{name.replace('_', '-')} must be a positive number, not {value:g}")


def times_of(
    specs: Mapping[str, TrialSpec],
    ledger: Ledger,
    corpus: Corpus | None = None,
    *,
    measure: bool = False,
    tokens_per_second: float | None = None,
    core: bool = True,
    slots: int = 1,
    note: Note = lambda text: None,
) -> TrialTimes:
    """About how long trials like ``specs``, one for each optimizer and all of one scale, take with ``slots`` at once.

    ``tokens_per_second`` of a slot is taken as given. Else finished trials of the ledger count as a measurement; where
    an optimizer has none, a few steps are trained now if ``measure`` allows it, on ``corpus``. Otherwise it is taken to
    be as fast as the others or, on the nano ladder and where a ``core`` trains it, as a known core. ``note`` is told
    what takes a while. Raises `InputError` for a speed that is none.
    """
    if tokens_per_second is not None:
        if not 0 < tokens_per_second < float("inf"):
            raise InputError(f"--tokens-per-second must be a positive number, not {tokens_per_second:g}")
        return TrialTimes({name: _at(spec, tokens_per_second) for name, spec in specs.items()}, GIVEN)
    # From what is known best to what is known least: trials that ran here, steps that are timed now, a known core.
    times, origin = recorded_times(ledger, specs)
    lacking = [name for name in specs if name not in times]
    if lacking and measure and corpus is not None:
        import torch

        from tuneopt.training.building import WarmModels
        from tuneopt.training.run import trained_throughput

        compiles = any(specs[name].compile for name in lacking)
        note(f"timing a few steps of {', '.join(lacking)}" + "; to compile the model takes up to a minute" * compiles)
        # All optimizers train the same compiled model, and where trials will: without a GPU of their own they see none.
        models = WarmModels(torch.device("cpu") if core else None)
        beside = partial(_busy_cores, min(slots, os.cpu_count() or 1) - 1 if core else 0)
        for name in lacking:
            spec = replace(specs[name], regime=replace(specs[name].regime, corpus=corpus.id))
            times[name] = _at(specs[name], trained_throughput(spec, corpus, models, beside))
        origin = MEASURED
    elif lacking:
        known = [time.rate for time in times.values()]
        one = specs[lacking[0]].regime
        usual = statistics.fmean(known) if known else known_rate(one.scale, one.corpus.vocab_size) if core else None
        if usual is None:
            return TrialTimes({}, UNKNOWN)  # for none rather than for some: a sum over a part would be a wrong one
        times |= {name: _at(specs[name], usual) for name in lacking}
        words = f"{origin.words}, {', '.join(lacking)} taken to be as fast as the others"
        origin = replace(KNOWN, words=words) if known else KNOWN
    return TrialTimes({name: times[name] for name in specs}, origin)


@contextmanager
def _busy_cores(count: int) -> Iterator[None]:
    """So many busy cores beside this one, as when trials run at once.

    Cores share caches, memory and often their arithmetic: at nano-65k AdamW's steps alone on two cores of a virtual AMD
    EPYC came out at 72 thousand tokens a second, beside a busy core at 62, and trials train at 56 (2026-11-29).
    """
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command = [sys.executable, "-c", BUSY_CORE]
    company = [
        subprocess.Popen(command, env=os.environ | one_thread, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(max(0, count))
    ]
    try:
        for process in company:
            assert process.stdout is not None, "it is a pipe"
            process.stdout.readline()  # until it is busy, or has failed: then its core is free
        yield
    finally:
        for process in company:
            process.kill()
        for process in company:
            process.communicate()


def study_times(
    plan: StudyPlan,
    ledger: Ledger,
    speed: Speed,
    measure: bool = False,
    slots: int = 1,
    note: Note = lambda text: None,
) -> tuple[Callable[[str, Regime], float | None], TimeSource]:
    """Device seconds of a study's trials by optimizer and regime, None where nothing is known; and where that is from.

    Each optimizer is measured or looked up by itself at the smallest scale. Larger ones are looked up, too; where
    nothing ran there, the baseline is measured there, and the others follow as it does.
    """
    from tuneopt.data import load_corpus

    first = {
        name: min(tasks, key=lambda task: task.sweep.regime.scale.parameters) for name, tasks in plan.first.items()
    }
    specs = {name: task.sweep.spec(task.sweep.space.start) for name, task in first.items()}
    smallest = next(iter(specs.values())).regime
    beyond: dict[Scale, Mapping[str, TrialTime]] = {}
    if speed.mfu is not None and speed.peak_flops is not None:
        given = speed.mfu * speed.peak_flops / _flops_per_token(smallest)
        origin = replace(GIVEN, words=f"{speed.mfu:.0%} of {speed.peak_flops:.3g} FLOP/s")
        times = replace(times_of(specs, ledger, tokens_per_second=given), origin=origin)
    elif speed.tokens_per_second is not None:
        origin = replace(GIVEN, words="as given, at the smallest scale")
        times = replace(times_of(specs, ledger, tokens_per_second=speed.tokens_per_second), origin=origin)
    else:
        corpus = load_corpus(plan.study.corpus, vocab_size=plan.study.vocabulary) if measure else None
        core = smallest.scale.ladder == "nano"  # a plan is not told where it will run; that ladder is one for cores
        times = times_of(specs, ledger, corpus, measure=measure, core=core, slots=slots, note=note)
        larger = {one.scale: one for phase in PHASES for one in plan.regimes(phase) if one.scale != smallest.scale}
        starts = {
            (name, scale): plan.study.sweep(space, regime, plan.compile, lower=True).spec(space.start)
            for scale, regime in larger.items()
            for name, space in plan.study.spaces.items()
        }
        found, _ = recorded_times(ledger, starts) if starts else ({}, None)  # in one pass: reading takes longest
        for scale in larger:
            known: Mapping[str, TrialTime] = {name: found[name, scale] for name in specs if (name, scale) in found}
            if not known and core and corpus is not None:
                name = plan.study.bracket or next(iter(specs))
                spec = {name: starts[name, scale]}
                known = times_of(spec, ledger, corpus, measure=True, slots=slots, note=note).by_name
            beyond[scale] = known

    def seconds(optimizer: str, regime: Regime) -> float | None:
        if not times.by_name:
            return None
        there = beyond.get(regime.scale, {})
        if optimizer in there:
            return there[optimizer].seconds(regime.tokens)
        share = _flops_per_token(regime) / _flops_per_token(smallest)
        # Larger matrices keep a core busier than FLOPs say: by how much, those that ran there tell of the others.
        gains = [times.by_name[name].rate / share / time.rate for name, time in there.items() if name in times.by_name]
        time, share = times.by_name[optimizer], share * (statistics.median(gains) if gains else 1.0)
        return share * (time.fixed * regime.scale.seq_len / smallest.scale.seq_len + regime.tokens / time.rate)

    return seconds, times.origin


def recorded_times(ledger: Ledger, specs: Mapping[Key, TrialSpec]) -> tuple[dict[Key, TrialTime], TimeSource]:
    """Medians over the ledger's trials of the same optimizer, scale, evaluation and mode; others are absent.

    How far they may be off is how far the fastest and slowest of them lie apart, at least as `RECORDED` says.
    """
    rates: dict[Key, list[float]] = defaultdict(list)
    fixed: dict[Key, list[float]] = defaultdict(list)
    alike = {name: _mode(spec) for name, spec in specs.items()}
    for record in ledger.records(sound=True):
        mode = _mode(record.spec)
        for name, asked in alike.items():
            if mode == asked and record.status == "completed" and record.seconds["train"] > 0:
                rates[name].append(record.tokens / record.seconds["train"])
                fixed[name].append(record.seconds["eval"] + record.seconds["checkpoint"])
    times = {name: TrialTime(statistics.median(fixed[name]), statistics.median(rates[name])) for name in rates}
    ends = [_ends(rates[name]) for name in rates]
    slow, fast = min((low for low, _ in ends), default=1.0), max((high for _, high in ends), default=1.0)
    return times, replace(RECORDED, low=min(RECORDED.low, 1 / fast), high=max(RECORDED.high, 1 / slow))


def _ends(rates: Sequence[float]) -> tuple[float, float]:
    """The slowest and the fastest rate but for a tenth of them at each end, over their median."""
    ordered, left_out = sorted(rates), len(rates) // TENTH
    middle = statistics.median(ordered)
    return ordered[left_out] / middle, ordered[-1 - left_out] / middle


def known_rate(scale: Scale, vocabulary: int) -> float | None:
    """Tokens per second of a core that was measured once; None where no core would be used."""
    return KNOWN_FLOPS / scale.flops_per_token(vocabulary) if scale.ladder == "nano" else None


def evaluation_seconds(spec: TrialSpec, rate: float) -> float:
    """Seconds of a trial's evaluations, at ``rate`` tokens per second in training."""
    plan = spec.evaluation
    sequences = 2 * (plan.points * plan.curve_sequences + plan.final_sequences)  # both splits
    return FORWARD * sequences * spec.regime.scale.seq_len / rate


def _at(spec: TrialSpec, rate: float) -> TrialTime:
    return TrialTime(evaluation_seconds(spec, rate), rate)


def _flops_per_token(regime: Regime) -> int:
    """FLOPs of a token, forward and backward; the vocabulary counts, for the head is a large part of small models."""
    return regime.scale.flops_per_token(regime.corpus.vocab_size)


def _mode(spec: TrialSpec) -> tuple[object, ...]:
    return spec.optimizer, spec.regime.scale, spec.compile, spec.precision, spec.evaluation
