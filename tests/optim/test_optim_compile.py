"""The update functions under torch.compile: one graph, whatever the learning rate does."""

import pytest
import torch
from torch._dynamo.utils import counters

from tuneopt.optim.muon import muon_update
from tuneopt.optim.orthogonalize import newton_schulz
from tuneopt.optim.rule import apply
from tuneopt.optim.scion import scion_update, signum_update
from tuneopt.optim.sophia import sophia_update

RATES = [1e-3, 2e-3, 5e-3, 7e-3, 1e-2, 8e-3, 3e-3, 1e-3, 0.0]


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def graphs():
    return counters["stats"]["unique_graphs"]


def muon_step(parameter, gradient, state, rate):
    update = muon_update(gradient, state, torch.ones(2, 1, 1), momentum=0.9, eps=1e-8, coefficients="polar_express")
    apply([parameter], [update], {"lr": rate, "weight_decay": 0.1})


def scion_step(parameter, gradient, state, rate):
    update = scion_update(gradient, state, torch.ones(2, 1, 1), momentum=0.9, eps=1e-8)
    apply([parameter], [update], {"lr": rate, "weight_decay": 0.1})


def signum_step(parameter, gradient, state, rate):
    apply([parameter], signum_update([gradient], [state], beta1=0.9), {"lr": rate, "weight_decay": 0.1})


def sophia_step(parameter, gradient, state, rate):
    rule = {"step": 5, "beta1": 0.9, "gamma": 0.1, "eps": 1e-8}
    apply(
        [parameter],
        sophia_update([gradient], [state], [torch.ones_like(state)], **rule),
        {"lr": rate, "weight_decay": 0.1},
    )


@pytest.mark.parametrize("one_step", [muon_step, scion_step, signum_step, sophia_step])
def test_a_moving_rate_compiles_once_and_once_more_when_it_first_moves(one_step):
    """The second graph takes the rate as an input; after it no rate compiles anything, and none breaks the graph."""
    compiled = torch.compile(one_step, backend="eager", fullgraph=True)
    draw = torch.Generator().manual_seed(0)
    both = [[torch.randn(2, 4, 6, generator=draw) for _ in range(3)]]
    both.append([tensor.clone() for tensor in both[0]])
    seen = []
    with torch.no_grad():
        for rate in RATES:
            compiled(*both[0], rate)
            one_step(*both[1], rate)
            seen.append(graphs())
    assert seen[0] == 1
    assert seen[1:] == [seen[1]] * (len(RATES) - 1)
    assert seen[1] <= 2
    for ours, plain in zip(*both, strict=True):
        assert torch.equal(ours, plain)


def test_another_precision_is_another_graph():
    """The counter that the test above rests on does count."""
    compiled = torch.compile(newton_schulz, backend="eager", fullgraph=True)
    x = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    for precision in ("fp32", "bf16", "fp32"):
        compiled(x, precision=precision)
    assert graphs() == 2
