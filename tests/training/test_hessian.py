"""Hutchinson's estimate against the exact Hessian, and Sophia in the training loop."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from live_bytes import LiveBytes
from torch.func import functional_call, hessian

from tuneopt.ledger import Ledger
from tuneopt.optim.probes import gaussian
from tuneopt.spec import Scale
from tuneopt.training.loop import Training
from tuneopt.training.memory import ATTENTION_ROWS
from tuneopt.training.model import Decoder
from tuneopt.training.run import run_trial
from tuneopt.training.second_order import PASS_COST, hessian_diagonal

SMALL = Scale("small", "nano", layers=1, d_model=4, d_ff=8, heads=2, seq_len=6)
SOPHIA = {"gamma": 0.0125, "hessian_interval": 10, "epsilon": 1e-7}


@pytest.fixture
def model():
    small = Decoder(SMALL, 11).double()
    small.initialize(0)
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.mul_(10.0 if parameter.ndim > 1 else 1.0)
    return small


def batch(seed=0):
    tokens = torch.randint(0, 11, (3, 7), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1], tokens[:, 1:]


def exact(model, name):
    """The block of the Hessian that belongs to one parameter."""
    tokens, targets = batch()
    others = {key: value.detach() for key, value in model.named_parameters()}

    def loss(value):
        logits = functional_call(model, {**others, name: value}, (tokens,))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    size = others[name].numel()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return hessian(loss)(others[name]).reshape(size, size)


OWN = Scale(
    "own", "nano", layers=1, d_model=8, d_ff=8, heads=2, seq_len=6, kv_heads=1, tied=True, activation="gelu_tanh",
    norm="layernorm", biases=True, softcap=2.0, qk_norm="before_rope",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", ["embed_tokens.weight", "layers.0.self_attn.k_proj.weight", "layers.0.mlp.up_proj.bias"]
)
def test_options_of_an_architecture_have_second_derivatives_too(name):
    """A tied head, shared keys, capped logits and LayerNorm: the product is that of the exact Hessian."""
    own = Decoder(OWN, 11).double()
    own.initialize(0)
    for key, parameter in own.named_parameters():
        parameter.requires_grad_(key == name)
        parameter.data.mul_(10.0 if parameter.ndim > 1 else 1.0)
    parameter = own.get_parameter(name)
    [product] = hessian_diagonal(own, *batch(), seed=3, step=5).values()
    probe = gaussian(parameter, 3, 5, name).flatten()
    expected = probe * (exact(own, name) @ probe)
    assert torch.dist(product.flatten(), expected) <= 1e-5 * expected.norm() and expected.norm() > 1e-6


@pytest.mark.parametrize(
    "name", ["norm.weight", "layers.0.self_attn.q_proj.weight", "layers.0.mlp.down_proj.weight", "embed_tokens.weight"]
)
def test_one_product_is_that_of_the_exact_hessian(model, name):
    """With every other parameter frozen, v * (H v) is known from the block of this one."""
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(key == name)
    parameter = model.get_parameter(name)
    estimate = hessian_diagonal(model, *batch(), seed=3, step=9)
    assert list(estimate) == [parameter]
    probe = gaussian(parameter, 3, 9, name).flatten()
    expected = probe * (exact(model, name) @ probe)
    # The model computes its loss in fp32, whatever its weights are.
    assert torch.dist(estimate[parameter].flatten(), expected) <= 1e-5 * expected.norm()


def test_the_mean_over_probes_is_the_diagonal(model):
    parameter = model.get_parameter("norm.weight")
    for other in model.parameters():
        other.requires_grad_(other is parameter)
    draws = torch.stack([hessian_diagonal(model, *batch(), seed=0, step=step)[parameter] for step in range(400)])
    error = draws.std(dim=0) / 20
    assert bool(((draws.mean(dim=0) - exact(model, "norm.weight").diag()).abs() < 4 * error).all())


def test_gradients_and_weights_are_left_alone(model):
    tokens, targets = batch()
    model.loss(tokens, targets).backward()
    before = [(p.detach().clone(), p.grad.clone()) for p in model.parameters()]
    first = hessian_diagonal(model, tokens, targets, seed=0, step=0)
    again = hessian_diagonal(model, tokens, targets, seed=0, step=0)
    for parameter, (weight, gradient) in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, weight) and torch.equal(parameter.grad, gradient)
        assert torch.equal(first[parameter], again[parameter]) and not first[parameter].requires_grad


def test_it_runs_in_fp32_under_autocast(model):
    model.float()
    plain = hessian_diagonal(model, *batch(), seed=0, step=0)
    with torch.autocast("cpu", torch.bfloat16):
        cast = hessian_diagonal(model, *batch(), seed=0, step=0)
    assert all(torch.equal(plain[parameter], cast[parameter]) for parameter in plain)


LONG = replace(SMALL, layers=2, seq_len=ATTENTION_ROWS + 44)


def long_model(**changes):
    made = Decoder(LONG, 11, **changes).double()
    made.initialize(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(20.0 if parameter.ndim > 1 else 1.0)
    return made


def long_batch():
    tokens = torch.randint(0, 11, (2, LONG.seq_len + 1), generator=torch.Generator().manual_seed(1))
    return tokens[:, :-1], tokens[:, 1:]


def plain_diagonal(model, tokens, targets, seed, step):
    """The same estimate with nothing saved on memory: torch's own second derivatives of plain products."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    probes = [gaussian(parameter, seed, step, name) for name, parameter in named.items()]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        first = torch.autograd.grad(model.loss(tokens, targets), list(named.values()), create_graph=True)
        products = torch.autograd.grad(first, list(named.values()), grad_outputs=probes)
    return {p: probe * product for p, probe, product in zip(named.values(), probes, products, strict=True)}


@pytest.mark.parametrize("free", ["", "k_proj", "layers.0", "lm_head"])
def test_long_sequences_give_the_estimate_of_plain_products(free):
    model = long_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(free in name)
    expected = plain_diagonal(model, *long_batch(), 0, 4)
    found = hessian_diagonal(model, *long_batch(), seed=0, step=4)
    assert list(found) == list(expected)
    for parameter, reference in expected.items():
        assert reference.norm() > 0
        # The loss is taken in fp32, so what goes back from it has been rounded; the rest is fp64.
        assert torch.dist(found[parameter], reference) <= 1e-6 * reference.norm()


def test_short_sequences_keep_the_bits_of_plain_products(model):
    model.float()
    expected = plain_diagonal(model, *batch(), 0, 4)
    found = hessian_diagonal(model, *batch(), seed=0, step=4)
    assert all(torch.equal(found[parameter], expected[parameter]) for parameter in expected)


def test_long_sequences_ask_neither_for_autocast_nor_for_checkpointing():
    """To the bit: what a pass holds is decided by shapes alone, and it runs in fp32."""
    plain, checkpointed = (
        hessian_diagonal(long_model(checkpointing=each).float(), *long_batch(), seed=0, step=0)
        for each in (False, True)
    )
    with torch.autocast("cpu", torch.bfloat16):
        cast = hessian_diagonal(long_model().float(), *long_batch(), seed=0, step=0)
    for one, two, three in zip(plain.values(), checkpointed.values(), cast.values(), strict=True):
        assert torch.equal(one, two) and torch.equal(one, three)


def test_a_deeper_model_adds_the_inputs_of_its_layers():
    """Beside three copies of the weights: the probe, the gradient and the product."""
    tokens, targets = (part[:1] for part in long_batch())

    def peak(layers):
        made = Decoder(replace(LONG, layers=layers, d_model=16, d_ff=64), 11)
        made.initialize(0)
        with LiveBytes() as live:
            hessian_diagonal(made, tokens, targets, seed=0, step=0)
        weights = sum(parameter.nbytes for parameter in made.parameters())
        return live.peak - 4 * weights  # the weights are counted, too

    width = tokens.numel() * 16 * 4
    assert peak(5) - peak(2) < 3 * 3 * width, "an ordinary pass holds 26 widths a layer"


def finish(training):
    while not training.finished:
        training.advance()
    return training


def test_sophia_learns_and_is_proven(corpus, make_spec):
    training = finish(Training(make_spec("sophia", **SOPHIA), corpus, None))
    assert not training.diverged
    assert training.final_losses[0] < training.curve[0].select_loss - 0.5
    assert training.proof is not None and training.proof["passed"], training.proof
    assert any(check["name"].endswith("refresh") for check in training.proof["checks"])


def test_estimates_come_on_schedule_at_the_weights_of_the_gradient(corpus, make_spec, monkeypatch):
    training = Training(make_spec("sophia", micro_batch=4, **{**SOPHIA, "hessian_interval": 3}), corpus, None)
    seen = []

    def spy(model, tokens, targets, seed, step):
        gradients = torch.autograd.grad(model.loss(tokens, targets), list(model.parameters()))
        seen.append((step, tokens.shape[0], gradients, [p.grad.clone() for p in model.parameters()]))
        return hessian_diagonal(model, tokens, targets, seed, step)

    monkeypatch.setattr("tuneopt.training.second_order.hessian_diagonal", spy)
    for _ in range(7):
        training.train_step()
    assert [(step, size) for step, size, _, _ in seen] == [(2, 4), (5, 4)]
    assert training.extra_tokens == 2 * 4 * 32
    first, second = seen[0][2:]
    assert not any(torch.equal(a, b) for a, b in zip(first, second, strict=True)), "one of two micro-batches"
    alignment = sum(float((a * b).sum()) for a, b in zip(first, second, strict=True))
    assert alignment > 0, "the micro-batch is one of those that the gradient was taken on"


def test_an_estimate_counts_from_the_next_step_on(corpus, make_spec):
    training = Training(make_spec("sophia", **{**SOPHIA, "hessian_interval": 2}), corpus, None)
    state = training.optimizer.state[training.model.lm_head.weight]
    training.train_step()
    state = training.optimizer.state[training.model.lm_head.weight]
    assert not state["hessian"].any()
    training.train_step()
    assert state["hessian"].any()


def test_resuming_gives_the_same_bits(corpus, make_spec, tmp_path: Path):
    """Saved right after an estimate, between two of them, and right before one is due."""
    spec = make_spec("sophia", ratio=0.06, **SOPHIA)
    undisturbed = finish(Training(spec, corpus, None))
    for stop in (10, 15, 29):
        interrupted = Training(spec, corpus, tmp_path / str(stop))
        for _ in range(stop):
            interrupted.train_step()
        interrupted.save()
        resumed = Training(spec, corpus, tmp_path / str(stop))
        assert resumed.step == stop and resumed.extra_tokens == (stop // 10) * 8 * 32
        while not resumed.step >= resumed.steps:
            resumed.train_step()
        pairs = zip(resumed.model.parameters(), undisturbed.model.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), stop


def test_the_record_counts_what_the_hessian_cost(corpus, make_spec, tmp_path: Path):
    spec = make_spec("sophia", **SOPHIA)
    record = run_trial(spec, corpus, Ledger(tmp_path))
    extra = spec.steps // 10 * 8 * 32
    assert record.tokens == spec.steps * 8 * 32, "the budget is what every optimizer gets"
    per_token = spec.regime.scale.flops_per_token(272)
    assert record.flops == (record.tokens + PASS_COST * extra) * per_token
    assert record.notes == (f"{extra} tokens beside the budget went through passes for the Hessian",)
    other = run_trial(replace(make_spec(), seed=5), corpus, Ledger(tmp_path))
    assert other.notes == () and other.flops == other.tokens * per_token
