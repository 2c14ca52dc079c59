"""Heads as logical matrices (`split_heads`): each head as a parameter of its own, routes, proofs, state, errors."""

from dataclasses import replace

import pytest
import torch
from parity import LR, RATES, WD, error, follow
from torch import nn

from tuneopt.optim import Muon, Scion, UpdateCheck, create
from tuneopt.optim.routing import route_table
from tuneopt.optim.testing import TinyModel, seed_gradients
from tuneopt.spec import SCALES, InputError
from tuneopt.training.model import Decoder

GROUPED = replace(SCALES["nano-65k"], name="grouped", heads=4, kv_heads=2)
WORDS = {"learning_rate": LR, "weight_decay": WD, "max_grad_norm": 0.0}
SHARED = {"momentum": 0.9, "ns_steps": 5, "ns_coefficients": "quintic", "ns_precision": "fp32"}
OPTIMIZERS = {
    "muon": {**SHARED, "muon_epsilon": 1e-10},
    "scion": {**SHARED, "scion_epsilon": 1e-10},
    "dion": {**SHARED, "dion_epsilon": 1e-10, "fraction": 0.5},
    "normuon": {**SHARED, "muon_epsilon": 1e-10, "row_normalize": 0.9},
    "muonh": {**SHARED, "muon_epsilon": 1e-10},
    "sf_muon": {**SHARED, "muon_epsilon": 1e-10, "beta1": 0.9},
}


class Attending(nn.Module):
    """Four queries on two heads of keys and values, 8 wide each, and a matrix that is no projection of a head."""

    def __init__(self, dtype=torch.float64, head_dim=8):
        super().__init__()
        self.self_attn = nn.Module()
        self.self_attn.head_dim = head_dim
        shapes = {"q_proj": (32, 24), "k_proj": (16, 24), "v_proj": (16, 24), "o_proj": (24, 32)}
        generator = torch.Generator().manual_seed(0)
        for name, (out, fan) in shapes.items():
            self.self_attn.add_module(name, nn.Linear(fan, out, bias=False, dtype=dtype))
        self.up_proj = nn.Linear(24, 40, bias=False, dtype=dtype)
        for parameter in self.parameters():
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype)


def heads(tree):
    """Every head of a tree of tensors by a name of its own; heads of the output are columns."""
    found = {}
    for name, tensor in tree.items():
        if "self_attn" not in name:
            found[name] = tensor
            continue
        parts = tensor.split(8, dim=1 if "o_proj" in name else 0)
        found |= {f"{name.removesuffix('.weight')}.{i}.weight": part for i, part in enumerate(parts)}
    return found


def steps(model, optimizer, after=lambda: None, before=lambda: None, rates=RATES):
    for seed, rate in enumerate(rates):
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * rate / LR
        seed_gradients(model, seed)
        before()
        optimizer.step()
        after()


def as_numpy(tree):
    return {name: tensor.detach().double().numpy() for name, tensor in tree.items()}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_heads_are_stepped_as_the_reference_steps_each_of_them(name, dtype, tolerance, monkeypatch):
    model, whole = Attending(dtype), Attending(dtype)
    start = as_numpy(heads(dict(Attending(dtype).named_parameters())))
    monkeypatch.setattr("problem.start", lambda: start)
    stream = []
    for seed in range(len(RATES)):
        seed_gradients(whole, seed)
        stream.append(as_numpy(heads({key: p.grad for key, p in whole.named_parameters()})))
    words = {**WORDS, **OPTIMIZERS[name]}
    steps(model, create(name, model, **words, split_heads=True))
    on = {"hyperball": True} if name == "muonh" else {}
    expected = follow(name, start=start, stream=stream, decays=lambda each: True, **words, **on)
    found = as_numpy(heads(dict(model.named_parameters())))
    assert error(found, expected) <= tolerance
    steps(whole, create(name, whole, **words))
    others = as_numpy(heads(dict(whole.named_parameters())))
    assert all(error({key: others[key]}, expected) > 1e-2 for key in expected if "self_attn" in key)
    assert error({"up_proj.weight": others["up_proj.weight"]}, expected) <= tolerance


def test_the_routing_table_says_in_how_many_matrices_and_only_outputs_are_cut_by_inputs():
    optimizer = Muon(Decoder(GROUPED, 64), split_heads=True)
    pieces = {r.parameter: (r.pieces, r.by_input) for r in optimizer.routing if r.parameter.startswith("layers.0.")}
    attention = {name: value for name, value in pieces.items() if "self_attn" in name}
    expected = {f"layers.0.self_attn.{key}_proj.weight": (4 if key in "qo" else 2, key == "o") for key in "qkvo"}
    assert attention == expected
    assert set(pieces.values()) - set(attention.values()) == {(1, False)}
    assert "muon (as 2 matrices)" in route_table(optimizer.routing)
    plain = {route.parameter: route.to_dict() for route in optimizer.routing}
    assert [name for name, entry in plain.items() if "by_input" in entry] == [
        f"layers.{layer}.self_attn.o_proj.weight" for layer in range(GROUPED.layers)
    ]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_is_as_large_as_predicted_and_a_momentum_no_larger_than_without(name):
    model, whole = Decoder(GROUPED, 64), Decoder(GROUPED, 64)
    optimizer, plain = create(name, model, split_heads=True), create(name, whole)
    for each, one in ((model, optimizer), (whole, plain)):
        each.initialize(0)
        seed_gradients(each, 0)
        one.step()
    assert optimizer.state_bytes() == optimizer.predicted_state_bytes()
    moments = [sum(e["momentum_buffer"].numel() for e in o.state.values() if "momentum_buffer" in e)
               for o in (optimizer, plain)]  # fmt: skip
    assert moments[0] == moments[1]
    more = optimizer.state_bytes() - plain.state_bytes()
    numbers = {"normuon": 3 * GROUPED.d_model, "muonh": 8, "sf_muon": 8}.get(name, 0)  # rows of outputs; 12 radii for 4
    assert more == 4 * GROUPED.layers * numbers


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_proof_follows_heads_from_the_optimizer_and_from_the_specification(name):
    for apart in (False, True):
        model = Decoder(GROUPED, 64)
        model.initialize(0)
        optimizer = create(name, model, split_heads=True, max_grad_norm=0.0)
        words = {key: value for key, value in optimizer.defaults.items() if key not in ("lr", "betas", "eps")}
        beta1, beta2 = optimizer.defaults.get("betas", (optimizer.defaults.get("beta1"), 0.0))
        words |= {"beta1": beta1, "beta2": beta2, "epsilon": optimizer.defaults.get("eps", 0.0)}
        words |= {"learning_rate": optimizer.defaults["lr"], "head_width": GROUPED.head_width}
        check = UpdateCheck(optimizer, name, hyperparameters=words, model=model) if apart else UpdateCheck(optimizer)
        steps(model, optimizer, check.after_step, check.before_step, RATES[:4])
        proof = check.proof()
        assert proof.passed, proof
        if apart:
            found = {claim.name for claim in proof.checks}
            assert {f"{optimizer.main.name}.{kind}" for kind in ("query", "key", "value", "output")} <= found


def test_off_is_what_it_was_and_a_checkpoint_goes_on():
    plain, named, again = Attending(torch.float32), Attending(torch.float32), Attending(torch.float32)
    steps(plain, Muon(plain))
    steps(named, Muon(named, split_heads=False))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), named.parameters(), strict=True))
    assert not any("by_input" in group for group in Muon(named).param_groups)
    first, second = Muon(named, split_heads=True), Muon(again, split_heads=True)
    steps(named, first)
    again.load_state_dict(named.state_dict())
    second.load_state_dict(first.state_dict())
    for model, optimizer in ((named, first), (again, second)):
        seed_gradients(model, 99)
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(named.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Muon(TinyModel(), split_heads=True), "attention modules say their head_dim, and found none"),
        (lambda: Scion(Attending().named_parameters(), split_heads=True), "pass the model"),
        (lambda: Muon(Attending(head_dim=7), split_heads=True), "cannot be cut into heads of width 7"),
        (lambda: create("soap", Attending(), split_heads=True), "soap has no hyperparameter 'split_heads'"),
    ],
)
def test_what_cannot_be_cut_is_refused(build, sentence):
    with pytest.raises(InputError, match=sentence):
        build()
