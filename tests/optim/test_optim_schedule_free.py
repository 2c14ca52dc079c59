"""Schedule-Free AdamW: parity with its float64 reference and with pytorch_optimizer, the average, the common suites."""

import importlib

import numpy as np
import problem
import pytest
import torch
from parity import LR, WD, as_parameters, error, follow, train
from suites import ElementwiseSuite

from tuneopt.optim import AdamW, ScheduleFree
from tuneopt.optim import portions as portions_module
from tuneopt.optim.testing import OptimizerConformance, TinyModel, seed_gradients
from tuneopt.spec import InputError


class TestScheduleFree(OptimizerConformance):
    def make(self, params, **overrides):
        return ScheduleFree(params, **overrides)

    # Decay at y, through z and the average, is no factor of 1 - lr wd in each step: see the reference.
    test_norms_and_embeddings_do_not_decay = None


class TestScheduleFreeSuite(ElementwiseSuite):
    kind, name = ScheduleFree, "schedule_free"

    # It has no direction without the weights.
    test_direction_and_apply_on_whole_tensors_is_the_same_rule = None


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_schedule_free_equals_its_reference(dtype, tolerance, limit):
    parameters = as_parameters(dtype)
    ours = train(parameters, ScheduleFree(parameters, LR, (0.8, 0.95), 1e-8, WD, max_grad_norm=limit))
    theirs = follow("schedule_free", beta1=0.8, beta2=0.95, epsilon=1e-8, max_grad_norm=limit)
    assert error(ours, theirs) <= tolerance


def test_what_is_evaluated_is_the_mean_of_the_fast_weights_by_squared_rates():
    """Without decay z is AdamW without momentum, whose steps hang on the gradients alone."""
    parameters, plain = as_parameters(torch.float64), as_parameters(torch.float64)
    words = {"max_grad_norm": 0.0, "weight_decay": 0.0}
    optimizer = ScheduleFree(parameters, LR, (0.9, 0.95), 1e-8, **words)
    fast = AdamW(plain, LR, (0.0, 0.95), 1e-8, **words)
    path = []
    train(parameters, optimizer)
    train(plain, fast, lambda step: path.append({name: p.detach().clone() for name, p in plain.items()}))
    weights = np.array([problem.schedule(step) ** 2 for step in range(problem.STEPS)])
    found = optimizer.evaluated()
    assert optimizer.evaluates_others and not fast.evaluates_others and fast.evaluated() == {}
    for name, parameter in parameters.items():
        mean = np.average([at[name].numpy() for at in path], axis=0, weights=weights)
        np.testing.assert_allclose(found[parameter].numpy(), mean, rtol=1e-9, atol=1e-12)
        assert not torch.equal(found[parameter], parameter)


def test_nothing_is_averaged_before_a_step_or_a_rate():
    model = TinyModel()
    optimizer = ScheduleFree(model)
    assert optimizer.evaluated() == {}
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    seed_gradients(model, 0)
    optimizer.step()
    for parameter, weights in optimizer.evaluated().items():
        torch.testing.assert_close(weights, parameter.detach(), rtol=0, atol=0)


def test_a_share_of_nothing_is_refused():
    with pytest.raises(InputError, match="beta1 must be a number above 0 and below 1"):
        ScheduleFree(TinyModel(), betas=(0.0, 0.9))


def test_portions_do_not_change_a_step(monkeypatch):
    whole, cut = TinyModel(width=16), TinyModel(width=16)
    for model in (whole, cut):
        monkeypatch.setattr(portions_module, "PORTION", 50 if model is cut else 10**6)
        optimizer = ScheduleFree(model)
        for seed in range(6):
            seed_gradients(model, seed)
            optimizer.step()
    for (name, mine), other in zip(whole.named_parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-6, atol=1e-9, msg=name)


def test_schedule_free_is_that_of_pytorch_optimizer():
    """At a constant rate: theirs weighs steps by the largest rate so far."""
    if importlib.util.find_spec("pytorch_optimizer") is None:
        pytest.skip("pytorch_optimizer is not installed: pip install '.[peers]'")
    peer = importlib.import_module("pytorch_optimizer").ScheduleFreeAdamW
    ours, theirs = as_parameters(), as_parameters()
    words = {"betas": (0.9, 0.95), "eps": 1e-8}
    mine = ScheduleFree(ours, LR, **words, weight_decay=0.0, max_grad_norm=0.0)
    other = peer(list(theirs.values()), lr=LR, **words, weight_decay=0.0)
    for gradients in problem.gradients():
        for parameters, optimizer in ((ours, mine), (theirs, other)):
            for name, parameter in parameters.items():
                parameter.grad = torch.tensor(gradients[name], dtype=parameter.dtype)
            optimizer.step()
    as_numbers = ({name: p.detach().double().numpy() for name, p in each.items()} for each in (ours, theirs))
    assert error(*as_numbers) <= 1e-5
    found = {name: mine.evaluated()[p].double().numpy() for name, p in ours.items()}
    other.eval()
    assert error(found, {name: p.detach().double().numpy() for name, p in theirs.items()}) <= 1e-5
