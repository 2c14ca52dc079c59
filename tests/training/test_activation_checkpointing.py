"""Activation checkpointing: less memory, the same bits."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from tuneopt.spec import Scale
from tuneopt.training.config import ParallelConfig
from tuneopt.training.loop import Training
from tuneopt.training.model import Decoder
from tuneopt.training.second_order import hessian_diagonal

DEEP = Scale("deep", "nano", layers=6, d_model=32, d_ff=128, heads=1, seq_len=64)


@contextmanager
def saved() -> Iterator[dict[int, int]]:
    """Bytes of each storage that the forward passes within keep for the backward pass, by address."""
    storages: dict[int, int] = {}
    alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        alive.append(tensor)  # an address counts once as long as nothing else can take it
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield storages


def model(checkpointing: bool) -> Decoder:
    made = Decoder(DEEP, 97, checkpointing=checkpointing)
    made.initialize(0)
    return made


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(97, (4, 65), generator=torch.Generator().manual_seed(0))
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_the_same_to_the_bit(precision: str) -> None:
    def gradients(checkpointing: bool) -> tuple[torch.Tensor, list[torch.Tensor]]:
        made = model(checkpointing)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = made.loss(*batch())
        loss.backward()
        return loss, [parameter.grad for parameter in made.parameters()]

    (plain_loss, plain), (again_loss, again) = gradients(False), gradients(True)
    assert torch.equal(plain_loss, again_loss)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_blocks_keep_their_input_alone() -> None:
    kept = {}
    for checkpointing in (False, True):
        with saved() as storages:
            model(checkpointing).loss(*batch())
        kept[checkpointing] = sum(storages.values())
    one_input = 4 * 64 * 32 * 4
    assert kept[False] - kept[True] > 6 * 10 * one_input, "of each block 10 d + 4 f values a token, less its input"
    assert kept[True] < 0.4 * kept[False]


def test_second_derivatives_are_the_same() -> None:
    plain, again = (hessian_diagonal(model(each), *batch(), seed=0, step=0) for each in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(plain.values(), again.values(), strict=True))


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_trial_ends_with_the_same_weights(corpus, make_spec, compile: bool) -> None:
    """Eager code repeats itself to the bit; compiled code may fuse what it computes again in another way."""
    from dataclasses import replace

    runs = []
    for checkpointing in (False, True):
        spec = replace(make_spec(), compile=compile)
        training = Training(spec, corpus, None, parallel=ParallelConfig(checkpointing=checkpointing))
        assert training.model.checkpointing is checkpointing
        for _ in range(8):
            training.train_step()
        runs.append(torch.cat([parameter.detach().flatten() for parameter in training.model.parameters()]))
    if compile:
        torch.testing.assert_close(*runs, rtol=1e-4, atol=1e-5)
    else:
        assert torch.equal(*runs)
