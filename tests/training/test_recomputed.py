"""Layers that keep their input alone: derivatives of a layer as it is, in a pass whose memory hardly grows by depth."""

import pytest
import torch
from live_bytes import LiveBytes

from tuneopt.spec import Scale
from tuneopt.training.model import Block, rotary_table
from tuneopt.training.second_order import recomputed, twice_differentiable_attention

SCALE = Scale("small", "nano", layers=1, d_model=8, d_ff=16, heads=2, seq_len=9)


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Block(SCALE).double()


def run_of(layer):
    cos, sin = rotary_table(9, 4)
    return lambda x: layer(x, cos, sin, twice_differentiable_attention)


def products(function, x: torch.Tensor, parameters):
    """Output, gradients, and second derivatives times fixed directions, of a loss that is not linear in the output."""
    wanted = [tensor for tensor in (x, *parameters) if tensor.requires_grad]
    out = function(x)
    first = torch.autograd.grad(out.square().sum(), wanted, create_graph=True)
    directions = [torch.linspace(-1, 1, g.numel(), dtype=g.dtype).view_as(g) for g in first]
    return out, *first, *torch.autograd.grad(first, wanted, directions)


@pytest.mark.parametrize(
    ("free", "input_is_free"),
    [
        *((name, each) for name in (".", "q_proj", "down_proj", "layernorm") for each in (True, False)),
        ("nothing", True),
    ],
)
def test_derivatives_are_those_of_the_layer(layer, free: str, input_is_free: bool):
    """Whatever is frozen; ``nothing`` leaves the input alone, and a second derivative may be zero throughout."""
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(free in name)
    x = torch.randn(2, 9, 8, dtype=torch.float64, requires_grad=input_is_free)
    run, parameters = run_of(layer), list(layer.parameters())
    expected = products(run, x, parameters)
    found = products(lambda x: recomputed(run, x, parameters), x, parameters)
    for ours, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-12)


def test_one_derivative_leaves_gradients_as_backward_does(layer):
    run, parameters = run_of(layer), list(layer.parameters())
    x = torch.randn(2, 9, 8, dtype=torch.float64)
    recomputed(run, x, parameters).sum().backward()
    gradients = [parameter.grad for parameter in parameters]
    layer.zero_grad()
    run(x).sum().backward()
    for ours, parameter in zip(gradients, parameters, strict=True):
        torch.testing.assert_close(ours, parameter.grad, rtol=1e-12, atol=1e-14)


def test_without_gradients_it_is_the_layer(layer):
    run, x = run_of(layer), torch.randn(2, 9, 8, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(recomputed(run, x, layer.parameters()), run(x))


def test_a_third_derivative_is_refused(layer):
    x = torch.randn(2, 9, 8, dtype=torch.float64, requires_grad=True)
    out = recomputed(run_of(layer), x, layer.parameters())
    (first,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no third derivative"):
        torch.autograd.grad(first.sum(), x, create_graph=True)


def test_every_further_layer_costs_a_few_vectors():
    """Per token: the layer's input, the gradient of its output, and one more under way; plain layers over ten times."""
    tokens, width = 256, 64

    def square(x: torch.Tensor) -> torch.Tensor:
        for _ in range(8):
            x = torch.nn.functional.silu(x)
        return x

    def peak(depth: int, again: bool) -> int:
        x = torch.ones(tokens, width, requires_grad=True)
        with LiveBytes() as live:
            y = x
            for _ in range(depth):
                y = recomputed(square, y, ()) if again else square(y)
            (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
            torch.autograd.grad(first.sum(), x)
        return live.peak

    vector = tokens * width * 4
    assert peak(20, True) - peak(10, True) <= 10 * 3 * vector
    assert peak(20, False) - peak(10, False) >= 10 * 16 * vector
