"""When factors are fitted, and one fit against dense algebra in float64."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.optim import Kron, Scion, portions
from tuneopt.optim.probes import gaussian, seed_of
from tuneopt.optim.psgd import fit_diagonal, fit_number, fit_triangular, norm_lower_bound
from tuneopt.optim.reference import kron as twin


def counted(steps, probability, flat_start):
    """The schedule as a loop with a counter."""
    numbers, counter, fits = [], 0, 0
    for step in range(1, steps + 1):
        counter += 1
        h = {"preconditioner_update_probability": probability, "update_prob_flat_start": flat_start}
        due = counter >= 1 / twin.chance(step, h)
        fits += due
        counter = 0 if due else counter
        numbers.append(fits if due else 0)
    return numbers


@settings(max_examples=30, deadline=None)
@given(probability=st.floats(0.01, 1.5), flat_start=st.integers(0, 300), order=st.randoms())
def test_the_number_of_a_fit_is_a_function_of_the_step(probability, flat_start, order):
    expected = counted(500, probability, flat_start)
    steps = list(range(1, 501))
    order.shuffle(steps)
    assert all(fit_number(step, probability, flat_start) == expected[step - 1] for step in steps)


def test_the_published_schedule():
    """Every step at first, every twentieth in the end, reached about 3000 steps after the flat start."""
    numbers = [fit_number(step, 0.05, 500) for step in range(1, 5001)]
    assert numbers[:500] == list(range(1, 501))
    late = [step for step, number in enumerate(numbers, start=1) if number and step > 4000]
    assert {b - a for a, b in pairwise(late)} == {20}
    middle = [step for step, number in enumerate(numbers, start=1) if number and 1150 < step < 1250]
    gaps = [b - a for a, b in pairwise(middle)]
    assert np.mean(gaps) == pytest.approx(math.exp(0.7), abs=0.6)


def stack(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_lower_bound_of_the_norm():
    for seed, size in ((0, 4), (1, 12), (2, 33)):
        roots = stack(5, size, 2 * size, seed=seed)
        matrices = roots @ roots.mT
        norms = torch.linalg.matrix_norm(matrices, 2)
        bound = norm_lower_bound(matrices).flatten()
        assert bool((bound <= norms * (1 + 1e-12)).all()) and bool((norms <= 1.42 * bound).all())
        expected = torch.stack([twin.norm_estimate(matrix) for matrix in matrices])
        torch.testing.assert_close(bound, expected, rtol=1e-12, atol=0.0)


def test_lower_bound_of_extreme_matrices():
    huge = torch.full((1, 3, 3), 1e30)
    assert norm_lower_bound(huge).item() == pytest.approx(3e30, rel=1e-5)
    assert norm_lower_bound(torch.zeros(2, 3, 3)).flatten().tolist() == [0.0, 0.0]
    assert norm_lower_bound(torch.full((1, 2, 2), float("nan"))).isnan().all()


def triangles(count, size, seed):
    return torch.eye(size, dtype=torch.float64) + 0.2 * stack(count, size, size, seed=seed).triu()


@pytest.mark.parametrize("balance", [False, True])
def test_a_triangular_fit_is_the_twins_for_every_block(balance):
    left, right = triangles(3, 4, 1), 5 * triangles(3, 6, 2)
    gradients, probes = stack(3, 4, 6, seed=3), stack(3, 4, 6, seed=4)
    pairs = zip(left, right, gradients, probes, strict=True)
    expected = [twin.fitted([mine.clone(), other.clone()], g, v, 0.1, balance) for mine, other, g, v in pairs]
    fit_triangular(left, right, gradients, probes, lr=0.1, balance=balance)
    for ours, theirs in zip(zip(left, right, strict=True), expected, strict=True):
        for factor, wanted in zip(ours, theirs, strict=True):
            torch.testing.assert_close(factor, wanted, rtol=1e-10, atol=1e-12)
            assert not factor.tril(-1).any()


@pytest.mark.parametrize("shape", [(5,), (5, 7)])
@pytest.mark.parametrize("balance", [False, True])
def test_a_diagonal_fit_is_the_twins(shape, balance):
    start = [1.0 + stack(size, seed=size).abs() * (1 + 3 * i) for i, size in enumerate(shape)]
    gradient, probe = stack(*shape, seed=5), stack(*shape, seed=6)
    expected = twin.fitted(start, gradient, probe, 0.2, balance)
    left = start[0].clone().unsqueeze(0)
    right = start[1].clone().unsqueeze(0) if len(shape) == 2 else torch.zeros(1, 0, dtype=torch.float64)
    as_matrix = (1, shape[0], -1)
    fit_diagonal(left, right, gradient.reshape(as_matrix), probe.reshape(as_matrix), lr=0.2, balance=balance)
    for ours, theirs in zip((left[0], right[0]), expected, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0.0)


def test_fits_whiten_a_fixed_distribution():
    """After many fits the twice applied factors give gradients the identity as their second moment, up to scale."""
    mixing = torch.diag(torch.tensor([3.0, 1.0, 0.3, 0.1], dtype=torch.float64)) @ (
        torch.eye(4, dtype=torch.float64) + 0.3 * stack(4, 4, seed=9)
    )
    left = torch.eye(4, dtype=torch.float64).unsqueeze(0).clone()
    right = torch.eye(32, dtype=torch.float64).unsqueeze(0).clone()
    for seed in range(400):
        gradients = mixing @ stack(1, 4, 32, seed=2 * seed)
        fit_triangular(left, right, gradients, stack(1, 4, 32, seed=2 * seed + 1), lr=0.1, balance=seed % 100 == 99)
    fresh = mixing @ stack(200, 4, 32, seed=5000)
    white = (left.mT @ left @ fresh @ right.mT @ right).transpose(0, 1).reshape(4, -1)
    moment = white @ white.T / white.shape[1]
    assert torch.linalg.cond(moment) < 3 < 500 < torch.linalg.cond(mixing @ mixing.T)


@pytest.mark.parametrize("kind", [Kron, Scion])
def test_portions_of_a_stack_are_stepped_without_a_seam(kind, monkeypatch):
    """Three matrices of a stack at a time, or all of them at once."""
    results = []
    for size in (3 * 64, 10**9):
        monkeypatch.setattr(portions, "STACK_PORTION", size)
        model = torch.nn.ModuleDict({f"l{i}_proj": torch.nn.Linear(8, 8, bias=False) for i in range(7)})
        for seed, parameter in enumerate(model.parameters()):
            parameter.data = stack(8, 8, seed=seed)
        optimizer = kind(model)
        for step in range(3):
            for seed, parameter in enumerate(model.parameters()):
                parameter.grad = stack(8, 8, seed=100 * step + seed)
            optimizer.step()
        results.append(torch.stack(list(model.parameters())).detach())
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-14)
    monkeypatch.setattr(portions, "STACK_PORTION", 3 * 64)
    assert [len(results[0][some]) for some in portions.slices(results[0])] == [3, 3, 1]
    monkeypatch.setattr(portions, "DEVICE_SLICE", 5 * 64)  # other devices have a bound of their own
    assert [len(results[0][some]) for some in portions.slices(results[0].to("meta"))] == [5, 2]


def test_probes_are_functions_of_their_words():
    like = torch.empty(3, 40)
    assert torch.equal(gaussian(like, 0, 7, "w"), gaussian(like, 0, 7, "w"))
    others = [gaussian(like, *words) for words in ((0, 8, "w"), (0, 7, "v"), (1, 7, "w"))]
    assert not any(torch.equal(gaussian(like, 0, 7, "w"), other) for other in others)
    assert gaussian(like.double(), "a").dtype == torch.float64
    assert torch.equal(gaussian(like.double(), "a").float(), gaussian(like, "a"))
    numbers = gaussian(torch.empty(200, 200), "b")
    assert abs(float(numbers.mean())) < 0.02 and float(numbers.std()) == pytest.approx(1, abs=0.02)


def test_seeds_are_the_same_on_every_machine():
    assert seed_of(0, "q_proj.weight", 3) == seed_of("0", "q_proj.weight", "3") == 6638586391480219278
    assert seed_of(1, 23) != seed_of(12, 3)
