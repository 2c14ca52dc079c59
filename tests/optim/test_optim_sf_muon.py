"""SF-Muon: parity with its float64 reference and pytorch_optimizer, the average of all layouts, conformance."""

import functools
import importlib

import numpy as np
import problem
import pytest
import torch
from parity import LR, WD, as_parameters, error, follow, matrices, only, peer, run, train
from torch import nn
from watching import failed, watch

from tuneopt.optim import Muon, SFMuon
from tuneopt.optim import portions as portions_module
from tuneopt.optim.routing import DEFAULT_RULES, RouteRule
from tuneopt.optim.testing import OptimizerConformance, TinyModel, seed_gradients
from tuneopt.spec import InputError

WORDS = {"momentum": 0.9, "muon_epsilon": 1e-8, "muon_to_adam_lr": 0.5}
ADAM = {"betas": (0.8, 0.95), "eps": 1e-8}


class TestSFMuon(OptimizerConformance):
    def make(self, params, **overrides):
        return SFMuon(params, **overrides)

    # Decay at z and the average of z is no factor of 1 - lr wd in each step: see the reference.
    test_norms_and_embeddings_do_not_decay = None


class TestSFNorMuon(OptimizerConformance):
    def make(self, params, **overrides):
        return SFMuon(params, row_normalize=0.95, **overrides)

    test_norms_and_embeddings_do_not_decay = None


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
@pytest.mark.parametrize("more", [{}, {"scale": "match_rms"}, {"row_normalize": 0.9}, {"matrices": "all"}])
def test_sf_muon_equals_its_reference(dtype, tolerance, more):
    parameters = as_parameters(dtype)
    ours = train(parameters, SFMuon(parameters, LR, **ADAM, weight_decay=WD, max_grad_norm=0.0, **WORDS, **more))
    words = {**WORDS, "beta1": 0.8, "beta2": 0.95, "epsilon": 1e-8, "ns_steps": 5, "ns_coefficients": "quintic", **more}
    kept = problem.hidden if "matrices" in more else lambda name: True
    assert error(only(kept, ours), only(kept, follow("sf_muon", **words))) <= tolerance


def test_what_is_evaluated_is_the_mean_of_the_fast_weights_by_squared_rates():
    """The problem's gradients are given, and so z goes the way of plain Muon."""
    hidden = (only(problem.hidden, as_parameters(torch.float64)) for _ in range(2))
    parameters, plain = hidden
    optimizer = SFMuon(parameters, LR, **ADAM, weight_decay=WD, max_grad_norm=0.0, **WORDS)
    fast = Muon(plain, LR, weight_decay=WD, momentum=0.9, muon_epsilon=1e-8)
    path, stream = [], [only(problem.hidden, tree) for tree in problem.gradients()]
    run(parameters, optimizer, stream)
    run(plain, fast, stream, after=lambda step: path.append({n: p.detach().clone() for n, p in plain.items()}))
    weights = np.array([problem.schedule(step) ** 2 for step in range(problem.STEPS)])
    found = optimizer.evaluated()
    assert optimizer.evaluates_others and len(found) == len(parameters)
    for name, parameter in parameters.items():
        mean = np.average([at[name].numpy() for at in path], axis=0, weights=weights)
        np.testing.assert_allclose(found[parameter].numpy(), mean, rtol=1e-9, atol=1e-12)
        assert not torch.equal(found[parameter], parameter)


def test_the_average_of_fused_transposed_and_bf16_weights_is_in_their_own_layout():
    """Each piece of a fused weight as if it were alone, a tall matrix as its transpose, and bf16 as fp32 rounded."""
    draw = torch.Generator().manual_seed(0)
    whole = nn.Parameter(0.1 * torch.randn(24, 4, generator=draw))
    parts = [nn.Parameter(part.clone()) for part in whole.detach().chunk(3)]
    turned = [nn.Parameter(whole.detach().clone().mT.contiguous().mT), nn.Parameter(whole.detach().clone().bfloat16())]
    fused = RouteRule(r"qkv", "main", True, "fused", pieces=3)
    named = [{"qkv.weight": whole}, {f"part{i}.weight": part for i, part in enumerate(parts)}, {"t.weight": turned[0]},
             {"half.weight": turned[1]}]  # fmt: skip
    optimizers = [SFMuon(each, lr=0.01, rules=(fused, *DEFAULT_RULES)) for each in named]
    plain = SFMuon({"p.weight": (alone := nn.Parameter(whole.detach().clone()))}, lr=0.01)
    for _ in range(4):
        g = torch.randn(24, 4, generator=draw)
        whole.grad, alone.grad, turned[0].grad, turned[1].grad = g, g.clone(), g.clone(), g.bfloat16()
        for part, own in zip(parts, g.chunk(3), strict=True):
            part.grad = own.clone()
        for optimizer in (*optimizers, plain):
            optimizer.step()
    averages = {key: value for optimizer in (*optimizers, plain) for key, value in optimizer.evaluated().items()}
    torch.testing.assert_close(averages[whole], torch.cat([averages[part] for part in parts]), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(averages[turned[0]], averages[alone], rtol=1e-5, atol=1e-7)
    assert averages[turned[1]].dtype == torch.bfloat16
    torch.testing.assert_close(averages[turned[1]].float(), averages[alone], rtol=0.02, atol=2e-3)


def test_nothing_is_averaged_before_a_step_or_a_rate():
    model = TinyModel()
    optimizer = SFMuon(model)
    assert optimizer.evaluated() == {}
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    seed_gradients(model, 0)
    optimizer.step()
    for parameter, weights in optimizer.evaluated().items():
        torch.testing.assert_close(weights, parameter.detach(), rtol=0, atol=0)


def test_matrices_that_join_late_have_averages_of_their_own():
    """Steps of one number at other rates: the second matrix sits the first step out, and has a sum of its own."""
    names = ("a.weight", "b.weight")
    parameters = {name: nn.Parameter(torch.ones(4, 4)) for name in names}
    optimizer = SFMuon(parameters, lr=1.0, betas=(0.9, 0.95), weight_decay=0.0)
    for rate, waits in ((1.0, "b.weight"), (0.5, "a.weight"), (0.25, "")):
        for group in optimizer.param_groups:
            group["lr"] = rate
        for name, parameter in parameters.items():
            parameter.grad = None if name == waits else torch.eye(4)
        optimizer.step()
    sums = [float(optimizer.state[parameter]["weight_sum"].squeeze()) for parameter in parameters.values()]
    assert sums == [1.0 + 0.0625, 0.25 + 0.0625]
    for parameter, total, first in zip(parameters.values(), sums, (1.0, 0.5), strict=True):
        z, x = optimizer.state[parameter]["fast"][0], optimizer.evaluated()[parameter]
        start = torch.ones(4, 4)
        after = start + (z - start) * first / (first + 0.25)  # both steps have one direction
        torch.testing.assert_close(x, after + 0.0625 / total * (z - after), rtol=1e-5, atol=1e-5)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(InputError, match="beta1 must be a number above 0 and below 1"):
        SFMuon(TinyModel(), betas=(0.0, 0.9))


def test_slices_do_not_change_a_step(monkeypatch):
    whole, cut = TinyModel(width=16), TinyModel(width=16)
    for model in (whole, cut):
        monkeypatch.setattr(portions_module, "STACK_PORTION", 50 if model is cut else 10**6)
        optimizer = SFMuon(model)
        for seed in range(6):
            seed_gradients(model, seed)
            optimizer.step()
    for (name, mine), other in zip(whole.named_parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("rows", [0.0, 0.95])
def test_the_proof_passes_and_stops(rows):
    for rate in (lambda step: 1.0, lambda step: step / 1000):
        proof, check, _ = watch(SFMuon, rate=rate, row_normalize=rows)
        assert proof.passed, failed(proof)
        assert check.complete


@pytest.mark.parametrize(("falls", "low", "high"), [(False, 0, 1e-8), (True, 1e-3, 1)])
def test_pytorch_optimizer_wraps_muon_alike_while_the_rate_does_not_fall(falls, low, high, monkeypatch):
    """Its Muon, decay at z included, in its wrapper; products in float64 in place of bf16."""
    package = peer("pytorch_optimizer")
    module = importlib.import_module("pytorch_optimizer.optimizer.muon.base")
    exact = functools.partial(module.zero_power_via_newton_schulz_5, dtype=torch.float64)
    monkeypatch.setattr(module, "zero_power_via_newton_schulz_5", exact)
    if not falls:
        monkeypatch.setattr(problem, "schedule", lambda step: min(1.0, (step + 1) / 4))
    mine, other = (only(problem.hidden, as_parameters(torch.float64)) for _ in range(2))
    stream = [only(problem.hidden, tree) for tree in problem.gradients()]
    ours = matrices(SFMuon, betas=(0.9, 0.95), momentum=0.9, muon_epsilon=1e-10, weight_decay=WD)(mine)
    group = {"params": list(other.values()), "use_muon": True, "initial_lr": LR}
    inner = package.Muon([group], lr=LR, momentum=0.9, weight_decay=WD)
    theirs = package.ScheduleFreeWrapper(inner, momentum=0.9)
    theirs.train()
    moved = run(mine, ours, stream)
    assert low <= error(moved, run(other, theirs, stream)) <= high
    theirs.eval()
    averages = {name: ours.evaluated()[p].double().numpy() for name, p in mine.items()}
    assert low <= error(averages, {name: p.detach().numpy() for name, p in other.items()}) <= high
