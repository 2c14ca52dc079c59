"""What is switched on around an optimizer does not change its steps: autocast, torch's default dtype."""

import contextlib

import pytest
import torch
from test_optim_buckets import NAMES, each, equal, made, parameters, step

from tuneopt.optim import SOAP, Prodigy
from tuneopt.optim.factory import implementation, state_bytes_per_parameter


@contextlib.contextmanager
def in_double():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def within_autocast():
    return torch.autocast("cpu", dtype=torch.bfloat16)


@each
@pytest.mark.parametrize("surroundings", [within_autocast, in_double])
def test_a_step_is_the_same_whatever_is_switched_on_around_it(name, surroundings):
    named, twins = parameters(), parameters()
    plain = made(name, named)
    with surroundings():
        other = made(name, twins)
    for seed in range(3):
        step(plain, named, seed)
        for key, parameter in named.items():
            twins[key].grad = parameter.grad.clone()
        with surroundings():
            other.step()
    assert equal(named, twins)
    for own, stepper in ((named, plain), (twins, other)):
        with surroundings() if stepper is other else contextlib.nullcontext():
            diagonal = {p: torch.ones(p.shape, dtype=p.dtype) for p in own.values()}
            stepper.update_hessian(diagonal)
            weights = stepper.evaluated()
        for key in own if weights else ():
            assert torch.equal(weights[own[key]], plain.evaluated()[named[key]])


def test_autocast_of_the_caller_stays_on_in_a_closure_and_after_it():
    named = parameters()
    optimizer, seen = SOAP(named.items()), []

    def closure():
        seen.append(torch.is_autocast_enabled("cpu"))
        for parameter in named.values():
            parameter.grad = torch.ones_like(parameter)

    with within_autocast():
        optimizer.step(closure)
        seen.append(torch.is_autocast_enabled("cpu"))
    assert seen == [True, True]


def test_figures_of_memory_and_sums_are_of_fp32():
    figures = [state_bytes_per_parameter(implementation(name)) for name in NAMES]
    with in_double():
        assert [state_bytes_per_parameter(implementation(name)) for name in NAMES] == figures
        assert Prodigy(parameters().items()).joint_sums().dtype == torch.float32
