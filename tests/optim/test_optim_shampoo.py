"""Shampoo: parity with its float64 reference and with pytorch_optimizer, roots and sizes, proof, conformance."""

import importlib

import pytest
import torch
from parity import LR, WD, as_parameters, error, follow, only, train
from problem import schedule
from watching import HonestRuns, failed, watch

from tuneopt.optim import AdamW, Shampoo
from tuneopt.optim.adamw import adamw_direction
from tuneopt.optim.shampoo import STATE, inverse_root, refreshes, shampoo_update
from tuneopt.optim.testing import OptimizerConformance, TinyModel, seed_gradients

WORDS = {"shampoo_epsilon": 1e-4, "precondition_frequency": 5}
RULE = {"step": 1, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "shampoo_epsilon": 1e-12, "exponent": 0.25, "frequency": 5}


class TestShampoo(OptimizerConformance):
    def make(self, params, **overrides):
        return Shampoo(params, **overrides)


class TestShampooInUnevenBlocks(OptimizerConformance):
    def make(self, params, **overrides):
        return Shampoo(params, block_size=5, precondition_frequency=2, exponent=0.5, **overrides)


class TestProofOfShampoo(HonestRuns):
    kind = Shampoo


def fresh(gradients):
    n, r, c = gradients.shape
    shapes = ((r, r), (c, c), (r, r), (c, c), (r, c), (r, c))
    return {key: torch.zeros(n, *shape, dtype=gradients.dtype) for key, shape in zip(STATE, shapes, strict=True)}


@pytest.mark.parametrize("exponent", [0.25, 0.5])
@pytest.mark.parametrize("block", [10, 16, 256])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_shampoo_equals_its_reference_in_any_blocks(dtype, tolerance, block, exponent):
    parameters = as_parameters(dtype)
    words = {**WORDS, "block_size": block, "exponent": exponent}
    ours = train(parameters, Shampoo(parameters, LR, (0.8, 0.95), 1e-8, WD, max_grad_norm=0.0, **words))
    assert error(ours, follow("shampoo", beta1=0.8, beta2=0.95, epsilon=1e-8, **words)) <= tolerance


def test_a_root_is_the_inverse_root_of_the_factor_and_a_share_of_its_largest_eigenvalue():
    draw = torch.Generator().manual_seed(0)
    g = torch.randn(3, 5, 9, generator=draw, dtype=torch.float64)
    factor = g @ g.mT
    root = inverse_root(factor, 1e-3, 0.25)
    shifted = factor + 1e-3 * torch.linalg.matrix_norm(factor, 2)[:, None, None] * torch.eye(5)
    torch.testing.assert_close(root @ root @ root @ root @ shifted, torch.eye(5).double().expand(3, 5, 5))
    assert torch.isfinite(inverse_root(torch.full((1, 2, 2), float("nan")), 1e-3, 0.25)).all()
    assert torch.isfinite(inverse_root(torch.zeros(1, 2, 2), 1e-3, 0.25)).all()


def test_roots_are_made_at_powers_of_two_and_then_at_multiples():
    assert [step for step in range(1, 31) if refreshes(step, 10)] == [1, 2, 4, 8, 10, 20, 30]
    assert [step for step in range(1, 9) if refreshes(step, 1)] == list(range(1, 9))
    assert [step for step in range(1, 20) if refreshes(step, 8)] == [1, 2, 4, 8, 16]


def test_the_first_update_is_orthogonal_at_the_size_of_adams():
    """(G G^T)^-1/4 G (G^T G)^-1/4 is U V^T, and AdamW's first update has entries of 1."""
    g = torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    update = shampoo_update(g, **fresh(g), **RULE)
    u, _, vh = torch.linalg.svd(g)
    torch.testing.assert_close(update, 6**0.5 * u @ vh, rtol=0, atol=1e-6)


def test_every_block_has_the_size_of_adamws_update():
    """Also one that has no gradient, and beside it one with a large one."""
    state, adam = fresh(torch.zeros(3, 4, 7)), {"exp_avg": torch.zeros(3, 4, 7), "exp_avg_sq": torch.zeros(3, 4, 7)}
    for step in range(1, 8):
        g = torch.randn(3, 4, 7, generator=torch.Generator().manual_seed(step))
        g *= torch.tensor([1e-4, 0.0, 100.0])[:, None, None]
        update = shampoo_update(g.clone(), **state, **{**RULE, "step": step})
        (plain,) = adamw_direction(
            [g], {key: [value] for key, value in adam.items()}, {"betas": (0.9, 0.95), "eps": 1e-8}, step
        )
        torch.testing.assert_close(update.norm(dim=(1, 2)), plain.norm(dim=(1, 2)))
        assert not update[1].any() and torch.isfinite(update).all()


def test_gradients_of_any_size_give_the_same_update():
    updates = []
    for size in (1.0, 2.0**-12):
        state = fresh(torch.zeros(1, 5, 8))
        for step in range(1, 7):
            g = size * torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(step))
            update = shampoo_update(g, **state, **{**RULE, "step": step, "eps": 0.0, "shampoo_epsilon": 1e-5})
        updates.append(update)
    torch.testing.assert_close(*updates, rtol=1e-4, atol=1e-5)


def test_what_is_no_matrix_is_adamws():
    ours, plain = TinyModel(), TinyModel()
    words = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.3}
    for model, optimizer in ((ours, Shampoo(ours, **words)), (plain, AdamW(plain, **words))):
        for seed in range(4):
            seed_gradients(model, seed)
            optimizer.step()
    for name, parameter in ours.named_parameters():
        assert torch.equal(parameter, plain.get_parameter(name)) == (not name.endswith("proj.weight")), name


@pytest.mark.parametrize("epsilon", [1e-3, 1e-6])
@pytest.mark.parametrize("block", [5, 8, 256])
def test_the_proof_holds_in_any_blocks(block, epsilon):
    words = {"block_size": block, "precondition_frequency": 3, "shampoo_epsilon": epsilon}
    proof, check, _ = watch(Shampoo, width=8, **words)
    assert proof.passed, failed(proof)
    assert all(len(follower.errors) >= 3 for follower in check._followers)


def test_shampoo_is_that_of_pytorch_optimizer():
    """Without momentum, which theirs applies behind the roots, in square matrices of full rank, without decay.

    Theirs has no bias correction; a rate times sqrt(1 - beta2^t) makes up for it, which the size of RMSProp lacks.
    """
    if importlib.util.find_spec("pytorch_optimizer") is None:
        pytest.skip("pytorch_optimizer is not installed: pip install '.[peers]'")
    module = importlib.import_module("pytorch_optimizer")
    square = lambda name: "q_proj.weight" in name or "k_proj.weight" in name  # noqa: E731
    ours, theirs = only(square, as_parameters()), only(square, as_parameters())
    words = {"shampoo_epsilon": 1e-7, "precondition_frequency": 1}
    mine = train(ours, Shampoo(ours, LR, (0.0, 0.95), 1e-10, 0.0, max_grad_norm=0.0, **words))
    peer = module.ScalableShampoo(
        list(theirs.values()), lr=LR, betas=(0.0, 0.95), moving_average_for_momentum=True, start_preconditioning_step=1,
        preconditioning_compute_steps=1, block_size=16, shape_interpretation=False, graft_type=3, nesterov=False,
        diagonal_eps=1e-10, matrix_eps=1e-12, use_svd=True,
    )  # fmt: skip
    genuine, count = peer.step, iter(range(100))

    def corrected(closure=None):
        step = next(count)
        for group in peer.param_groups:
            group["lr"] = LR * schedule(step) * (1 - 0.95 ** (step + 1)) ** 0.5
        return genuine(closure)

    peer.step = corrected
    other = train(theirs, peer)
    assert error(mine, other) <= 1e-3
