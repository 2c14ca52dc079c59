"""What a study's trials need of devices, and how fast these train: asked for by shapes, or as given, or measured.

A plan must be quick and run anywhere, a laptop without the study's GPUs among them. So memory comes from a model of
training over shapes (`tuneopt.training.memory`), and time from one figure of throughput: other scales follow by their
FLOPs per token, as if training reached the same share of peak along a ladder.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from tuneopt.run.options import RunOptions, check_batches
from tuneopt.spec import InputError, Regime, Scale
from tuneopt.training.config import ParallelConfig

if TYPE_CHECKING:
    from tuneopt.ledger import Ledger
    from tuneopt.search.study.cost import TrialShape
    from tuneopt.search.study.planner import StudyPlan
    from tuneopt.search.study.study import Study

ADAMW_STATE_BYTES = 8.0
"""State bytes per parameter of an optimizer that says nothing of its own: two moments in fp32, as most rules keep
(docs/optimizers.md)."""

KNOWN_FLOPS = 3.5e10
"""Model FLOPs per second of one core of an AMD EPYC at the nano ladder, compiled: 52 thousand tokens a second of AdamW
at nano-65k (docs/compare.md). What stands in for a machine that nobody has measured."""

KNOWN = "of a known core (--measure times yours)"
UNKNOWN = "unknown here; --measure trains a few steps; a study takes --tokens-per-second, or --mfu with --peak-flops"
"""Where a throughput is from that nobody measured here, in words."""

Rate = Callable[[Regime], float | None]
"""Tokens per second of a trial by regime; None where nothing is known."""


@cache
def state_bytes(optimizer: str) -> float:
    """Bytes of optimizer state per parameter, weights and gradients not counted."""
    from tuneopt.optim import info

    # Rather too much than too little for an optimizer that is silent: a study that stops for want of memory cost hours.
    known = {entry.name: entry.state_bytes_per_parameter for entry in info()}
    return known.get(optimizer) or ADAMW_STATE_BYTES


def peak_bytes(asked: TrialShape) -> int:
    """Bytes that the fullest device of a trial needs, by `tuneopt.training.memory`; host memory of offload left out."""
    from tuneopt.training.chunks import chunk_tokens
    from tuneopt.training.memory import memory

    devices = asked.devices
    return memory(
        asked.scale,
        asked.vocabulary,
        asked.optimizer,
        state_bytes(asked.optimizer),
        precision=asked.precision,
        micro_batch=asked.sequences,
        ranks=devices.ranks,
        zero=devices.zero,
        offload=devices.offload,
        head_chunk=chunk_tokens(asked.sequences * asked.scale.seq_len, asked.vocabulary),
        on_cpu=asked.scale.ladder == "nano",  # where that ladder trains; a plan cannot know, and it fits anyway
    ).device


def slots_here(options: RunOptions, scale: str) -> tuple[int, str]:
    """How many trials at a scale `tune` would run at once on this machine, and what to say where it can run none."""
    ranks = options.parallel[scale].ranks if scale in options.parallel else 1
    room, missing = float(os.cpu_count() or 1), ""
    if options.gpus_per_trial:
        import torch

        count = torch.cuda.device_count()
        room = count / options.gpus_per_trial + 1e-9  # ten tenths of a GPU are a whole one
        if int(room) < ranks:
            asked = f"{ranks * options.gpus_per_trial:g} GPU{'s' * (ranks * options.gpus_per_trial != 1)}"
            missing = f"a trial takes {asked} and this machine has {count}; the time is that of one trial after another"
    slots = max(1, int(room) // ranks)
    return min(slots, options.max_concurrent or slots), missing


def placements(study: Study) -> dict[str, ParallelConfig]:
    """Where a study's trials train, by scale; raises `InputError` where a batch does not divide among the ranks."""
    if not study.placement:
        return {}
    from tuneopt.search.study.cost import batches

    # Every batch of every optimizer is tried before anything runs: a study that stops half-way for one has cost hours.
    parallel = {}
    for scale, devices in study.placement.items():
        parallel[scale] = ParallelConfig(devices.ranks, devices.zero, devices.offload)
        parallel[scale].check_model(study.scale(scale))
        for optimizer in study.optimizers:
            check_batches(parallel[scale], scale, batches(study, optimizer))
    return parallel


@dataclass(frozen=True)
class Speed:
    """How fast a trial trains: tokens per second at the study's smallest scale, or a share of peak FLOPs.

    Other scales follow by their FLOPs per token. Nothing given: from the ledger, or a known core.
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


def known_rate(scale: Scale, vocabulary: int) -> float | None:
    """Tokens per second of a core that was measured once; None where no core would be used."""
    return KNOWN_FLOPS / scale.flops_per_token(vocabulary) if scale.ladder == "nano" else None


def rate(plan: StudyPlan, ledger: Ledger, speed: Speed, measure: bool = False) -> tuple[Rate, str]:
    """Tokens per second of a trial by regime, and where that is from, in words.

    By records and arithmetic; with ``measure``, a few steps are trained where the ledger knows nothing.
    """
    if speed.mfu is not None and speed.peak_flops is not None:
        flops = speed.mfu * speed.peak_flops
        return (lambda regime: flops / _flops_per_token(regime)), f"{speed.mfu:.0%} of {speed.peak_flops:.3g} FLOP/s"
    smallest = min(plan.regimes("I"), key=lambda regime: regime.scale.parameters)
    tokens, origin = speed.tokens_per_second, "as given, at the smallest scale"
    if tokens is None:
        tokens, origin = _looked_up(plan, ledger, measure)
    if tokens is None:
        return (lambda regime: None), origin
    flops = tokens * _flops_per_token(smallest)
    return (lambda regime: flops / _flops_per_token(regime)), origin


def _flops_per_token(regime: Regime) -> int:
    """FLOPs of a token, forward and backward; the vocabulary counts, since the head is a large part of small models."""
    return regime.scale.flops_per_token(regime.corpus.vocab_size)


def _looked_up(plan: StudyPlan, ledger: Ledger, measure: bool) -> tuple[float | None, str]:
    """Tokens per second at the start of the smallest sweep of Phase I; None where nothing is known."""
    from tuneopt.data import load_corpus
    from tuneopt.search.records import recorded_throughput

    tasks = [task for first in plan.first.values() for task in first]
    sweep = min(tasks, key=lambda task: task.sweep.regime.scale.parameters).sweep
    spec = sweep.spec(sweep.space.start)
    tokens = recorded_throughput(ledger, spec)
    if tokens is not None:
        return tokens, "from trials in the ledger"
    if not measure:
        tokens = known_rate(spec.regime.scale, plan.study.vocabulary)
        return tokens, UNKNOWN if tokens is None else KNOWN
    from tuneopt.training.run import trained_throughput

    corpus = load_corpus(plan.study.corpus, vocab_size=plan.study.vocabulary)
    return trained_throughput(spec, corpus), "measured now on a few steps, uncompiled"
