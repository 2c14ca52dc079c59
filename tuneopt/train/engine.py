"""Warm models: one module and one compiled loss per shape, used again by every trial of a process.

Building and compiling cost seconds, a nano trial half a minute; so a worker keeps its models and refills their
weights for each trial. Nothing of a trial survives in them: weights come from the seed, gradients are dropped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tuneopt.spec import Scale, TrialSpec
from tuneopt.train.chunks import CHUNKED_VOCABULARY
from tuneopt.train.compilers import has_compiler
from tuneopt.train.device_memory import available_bytes
from tuneopt.train.head import loss_and_slope
from tuneopt.train.kernels import allow_many_shapes, compile_alone, skip_probes
from tuneopt.train.model import Llama, rotary_table

LossFunction = Callable[[Tensor, Tensor], Tensor]

Agreement = Callable[[bool], bool]
"""Whether something holds on every rank of a trial; in one process, what it is given."""


@dataclass(frozen=True, slots=True)
class Warm:
    """A model with its loss function, ``loss(tokens, targets) -> nats per token``, both inputs (B, T) int64."""

    model: Llama
    loss: LossFunction
    device: torch.device
    micro_batch: int | None = None
    """Sequences of a pass that it was tried with; None where nothing was tried."""


def default_device() -> torch.device:
    """CUDA where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def can_compile() -> bool:
    """Whether torch.compile can build kernels for the default device here (on CPUs it needs a C++ compiler)."""
    return torch.cuda.is_available() or has_compiler()


class Engine:
    """Gives a warm model for a specification, freshly initialised from its seed."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device or default_device()
        self._warm: dict[tuple[Scale, int, str, bool, bool], Warm] = {}
        self._shapes: set[tuple[tuple[Scale, int, str, bool, bool], int, int]] = set()
        if self.device.type == "cpu":
            # One thread for each trial: sums keep their order, and neighbours on the machine keep their cores.
            torch.set_num_threads(1)
            # Moments of rarely seen tokens decay into denormal numbers, which CPUs handle many times slower.
            torch.set_flush_denormal(True)

    def prepare(
        self,
        spec: TrialSpec,
        sizes: Sequence[int] | None = None,
        *,
        checkpointing: bool = False,
        deterministic: bool = False,
        reserved: Callable[[int], int] = lambda size: 0,
        agree: Agreement = bool,
    ) -> Warm:
        """The warm model of ``spec``, compiled for its passes, weights drawn from its seed.

        ``sizes`` are the sequences that a pass may take, in the order of preference; by default the micro-batch of
        ``spec``. The first counts that fits into the device's memory on all ranks, beside as many bytes as ``reserved``
        gives for it. A GPU keeps one model warm at a time.
        """
        repeat_kernels(self.device, deterministic)
        scale, vocab_size = spec.regime.scale, spec.regime.corpus.vocab_size
        key = (scale, vocab_size, spec.precision, spec.compile, checkpointing)
        if key not in self._warm:
            if self.device.type == "cuda":
                self._warm.clear()
                self._shapes.clear()
            self._warm[key] = _build(spec, self.device, checkpointing)
        warm = self._warm[key]
        sizes = sizes or (spec.micro_batch,)
        for size in sizes:
            shape = key, size, reserved(size)
            if shape in self._shapes:
                break
            fits = self._fits(warm, size, spec, reserved(size), last=size == sizes[-1])
            if agree(fits):  # not before the lock on compiling is free, for which other ranks wait
                self._shapes.add(shape)
                break
        warm.model.initialize(spec.seed)
        warm.model.zero_grad(set_to_none=True)
        return replace(warm, micro_batch=size)

    def available_bytes(self) -> int:
        """Bytes of the CUDA device for a trial: what is free, and the model that is warm, used again or dropped."""
        warm = (parameter for each in self._warm.values() for parameter in each.model.parameters())
        return available_bytes(self.device, sum(p.numel() * p.element_size() for p in warm))

    def _fits(self, warm: Warm, size: int, spec: TrialSpec, reserved: int, *, last: bool) -> bool:
        """Whether a pass over ``size`` sequences stays within the device's memory; the last size has to, or raises."""
        held: Tensor | None = None
        try:
            held = torch.empty(reserved if self.device.type == "cuda" else 0, dtype=torch.uint8, device=self.device)
            self.exercise(warm, size, spec)
        except torch.OutOfMemoryError:
            if last:
                raise
        else:
            return True
        finally:
            del held
        # Only here, outside the handler, does nothing refer to the failed pass any more.
        warm.model.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return False

    def exercise(self, warm: Warm, size: int, spec: TrialSpec) -> None:
        """Run forward and backward once over ``size`` sequences, so that compilation is over before the training."""

        def one_pass() -> None:
            # Inputs and targets are views of one window, in trials as here: other strides would compile other kernels.
            window = torch.zeros((size, spec.regime.scale.seq_len + 1), dtype=torch.int64, device=self.device)
            warm.loss(window[:, :-1], window[:, 1:]).backward()  # type: ignore[no-untyped-call]

        if spec.compile:
            compile_alone(one_pass)
        else:
            one_pass()


def repeat_kernels(device: torch.device, wanted: bool) -> None:
    """Have CUDA give the same bits each time, or as fast as it can; CPUs with one thread do so by themselves."""
    if device.type == "cuda" and wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    if torch.are_deterministic_algorithms_enabled() != wanted:
        torch.use_deterministic_algorithms(wanted)


def fresh(spec: TrialSpec, device: torch.device, *, checkpointing: bool = False) -> Warm:
    """A model of its own for ``spec``, weights drawn from its seed, for callers that take it apart."""
    warm = _build(spec, device, checkpointing)
    warm.model.initialize(spec.seed)
    return warm


def blank(spec: TrialSpec, device: torch.device, *, checkpointing: bool = False) -> Warm:
    """A model for ``spec`` whose weights have shapes but no storage, for callers that give it their own."""
    with torch.device("meta"):
        model = Llama(spec.regime.scale, spec.regime.corpus.vocab_size, checkpointing=checkpointing)
    scale = spec.regime.scale
    cos, sin = rotary_table(scale.seq_len, scale.d_model // scale.heads)
    model.cos, model.sin = cos.to(device), sin.to(device)
    return Warm(model, _loss_function(model, spec, device), device)


def _build(spec: TrialSpec, device: torch.device, checkpointing: bool = False) -> Warm:
    if spec.compile and device.type == "cpu":
        skip_probes()
    model = Llama(spec.regime.scale, spec.regime.corpus.vocab_size, checkpointing=checkpointing).to(device)
    return Warm(model, _loss_function(model, spec, device), device)


def _loss_function(model: Llama, spec: TrialSpec, device: torch.device) -> LossFunction:
    compiled = _compiled(model) if spec.compile else model.loss
    if spec.precision == "fp32":
        return compiled

    def autocast_loss(tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return compiled(tokens, targets)

    return autocast_loss


def _compiled(model: Llama) -> LossFunction:
    """The loss, compiled: as a whole for small vocabularies, which are those of small models; else block by block.

    All blocks share one compiled function, so a deep model compiles as fast as one layer, and a block's gradients can
    travel to other ranks while earlier blocks still go back. The chunks of the head share one as well.
    """
    allow_many_shapes()
    if model.lm_head.out_features < CHUNKED_VOCABULARY:
        whole: LossFunction = torch.compile(model.loss, dynamic=False)
        return whole
    blocks = [torch.compile(layer, dynamic=False) for layer in model.layers]
    kernel = torch.compile(loss_and_slope, dynamic=False)

    def by_blocks(tokens: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = model.lm_head(model.hidden(tokens, blocks), targets, kernel)
        return loss

    return by_blocks
