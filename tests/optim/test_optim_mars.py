"""MARS: its twin, what it remembers and clips, its proof, and what only carries its name."""

import copy

import problem
import pytest
import torch
from parity import LR, WD, as_parameters, error, follow, train
from suites import SIZES, ElementwiseSuite, broken, unfused
from watching import failed_rules, watch

from tuneopt.optim import MARS, create
from tuneopt.optim.mars import MARSRule, corrected
from tuneopt.optim.testing import OptimizerConformance, TinyModel, assert_equal_models, seed_gradients
from tuneopt.spec import InputError

RULE = {"betas": (0.9, 0.98), "eps": 1e-10, "weight_decay": WD}
WORDS = {"beta1": 0.9, "beta2": 0.98, "epsilon": 1e-10}


class TestConformance(OptimizerConformance):
    def make(self, params, **overrides):
        return MARS(params, **overrides)


class TestSuite(ElementwiseSuite):
    kind, name = MARS, "mars"


def reference(limit=1.0, gamma=0.05):
    return follow("mars", gamma=gamma, max_grad_norm=limit, **WORDS)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_mars_equals_its_twin(dtype, tolerance, limit):
    """With a clip, the study's 1e-6 in the norm and the fp32 divisor of the fused kernel leave about 1e-7."""
    parameters = as_parameters(dtype)
    ours = train(parameters, MARS(parameters, LR, **RULE, gamma=0.05, max_grad_norm=limit))
    assert error(ours, reference(limit)) <= (tolerance if limit == 0 else 1e-6)


def test_without_correction_it_is_adamw():
    parameters = as_parameters()
    ours = train(parameters, MARS(parameters, LR, **RULE, gamma=0.0))
    assert error(ours, follow("adamw", max_grad_norm=1.0, **WORDS)) <= 1e-6
    assert watch(MARS, gamma=0.0)[0].passed


def test_the_correction():
    previous, gradient = [torch.tensor([1.0, -2.0])], [torch.tensor([3.0, -2.0])]
    corrected(gradient, previous, gamma=0.1, beta1=0.9)  # strength 0.1 * 0.9 / 0.1 = 0.9
    torch.testing.assert_close(previous[0], torch.tensor([3.0 + 0.9 * 2.0, -2.0]))


def test_the_raw_gradient_is_kept_whatever_is_clipped():
    model = TinyModel()
    optimizer = MARS(model, max_grad_norm=0.001)
    for seed in range(3):
        seed_gradients(model, seed, 1.0)
        before = [p.grad.clone() for p in model.parameters()]
        optimizer.step()
        for parameter, gradient in zip(model.parameters(), before, strict=True):
            assert torch.equal(parameter.grad, gradient), "the step writes nothing into gradients"
            assert torch.equal(optimizer.state[parameter]["previous_gradient"], gradient)


def test_a_kept_gradient_is_a_copy():
    """A gradient that is zeroed in place, and not replaced, must not be taken for the one before."""
    model, other = TinyModel(), TinyModel()
    optimizer, peer = MARS(model), MARS(other)
    for seed in range(3):
        seed_gradients(other, seed)
        peer.step()
        fresh = [p.grad for p in other.parameters()]
        for parameter, gradient in zip(model.parameters(), fresh, strict=True):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.zero_().add_(gradient)
        optimizer.step()
    assert_equal_models(model, other)


def test_the_clip_is_of_the_corrected_gradients_over_all_parameters():
    """Gradients that grow by a common factor, above the limit, leave the same path."""
    results = []
    for scale in (50.0, 5000.0):
        parameters = as_parameters(torch.float64)
        optimizer = create("mars", parameters.items(), learning_rate=LR, max_grad_norm=0.1, epsilon=1e-3)
        for gradients in problem.gradients()[:6]:
            for name, parameter in parameters.items():
                parameter.grad = torch.tensor(scale * gradients[name])
            optimizer.step()
        results.append({name: p.detach().numpy() for name, p in parameters.items()})
    assert error(*results) <= 1e-5


def test_bf16_gradients_are_corrected_in_fp32():
    model = TinyModel(torch.bfloat16)
    optimizer = MARS(model, gamma=0.05)
    for seed in range(2):
        seed_gradients(model, seed)
        optimizer.step()
    for parameter in model.parameters():
        kept = optimizer.state[parameter]["previous_gradient"]
        assert kept.dtype == torch.float32 and torch.equal(kept, parameter.grad.float())


def test_a_negative_gamma_is_refused():
    with pytest.raises(InputError, match="gamma must be a number of at least 0"):
        MARS(TinyModel(), gamma=-0.1)


class Forgetful(MARS):
    """Takes the gradient of the step before for zero."""

    def finish(self, batches):
        for batch in batches:
            torch._foreach_zero_(batch.gradients)


class Swapped(MARS):
    """gamma and beta1 exchanged in the correction."""

    def prepare(self, batches):
        settings = [copy.copy(batch.settings) for batch in batches]
        for batch in batches:
            beta1, beta2 = batch.settings["betas"]
            batch.settings.update(betas=(batch.settings["gamma"], beta2), gamma=beta1)
        super().prepare(batches)
        for batch, before in zip(batches, settings, strict=True):
            batch.settings.update(before)


class Uncorrected(MARS):
    """AdamW under MARS' name."""

    def prepare(self, batches):
        for batch in batches:
            batch.gradients = [gradient.clone() for gradient in batch.gradients]

    def finish(self, batches):
        """Keep nothing."""


class NoBiasCorrection(MARSRule):
    def advance(self, parameters, gradients, state, settings, step, divisor):
        super().advance(parameters, gradients, state, settings, step + 1000, divisor)


@pytest.mark.parametrize("kind", [Forgetful, Swapped, Uncorrected, broken(MARS, NoBiasCorrection())])
def test_what_only_carries_the_name_is_caught(kind):
    proof, *_ = watch(kind, scale=lambda step: SIZES[step % 4])
    assert failed_rules(proof) == {"mars"}


def test_a_weak_correction_is_still_told_from_adamw():
    """A correction of a ten-thousandth of the update is missed where it is absent."""
    gamma = 1e-5
    assert watch(MARS, gamma=gamma, betas=(0.9, 0.95))[0].passed
    assert failed_rules(watch(Uncorrected, gamma=gamma, betas=(0.9, 0.95))[0]) == {"mars"}


def test_the_unfused_path_keeps_the_raw_gradient_too():
    model = TinyModel()
    optimizer = unfused(MARS)(model)
    seed_gradients(model, 0)
    optimizer.step()
    assert all(torch.equal(optimizer.state[p]["previous_gradient"], p.grad) for p in model.parameters())
