"""Building what a trial trains: the model, its loss function, compiled where asked for, and its optimizer.

Building and compiling cost seconds, a nano trial half a minute; so a worker keeps its models in `WarmModels` and
refills their weights for each trial. Nothing of a trial survives in them: weights come from the seed, gradients are
dropped. ZeRO takes models apart, so it asks for one of its own (`fresh`), at stage 3 without weights (`blank`).

``python -m tuneopt.training.building SPEC`` compiles the kernels of a trial and ends
(`tuneopt.training.kernels.compiling`).
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tuneopt.optim import create
from tuneopt.optim.base import Optimizer
from tuneopt.optim.factory import implementation
from tuneopt.optim.routing import model_roles, role_rules
from tuneopt.spec import InputError, OwnModel, Scale, TrialSpec
from tuneopt.training import own_model
from tuneopt.training.fitting import available_bytes, set_up_memory
from tuneopt.training.head import loss_and_slope
from tuneopt.training.kernels import (
    allow_many_shapes,
    compile_alone,
    has_compiler,
    skip_probes,
    take_flash_attention_3,
)
from tuneopt.training.memory import CHUNKED_VOCABULARY
from tuneopt.training.model import Decoder, rotary_table
from tuneopt.training.own_model import LossFunction as LossFunction

LOOP_HYPERPARAMETERS = ("train_batch_size", "warmup", "decay", "lr_schedule", "min_lr_ratio")
"""What the loop itself takes from a configuration; the rest goes to the optimizer."""


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model with its loss function, and the sequences of a pass that they were built for."""

    model: nn.Module
    loss: LossFunction
    device: torch.device
    micro_batch: int
    compiled: bool

    @property
    def decoder(self) -> Decoder:
        """The model, where it is tuneopt's own; raises `InputError` for one of a user's own."""
        if not isinstance(self.model, Decoder):
            raise InputError("this takes tuneopt's own decoder, and the model is one of your own; use a scale")
        return self.model


def can_compile() -> bool:
    """Whether torch.compile can build kernels for the default device here (on CPUs it needs a C++ compiler)."""
    return torch.cuda.is_available() or has_compiler()


class WarmModels:
    """The models of one process: one module and one compiled loss per shape, used again by trial after trial.

    ``share`` is how much of a GPU the process may take.
    """

    def __init__(self, device: torch.device | None = None, share: float = 1.0) -> None:
        self.device, self.share = device or torch.device("cuda" if torch.cuda.is_available() else "cpu"), share
        self._taken = False
        self._warm: dict[tuple[Scale, int, str, bool, bool], BuiltModel] = {}
        self._fitting: set[tuple[tuple[Scale, int, str, bool, bool], int, int]] = set()
        """Keys of models, sizes of a pass and bytes reserved on top of it that are known to fit."""
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
        agree: Callable[[bool], bool] = bool,
    ) -> BuiltModel:
        """The warm model of ``spec``, compiled for its passes, weights drawn from its seed.

        ``sizes`` are the sequences that a pass may take, in the order of preference; by default the micro-batch size of
        ``spec``. The first counts that fits into the device's memory on all ranks (``agree`` asks them), and leaves
        the bytes that ``reserved`` gives for it. Where not even the last fits, `torch.OutOfMemoryError` is raised.
        """
        self._take_device()
        repeat_kernels(self.device, deterministic)
        scale, vocab_size = spec.regime.scale, spec.regime.corpus.vocab_size
        # All that a module and its compiled code depend on. The seed is not among it: weights are drawn below.
        key = (scale, vocab_size, spec.precision, spec.compile, checkpointing)
        if key not in self._warm:
            if self.device.type == "cuda":  # its memory is for one model; a CPU's holds all of the nano ladder
                self._warm.clear()
                self._fitting.clear()
            self._warm[key] = _build(spec, self.device, checkpointing)
        warm = self._warm[key]
        sizes = sizes or (spec.micro_batch,)
        for size in sizes:
            known = key, size, reserved(size)
            if known in self._fitting:
                break
            fits = self._fits(warm, size, spec, reserved(size), last=size == sizes[-1])
            # Ranks must take one size: the largest that fits on all of them.
            # Ask the others only now that the lock on compiling is free: they may be waiting for it.
            if agree(fits):
                self._fitting.add(known)
                break
        initialize(warm.model, spec)
        warm.model.zero_grad(set_to_none=True)
        return replace(warm, micro_batch=size)

    def available_bytes(self) -> int:
        """Bytes of the CUDA device for a trial: what is free, and the model that is warm, used again or dropped."""
        self._take_device()
        parameters = (parameter for warm in self._warm.values() for parameter in warm.model.parameters())
        return available_bytes(self.device, sum(p.numel() * p.element_size() for p in parameters), self.share)

    def _take_device(self) -> None:
        """Set up a GPU before its first use; not earlier, because a worker that only waits for ranks uses none."""
        if self.device.type == "cuda" and not self._taken:
            set_up_memory(self.device, self.share)
            take_flash_attention_3(self.device)
            self._taken = True

    def _fits(self, warm: BuiltModel, size: int, spec: TrialSpec, reserved: int, *, last: bool) -> bool:
        """Whether a pass over ``size`` sequences stays within the device's memory; the last size has to, or raises."""
        ballast: Tensor | None = None
        try:
            # What the trial will hold beside the pass (state, communication) is held here as one tensor while it is
            # tried.
            ballast = torch.empty(reserved if self.device.type == "cuda" else 0, dtype=torch.uint8, device=self.device)
            self.exercise(warm, size, spec)
            return True
        except torch.OutOfMemoryError:
            if last:
                raise
        finally:
            del ballast
        # Only here, outside the handler, does nothing refer to the failed pass any more.
        warm.model.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return False

    def exercise(self, warm: BuiltModel, size: int, spec: TrialSpec) -> None:
        """Run forward and backward once over ``size`` sequences, so that compilation is over before the training."""

        def one_pass() -> None:
            # Inputs and targets are views of one window, in trials as here: other strides would compile other kernels.
            window = torch.zeros((size, spec.regime.scale.seq_len + 1), dtype=torch.int64, device=self.device)
            warm.loss(window[:, :-1], window[:, 1:]).backward()  # type: ignore[no-untyped-call]

        if spec.compile:
            compile_alone(one_pass)
        else:
            one_pass()


class LossModule(nn.Module):
    """A model whose forward pass is its loss: DDP and DeepSpeed average the gradients of nothing else."""

    def __init__(self, built: BuiltModel) -> None:
        super().__init__()
        self.model = built.model
        self.loss = built.loss

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean nats per token for inputs of shape (B, T)."""
        return self.loss(tokens, targets)


def repeat_kernels(device: torch.device, deterministic: bool) -> None:
    """Have CUDA give the same bits each time, or as fast as it can; CPUs with one thread do so by themselves."""
    if device.type == "cuda" and deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    # The setting is the process's: a warm worker's next trial must not inherit it.
    if torch.are_deterministic_algorithms_enabled() != deterministic:
        torch.use_deterministic_algorithms(deterministic)


def fresh(spec: TrialSpec, device: torch.device, *, checkpointing: bool = False) -> BuiltModel:
    """A model of its own for ``spec``, weights drawn from its seed, for callers that take it apart."""
    built = _build(spec, device, checkpointing)
    initialize(built.model, spec)
    return built


def initialize(model: nn.Module, spec: TrialSpec) -> None:
    """Give a model, whatever it was used for before, the weights of the seed."""
    if isinstance(model, Decoder):
        model.initialize(spec.seed)
    else:
        assert isinstance(spec.regime.scale, OwnModel), "another model is a user's own"
        own_model.fill(model, spec.regime.scale, spec.regime.corpus.vocab_size, spec.seed)


def blank(spec: TrialSpec, device: torch.device, *, checkpointing: bool = False) -> BuiltModel:
    """A model for ``spec`` whose weights have shapes but no storage, for callers that give it their own."""
    model = _undrawn(spec, checkpointing)
    _with_tables(model, device)
    return BuiltModel(model, _loss_function(model, spec, device), device, spec.micro_batch, spec.compile)


def build_optimizer(spec: TrialSpec, model: nn.Module) -> Optimizer:
    """The optimizer of ``spec`` over all parameters of ``model``, with the facts about the model that it asks for.

    For a model of a user's own it gets the roles of the parameters as routing rules, unless its class routes by itself.
    """
    # A configuration outweighs facts: who sets ``heads`` by hand means it.
    own = {name: value for name, value in spec.config.items() if name not in LOOP_HYPERPARAMETERS}
    scale, kind = spec.regime.scale, implementation(spec.optimizer)
    more: dict[str, Any] = {**scale.facts(kind.model_facts), **{name: getattr(spec, name) for name in kind.run_facts}}
    if isinstance(scale, OwnModel) and own.get("split_heads"):
        raise InputError(
            f"split_heads needs a scale, whose heads are known; give the projections of {scale.name} a role such as "
            "matrix*8, one matrix for each head"
        )
    if isinstance(scale, OwnModel) and "rules" in inspect.signature(kind).parameters:
        more["rules"] = role_rules(kind.routing_rules, model_roles(model, scale))
    return create(spec.optimizer, model, **{**more, **own})


def _build(spec: TrialSpec, device: torch.device, checkpointing: bool) -> BuiltModel:
    if spec.compile and device.type == "cpu":
        skip_probes()  # before Inductor is first asked for vector instructions
    scale, vocab_size = spec.regime.scale, spec.regime.corpus.vocab_size
    model: nn.Module
    if isinstance(scale, OwnModel):
        model = own_model.build(scale, vocab_size, spec.seed).train().to(device)
    else:
        # Not as torch's layers fill them: `initialize` draws all weights, and at 1.2b each time takes half a minute.
        model = _undrawn(spec, checkpointing).to_empty(device=device)
        if scale.tied:  # each name got a tensor of its own
            model.lm_head.weight = model.embed_tokens.weight
        _with_tables(model, device)
    return BuiltModel(model, _loss_function(model, spec, device), device, spec.micro_batch, spec.compile)


def _undrawn(spec: TrialSpec, checkpointing: bool) -> Decoder:
    """The decoder of ``spec``, its weights without storage."""
    with torch.device("meta"):
        return Decoder(spec.regime.scale, spec.regime.corpus.vocab_size, checkpointing=checkpointing)


def _with_tables(model: Decoder, device: torch.device) -> None:
    """Give a decoder that was made without storage its rotary tables, which no seed draws."""
    rows, width = model.cos.shape
    cos, sin = rotary_table(rows, width, model.scale.rope_base)
    model.cos, model.sin = cos.to(device), sin.to(device)


def _loss_function(model: nn.Module, spec: TrialSpec, device: torch.device) -> LossFunction:
    if isinstance(model, Decoder):
        compiled = _compiled(model) if spec.compile else model.loss
    else:
        compiled = own_model.loss_of(model)
        if spec.compile:
            # Not as one graph that must not break: code of a user's own may hold what Dynamo runs as it is written.
            compiled = torch.compile(compiled, dynamic=False)
    # Autocast stands outside of the compiled function, which sees the dtypes that it sets.
    if spec.precision == "fp32":
        return compiled

    def autocast_loss(tokens: Tensor, targets: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            return compiled(tokens, targets)

    return autocast_loss


def _compiled(model: Decoder) -> LossFunction:
    """The loss, compiled: as a whole for small vocabularies, which are those of small models; else block by block.

    All blocks share one compiled function, so a deep model compiles as fast as one layer, and a block's gradients can
    travel to other ranks while earlier blocks still go back. The chunks of the head share one as well.
    """
    allow_many_shapes()
    if model.lm_head.out_features < CHUNKED_VOCABULARY:
        whole: LossFunction = torch.compile(model.loss, dynamic=False)
        return whole
    # Not dynamic: kernels for any size are slower, and would order sums by what came before.
    blocks = [torch.compile(layer, dynamic=False) for layer in model.layers]
    kernel = torch.compile(loss_and_slope, dynamic=False)

    def by_blocks(tokens: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = model.lm_head(model.hidden(tokens, blocks), targets, kernel)
        return loss

    return by_blocks


if __name__ == "__main__":
    WarmModels().prepare(TrialSpec.from_dict(json.loads(sys.argv[1])))
