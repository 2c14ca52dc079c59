"""The proof passes for what runs as named and fails for optimizers that only carry the name."""

import json

import pytest
import torch
from watching import failed, failed_rules, watch, with_rules

from tuneopt.optim import SOAP, AdamW, Muon, UpdateCheck, create
from tuneopt.optim.adamw import AdamWRule
from tuneopt.optim.muon import MuonRule
from tuneopt.optim.orthogonalize import newton_schulz
from tuneopt.optim.soap import SOAPRule
from tuneopt.optim.testing import TinyModel, assert_equal_models, seed_gradients
from tuneopt.spec import SCALES, InputError
from tuneopt.training.model import Decoder


@pytest.mark.parametrize("kind", [AdamW, Muon, SOAP])
class TestHonest:
    def test_passes_and_is_json(self, kind):
        proof, check, _ = watch(kind)
        assert proof.passed and check.complete
        assert (proof.status, proof.reason) == ("passed", "")
        plain = json.loads(json.dumps(proof.to_dict(), allow_nan=False))
        assert plain["passed"] is True
        assert {"name", "passed", "measured", "expected", "detail"} == set(plain["checks"][0])

    def test_passes_through_a_warmup_that_starts_at_zero(self, kind):
        assert watch(kind, rate=lambda step: step / 1000, steps=20)[0].passed

    def test_says_so_when_it_starts_late(self, kind):
        proof = watch(kind, start=5, steps=25)[0]
        assert not proof.passed and "build it before" in proof.reason

    def test_passes_with_and_without_clipping(self, kind):
        sizes = (0.5, 0.001, 2.0, 0.01)
        for limit in (0.0, 1.0):
            assert watch(kind, scale=lambda step: sizes[step % 4], max_grad_norm=limit)[0].passed

    def test_does_not_pass_before_it_has_seen_a_step(self, kind):
        proof = UpdateCheck(kind(TinyModel())).proof()
        assert not proof.passed
        assert any(check.detail == "not measured" and check.measured is None for check in proof.checks)

    def test_fails_on_gradients_that_are_no_numbers(self, kind):
        proof, _, _ = watch(kind, scale=lambda step: float("nan"))
        assert not proof.passed and proof.reason == "gradients were not finite"
        json.dumps(proof.to_dict(), allow_nan=False)

    def test_changes_nothing(self, kind):
        watched = watch(kind)[2]
        plain = TinyModel(width=16)
        optimizer = kind(plain)
        for step in range(14):
            seed_gradients(plain, step)
            optimizer.step()
        assert_equal_models(watched, plain)

    def test_stops_looking(self, kind):
        """Once enough has been seen no snapshot is taken any more."""
        _, check, model = watch(kind, steps=14)
        seed_gradients(model, 0)
        check.before_step()
        assert not any(follower.pending for follower in check._followers)


@pytest.mark.parametrize("name", ["adamw", "muon", "soap"])
def test_passes_on_the_real_model(name):
    model = Decoder(SCALES["nano-65k"], 64)
    model.initialize(0)
    optimizer = create(name, model, learning_rate=0.01)
    check = UpdateCheck(optimizer)
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * step / 100
        tokens = torch.randint(0, 64, (2, 33), generator=generator)
        optimizer.zero_grad()
        model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
        check.before_step()
        optimizer.step()
        check.after_step()
    proof = check.proof()
    assert proof.passed, failed(proof)


class PlainMomentum(MuonRule):
    """Muon without Newton-Schulz: the momentum, divided by its norm."""

    def direction(self, gradients, state, settings, step):
        buffer = state["momentum_buffer"].mul_(settings["momentum"]).add_(gradients)
        target = gradients + settings["momentum"] * buffer
        return state["scale"] * target / torch.linalg.vector_norm(target, dim=(1, 2), keepdim=True)


class Signs(MuonRule):
    """An AdamW-like update under Muon's name."""

    def direction(self, gradients, state, settings, step):
        state["momentum_buffer"].mul_(settings["momentum"]).add_(gradients)
        return state["momentum_buffer"].sign() * 0.2


class NoNesterov(MuonRule):
    """Muon that orthogonalizes the momentum without the look-ahead."""

    def direction(self, gradients, state, settings, step):
        buffer = state["momentum_buffer"].mul_(settings["momentum"]).add_(gradients)
        return newton_schulz(buffer, settings["muon_epsilon"]) * state["scale"]


class IdentityBasis(SOAPRule):
    """SOAP that never leaves the coordinate axes, which is Adam."""

    def direction(self, gradients, state, settings, step):
        update = super().direction(gradients, state, settings, step)
        for key, value in state.items():
            if "basis" in key:
                value.copy_(torch.eye(value.shape[-1]))
        return update


class IgnoredBasis(SOAPRule):
    """SOAP that keeps good bases and moves by signs."""

    def direction(self, gradients, state, settings, step):
        signs = gradients.sign()
        super().direction(gradients, state, settings, step)
        return signs


class FrozenBasis(SOAPRule):
    """SOAP whose bases are never refreshed."""

    def direction(self, gradients, state, settings, step):
        return super().direction(gradients, state, {**settings, "precondition_frequency": 10**9}, step)


class SkewedBasis(SOAPRule):
    """SOAP whose bases stop being orthogonal."""

    def direction(self, gradients, state, settings, step):
        update = super().direction(gradients, state, settings, step)
        for key, value in state.items():
            if "basis" in key and step == 1:
                value[..., 0] += 0.1 * value[..., 1]
        return update


class CoupledDecay(AdamWRule):
    """L2 regularisation in the gradient: Adam, not AdamW."""

    def advance(self, parameters, gradients, state, settings, step, divisor):
        gradients = [g + settings["weight_decay"] * p for g, p in zip(gradients, parameters, strict=True)]
        super().advance(parameters, gradients, state, {**settings, "weight_decay": 0.0}, step, divisor)


class NoBiasCorrection(AdamWRule):
    def advance(self, parameters, gradients, state, settings, step, divisor):
        super().advance(parameters, gradients, state, settings, step + 1000, divisor)


class Unclipped(AdamWRule):
    def advance(self, parameters, gradients, state, settings, step, divisor):
        super().advance(parameters, gradients, state, settings, step, None)


class PlainDescent(AdamWRule):
    def advance(self, parameters, gradients, state, settings, step, divisor):
        torch._foreach_add_(parameters, gradients, alpha=-settings["lr"])


BROKEN = [
    (Muon, (PlainMomentum(), AdamWRule()), "muon"),
    (Muon, (Signs(), AdamWRule()), "muon"),
    (Muon, (NoNesterov(), AdamWRule()), "muon"),
    (Muon, (MuonRule(), PlainDescent()), "adamw"),
    (SOAP, (IdentityBasis(), AdamWRule()), "soap"),
    (SOAP, (IgnoredBasis(), AdamWRule()), "soap"),
    (SOAP, (FrozenBasis(), AdamWRule()), "soap"),
    (SOAP, (SkewedBasis(), AdamWRule()), "soap"),
    (AdamW, (CoupledDecay(),), "adamw"),
    (AdamW, (NoBiasCorrection(),), "adamw"),
    (AdamW, (Unclipped(),), "adamw"),
]


@pytest.mark.parametrize(("kind", "rules", "caught"), BROKEN, ids=[type(rules[0]).__name__ for _, rules, _ in BROKEN])
def test_a_broken_optimizer_is_caught_in_the_rule_that_is_wrong(kind, rules, caught):
    sizes = (0.5, 0.01, 0.2, 0.05)
    proof, _, _ = watch(with_rules(kind, *rules), scale=lambda step: sizes[step % 4])
    assert proof.status == "failed" and failed_rules(proof) == {caught}


class Dropping(AdamW):
    """Forgets its gradients before it uses them."""

    def step(self, closure=None):
        self.zero_grad()
        super().step(closure)


class Zeroing(AdamW):
    """Zeroes them instead."""

    def step(self, closure=None):
        self.zero_grad(set_to_none=False)
        super().step(closure)


class DroppingOnce(AdamW):
    """Drops those of the first step alone."""

    first = True

    def step(self, closure=None):
        if self.first:
            self.zero_grad()
        self.first = False
        super().step(closure)


@pytest.mark.parametrize("kind", [Dropping, Zeroing, DroppingOnce])
def test_dropped_gradients_are_named_and_not_called_a_wrong_rule(kind):
    proof, _, _ = watch(kind)
    assert not proof.passed and proof.status == "not measurable"
    assert "the optimizer dropped gradients: in step 1 no watched parameter moved" in proof.reason


def test_gradients_that_are_dropped_after_use_are_no_obstacle():
    class Tidy(AdamW):
        def step(self, closure=None):
            super().step(closure)
            self.zero_grad()

    assert watch(Tidy)[0].passed


def test_a_step_without_gradients_is_not_measurable():
    model = TinyModel()
    optimizer = AdamW(model)
    check = UpdateCheck(optimizer)
    check.before_step()
    optimizer.step()
    check.after_step()
    assert check.proof().reason == "no watched parameter had a gradient before the step"


@pytest.mark.parametrize("kind", [AdamW, Muon, SOAP])
@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_wrong_learning_rate_is_caught(kind, factor):
    class Cheating(kind):
        def step(self, closure=None):
            before = [p.detach().clone() for group in self.param_groups for p in group["params"]]
            super().step(closure)
            with torch.no_grad():
                for old, new in zip(before, (p for g in self.param_groups for p in g["params"]), strict=True):
                    new.copy_(old + factor * (new - old))

    assert not watch(Cheating)[0].passed


def test_a_matrix_optimizer_without_matrices_is_not_shown():
    norm = torch.nn.Parameter(torch.ones(8))
    optimizer = Muon([("norm.weight", norm)])
    check = UpdateCheck(optimizer)
    for seed in range(4):
        norm.grad = torch.randn(8, generator=torch.Generator().manual_seed(seed))
        check.before_step()
        optimizer.step()
        check.after_step()
    assert failed(check.proof()) == {"muon.parameters"}


def test_a_foreign_optimizer_is_refused():
    with pytest.raises(InputError, match=r"SGD is no tuneopt\.optim\.Optimizer"):
        UpdateCheck(torch.optim.SGD(TinyModel().parameters()))


def test_watches_the_first_and_the_last_of_every_kind():
    model = Decoder(SCALES["nano-65k"], 64)
    watched = {(f.watch.kind, f.watch.name) for f in UpdateCheck(Muon(model))._followers}
    assert watched == {
        ("embedding", "embed_tokens.weight"),
        ("square", "layers.0.self_attn.q_proj.weight"),
        ("square", "layers.3.self_attn.o_proj.weight"),
        ("tall", "layers.0.mlp.gate_proj.weight"),
        ("tall", "layers.3.mlp.up_proj.weight"),
        ("wide", "layers.0.mlp.down_proj.weight"),
        ("wide", "layers.3.mlp.down_proj.weight"),
        ("vector", "layers.0.input_layernorm.weight"),
        ("vector", "norm.weight"),
        ("head", "lm_head.weight"),
    }


def test_large_tensors_are_followed_in_part():
    names = {"embed_tokens.weight": (5000, 100), "layers.0.q_proj.weight": (4, 4)}
    parameters = [(name, torch.nn.Parameter(torch.randn(shape))) for name, shape in names.items()]
    optimizer = AdamW(parameters)
    check = UpdateCheck(optimizer)
    for _, parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    check.before_step()
    assert [f.state["m"].numel() for f in check._followers] == [71_429, 16]


def test_what_a_file_of_a_user_once_imported_says_how_to_mend_it():
    with pytest.raises(InputError, match="give the class its formula as `reference`"):
        from tuneopt.optim import Invariant  # noqa: F401
