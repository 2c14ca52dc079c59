"""NAdamW: its twin, torch's own NAdam with a constant momentum, its proof, and what only carries its name."""

import problem
import pytest
import torch
from parity import LR, WD, as_parameters, error, follow, train
from suites import SIZES, ElementwiseSuite, broken
from watching import failed_rules, watch

from tuneopt.optim import NAdamW, create
from tuneopt.optim.adamw import AdamWRule
from tuneopt.optim.nadamw import NAdamWRule, look_ahead_weights
from tuneopt.optim.testing import OptimizerConformance, TinyModel
from tuneopt.spec import InputError

RULE = {"betas": (0.9, 0.98), "eps": 1e-10, "weight_decay": WD}


class TestConformance(OptimizerConformance):
    def make(self, params, **overrides):
        return NAdamW(params, **overrides)


class TestSuite(ElementwiseSuite):
    kind, name = NAdamW, "nadamw"


def reference(limit=1.0, same_step=False):
    words = {"beta1": 0.9, "beta2": 0.98, "epsilon": 1e-10, "bias_correction": "same" if same_step else "next"}
    return follow("nadamw", max_grad_norm=limit, **words)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("limit", [0.0, 1.0])
@pytest.mark.parametrize("convention", ["next", "same"])
def test_nadamw_equals_its_twin(dtype, tolerance, limit, convention):
    parameters = as_parameters(dtype)
    ours = train(parameters, NAdamW(parameters, LR, **RULE, max_grad_norm=limit, bias_correction=convention))
    # The divisor of the fused kernel is fp32, which shows in float64 where clipping is on.
    assert error(ours, reference(limit, convention == "same")) <= (tolerance if limit == 0 else max(tolerance, 1e-7))


def test_the_conventions_differ():
    assert error(reference(), reference(same_step=True)) > 0.01


def test_torch_nadam_with_constant_momentum_is_the_same_rule():
    ours, theirs = as_parameters(), as_parameters()
    decayed = [p for name, p in theirs.items() if problem.decays(name)]
    rest = [p for name, p in theirs.items() if not problem.decays(name)]
    groups = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
    # A huge momentum_decay makes torch's schedule constant from its first step on.
    peer = torch.optim.NAdam(groups, lr=LR, **RULE, momentum_decay=1e9, decoupled_weight_decay=True)
    for group in peer.param_groups:
        group["initial_lr"] = LR
    mine = train(ours, NAdamW(ours, LR, **RULE, max_grad_norm=0.0))
    assert error(mine, train(theirs, peer)) <= 1e-5


def test_the_weights_of_the_look_ahead():
    assert look_ahead_weights(0.0, 1, "next") == (0.0, 1.0)
    average, fresh = look_ahead_weights(0.9, 1, "next")
    assert fresh == pytest.approx(1.0) and average == pytest.approx(0.9 / (1 - 0.81))
    assert look_ahead_weights(0.9, 10_000, "next") == pytest.approx((0.9, 0.1))


def test_the_fixed_hyperparameter_and_the_convention_are_checked():
    create("nadamw", TinyModel(), nesterov=True)
    with pytest.raises(InputError, match="nesterov is always True for nadamw"):
        create("nadamw", TinyModel(), nesterov=False)
    with pytest.raises(InputError, match="did you mean 'same'"):
        NAdamW(TinyModel(), bias_correction="sane")


class NoBiasCorrection(NAdamWRule):
    def advance(self, parameters, gradients, state, settings, step, divisor):
        super().advance(parameters, gradients, state, settings, step + 1000, divisor)


class Coupled(NAdamWRule):
    """L2 regularisation in the gradient instead of decoupled decay."""

    def advance(self, parameters, gradients, state, settings, step, divisor):
        gradients = [g + settings["weight_decay"] * p for g, p in zip(gradients, parameters, strict=True)]
        super().advance(parameters, gradients, state, {**settings, "weight_decay": 0.0}, step, divisor)


class OtherConvention(NAdamWRule):
    """Runs one bias correction under the name of the other."""

    def advance(self, parameters, gradients, state, settings, step, divisor):
        super().advance(parameters, gradients, state, {**settings, "bias_correction": "same"}, step, divisor)


class PlainAdamW(AdamWRule):
    """AdamW under NAdamW's name."""

    name = "nadamw"


@pytest.mark.parametrize("rule", [PlainAdamW, NoBiasCorrection, Coupled, OtherConvention])
def test_what_only_carries_the_name_is_caught(rule):
    proof, *_ = watch(broken(NAdamW, rule()), scale=lambda step: SIZES[step % 4])
    assert failed_rules(proof) == {"nadamw"}


def test_the_proof_passes_without_a_first_moment():
    assert watch(NAdamW, betas=(0.0, 0.95))[0].passed
