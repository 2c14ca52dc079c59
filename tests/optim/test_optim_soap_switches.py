"""KL-SOAP and SOAP-Muon: the formula by hand, parity, conformance, and what a proof takes over from an optimizer."""

import itertools

import pytest
import torch
from parity import LR, as_parameters, error, follow, train
from watching import failed, watch

from tuneopt.optim import SOAP
from tuneopt.optim.kl_factors import begin_factors, update_factors
from tuneopt.optim.orthogonalize import newton_schulz
from tuneopt.optim.reference import soap_choices
from tuneopt.optim.testing import OptimizerConformance, TinyModel, assert_equal_models, seed_gradients

ON = {"kl": {"factors": "kl"}, "muon": {"orthogonalize": "match_rms"},
      "both": {"factors": "kl", "orthogonalize": "spectral"}}  # fmt: skip
WORDS = {"beta1": 0.8, "beta2": 0.98, "epsilon": 1e-10, "shampoo_beta": 0.9, "precondition_frequency": 5,
         "bias_correction": "updates", "ns_coefficients": "polar_express"}  # fmt: skip


class TestKLSOAP(OptimizerConformance):
    def make(self, params, **overrides):
        return SOAP(params, factors="kl", **overrides)


class TestSOAPMuonInUnevenBlocks(OptimizerConformance):
    def make(self, params, **overrides):
        return SOAP(params, orthogonalize="spectral", block_size=5, precondition_frequency=2, **overrides)


class TestBothInUnevenBlocks(OptimizerConformance):
    def make(self, params, **overrides):
        return SOAP(
            params, factors="kl", orthogonalize="match_rms", block_size=5, precondition_frequency=3, **overrides
        )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.float64, 1e-10)])
@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("steps", [5, 3])
def test_both_equal_their_reference_in_square_blocks(on, steps, dtype, tolerance):
    parameters = as_parameters(dtype)
    words = {**WORDS, "block_size": 16, "ns_steps": steps, **ON[on]}
    given = {key: value for key, value in words.items() if key not in ("beta1", "beta2", "epsilon")}
    ours = train(parameters, SOAP(parameters, LR, (0.8, 0.98), 1e-10, 0.2, max_grad_norm=0.0, **given))
    assert error(ours, follow("soap", **words)) <= tolerance
    assert error(ours, follow("soap", **{**words, "factors": "shampoo", "orthogonalize": "none"})) > 0.01


def test_factors_by_kl_are_the_formula():
    """By inverses of whole matrices, one block at a time."""
    draw = torch.Generator().manual_seed(0)
    g = torch.randn(2, 4, 7, generator=draw, dtype=torch.float64)
    left, right = torch.zeros(2, 4, 4, dtype=torch.float64), torch.zeros(2, 7, 7, dtype=torch.float64)
    values = [torch.zeros(2, 4, dtype=torch.float64), torch.zeros(2, 7, dtype=torch.float64)]
    begin_factors(g, left, right, *values, shampoo_beta=0.9, eps=1e-12)
    size = g.square().mean(dim=(1, 2)).sqrt()[:, None, None]
    torch.testing.assert_close(left, 0.1 / 7 * g @ g.mT / size)
    torch.testing.assert_close(right, 0.1 / 4 * g.mT @ g / size)
    assert all(torch.equal(one, size[:, 0].expand_as(one)) for one in values), "they begin equal"
    values = [torch.rand(one.shape, generator=draw, dtype=torch.float64) + 0.5 for one in values]
    bases = [torch.linalg.qr(torch.randn(f.shape, generator=draw, dtype=torch.float64)).Q for f in (left, right)]
    before, old = (left.clone(), right.clone()), [one.clone() for one in values]
    update_factors(g, left, right, *bases, *values, shampoo_beta=0.9, eps=1e-12)
    l_inverse, r_inverse = (torch.linalg.inv(q @ one.diag_embed() @ q.mT) for q, one in zip(bases, old, strict=True))
    grown = g @ r_inverse @ g.mT / 7, g.mT @ l_inverse @ g / 4
    for factor, was, new, basis, one, start in zip((left, right), before, grown, bases, values, old, strict=True):
        torch.testing.assert_close(factor, 0.9 * was + 0.1 * new)
        torch.testing.assert_close(one, 0.9 * start + 0.1 * (basis.mT @ new @ basis).diagonal(dim1=1, dim2=2))


def test_factors_by_kl_find_the_two_sides_that_gradients_have():
    """Of gradients A^1/2 Z B^1/2 the factors become A and B, but for one number; Shampoo's size of A depends on B."""
    draw = torch.Generator().manual_seed(0)
    a, b = torch.tensor([4.0, 1.0, 0.25]), torch.tensor([9.0, 1.0, 0.5, 0.1])
    left, right, values = torch.zeros(1, 3, 3), torch.zeros(1, 4, 4), [torch.zeros(1, 3), torch.zeros(1, 4)]
    bases = [torch.eye(3)[None], torch.eye(4)[None]]
    for step in range(4000):
        g = (a.sqrt()[:, None] * torch.randn(3, 4, generator=draw) * b.sqrt())[None]
        if step:
            update_factors(g, left, right, *bases, *values, shampoo_beta=0.998, eps=1e-12)
        else:
            begin_factors(g, left, right, *values, shampoo_beta=0.998, eps=1e-12)
    scale = left[0].trace() / a.sum()
    torch.testing.assert_close(left[0].diagonal(), scale * a, rtol=0.15, atol=0)
    torch.testing.assert_close(right[0].diagonal(), b / scale, rtol=0.15, atol=0)
    for factor, one in zip((left, right), values, strict=True):
        torch.testing.assert_close(factor.diagonal(dim1=1, dim2=2), one, rtol=0.05, atol=0)


def test_blocks_without_a_gradient_begin_when_they_get_one():
    state = [torch.zeros(2, 3, 3), torch.zeros(2, 3, 3), torch.zeros(2, 3), torch.zeros(2, 3)]
    g = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    begin_factors(g * torch.tensor([1.0, 0.0])[:, None, None], *state, shampoo_beta=0.9, eps=1e-12)
    assert state[2][0].all() and not state[2][1].any()
    eye = torch.eye(3).expand(2, 3, 3)
    update_factors(g, state[0], state[1], eye, eye, state[2], state[3], shampoo_beta=0.9, eps=1e-12)
    size = g[1].square().mean().sqrt()
    torch.testing.assert_close(state[0][1], 0.1 / 3 * g[1] @ g[1].T / size)
    assert torch.isfinite(torch.stack(state[2:])).all()


@pytest.mark.parametrize(("kind", "factor"), [("spectral", lambda a, b: max(1, a / b) ** 0.5),
                                              ("match_rms", lambda a, b: 0.2 * max(a, b) ** 0.5)])  # fmt: skip
def test_soap_muon_is_newton_schulz_of_soaps_update(kind, factor):
    plain, ours = TinyModel(), TinyModel()
    words = {"lr": 0.01, "weight_decay": 0.0, "max_grad_norm": 0.0, "block_size": 4}
    for model, optimizer in ((plain, SOAP(plain, **words)), (ours, SOAP(ours, orthogonalize=kind, **words))):
        for seed in range(2):
            seed_gradients(model, seed)
            optimizer.step()
    start = TinyModel()
    for name, parameter in ours.named_parameters():
        before, theirs = start.get_parameter(name), plain.get_parameter(name)
        if name.endswith("proj.weight"):
            expected = factor(*before.shape) * newton_schulz((before - theirs) / 0.01, 1e-15)
            torch.testing.assert_close((before - parameter) / 0.01, expected, rtol=0, atol=2e-4)
        else:
            assert torch.equal(parameter, theirs), name


def test_off_is_what_soap_was():
    plain, named = TinyModel(), TinyModel()
    older = SOAP(plain)
    for group in older.param_groups:  # a checkpoint of before the switches
        for word in ("factors", "orthogonalize", "ns_steps", "ns_precision", "ns_coefficients"):
            del group[word]
    optimizers = (older, SOAP(named, factors="shampoo", orthogonalize="none"))
    for seed, (model, optimizer) in itertools.product(range(12), zip((plain, named), optimizers, strict=True)):
        seed_gradients(model, seed)
        optimizer.step()
    assert_equal_models(plain, named)
    assert optimizers[0].state_bytes() == optimizers[1].state_bytes()


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("block", [5, 6, 256])
def test_the_proof_holds_in_any_blocks(on, block):
    proof, check, _ = watch(SOAP, steps=7, width=8, block_size=block, precondition_frequency=2, **ON[on])
    assert proof.passed, failed(proof)
    assert all(len(f.errors) >= 2 for f in check._followers)


def mixed(basis):
    """Another orthogonal matrix."""
    draw = torch.Generator().manual_seed(0)
    return basis @ torch.linalg.qr(torch.randn(basis.shape, generator=draw, dtype=basis.dtype)).Q


@pytest.mark.parametrize("on", ON)
def test_bases_are_taken_over_only_where_they_fit(on, monkeypatch):
    """Each answer is shown to the reference in a wrong form, while the optimizer does the right thing."""
    wrong = {
        "mixed": lambda block: {**block, "left": {**block["left"], "basis": mixed(block["left"]["basis"])}},
        "no basis": lambda block: {**block, "right": {**block["right"], "basis": 0.9 * block["right"]["basis"]}},
        "another v": lambda block: {**block, "v": 1.01 * block["v"] + 1e-6},
        "none": lambda block: None,
    }
    genuine, answers = soap_choices.offered, []
    for name, spoil in wrong.items():
        monkeypatch.setattr(soap_choices, "offered", lambda *given, spoil=spoil: [spoil(b) for b in genuine(*given)])
        proof, _, _ = watch(SOAP, width=8, **ON[on])
        answers.append((name, proof.passed))
    assert answers == [(name, False) for name in wrong]
