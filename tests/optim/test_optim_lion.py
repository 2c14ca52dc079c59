"""Lion: its twin, its sign, its proof, and what only carries its name."""

import inspect

import pytest
import torch
from parity import LR, WD, as_parameters, error, follow, train
from suites import SIZES, ElementwiseSuite, broken
from watching import failed, failed_rules, watch

from tuneopt.optim import Lion, UpdateCheck, create
from tuneopt.optim.adamw import AdamWRule
from tuneopt.optim.lion import HEIGHT, LionRule, lion_update
from tuneopt.optim.rule import ElementwiseRule, apply
from tuneopt.optim.testing import OptimizerConformance, TinyModel
from tuneopt.spec import InputError


class TestConformance(OptimizerConformance):
    def make(self, params, **overrides):
        return Lion(params, **overrides)


class TestSuite(ElementwiseSuite):
    kind, name = Lion, "lion"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("limit", [0.0, 1.0])
@pytest.mark.parametrize("decay", [0.0, WD])
def test_lion_equals_its_twin(dtype, tolerance, limit, decay):
    parameters = as_parameters(dtype)
    optimizer = Lion(parameters, LR, (0.9, 0.98), decay, max_grad_norm=limit)
    theirs = follow("lion", beta1=0.9, beta2=0.98, weight_decay=decay, max_grad_norm=limit)
    assert error(train(parameters, optimizer), theirs) <= tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sign_of_anything(dtype):
    """Zero stays zero, NaN stays NaN, and 1e-30 has a sign as high as 1e38."""
    values = torch.tensor([0.0, -0.0, 3.0, -3.0, 1e-30, -1e-30, 1e38, -1e38, float("nan")], dtype=dtype)
    (signs,) = lion_update([values.clone()], [torch.zeros_like(values)], beta1=0.0, beta2=0.5)
    signs = signs / HEIGHT
    assert signs[:8].tolist() == [0.0, 0.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0]
    assert signs[8].isnan()


def test_the_momentum_of_the_sign_is_the_one_before_this_step():
    momentum = [torch.tensor([1.0, 1.0])]
    (signs,) = lion_update([torch.tensor([-8.0, -10.0])], momentum, beta1=0.9, beta2=0.5)
    assert (signs / HEIGHT).tolist() == [1.0, -1.0]  # 0.9 - 0.8 and 0.9 - 1.0
    torch.testing.assert_close(momentum[0], torch.tensor([-3.5, -4.5]))


def test_every_entry_moves_by_the_learning_rate():
    model, start = TinyModel(), TinyModel()
    optimizer = Lion(model, lr=0.01, weight_decay=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    for before, after in zip(start.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close((after - before).abs(), torch.full_like(after, 0.01))


def test_there_is_no_epsilon():
    assert "eps" not in inspect.signature(Lion).parameters
    with pytest.raises(InputError, match="lion has no hyperparameter 'epsilon'"):
        create("lion", TinyModel(), epsilon=1e-8)


def test_rows_without_a_gradient_do_not_move_and_the_proof_knows():
    """Tokens of an embedding that never occurred have neither gradient nor momentum."""
    model, start = TinyModel(width=16), TinyModel(width=16)
    optimizer = Lion(model)
    check = UpdateCheck(optimizer)
    for seed in range(4):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
        model.get_parameter("embed_tokens.weight").grad[3:] = 0.0
        check.before_step()
        optimizer.step()
        check.after_step()
    name = "embed_tokens.weight"
    assert torch.equal(model.get_parameter(name)[3:], start.get_parameter(name)[3:])
    assert check.proof().passed, failed(check.proof())


class WholeRule(LionRule):
    """Runs `direction`, so that a broken one shows."""

    def advance(self, parameters, gradients, state, settings, step, divisor):
        ElementwiseRule.advance(self, parameters, gradients, state, settings, step, divisor)


class SignOfMomentum(WholeRule):
    """Signum: one momentum, updated before its sign is taken."""

    def direction(self, gradients, state, settings, step):
        torch._foreach_lerp_(state["exp_avg"], gradients, 1 - settings["betas"][1])
        return list(torch._foreach_sign(state["exp_avg"]))


class SwappedBetas(WholeRule):
    def direction(self, gradients, state, settings, step):
        return super().direction(gradients, state, {**settings, "betas": settings["betas"][::-1]}, step)


class SoftSign(WholeRule):
    """Bounded, but of no one magnitude."""

    def direction(self, gradients, state, settings, step):
        target = torch._foreach_lerp(state["exp_avg"], gradients, 1 - settings["betas"][0])
        torch._foreach_lerp_(state["exp_avg"], gradients, 1 - settings["betas"][1])
        return [torch.tanh(100 * entry) for entry in target]


class StillZeros(WholeRule):
    """Small entries do not move at all."""

    def direction(self, gradients, state, settings, step):
        signs = super().direction(gradients, state, settings, step)
        return [u * (g.abs() > g.abs().mean()) for u, g in zip(signs, gradients, strict=True)]


class CoupledDecay(LionRule):
    def advance(self, parameters, gradients, state, settings, step, divisor):
        gradients = [g + settings["weight_decay"] * p for g, p in zip(gradients, parameters, strict=True)]
        super().advance(parameters, gradients, state, {**settings, "weight_decay": 0.0}, step, divisor)


class PlainAdamW(AdamWRule):
    """AdamW under Lion's name."""

    name = "lion"

    def advance(self, parameters, gradients, state, settings, step, divisor):
        apply(parameters, self.direction(gradients, state, {**settings, "eps": 1e-8}, step), settings)


@pytest.mark.parametrize("rule", [SignOfMomentum, SwappedBetas, SoftSign, StillZeros, CoupledDecay, PlainAdamW])
def test_what_only_carries_the_name_is_caught(rule):
    proof, *_ = watch(broken(Lion, rule()), scale=lambda step: SIZES[step % 4])
    assert failed_rules(proof) == {"lion"}
