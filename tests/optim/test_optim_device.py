"""What optimizers do otherwise on a GPU: bounded stacks and a QR without a loop, here on CPU tensors."""

import copy

import pytest
import torch
from torch import nn

from tuneopt.optim import bucket, create, info
from tuneopt.optim.soap import assembled, eigenbasis

SHAPES = {
    "embed_tokens.weight": (12, 8),
    "layers.0.q.weight": (8, 8),
    "layers.0.k.weight": (8, 8),
    "layers.0.up.weight": (24, 8),
    "layers.1.q.weight": (8, 8),
    "layers.1.up.weight": (24, 8),
    "layers.1.norm.weight": (8,),
    "lm_head.weight": (12, 8),
}


@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_a_basis_from_reflectors_is_lapacks(size: int) -> None:
    torch.manual_seed(0)
    stack = torch.randn(5, size, size, dtype=torch.float64)
    stack[1, :, size // 2] = 0  # a column that needs no reflector
    stack[2] = 0
    stack[3] = stack[3, :, :1] @ stack[3, :1]  # of rank one
    stack[4] = torch.eye(size)
    q = assembled(*torch.geqrf(stack))
    expected = torch.linalg.qr(stack).Q
    assert torch.allclose(q, expected, rtol=0, atol=1e-12)
    assert torch.allclose(q.mT @ q, torch.eye(size, dtype=torch.float64).expand_as(q), rtol=0, atol=1e-12)


def test_a_basis_in_fp32_is_as_orthogonal_as_lapacks() -> None:
    torch.manual_seed(1)
    turn = torch.linalg.qr(torch.randn(4, 128, 128)).Q
    stack = (turn * torch.logspace(0, -7, 128)) @ torch.linalg.qr(torch.randn(4, 128, 128)).Q  # condition 1e7
    identity = torch.eye(128)

    def error(q: torch.Tensor) -> float:
        return float((q.mT @ q - identity).abs().max())

    assert error(assembled(*torch.geqrf(stack))) <= 3 * error(torch.linalg.qr(stack).Q) + 1e-7


def test_a_basis_is_computed_in_float64_where_fp32_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = torch.linalg.eigh

    def fails_in_fp32(matrix: torch.Tensor):
        if matrix.dtype == torch.float32:
            raise torch.linalg.LinAlgError("the algorithm failed to converge")
        return genuine(matrix)

    gradient = torch.randn(3, 16, 4, generator=torch.Generator().manual_seed(0))
    factor = gradient @ gradient.mT  # of rank four
    monkeypatch.setattr(torch.linalg, "eigh", fails_in_fp32)
    basis = eigenbasis(factor, 1e-15)
    assert basis.dtype == torch.float32
    assert torch.allclose(basis.mT @ basis, torch.eye(16).expand_as(factor), atol=1e-6)
    turned = basis.mT @ factor @ basis
    assert torch.allclose(turned, torch.diag_embed(turned.diagonal(dim1=1, dim2=2)), atol=1e-4)


@pytest.mark.parametrize("name", [entry.name for entry in info() if entry.family == "matrix"])
def test_bounded_stacks_train_alike_and_share_checkpoints(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stacks of two matrices, gradients stacked as they move: the same steps, and state that goes over both ways."""
    generator = torch.Generator().manual_seed(0)
    named = {key: nn.Parameter(0.1 * torch.randn(shape, generator=generator)) for key, shape in SHAPES.items()}
    twins = {key: nn.Parameter(parameter.detach().clone()) for key, parameter in named.items()}
    config = {"max_grad_norm": 0.5} if name != "scion" else {}
    usual = create(name, named.items(), learning_rate=0.01, **config)

    def step(optimizer: torch.optim.Optimizer, parameters: dict[str, nn.Parameter], seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for parameter in parameters.values():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()

    whole = len(usual.buckets())
    for seed in range(12):
        step(usual, named, seed)
    with monkeypatch.context() as patched:
        patched.setattr(bucket, "bounded", lambda parameter: True)
        patched.setattr(bucket, "DEVICE_PORTION", 2 * 8 * 8)
        bounded = create(name, twins.items(), learning_rate=0.01, **config)
        assert len(bounded.buckets()) > whole
        for seed in range(12):
            step(bounded, twins, seed)
        for key, parameter in named.items():
            assert torch.allclose(parameter, twins[key], rtol=1e-4, atol=1e-6), key
        bounded.load_state_dict(copy.deepcopy(usual.state_dict()))
        with torch.no_grad():
            for key, parameter in named.items():
                twins[key].copy_(parameter)
        step(bounded, twins, 99)
    step(usual, named, 99)
    for key, parameter in named.items():
        assert torch.allclose(parameter, twins[key], rtol=1e-4, atol=1e-6), key
