"""AdEMAMix, ADOPT and Dion: parity with float64 references and with installed peers, conformance, the common suite."""

import importlib
import itertools

import pytest
import torch
from parity import LR, WD, as_parameters, error, follow, train
from suites import ElementwiseSuite

from tuneopt.optim import ADOPT, AdEMAMix, Dion, Muon
from tuneopt.optim.ademamix import slow_weights
from tuneopt.optim.dion import dion_update
from tuneopt.optim.orthogonalize import newton_schulz
from tuneopt.optim.testing import OptimizerConformance

SLOW = {"beta3": 0.99, "alpha": 5.0, "slow_warmup": 1.0, "steps": 40}


class TestAdEMAMix(OptimizerConformance):
    def make(self, params, **overrides):
        return AdEMAMix(params, steps=20, **overrides)


class TestADOPT(OptimizerConformance):
    def make(self, params, **overrides):
        return ADOPT(params, **overrides)


class TestDion(OptimizerConformance):
    def make(self, params, **overrides):
        return Dion(params, **overrides)


class TestAdEMAMixSuite(ElementwiseSuite):
    kind, name, settings = AdEMAMix, "ademamix", {"beta3": 0.99, "alpha": 5.0}


class TestADOPTSuite(ElementwiseSuite):
    kind, name = ADOPT, "adopt"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_ademamix_equals_its_reference(dtype, tolerance, limit):
    for slow in (SLOW, {**SLOW, "steps": 10}, {**SLOW, "steps": 0}):
        parameters = as_parameters(dtype)
        ours = train(parameters, AdEMAMix(parameters, LR, (0.8, 0.95), 1e-8, WD, max_grad_norm=limit, **slow))
        theirs = follow("ademamix", beta1=0.8, beta2=0.95, epsilon=1e-8, max_grad_norm=limit, **slow)
        assert error(ours, theirs) <= tolerance


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_adopt_equals_its_reference(dtype, tolerance, limit):
    parameters = as_parameters(dtype)
    ours = train(parameters, ADOPT(parameters, LR, (0.8, 0.95), 1e-6, WD, max_grad_norm=limit))
    assert error(ours, follow("adopt", beta1=0.8, beta2=0.95, epsilon=1e-6, max_grad_norm=limit)) <= tolerance


def test_weight_and_decay_of_the_slow_average_rise_to_what_they_end_at():
    found = [slow_weights(step, 100, beta1=0.9, beta3=0.999, alpha=8.0) for step in range(1, 120)]
    assert all(a <= b for one, two in itertools.pairwise(found) for a, b in zip(one, two, strict=True))
    assert found[49][0] == 4.0 and found[99:] == [(8.0, 0.999)] * 20
    assert found[0][1] == pytest.approx(0.5 ** (1 / (0.99 * 6.5788 + 0.01 * 692.80)), rel=1e-4)


def peer(name):
    if importlib.util.find_spec("pytorch_optimizer") is None:
        pytest.skip("pytorch_optimizer is not installed: pip install '.[peers]'")
    return getattr(importlib.import_module("pytorch_optimizer"), name)


def beside(parameters, optimizer):
    for group in optimizer.param_groups:
        group["initial_lr"] = LR
    return train(parameters, optimizer)


def test_adopt_is_that_of_pytorch_optimizer():
    """Theirs skips the first step altogether, decay included, so without decay; its clip counts one step further."""
    ours, theirs = as_parameters(), as_parameters()
    mine = train(ours, ADOPT(ours, LR, (0.8, 0.95), 1e-6, 0.0, max_grad_norm=0.0))
    words = {"betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.0, "clip_lambda": lambda step: (step - 1) ** 0.25}
    other = peer("ADOPT")(list(theirs.values()), lr=LR, **words)
    assert error(mine, beside(theirs, other)) <= 1e-5


def test_ademamix_is_that_of_pytorch_optimizer():
    for steps in (0, 40):
        ours, theirs = as_parameters(), as_parameters()
        mine = train(ours, AdEMAMix(ours, LR, (0.8, 0.95), 1e-8, 0.0, max_grad_norm=0.0, **{**SLOW, "steps": steps}))
        words = {"betas": (0.8, 0.95, 0.99), "alpha": 5.0, "weight_decay": 0.0, "t_alpha_beta3": steps or None}
        other = peer("AdEMAMix")(list(theirs.values()), lr=LR, **words)
        assert error(mine, beside(theirs, other)) <= 1e-5


@pytest.mark.parametrize("fraction", [0.25, 0.5, 1.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-4), (torch.float64, 1e-10)])
def test_dion_equals_its_reference(dtype, tolerance, fraction):
    parameters = as_parameters(dtype)
    words = {"momentum": 0.9, "dion_epsilon": 1e-8, "dion_to_adam_lr": 0.5, "ns_steps": 5}
    ours = train(parameters, Dion(parameters, LR, (0.8, 0.95), 1e-8, WD, fraction=fraction, max_grad_norm=0.0, **words))
    words |= {"ns_precision": "fp32", "ns_coefficients": "quintic", "fraction": fraction}
    theirs = follow("dion", beta1=0.8, beta2=0.95, epsilon=1e-8, **words)
    assert error(ours, theirs) <= tolerance


def test_rows_that_wait_keep_what_they_gathered():
    gradients, buffer = torch.zeros(1, 4, 6), torch.zeros(1, 4, 6)
    gradients[0, 1], gradients[0, 3] = 1.0, torch.arange(6.0)
    scale = torch.full((1, 1, 1), 2.0)
    words = {"fraction": 0.25, "momentum": 0.5, "eps": 1e-12}
    first = dion_update(gradients, buffer, scale, **words)
    assert first[0, 3].norm() > 0 and torch.count_nonzero(first[0, [0, 1, 2]]) == 0
    assert torch.equal(buffer[0, 1], gradients[0, 1]) and torch.equal(buffer[0, 3], 0.5 * gradients[0, 3])
    again = dion_update(torch.zeros_like(gradients), buffer, scale, **words)
    assert again[0, 3].norm() > 0, "half of 15 is more than 6"
    last = dion_update(torch.zeros_like(gradients), buffer, scale, **words)
    assert torch.allclose(last[0, 1], 2 * newton_schulz(gradients[:, 1:2], 1e-12)[0, 0])


def test_all_rows_are_muon_without_its_look_ahead():
    """u = NS(M) with M <- mu M + G, which is what decaying after the step comes to."""
    ours, plain = as_parameters(), as_parameters()
    words = {"max_grad_norm": 0.0, "momentum": 0.9}
    mine = train(
        ours, Dion(ours, LR, (0.8, 0.95), 1e-8, WD, fraction=1.0, dion_epsilon=1e-8, dion_to_adam_lr=0.5, **words)
    )

    class Behind(type(Muon.rules[0])):
        def update(self, gradients, buffer, scale, *, momentum, eps, steps, precision, coefficients):
            buffer.mul_(momentum).add_(gradients)
            return newton_schulz(buffer.clone(), eps, steps, precision, coefficients) * scale

    class PlainMuon(Muon):
        rules = (Behind(), Muon.rules[1])

    theirs = train(plain, PlainMuon(plain, LR, (0.8, 0.95), 1e-8, WD, muon_epsilon=1e-8, muon_to_adam_lr=0.5, **words))
    assert error(mine, theirs) <= 2e-4
