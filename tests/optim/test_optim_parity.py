"""24 steps on fixed gradients against float64 twins and against torch's own optimizers where the rule coincides."""

import copy

import numpy as np
import problem
import pytest
import torch
from parity import LR, RATES, WD, follow, only

from tuneopt.optim import SOAP, AdamW, Muon, create


def as_parameters(dtype=torch.float32):
    return {name: torch.nn.Parameter(torch.tensor(value, dtype=dtype)) for name, value in problem.start().items()}


def train(parameters, optimizer, steps=problem.STEPS):
    for step, gradients in enumerate(problem.gradients()[:steps]):
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * problem.schedule(step)
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(gradients[name], dtype=parameter.dtype)
        optimizer.step()
    return {name: parameter.detach().double().numpy() for name, parameter in parameters.items()}


def error(ours, theirs, names=None):
    """Worst relative error of the displacement since the start, over parameters."""
    start = problem.start()
    worst = 0.0
    for name in names or theirs:
        distance = np.linalg.norm(ours[name] - theirs[name])
        worst = max(worst, distance / np.linalg.norm(theirs[name] - start[name]))
    return worst


def adamw_reference(rates=RATES, names=lambda name: True, limit=1.0):
    """Clipped among ``names`` alone."""
    words = {"beta1": 0.9, "beta2": 0.98, "epsilon": 1e-10, "max_grad_norm": limit}
    return follow("adamw", start=only(names, problem.start()), rates=rates, **words)


ADAM = {"betas": (0.9, 0.98), "eps": 1e-10, "weight_decay": WD}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_adamw_equals_its_twin(dtype, tolerance, limit):
    parameters = as_parameters(dtype)
    ours = train(parameters, AdamW(parameters, LR, **ADAM, max_grad_norm=limit))
    # The divisor of the fused kernel is fp32, which shows in float64 where clipping is on.
    assert error(ours, adamw_reference(limit=limit)) <= (tolerance if limit == 0 else max(tolerance, 1e-7))


def test_adamw_without_clip_is_torch_fused_adamw_bit_for_bit():
    ours, theirs = as_parameters(), as_parameters()
    decayed = [p for name, p in theirs.items() if problem.decays(name)]
    rest = [p for name, p in theirs.items() if not problem.decays(name)]
    groups = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
    peer = torch.optim.AdamW(groups, lr=LR, **ADAM, fused=True)
    mine, other = train(ours, AdamW(ours, LR, **ADAM, max_grad_norm=0.0)), train(theirs, peer)
    assert all(np.array_equal(mine[name], other[name]) for name in mine)


def test_adamw_clip_is_torch_clip():
    ours, theirs = as_parameters(), as_parameters()
    peer = torch.optim.AdamW(theirs.values(), lr=LR, betas=(0.9, 0.98), eps=1e-10, weight_decay=0.0)
    peer.register_step_pre_hook(lambda *_: torch.nn.utils.clip_grad_norm_(list(theirs.values()), 1.0) and None)
    mine = train(ours, AdamW(ours, LR, betas=(0.9, 0.98), eps=1e-10, weight_decay=0.0))
    assert error(mine, train(theirs, peer)) <= 1e-5


def test_adamw_direction_is_the_same_rule_as_the_fused_kernel():
    """The unfused direction exists for apply steps that run elsewhere; both paths must agree."""
    fused, split = as_parameters(), as_parameters()
    optimizer = AdamW(split, LR, **ADAM, max_grad_norm=0.0)
    rule = copy.copy(optimizer.main)
    rule.advance = super(type(rule), rule).advance
    optimizer.rules = (rule,)
    assert error(train(split, optimizer), train(fused, AdamW(fused, LR, **ADAM, max_grad_norm=0.0))) <= 1e-6


def muon_reference(momentum=0.9, eps=1e-10):
    words = {"momentum": momentum, "muon_epsilon": eps, "ns_steps": 5, "ns_coefficients": "quintic"}
    return follow("muon", start=only(problem.hidden, problem.start()), **words)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_muon_equals_its_twins(dtype, tolerance):
    """Hidden matrices against Muon's twin; the rest against AdamW's at 0.3 of the rate, clipped among themselves."""
    parameters = as_parameters(dtype)
    ours = train(parameters, Muon(parameters, LR, **ADAM, momentum=0.9, muon_epsilon=1e-10, muon_to_adam_lr=0.3))
    assert error(ours, muon_reference()) <= tolerance
    rest = adamw_reference([0.3 * rate for rate in RATES], lambda name: not problem.hidden(name))
    assert error(ours, rest) <= (1e-6 if dtype == torch.float32 else 1e-7)


def test_muon_in_bf16_is_near_and_torch_muon_is_the_same_rule():
    """torch's Muon runs bf16 products and an averaged momentum, which orthogonalization cannot tell from the sum."""
    ours, theirs = only(problem.hidden, as_parameters()), only(problem.hidden, as_parameters())
    mine = train(ours, Muon(ours, LR, **ADAM, momentum=0.9, muon_epsilon=1e-10, ns_precision="bf16"))
    peer = torch.optim.Muon(theirs.values(), lr=LR, weight_decay=WD, momentum=0.9, ns_steps=5)
    other = train(theirs, peer)
    assert error(mine, muon_reference()) <= 0.05
    assert error(other, muon_reference()) <= 0.05
    assert error(mine, other) <= 0.05


def soap_run(dtype, block=16, frequency=10, convention="steps"):
    parameters = only(problem.hidden, as_parameters(dtype))
    rule = {"shampoo_beta": 0.9, "precondition_frequency": frequency, "block_size": block}
    optimizer = SOAP(parameters, LR, **ADAM, **rule, max_grad_norm=0.0, bias_correction=convention)
    return train(parameters, optimizer), optimizer, parameters


def soap_reference(block=16, frequency=10, convention="steps"):
    """Parameters, and the state of each after the last step."""
    last = {}
    words = {"beta1": 0.9, "beta2": 0.98, "epsilon": 1e-10, "shampoo_beta": 0.9, "block_size": block}
    moved = follow(
        "soap",
        start=only(problem.hidden, problem.start()),
        precondition_frequency=frequency,
        bias_correction=convention,
        trace=lambda step, states: last.update(states),
        **words,
    )
    return moved, last


@pytest.mark.parametrize("frequency", [1, 5, 10])
@pytest.mark.parametrize("convention", ["steps", "updates"])
def test_soap_equals_its_twin_in_square_blocks(frequency, convention):
    """Square blocks have full-rank factors, so no basis is arbitrary but for signs, which the update does not see."""
    twin, _ = soap_reference(frequency=frequency, convention=convention)
    assert error(soap_run(torch.float64, 16, frequency, convention)[0], twin) <= 1e-10
    assert error(soap_run(torch.float32, 16, frequency, convention)[0], twin) <= 1e-3


def test_soap_conventions_differ_where_they_should():
    assert error(soap_run(torch.float64)[0], soap_reference(convention="updates")[0]) > 0.03


@pytest.mark.parametrize("block", [7, 24, 256])
def test_soap_factors_equal_its_twin_in_any_blocks(block):
    """Factors are free of the choice of basis in null spaces; bases must be orthogonal and sorted as they were due."""
    _, optimizer, parameters = soap_run(torch.float64, block)
    _, states = soap_reference(block)
    for name, parameter in parameters.items():
        state = optimizer.state[parameter]
        tall = parameter.shape[0] > parameter.shape[1]
        ours = {side: [] for side in ("left", "right")}
        for side, factors in ours.items():
            for key in sorted(key for key in state if key.startswith(f"{side}_") and "basis" not in key):
                factors += [np.linalg.eigvalsh(f.numpy()) for f in state[key][0]]
                for basis in state[key.replace(side, f"{side}_basis")][0]:
                    assert torch.dist(basis.T @ basis, torch.eye(len(basis), dtype=basis.dtype)) < 1e-10
        for side, twin_side in zip(("left", "right"), ("right", "left") if tall else ("left", "right"), strict=True):
            theirs = [np.linalg.eigvalsh(block["factor"]) for block in states[name][twin_side]]
            assert sorted(map(len, ours[side])) == sorted(map(len, theirs))
            assert np.allclose(np.sort(np.concatenate(ours[side])), np.sort(np.concatenate(theirs)), atol=1e-14)


def test_soap_first_step_only_decays_matrices_and_moves_the_rest():
    parameters = as_parameters()
    ours = train(parameters, SOAP(parameters, LR, **ADAM), steps=1)
    start, rate = problem.start(), RATES[0]
    for name, value in ours.items():
        if problem.hidden(name):
            assert np.allclose(value, start[name] * (1 - rate * WD), rtol=1e-6)
        else:
            assert np.abs(value - start[name]).max() == pytest.approx(rate, rel=0.02)


def test_soap_clips_over_all_parameters_at_once():
    """Gradients scaled by a common factor above the limit leave the same path."""
    results = []
    for scale in (50.0, 5000.0):
        parameters = as_parameters(torch.float64)
        optimizer = create("soap", parameters.items(), learning_rate=LR, max_grad_norm=0.1, epsilon=1e-3)
        for gradients in problem.gradients()[:6]:
            for name, parameter in parameters.items():
                parameter.grad = torch.tensor(scale * gradients[name])
            optimizer.step()
        results.append({name: p.detach().numpy() for name, p in parameters.items()})
    assert error(results[0], results[1], [n for n in problem.SHAPES if "q_proj.w" in n or "norm" in n]) <= 1e-5


def test_unequal_gradient_scale_matters_when_clipping_is_off():
    results = []
    for scale in (1.0, 100.0):
        parameters = as_parameters(torch.float64)
        optimizer = AdamW(parameters, LR, eps=1e-3, max_grad_norm=0.0)
        for gradients in problem.gradients()[:6]:
            for name, parameter in parameters.items():
                parameter.grad = torch.tensor(scale * gradients[name])
            optimizer.step()
        results.append({name: p.detach().numpy() for name, p in parameters.items()})
    assert error(results[0], results[1]) > 0.01
