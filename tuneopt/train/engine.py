"""Warm models: one module and one compiled loss per shape, used again by every trial of a process.

Building and compiling cost seconds, a nano trial half a minute; so a worker keeps its models and refills their
weights for each trial. Nothing of a trial survives in them: weights come from the seed, gradients are dropped.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from tuneopt.data.cache import cache_folder, only_process
from tuneopt.spec import Scale, TrialSpec
from tuneopt.train.model import Llama

LossFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Warm:
    """A model with its loss function, ``loss(tokens, targets) -> nats per token``, both inputs (B, T) int64."""

    model: Llama
    loss: LossFunction
    device: torch.device


@contextmanager
def _one_compiles() -> Iterator[None]:
    """Let one process of this machine compile at a time: the others then find its kernels in Inductor's cache.

    Workers of a sweep start together; compiling the same kernels side by side took them twice as long.
    """
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with only_process(folder / "compile"):
        yield


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def can_compile() -> bool:
    """Whether torch.compile can build kernels for the default device here (on CPUs it needs a C++ compiler)."""
    return torch.cuda.is_available() or any(shutil.which(name) for name in ("c++", "g++", "clang++"))


@cache
def _skip_probes() -> None:
    """Spare Inductor its test programs for vector instructions, 12 of the 40 seconds that a first compilation takes.

    They show whether the compiler and the machine both know an instruction set. The kernel names what the machine
    knows, Inductor reads that too; and GCC knows from version 11 whatever Inductor may ask for on x86.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None or platform.machine() != "x86_64" or sys.platform != "linux":
        return
    macros = subprocess.run([compiler, "-dM", "-E", "-x", "c++", os.devnull], capture_output=True, text=True).stdout
    version = re.search(r"^#define __GNUC__ (\d+)$", macros, re.MULTILINE)
    if version and int(version[1]) >= 11 and "__clang__" not in macros:
        from torch._inductor import config

        config.cpp.vec_isa_ok = True


class Engine:
    """Gives a warm model for a specification, freshly initialised from its seed."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or default_device()
        self._warm: dict[tuple[Scale, int, str, bool], Warm] = {}
        self._shapes: set[tuple[Scale, int, str, bool, int]] = set()
        if self.device.type == "cpu":
            # One thread for each trial: sums keep their order, and neighbours on the machine keep their cores.
            torch.set_num_threads(1)
            # Moments of rarely seen tokens decay into denormal numbers, which CPUs handle many times slower.
            torch.set_flush_denormal(True)

    def prepare(self, spec: TrialSpec) -> Warm:
        """The warm model of ``spec``, compiled for its micro-batch, weights drawn from its seed."""
        scale, vocab_size = spec.regime.scale, spec.regime.corpus.vocab_size
        key = (scale, vocab_size, spec.precision, spec.compile)
        if key not in self._warm:
            self._warm[key] = _build(spec, self.device)
        warm = self._warm[key]
        if (*key, spec.micro_batch) not in self._shapes:
            with _one_compiles() if spec.compile else nullcontext():
                self._exercise(warm, spec)
            self._shapes.add((*key, spec.micro_batch))
        warm.model.initialize(spec.seed)
        warm.model.zero_grad(set_to_none=True)
        return warm

    def _exercise(self, warm: Warm, spec: TrialSpec) -> None:
        """Run forward and backward once, so that compilation is over before a trial's clock starts."""
        # Inputs and targets are views of one window, in trials as here: other strides would compile other kernels.
        window = torch.zeros((spec.micro_batch, spec.regime.scale.seq_len + 1), dtype=torch.int64, device=self.device)
        warm.loss(window[:, :-1], window[:, 1:]).backward()  # type: ignore[no-untyped-call]


def fresh(spec: TrialSpec, device: torch.device) -> Warm:
    """A model of its own for ``spec``, weights drawn from its seed, for callers that take it apart."""
    warm = _build(spec, device)
    warm.model.initialize(spec.seed)
    return warm


def _build(spec: TrialSpec, device: torch.device) -> Warm:
    if spec.compile and device.type == "cpu":
        _skip_probes()
    model = Llama(spec.regime.scale, spec.regime.corpus.vocab_size).to(device)
    return Warm(model, _loss_function(model, spec, device), device)


def _loss_function(model: Llama, spec: TrialSpec, device: torch.device) -> LossFunction:
    compiled: LossFunction = torch.compile(model.loss, dynamic=False) if spec.compile else model.loss
    if spec.precision == "fp32":
        return compiled

    def autocast_loss(tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return compiled(tokens, targets)

    return autocast_loss
