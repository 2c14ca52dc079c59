"""Prodigy: parity with its float64 reference and with pytorch_optimizer, the estimate itself, the common suites."""

import importlib
import io

import numpy as np
import problem
import pytest
import torch
from parity import WD, as_parameters, error, follow, train
from suites import ElementwiseSuite

from tuneopt.optim import Prodigy
from tuneopt.optim import portions as portions_module
from tuneopt.optim.prodigy import DISTANCE, next_distance
from tuneopt.optim.testing import OptimizerConformance, TinyModel, assert_equal_models, seed_gradients

START = {"initial_distance": 1e-3}


class TestProdigy(OptimizerConformance):
    def make(self, params, **overrides):
        return Prodigy(params, **{**START, **overrides})

    # Decay is at the rate lr d, and not lr: see below, where d is 1.
    test_norms_and_embeddings_do_not_decay = None


class TestProdigyAtDistanceOne(OptimizerConformance):
    """With d = 1 it is an AdamW without bias correction until the estimate exceeds 1."""

    def make(self, params, **overrides):
        return Prodigy(params, **{"lr": 0.01, "initial_distance": 1.0, **overrides})


class TestProdigySuite(ElementwiseSuite):
    kind, name, settings, words = Prodigy, "prodigy", START, START

    # It has no direction without the weights.
    test_direction_and_apply_on_whole_tensors_is_the_same_rule = None


def descent(parameters, optimizer, steps=80, scale=1.0):
    """Steps on a quadratic bowl around 0.02; the distances before and after each."""
    found = []
    for _ in range(steps):
        for parameter in parameters.values():
            parameter.grad = scale * (parameter.detach() - 0.02)
        optimizer.step()
        found.append(float(next(iter(optimizer.state.values()))["estimate"][DISTANCE]))
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_prodigy_equals_its_reference(dtype, tolerance, limit, monkeypatch):
    """Gradients of a slope, so that the distance grows; fp32 rounds small steps, so there it begins large."""
    slope = problem.start()
    stream = [{name: g + 2 * slope[name] for name, g in gradients.items()} for gradients in problem.gradients()]
    monkeypatch.setattr(problem, "gradients", lambda: stream)
    rates = [problem.schedule(step) for step in range(problem.STEPS)]
    for distance in (1e-2, 1e-4) if dtype == torch.float64 else (1e-2,):
        parameters = as_parameters(dtype)
        words = {"initial_distance": distance, "max_grad_norm": limit}
        optimizer = Prodigy(parameters, 1.0, (0.8, 0.95), 1e-8, WD, **words)
        ours = train(parameters, optimizer)
        assert max(float(entry["estimate"][DISTANCE]) for entry in optimizer.state.values()) > 1.02 * distance
        theirs = follow("prodigy", rates=rates, beta1=0.8, beta2=0.95, epsilon=1e-8, **words)
        assert error(ours, theirs) <= tolerance


def test_the_distance_is_one_number_that_grows_to_the_way_that_is_left():
    parameters = as_parameters()
    way = max(float((p.detach() - 0.02).abs().max()) for p in parameters.values())
    optimizer = Prodigy(parameters, weight_decay=0.0, max_grad_norm=0.0, betas=(0.9, 0.99))
    found = descent(parameters, optimizer)
    assert found[0] == pytest.approx(1e-6) and sorted(found) == found
    assert 0.1 * way < found[-1] < way
    assert {float(entry["estimate"][DISTANCE]) for entry in optimizer.state.values()} == {found[-1]}


def test_gradients_of_any_size_give_the_same_steps():
    models = []
    for scale in (1.0, 256.0):
        parameters = as_parameters(torch.float64)
        descent(parameters, Prodigy(parameters, eps=0.0, max_grad_norm=0.0), scale=scale)
        models.append({name: parameter.detach().numpy() for name, parameter in parameters.items()})
    for name, value in models[0].items():
        np.testing.assert_allclose(value, models[1][name], rtol=1e-9)


def test_no_step_with_a_rate_leaves_the_distance_and_what_is_no_number_stays_so():
    zero, one, nan = torch.tensor(0.0), torch.tensor(1.0), torch.tensor(float("nan"))
    assert float(next_distance(one, zero, zero)) == 1.0
    assert float(next_distance(one, torch.tensor(3.0), torch.tensor(2.0))) == 1.5
    assert bool(next_distance(one, nan, one).isnan())


def test_portions_do_not_change_a_step(monkeypatch):
    whole, cut = TinyModel(width=16), TinyModel(width=16)
    for model in (whole, cut):
        monkeypatch.setattr(portions_module, "PORTION", 50 if model is cut else 10**6)
        optimizer = Prodigy(model, **START)
        for seed in range(6):
            seed_gradients(model, seed)
            optimizer.step()
    for (name, mine), other in zip(whole.named_parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-8, msg=name)


def test_a_checkpoint_has_the_distance():
    """Steps on the way, where the estimate grows at each of them."""
    undisturbed = TinyModel()
    optimizer = Prodigy(undisturbed)
    descent(dict(undisturbed.named_parameters()), optimizer, 40)
    model = TinyModel()
    optimizer = Prodigy(model)
    descent(dict(model.named_parameters()), optimizer, 17)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = Prodigy(model)
    other.load_state_dict(torch.load(file, weights_only=True))
    descent(dict(model.named_parameters()), other, 23)
    assert_equal_models(undisturbed, model)


def test_prodigy_is_that_of_pytorch_optimizer():
    """Theirs takes d eps with the d after the step; so with eps next to nothing."""
    if importlib.util.find_spec("pytorch_optimizer") is None:
        pytest.skip("pytorch_optimizer is not installed: pip install '.[peers]'")
    peer = importlib.import_module("pytorch_optimizer").Prodigy
    ours, theirs = as_parameters(), as_parameters()
    words = {"lr": 1.0, "betas": (0.8, 0.95), "eps": 1e-20, "weight_decay": 0.0}
    mine = descent(ours, Prodigy(ours, **words, max_grad_norm=0.0))
    optimizer = peer(list(theirs.values()), **words, d0=1e-6)
    distances = []
    for _ in mine:
        for parameter in theirs.values():
            parameter.grad = parameter.detach() - 0.02
        optimizer.step()
        distances.append(float(optimizer.param_groups[0]["d"]))
    np.testing.assert_allclose(mine, distances, rtol=1e-4)
    as_numbers = ({name: p.detach().double().numpy() for name, p in each.items()} for each in (ours, theirs))
    assert error(*as_numbers) <= 1e-3  # steps begin at 1e-6, and fp32 rounds them
