"""Sophia: parity with its twin, its Hessian, conformance, and a proof that catches what only carries the name."""

import numpy as np
import problem
import pytest
import torch
from parity import LR, WD, as_parameters, error, follow, train
from watching import HonestRuns, estimate, failed, failed_rules, watch, with_rules

from tuneopt.optim import Sophia, create
from tuneopt.optim.portions import PORTION
from tuneopt.optim.sophia import SophiaRule
from tuneopt.optim.testing import OptimizerConformance, TinyModel, seed_gradients
from tuneopt.spec import InputError

RULE = {"gamma": 0.5, "eps": 1e-7, "weight_decay": WD}


def diagonal(step):
    """An estimate of both signs, of a size that leaves about half of the entries unclipped."""
    rng = np.random.default_rng(100 + step)
    return {name: 0.5 * rng.standard_normal(shape) for name, shape in problem.SHAPES.items()}


def run(dtype=torch.float32, interval=10, limit=1.0):
    parameters = as_parameters(dtype)
    optimizer = Sophia(parameters, LR, (0.9, 0.8), **RULE, hessian_interval=interval, max_grad_norm=limit)

    def after(step):
        if step % interval == 0:
            given = diagonal(step)
            optimizer.update_hessian({p: torch.tensor(given[name], dtype=dtype) for name, p in parameters.items()})

    return train(parameters, optimizer, after), optimizer, parameters


def reference(interval=10, limit=1.0):
    rule = {"beta1": 0.9, "beta2": 0.8, "gamma": 0.5, "epsilon": 1e-7, "max_grad_norm": limit}
    return follow("sophia", hessian_interval=interval, diagonal=diagonal, **rule)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("interval", [1, 10])
@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_sophia_equals_its_twin(dtype, tolerance, interval, limit):
    ours, _, _ = run(dtype, interval, limit)
    assert error(ours, reference(interval, limit)) <= tolerance


def test_the_hessian_matters_and_so_does_its_schedule():
    assert error(reference(10), reference(1)) > 0.1
    assert error(reference(10), reference(1000)) > 0.1


def test_until_the_first_estimate_every_step_is_a_sign_step():
    model, start = TinyModel(), TinyModel()
    optimizer = Sophia(model, lr=0.01, weight_decay=0.0)
    seed_gradients(model, 0)
    optimizer.step()
    for (name, after), before in zip(model.named_parameters(), start.parameters(), strict=True):
        expected = before - 0.01 * after.grad.sign()
        torch.testing.assert_close(after, expected, rtol=1e-6, atol=1e-9, msg=name)


def test_negative_curvature_takes_a_sign_step():
    model, start = TinyModel(), TinyModel()
    optimizer = Sophia(model, lr=0.01, weight_decay=0.0)
    for seed in (0, 0):
        seed_gradients(model, seed)
        optimizer.step()
        optimizer.update_hessian({p: -torch.ones_like(p) for p in model.parameters()})
    for after, before in zip(model.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(after, before - 0.02 * after.grad.sign(), rtol=1e-5, atol=1e-8)


def test_a_hessian_moves_no_parameter_and_unknown_ones_are_passed_over():
    model, stranger = TinyModel(), torch.nn.Parameter(torch.ones(3))
    optimizer = Sophia(model)
    optimizer.update_hessian({p: torch.ones_like(p) for p in model.parameters()})
    assert optimizer.state_bytes() == 0, "nothing has stepped yet"
    seed_gradients(model, 0)
    optimizer.step()
    before = [p.detach().clone() for p in model.parameters()]
    norm = model.get_parameter("norm.weight")
    optimizer.update_hessian({norm: torch.ones_like(norm), stranger: stranger})
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    assert torch.allclose(optimizer.state[norm]["hessian"], torch.full_like(norm, 0.01))
    assert not optimizer.state[model.get_parameter("q_proj.weight")]["hessian"].any()


def test_large_tensors_are_stepped_in_portions_without_a_seam():
    """More elements than one portion holds, against the same rule on a single slice."""
    count = 3 * PORTION // 64 + 5
    whole = torch.nn.Parameter(torch.randn(count, 64, generator=torch.Generator().manual_seed(0)))
    slices = [torch.nn.Parameter(part.clone()) for part in whole.detach().split(97)]
    gradient = torch.randn(count, 64, generator=torch.Generator().manual_seed(1))
    for parameters, parts in (([whole], [gradient]), (slices, gradient.split(97))):
        optimizer = Sophia(parameters, weight_decay=0.3, max_grad_norm=0.0)
        for _ in range(2):
            for parameter, part in zip(parameters, parts, strict=True):
                parameter.grad = part.clone()
            optimizer.step()
            optimizer.update_hessian({p: p.grad.abs() for p in parameters})
    assert torch.equal(whole, torch.cat(slices))


def test_words_of_the_search_space():
    optimizer = create("sophia", TinyModel(), learning_rate=0.5, beta1=0.7, beta2=0.8, gamma=0.1, epsilon=1e-9)
    assert {"lr": 0.5, "betas": (0.7, 0.8), "gamma": 0.1, "eps": 1e-9}.items() <= optimizer.defaults.items()
    assert optimizer.hessian_interval == 10
    assert create("adamw", TinyModel()).hessian_interval == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"eps": 0.0}, "epsilon must be a number above 0"),
        ({"gamma": 0.0}, "gamma must be a number above 0"),
        ({"hessian_interval": 0}, "hessian_interval must be a whole number of at least 1"),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(InputError, match=message):
        Sophia(TinyModel(), **bad)


class TestConformance(OptimizerConformance):
    def make(self, params, **overrides):
        return Sophia(params, **overrides)


class TestConformanceWithAHessianAtEveryStep(OptimizerConformance):
    def make(self, params, **overrides):
        return Sophia(params, hessian_interval=1, **overrides)


class TestProof(HonestRuns):
    kind = Sophia


def test_a_far_refresh_is_not_waited_for():
    proof, check, _ = watch(Sophia, hessian_interval=100)
    assert proof.passed and check.complete
    assert not any("refresh" in check.name for check in proof.checks)


class Unclipped(SophiaRule):
    """Newton steps without their bound."""

    def direction(self, gradients, state, settings, step):
        bounded = super().direction(gradients, state, settings, step)
        return [3.0 * u for u in bounded]


class SignsOnly(SophiaRule):
    """A rule that never looks at the Hessian."""

    def direction(self, gradients, state, settings, step):
        torch._foreach_lerp_(state["exp_avg"], gradients, 1 - settings["betas"][0])
        return list(torch._foreach_sign(state["exp_avg"]))


@pytest.mark.parametrize("rule", [Unclipped(), SignsOnly()])
def test_a_broken_sophia_is_caught(rule):
    assert failed_rules(watch(with_rules(Sophia, rule), gamma=1.0)[0]) == {"sophia"}


def test_a_hessian_that_is_never_refreshed_is_caught():
    proof, _, _ = watch(Sophia, feed=False)
    assert failed(proof) == {"sophia.refresh"}


def test_estimates_at_the_wrong_time_are_caught():
    class Hasty(Sophia):
        hessian_interval = 3

    assert "sophia.refresh" in failed(watch(Hasty)[0])


def test_a_hessian_that_changes_by_itself_is_caught():
    class Hasty(Sophia):
        def step(self, closure=None):
            super().step(closure)
            self.update_hessian({p: torch.ones_like(p) for group in self.param_groups for p in group["params"]})

    assert failed_rules(watch(Hasty, gamma=1.0)[0]) == {"sophia"}


def test_estimates_of_another_dtype_are_taken():
    model = TinyModel(torch.bfloat16)
    optimizer = Sophia(model, hessian_interval=1)
    seed_gradients(model, 0)
    optimizer.step()
    optimizer.update_hessian({p: e.bfloat16() for p, e in estimate(model, 0).items()})
    assert {state["hessian"].dtype for state in optimizer.state.values()} == {torch.float32}
