"""The two sides of `train_throughput`: our training loop, and transformers' Llama in a plain one, on equal tokens."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuneopt.data import Windows
from tuneopt.data.shards import ShardWriter, map_shard
from tuneopt.spec import CorpusId, Evaluation, Scale, TrialSpec
from tuneopt.training.building import LOOP_HYPERPARAMETERS, WarmModels
from tuneopt.training.config import ParallelConfig
from tuneopt.training.loop import Training
from tuneopt.training.parallel import DataParallel
from tuneopt.training.ranks import Ranks
from tuneopt.training.weights import config, family_of

TOKENS = 2**21
"""Tokens of the training split: what is in them is nothing to a timing, and no step of a run meets the same ones."""


class RandomCorpus:
    """Memory-mapped shards of random tokens, with what a training asks of a corpus."""

    def __init__(self, folder: Path, vocab_size: int, seq_len: int) -> None:
        self.id = CorpusId("random", f"random-{vocab_size}", vocab_size)
        self._views = {}
        dtype = np.dtype(np.uint16 if vocab_size <= 2**16 else np.uint32)
        generator = np.random.default_rng(0)
        for split, tokens in (("train", TOKENS), ("select", 64 * seq_len + 1), ("report", 64 * seq_len + 1)):
            with ShardWriter(folder, split, dtype) as writer:
                writer.append(generator.integers(vocab_size, size=tokens, dtype=dtype))
                _, shards = writer.finish()
            self._views[split] = [view for shard in shards for view in map_shard(folder, shard)]

    def split(self, name: str) -> _Split:
        return _Split(self._views[name])


class _Split:
    def __init__(self, views: list[Any]) -> None:
        self._views = views

    def windows(self, seq_len: int) -> Windows:
        return Windows(self._views, seq_len)


EVALUATION = Evaluation(points=1, curve_sequences=1, final_sequences=64)
"""As little as there can be: steps are timed, evaluation is not."""


class Side:
    """One candidate: `step` trains one optimizer step, and `times` collects the seconds of those that were timed."""

    def __init__(self, label: str, device: torch.device, step: Callable[[], None], loss: Callable[[], float]) -> None:
        self.label, self.device, self.step, self.first_loss = label, device, step, loss
        self.times: list[float] = []

    def timed(self, clock: Callable[[], float]) -> None:
        synchronize(self.device)
        began = clock()
        self.step()
        synchronize(self.device)
        self.times.append(clock() - began)

    def rate(self, tokens: int) -> float:
        """Tokens per second at the median step."""
        return tokens / statistics.median(self.times)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ours(
    spec: TrialSpec, corpus: Any, models: WarmModels, parallel: ParallelConfig, ranks: Ranks | None = None
) -> tuple[Side, Training]:
    """The training loop as trials run it: prefetch, schedule, clipping, the proof behind it."""
    training = Training(spec, corpus, None, models, parallel, ranks)

    def loss() -> float:
        window = training.batches.window(0, training.micro_batch)
        return float(training.strategy.loss(window[:, :-1], window[:, 1:]).detach())

    return Side(f"tuneopt, {_mode(spec)}", training.device, training.train_step, loss), training


def transformers_llama(spec: TrialSpec, corpus: Any, device: torch.device, micro_batch: int, ready: Training) -> Side:
    """transformers' Llama of the same shape and initial weights in the plainest loop, with the same optimizer.

    Attention goes through SDPA, labels come shifted, the cache is off, batches are read on the training thread. Raises
    `torch.OutOfMemoryError` where it has no room for a pass: its logits exist whole.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    from tuneopt.optim import create
    from tuneopt.optim.factory import implementation

    scale = spec.regime.scale
    plain_config = {**config(spec, end=0), "use_cache": False, "attn_implementation": "sdpa"}
    model = LlamaForCausalLM(LlamaConfig(**plain_config)).to(device)
    family = family_of(scale)
    assert family is not None and family.name == "llama", "the peer is transformers' Llama"
    model.load_state_dict(family.convert(scale, ready.model.state_dict()))
    named = [(name.removeprefix("model."), parameter) for name, parameter in model.named_parameters()]
    own = {name: value for name, value in spec.config.items() if name not in LOOP_HYPERPARAMETERS}
    facts = scale.facts(implementation(spec.optimizer).model_facts)
    optimizer = create(spec.optimizer, named, **{**facts, **own})
    plain: Callable[..., Any] = torch.compile(model, dynamic=False) if spec.compile else model
    half = spec.precision == "bf16"
    parts, done = spec.batch // micro_batch, 0

    def loss_of(window: Tensor) -> Tensor:
        tokens, targets = window[:, :-1], window[:, 1:].contiguous()  # its loss asks for that
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            return plain(input_ids=tokens, labels=targets, shift_labels=targets, use_cache=False).loss  # type: ignore[no-any-return]

    def step() -> None:
        nonlocal done
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * ready.schedule(done)
        optimizer.zero_grad(set_to_none=True)
        for part in range(parts):
            window = ready.batches.window(done * spec.batch + part * micro_batch, micro_batch)
            (loss_of(window) / parts).backward()
        optimizer.step()
        done += 1

    def first() -> float:
        return float(loss_of(ready.batches.window(0, micro_batch)).detach())

    loss_of(ready.batches.window(0, micro_batch)).backward()  # compiles, and shows whether there is room
    optimizer.zero_grad(set_to_none=True)
    return Side(f"transformers, {_mode(spec)}", device, step, first)


def breakdown(training: Training, steps: int) -> dict[str, float]:
    """Median seconds of the parts of a step, the device waited for after each, so that their sum is an upper bound.

    ``communication`` is what averaging gradients adds to a backward pass, as far as it is not hidden behind it.
    """
    parts: dict[str, list[float]] = {}
    for _ in range(steps):
        for name, seconds in _one_breakdown(training).items():
            parts.setdefault(name, []).append(seconds)
    found = {name: statistics.median(seconds) for name, seconds in parts.items()}
    if isinstance(training.strategy, DataParallel):
        found["communication"] = _communication(training, training.strategy, steps)
        found["backward"] = max(0.0, found["backward"] - found["communication"])
    else:
        found["communication"] = 0.0
    return found


def _one_breakdown(training: Training) -> dict[str, float]:
    spent = dict.fromkeys(("forward", "backward", "optimizer", "data"), 0.0)
    strategy, device = training.strategy, training.device
    loss, update = strategy.loss, strategy.step

    def forward(tokens: Tensor, targets: Tensor) -> Tensor:
        synchronize(device)
        began = time.perf_counter()
        result = loss(tokens, targets)
        synchronize(device)
        spent["forward"] += time.perf_counter() - began
        return result

    def timed_update() -> Any:
        synchronize(device)
        began = time.perf_counter()
        result = update()
        synchronize(device)
        spent["optimizer"] += time.perf_counter() - began
        return result

    holder: Any = strategy.ddp.module if isinstance(strategy, DataParallel) else strategy
    holder.loss = forward
    strategy.step = timed_update  # type: ignore[method-assign]
    waited, began = training.batches.waited, time.perf_counter()
    try:
        training.train_step()
    finally:
        holder.loss = loss
        strategy.step = update  # type: ignore[method-assign]
    whole = time.perf_counter() - began
    spent["data"] = training.batches.waited - waited
    spent["backward"] = whole - sum(spent.values())
    return spent


def _communication(training: Training, strategy: DataParallel, steps: int) -> float:
    """A step with averaging less one without; ranks then differ, which only a benchmark may let them."""

    def one() -> float:
        training.ranks.barrier()
        synchronize(training.device)
        began = time.perf_counter()
        strategy.drop_gradients()
        for number in range(training.passes):
            strategy.accumulate(training.batches.take(training.step, number), number, training.passes)
        synchronize(training.device)
        return time.perf_counter() - began

    with_it, without = [], []
    for _ in range(steps):
        with_it.append(one())
        with strategy.ddp.no_sync():
            without.append(one())
    return max(0.0, statistics.median(with_it) - statistics.median(without))


def _mode(spec: TrialSpec) -> str:
    return "compiled" if spec.compile else "eager"


def regime_scale(scale: Scale, seq_len: int | None) -> Scale:
    """The scale with another sequence length, for machines that cannot hold its own."""
    return scale if seq_len is None else replace(scale, seq_len=seq_len)
