"""Cautious AdamW: its twin, its mask and rescaling, its proof, and what only carries its name."""

import pytest
import torch
from parity import LR, WD, as_parameters, error, follow, train
from suites import SIZES, ElementwiseSuite, broken
from watching import failed, failed_rules, watch

from tuneopt.optim import Cautious, UpdateCheck
from tuneopt.optim.adamw import AdamWRule
from tuneopt.optim.cautious import CautiousRule, agreeing
from tuneopt.optim.rule import apply
from tuneopt.optim.testing import OptimizerConformance, TinyModel, seed_gradients
from tuneopt.spec import InputError

RULE = {"betas": (0.9, 0.98), "eps": 1e-10, "weight_decay": WD}


class TestConformance(OptimizerConformance):
    def make(self, params, **overrides):
        return Cautious(params, **overrides)


class TestSuite(ElementwiseSuite):
    kind, name = Cautious, "cautious"


def reference(limit=1.0, eps=1e-10):
    return follow("cautious", beta1=0.9, beta2=0.98, epsilon=eps, max_grad_norm=limit)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_cautious_equals_its_twin(dtype, tolerance, limit):
    parameters = as_parameters(dtype)
    ours = train(parameters, Cautious(parameters, LR, **RULE, max_grad_norm=limit))
    assert error(ours, reference(limit)) <= tolerance


def test_epsilon_is_added_to_the_kept_share_too():
    """An epsilon of 0.5 shows where it goes."""
    parameters = as_parameters(torch.float64)
    ours = train(parameters, Cautious(parameters, LR, **{**RULE, "eps": 0.5}))
    assert error(ours, reference(eps=0.5)) <= 1e-12


def test_agreement_is_about_signs_alone():
    average = [torch.tensor([1.0, -2.0, 3.0, 0.0, 1e-30, -1e-30, 5.0])]
    gradient = [torch.tensor([2.0, 2.0, -1.0, 1.0, 1e-30, 1e-30, 0.0])]
    sizes, signs = agreeing(average, gradient)
    assert sizes[0].tolist() == pytest.approx([1.0, 0.0, 0.0, 0.0, 1e-30, 0.0, 0.0], rel=1e-6, abs=1e-40)
    assert signs[0].tolist() == [1.0, 1.0, -1.0, 1.0, 1.0, 1.0, 0.0]
    assert agreeing([torch.tensor([float("nan")])], [torch.tensor([1.0])])[0][0].isnan().all()


def test_a_tensor_that_opposes_its_gradient_everywhere_stays_in_place():
    weight = torch.nn.Parameter(torch.full((4, 4), 0.1))
    optimizer = Cautious([("q_proj.weight", weight)], betas=(0.9, 0.95), weight_decay=0.0, max_grad_norm=0.0)
    for gradient in (1.0, -0.1):
        weight.grad = torch.full((4, 4), gradient)
        before = weight.detach().clone()
        optimizer.step()
    assert torch.equal(weight, before)


def test_rescaling_is_per_tensor():
    """Half of one tensor's entries oppose their gradient; the other entries, and no other tensor, step twice as far."""
    mixed, plain = (torch.nn.Parameter(torch.zeros(2, 4)) for _ in range(2))
    optimizer = Cautious(
        [("q_proj.weight", mixed), ("k_proj.weight", plain)], 0.1, (0.9, 0.95), weight_decay=0.0, max_grad_norm=0.0
    )
    steps = []
    for signs in ([1.0, 1.0], [1.0, -0.1]):
        mixed.grad = torch.tensor(signs).unsqueeze(1).expand(2, 4).clone()
        plain.grad = torch.ones(2, 4)
        before = [mixed.detach().clone(), plain.detach().clone()]
        optimizer.step()
        steps.append([parameter.detach() - old for parameter, old in zip((mixed, plain), before, strict=True)])
    torch.testing.assert_close(steps[1][0], torch.tensor([[-0.2] * 4, [0.0] * 4]))
    torch.testing.assert_close(steps[1][1], torch.full((2, 4), -0.1))


@pytest.mark.parametrize("eps", [0.0, 1e-40])
def test_an_epsilon_that_fp32_cannot_divide_by_is_refused(eps):
    with pytest.raises(InputError, match="epsilon must be a number of at least 1e-37"):
        Cautious(TinyModel(), eps=eps)


def test_zero_gradients_are_no_division_by_zero():
    model = TinyModel()
    optimizer = Cautious(model, eps=1e-37, weight_decay=0.0)
    for seed in range(3):
        seed_gradients(model, seed, 0.0)
        optimizer.step()
    for parameter, start in zip(model.parameters(), TinyModel().parameters(), strict=True):
        assert torch.equal(parameter, start)


class PlainAdamW(AdamWRule):
    """AdamW under Cautious' name."""

    name = "cautious"


class WholeTensorRule(CautiousRule):
    """Runs `direction` on whole tensors, so that broken directions need no portions."""

    def advance(self, parameters, gradients, state, settings, step, divisor):
        if divisor is not None:
            gradients = [gradient / divisor for gradient in gradients]
        apply(parameters, self.direction(gradients, state, settings, step), settings)


class NotRescaled(WholeTensorRule):
    """Zeroes what opposes the gradient and leaves the rest as it is."""

    def direction(self, gradients, state, settings, step):
        update = super().direction(gradients, state, settings, step)
        return [u * (u != 0).float().mean() for u in update]


class ForeignMask(WholeTensorRule):
    """Masks by the signs of other entries of the gradient."""

    def direction(self, gradients, state, settings, step):
        plain = AdamWRule().direction(gradients, state, settings, step)
        masks = [(u * gradient.flip(0) > 0).float() for u, gradient in zip(plain, gradients, strict=True)]
        return [u * mask / mask.mean() for u, mask in zip(plain, masks, strict=True)]


class JointMask(WholeTensorRule):
    """Rescales by the share over all tensors of a group."""

    def direction(self, gradients, state, settings, step):
        update = super().direction(gradients, state, settings, step)
        kept = [(u != 0).float() for u in update]
        joint = torch.cat([k.flatten() for k in kept]).mean()
        return [u * k.mean() / joint for u, k in zip(update, kept, strict=True)]


@pytest.mark.parametrize("rule", [PlainAdamW, NotRescaled, ForeignMask, JointMask])
def test_what_only_carries_the_name_is_caught(rule):
    proof, *_ = watch(broken(Cautious, rule()), scale=lambda step: SIZES[step % 4])
    assert failed_rules(proof) == {"cautious"}


def test_the_share_is_counted_over_the_whole_of_a_large_tensor():
    """More entries than the proof samples; and a tensor in whose sample another share is kept than elsewhere."""
    weight = torch.nn.Parameter(0.02 * torch.randn(600, 256, generator=torch.Generator().manual_seed(0)))
    optimizer = Cautious([("up_proj.weight", weight)], betas=(0.9, 0.95))
    check = UpdateCheck(optimizer)
    for seed in range(5):
        weight.grad = torch.randn(600, 256, generator=torch.Generator().manual_seed(seed))
        weight.grad[:, 1::2] = 1.0
        check.before_step()
        optimizer.step()
        check.after_step()
    assert check.proof().passed, failed(check.proof())
