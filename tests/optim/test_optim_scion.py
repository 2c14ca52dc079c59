"""Scion: parity with its twin, conformance, settings, and a proof that catches what only carries the name."""

import problem
import pytest
import torch
from parity import LR, WD, as_parameters, error, follow, only, train
from watching import HonestRuns, failed_rules, watch, with_rules

from tuneopt.optim import Muon, Scion, create
from tuneopt.optim.orthogonalize import newton_schulz
from tuneopt.optim.scion import ScionRule, SignumRule
from tuneopt.optim.testing import OptimizerConformance, TinyModel, seed_gradients
from tuneopt.spec import InputError

SETTINGS = {"beta1": 0.8, "weight_decay": WD, "momentum": 0.9, "scion_epsilon": 1e-10, "scion_to_signum_lr": 0.3}


def reference(limit=0.0):
    words = {"beta1": 0.8, "momentum": 0.9, "scion_epsilon": 1e-10, "scion_to_signum_lr": 0.3, "max_grad_norm": limit}
    return follow("scion", ns_steps=5, ns_coefficients="quintic", **words)


def rest_of(tree):
    return only(lambda name: not problem.hidden(name), tree)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("limit", [0.0, 0.5])
def test_scion_equals_its_reference(dtype, tolerance, limit):
    """Hidden matrices by Newton-Schulz, the rest by signs, clipped among themselves before their average."""
    parameters = as_parameters(dtype)
    ours = train(parameters, Scion(parameters, LR, **SETTINGS, max_grad_norm=limit))
    assert error(ours, only(problem.hidden, reference(limit))) <= tolerance
    assert error(ours, rest_of(reference(limit))) <= 1e-6


def test_the_clip_changes_the_average_of_the_signs():
    assert error(rest_of(reference(0.5)), rest_of(reference(0.0))) > 0.03


def test_scion_in_bf16_is_near():
    parameters = as_parameters()
    ours = train(parameters, Scion(parameters, LR, **SETTINGS, ns_precision="bf16"))
    assert error(ours, only(problem.hidden, reference())) <= 0.05


def test_without_look_ahead_muon_would_be_scion():
    """At momentum 0 both orthogonalize the plain gradient, at any momentum they differ by the look-ahead."""
    for momentum, alike in ((0.0, True), (0.9, False)):
        ours, theirs = as_parameters(), as_parameters()
        mine = train(ours, Scion(ours, LR, weight_decay=WD, momentum=momentum, scion_epsilon=1e-10))
        other = train(theirs, Muon(theirs, LR, weight_decay=WD, momentum=momentum, muon_epsilon=1e-10))
        assert bool(error(mine, only(problem.hidden, other)) <= 1e-6) is alike


def test_every_element_of_the_rest_moves_by_its_share_of_the_rate():
    model, start = TinyModel(), TinyModel()
    optimizer = Scion(model, lr=0.01, scion_to_signum_lr=0.5, weight_decay=0.0)
    seed_gradients(model, 0)
    optimizer.step()
    for name in ("embed_tokens.weight", "norm.weight", "lm_head.weight"):
        change = (model.get_parameter(name) - start.get_parameter(name)).abs()
        torch.testing.assert_close(change, torch.full_like(change, 0.005), rtol=1e-4, atol=1e-8)


def test_groups_have_their_own_rate_and_clip():
    groups = {group["rule"]: group for group in Scion(TinyModel(), lr=0.1, scion_to_signum_lr=0.3).param_groups}
    assert (groups["scion"]["lr"], groups["scion"]["max_grad_norm"]) == (0.1, 0.0)
    assert groups["signum"]["lr"] == pytest.approx(0.03)
    assert groups["signum"]["max_grad_norm"] == 1.0


def test_words_of_the_search_space():
    optimizer = create("scion", TinyModel(), learning_rate=0.5, beta1=0.7, scion_epsilon=1e-9, max_grad_norm=0)
    assert {"lr": 0.5, "beta1": 0.7, "scion_epsilon": 1e-9}.items() <= optimizer.defaults.items()
    with pytest.raises(InputError, match="scion has no hyperparameter 'beta2'"):
        create("scion", TinyModel(), beta2=0.9)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"beta1": 1.0}, "beta1 must be a number of at least 0 and below 1"),
        ({"momentum": -0.1}, "momentum"),
        ({"scion_epsilon": 0.0}, "scion_epsilon must be a number above 0"),
        ({"ns_precision": "fp8"}, "unknown ns_precision"),
    ],
)
def test_bad_settings_are_named(bad, message):
    with pytest.raises(InputError, match=message):
        Scion(TinyModel(), **bad)


class TestConformance(OptimizerConformance):
    def make(self, params, **overrides):
        return Scion(params, **overrides)


class TestConformanceInBf16(OptimizerConformance):
    def make(self, params, **overrides):
        return Scion(params, ns_precision="bf16", **overrides)


class TestProof(HonestRuns):
    kind = Scion


class Unorthogonalized(ScionRule):
    """Momentum descent under Scion's name."""

    def direction(self, gradients, state, settings, step):
        buffer = state["momentum_buffer"].lerp_(gradients, 1 - settings["momentum"])
        return state["scale"] * buffer / torch.linalg.vector_norm(buffer, dim=(1, 2), keepdim=True)


class LookAhead(ScionRule):
    """Muon under Scion's name."""

    def direction(self, gradients, state, settings, step):
        buffer = state["momentum_buffer"].mul_(settings["momentum"]).add_(gradients)
        return newton_schulz(gradients + settings["momentum"] * buffer, settings["scion_epsilon"]) * state["scale"]


class Magnitudes(SignumRule):
    """Entries weighed by their size, to the same mean."""

    def direction(self, gradients, state, settings, step):
        super().direction(gradients, state, settings, step)
        return [buffer / buffer.abs().mean() for buffer in state["momentum_buffer"]]


class GradientSigns(SignumRule):
    """Signs of the gradient instead of its average."""

    def direction(self, gradients, state, settings, step):
        return list(torch._foreach_sign(gradients))


BROKEN = [
    (Unorthogonalized(), SignumRule(), "scion"),
    (LookAhead(), SignumRule(), "scion"),
    (ScionRule(), Magnitudes(), "signum"),
    (ScionRule(), GradientSigns(), "signum"),
]


@pytest.mark.parametrize(("main", "rest", "caught"), BROKEN, ids=lambda part: type(part).__name__)
def test_a_broken_scion_is_caught(main, rest, caught):
    sizes = (0.5, 0.01, 0.2, 0.05)
    proof, _, _ = watch(with_rules(Scion, main, rest), scale=lambda step: sizes[step % 4])
    assert failed_rules(proof) == {caught}
