"""Kron: parity with its twin, schedule and state, conformance, and a proof that catches what only carries the name."""

import copy

import numpy as np
import problem
import pytest
import torch
from parity import LR, WD, as_parameters, error, follow, train
from watching import HonestRuns, failed, failed_rules, watch, with_rules

from tuneopt.optim import Kron, create
from tuneopt.optim.kron import KronDiagonalRule, KronRule
from tuneopt.optim.testing import OptimizerConformance, TinyModel, seed_gradients, through_file
from tuneopt.spec import InputError

RULE = {"preconditioner_lr": 0.2, "preconditioner_update_probability": 0.5, "update_prob_flat_start": 10}


def run(dtype, block=256, normalize=True, **changes):
    parameters = as_parameters(dtype)
    settings = {**RULE, "block_size": block, "normalize_grads": normalize, "max_grad_norm": 0.0, **changes}
    optimizer = Kron(parameters, LR, 0.9, WD, **settings)
    return train(parameters, optimizer), optimizer, parameters


WORDS = {"beta1": 0.9, "preconditioner_lr": 0.2, "preconditioner_init_scale": 1.0, "probe_seed": 0}


def reference(block=256, normalize=True, probability=0.5, flat_start=10, scale=1.0):
    """Parameters, the states of all after the last step, and the steps with a fit."""
    last, fits = {}, []

    def trace(step, states):
        if states["norm.weight"]["fits"] > len(fits):
            fits.append(step)
        last.update(states)

    words = {**WORDS, "preconditioner_init_scale": scale, "block_size": block, "normalize_grads": normalize}
    words |= {"preconditioner_update_probability": probability, "update_prob_flat_start": flat_start}
    return follow("kron", trace=trace, **words), last, fits


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("block", [7, 16, 256])
@pytest.mark.parametrize("normalize", [False, True])
def test_kron_equals_its_twin(dtype, tolerance, block, normalize):
    """Every parameter class, in blocks that divide the sides and that do not, with the same random numbers."""
    assert error(run(dtype, block, normalize)[0], reference(block, normalize)[0]) <= tolerance


def test_kron_equals_its_twin_from_another_scale():
    ours, _, _ = run(torch.float64, preconditioner_init_scale=4.0)
    assert error(ours, reference(scale=4.0)[0]) <= 1e-10


def test_factors_equal_those_of_the_twin():
    """Up to the exchange of sides in matrices that are stored with their short side first."""
    _, optimizer, parameters = run(torch.float64)
    _, states, _ = reference()
    for name in filter(problem.hidden, parameters):
        state = optimizer.state[parameters[name]]
        ((left, right),) = states[name]["factors"]
        tall = parameters[name].shape[0] > parameters[name].shape[1]
        pair = (right, left) if tall else (left, right)
        for ours, theirs in zip((state["left_0"], state["right_0"]), pair, strict=True):
            assert np.allclose(ours[0, 0], theirs, rtol=1e-9, atol=1e-12)


def test_fits_come_on_the_steps_of_the_twin():
    parameters = as_parameters()
    optimizer = Kron(parameters, LR, preconditioner_update_probability=0.2, update_prob_flat_start=0)
    changed, last = [], {}

    def after(step):
        now = optimizer.state[parameters["layers.0.mlp.up_proj.weight"]]["left_0"].clone()
        if step == 1 or not torch.equal(now, last["left"]):
            changed.append(step)
        last["left"] = now

    train(parameters, optimizer, after)
    fits = reference(probability=0.2, flat_start=0)[2]
    assert sorted({1, *fits}) == changed
    assert 5 < len(fits) < problem.STEPS, "the schedule must leave out some steps here"


def test_balancing_every_hundredth_fit_keeps_the_twin():
    """A problem long enough for a hundred fits: one matrix and one embedding, against the twin."""
    rng = np.random.default_rng(3)
    shapes = {"q_proj.weight": (6, 4), "embed_tokens.weight": (5, 4)}
    start = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    steps = [{name: rng.standard_normal(shape) for name, shape in shapes.items()} for _ in range(104)]
    parameters = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in start.items()}
    optimizer = Kron(parameters, LR, 0.9, 0.0, preconditioner_lr=0.1)
    for gradients in steps:
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(gradients[name])
        optimizer.step()

    words = {**WORDS, "preconditioner_lr": 0.1, "preconditioner_update_probability": 0.05}
    words |= {"update_prob_flat_start": 500, "block_size": 256, "normalize_grads": True, "weight_decay": 0.0}
    fits = []
    theirs = follow(
        "kron",
        start=start,
        stream=steps,
        rates=[LR] * 104,
        decays=lambda name: False,
        trace=lambda step, states: fits.append(states["q_proj.weight"]["fits"]),
        **words,
    )
    assert fits[-1] == 104
    for name, parameter in parameters.items():
        assert np.allclose(parameter.detach(), theirs[name], rtol=1e-7)
    state = optimizer.state[parameters["embed_tokens.weight"]]
    assert 0.3 < float(state["left"].max() / state["right"].max()) < 3


def test_directions_never_exceed_their_rms():
    for scale in (1e-4, 1.0, 1e4):
        model, start = TinyModel(), TinyModel()
        optimizer = Kron(model, lr=1.0, weight_decay=0.0, normalize_grads=False, max_grad_norm=0.0)
        seed_gradients(model, 0, scale)
        optimizer.step()
        for after, before in zip(model.parameters(), start.parameters(), strict=True):
            assert float((after - before).detach().square().mean().sqrt()) <= 1.1001


def test_normalised_gradients_forget_their_scale_and_are_not_clipped():
    results = []
    for scale in (1e-3, 1e3):
        model = TinyModel()
        optimizer = Kron(model)
        assert {group["max_grad_norm"] for group in optimizer.param_groups} == {0.0}
        for seed in range(4):
            seed_gradients(model, seed, scale)
            optimizer.step()
        results.append(model)
    for mine, other in zip(*(model.parameters() for model in results), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-7)
    assert {group["max_grad_norm"] for group in Kron(TinyModel(), normalize_grads=False).param_groups} == {1.0}


def test_probes_belong_to_parameters_not_to_their_neighbours():
    """A matrix trained alone draws the same numbers as one that is stacked with others."""
    together, alone = TinyModel(), TinyModel()
    both = Kron(together, max_grad_norm=0.0)
    name = "k_proj.weight"
    single = Kron([(name, alone.get_parameter(name))], max_grad_norm=0.0)
    for seed in range(5):
        for model in (together, alone):
            seed_gradients(model, seed)
        both.step()
        single.step()
    torch.testing.assert_close(together.get_parameter(name), alone.get_parameter(name), rtol=1e-5, atol=1e-8)


def test_another_probe_seed_is_another_path():
    paths = []
    for seed in (0, 0, 1):
        model = TinyModel()
        optimizer = Kron(model, probe_seed=seed)
        seed_gradients(model, 0)
        optimizer.step()
        paths.append(model.get_parameter("q_proj.weight").detach())
    assert torch.equal(paths[0], paths[1]) and not torch.equal(paths[0], paths[2])


def test_resuming_needs_no_generator():
    """Random numbers drawn elsewhere, or another global seed, change nothing; neither does a file in between."""
    model, other = TinyModel(), TinyModel()
    first = Kron(model, **RULE)
    for seed in range(12):
        seed_gradients(model, seed)
        first.step()
        if seed == 5:
            other = copy.deepcopy(model)
            second = Kron(other, **RULE)
            second.load_state_dict(through_file(first.state_dict()))
    torch.manual_seed(999)
    for seed in range(6, 12):
        seed_gradients(other, seed)
        torch.randn(3)
        second.step()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_state_bytes_are_those_of_momentum_and_factors():
    parameters = {"a_proj.weight": torch.nn.Parameter(torch.randn(20, 12))}
    optimizer = Kron(parameters, block_size=8)
    # Short side first: 12 x 20 in blocks of 8 x 8, 4 x 8, 8 x 4, 4 x 4.
    blocks = [(8, 8)] * 2 + [(8, 4)] + [(4, 8)] * 2 + [(4, 4)]
    assert optimizer.predicted_state_bytes() == 4 * (240 + sum(r * r + c * c for r, c in blocks))


def test_fused_matrices_have_factors_and_probes_of_their_own():
    from tuneopt.optim.routing import DEFAULT_RULES, RouteRule

    weight = torch.nn.Parameter(torch.randn(12, 4))
    fused = RouteRule(r"qkv", "main", True, "fused q, k, v", pieces=3)
    optimizer = Kron([("qkv.weight", weight)], rules=(fused, *DEFAULT_RULES), weight_decay=0.0)
    weight.grad = torch.randn(4, 4).repeat(3, 1)
    before = weight.detach().clone()
    optimizer.step()
    assert optimizer.state[weight]["left_0"].shape == (3, 1, 4, 4)
    changes = (weight.detach() - before).chunk(3)
    assert not torch.allclose(changes[0], changes[1]), "equal gradients, but other random numbers"


def test_words_of_the_search_space():
    optimizer = create(
        "kron",
        TinyModel(),
        learning_rate=0.5,
        beta1=0.7,
        block_size=64.0,
        update_prob_flat_start=100.0,
        partition_grads_into_blocks=True,
        preconditioner_init_scale=2,
        normalize_grads=False,
    )
    assert {"lr": 0.5, "beta1": 0.7, "block_size": 64, "normalize_grads": False}.items() <= optimizer.defaults.items()
    assert type(optimizer.param_groups[0]["update_prob_flat_start"]) is int


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"beta1": 1.0}, "beta1"),
        ({"preconditioner_update_probability": 0.0}, "preconditioner_update_probability must be a number above 0"),
        ({"preconditioner_init_scale": 0.0}, "preconditioner_init_scale must be a number above 0"),
        ({"preconditioner_lr": 0.0}, "preconditioner_lr must be a number above 0"),
        ({"update_prob_flat_start": 2.5}, "update_prob_flat_start must be a whole number"),
        ({"block_size": 0}, "block_size must be a whole number"),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(InputError, match=message):
        Kron(TinyModel(), **bad)


class TestConformance(OptimizerConformance):
    def make(self, params, **overrides):
        return Kron(params, **overrides)


class TestConformanceInUnevenBlocks(OptimizerConformance):
    def make(self, params, **overrides):
        return Kron(params, block_size=5, normalize_grads=False, **RULE, **overrides)


class TestProof(HonestRuns):
    kind = Kron


def test_passes_in_uneven_blocks_with_rare_fits():
    settings = {"preconditioner_update_probability": 0.1, "update_prob_flat_start": 0, "block_size": 7}
    proof, check, _ = watch(Kron, steps=30, **settings)
    assert proof.passed and check.complete, failed(proof)


def test_passes_with_small_steps_of_the_factors_and_fused_matrices():
    from tuneopt.optim.routing import DEFAULT_RULES, RouteRule

    fused = RouteRule(r"up_proj", "main", True, "fused", pieces=3)
    for changes in ({"preconditioner_lr": 0.002}, {"rules": (fused, *DEFAULT_RULES)}):
        proof, _, _ = watch(Kron, **changes)
        assert proof.passed, failed(proof)


def alter(state, change):
    for key, value in state.items():
        if key.startswith(("left", "right")):
            change(value if isinstance(value, torch.Tensor) else value[0])


class NeverFitted(KronRule):
    """Factors that stay the identity: normalised momentum descent."""

    def fit(self, settings, step):
        return 0


class Ignored(KronRule):
    """Good factors, and a sign step."""

    def direction(self, gradients, state, settings, step):
        return super().direction(gradients, state, settings, step).sign()


class Full(KronRule):
    """Factors that lose their triangular form."""

    def direction(self, gradients, state, settings, step):
        update = super().direction(gradients, state, settings, step)
        alter(state, lambda factor: factor[..., -1, 0].add_(0.1))
        return update


class Shrinking(KronRule):
    """Factors that are not fitted but decay."""

    def direction(self, gradients, state, settings, step):
        alter(state, lambda factor: factor.mul_(0.95))
        return super().direction(gradients, state, settings, step)


class Unlimited(KronDiagonalRule):
    """Directions four times as long as their rms allows."""

    def direction(self, gradients, state, settings, step):
        return list(torch._foreach_mul(super().direction(gradients, state, settings, step), 4.0))


class OneSided(KronDiagonalRule):
    """A fallback whose factors never move."""

    def fit(self, settings, step):
        return 0


BROKEN = [
    (NeverFitted(), KronDiagonalRule(), "kron"),
    (Ignored(), KronDiagonalRule(), "kron"),
    (Full(), KronDiagonalRule(), "kron"),
    (Shrinking(), KronDiagonalRule(), "kron"),
    (KronRule(), Unlimited(), "kron_diagonal"),
    (KronRule(), OneSided(), "kron_diagonal"),
]


@pytest.mark.parametrize(("main", "rest", "caught"), BROKEN, ids=lambda part: type(part).__name__)
def test_a_broken_kron_is_caught(main, rest, caught):
    proof, _, _ = watch(with_rules(Kron, main, rest))
    assert failed_rules(proof) == {caught}
