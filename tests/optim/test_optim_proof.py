"""The proof passes for what runs as named and fails for optimizers that only carry the name."""

import json

import pytest
import torch

from tuneopt.optim import SOAP, AdamW, Muon, Witness, create
from tuneopt.optim.adamw import AdamWRule
from tuneopt.optim.muon import MuonRule
from tuneopt.optim.orthogonalize import newton_schulz
from tuneopt.optim.soap import SOAPRule
from tuneopt.optim.testing import TinyModel, assert_equal_models, seed_gradients
from tuneopt.spec import SCALES, InputError
from tuneopt.train.model import Llama


def watch(kind, steps=14, rate=lambda step: 1.0, start=0, scale=lambda step: 0.01, width=16, **settings):
    model = TinyModel(width=width)
    optimizer = kind(model, **settings)
    witness = None
    for step in range(steps):
        if step == start:
            witness = Witness(optimizer)
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * rate(step)
        seed_gradients(model, step, scale(step))
        if witness:
            witness.before_step()
        optimizer.step()
        if witness:
            witness.after_step()
    return witness.proof(), witness, model


def failed(proof):
    return {check.name.split("[")[0] + "." + check.name.split(".")[-1] for check in proof.checks if not check.passed}


@pytest.mark.parametrize("kind", [AdamW, Muon, SOAP])
class TestHonest:
    def test_passes_and_is_json(self, kind):
        proof, witness, _ = watch(kind)
        assert proof.passed and witness.complete
        plain = json.loads(json.dumps(proof.to_dict(), allow_nan=False))
        assert plain["passed"] is True
        assert {"name", "passed", "measured", "expected", "detail"} == set(plain["checks"][0])

    def test_passes_through_a_warmup_that_starts_at_zero(self, kind):
        assert watch(kind, rate=lambda step: step / 1000, steps=20)[0].passed

    def test_passes_when_it_starts_late(self, kind):
        assert watch(kind, start=5, steps=25)[0].passed

    def test_passes_with_and_without_clipping(self, kind):
        sizes = (0.5, 0.001, 2.0, 0.01)
        for limit in (0.0, 1.0):
            assert watch(kind, scale=lambda step: sizes[step % 4], max_grad_norm=limit)[0].passed

    def test_does_not_pass_before_it_has_seen_a_step(self, kind):
        proof = Witness(kind(TinyModel())).proof()
        assert not proof.passed
        assert any(check.detail == "not measured" and check.measured is None for check in proof.checks)

    def test_fails_on_gradients_that_are_no_numbers(self, kind):
        proof, _, _ = watch(kind, scale=lambda step: float("nan"))
        assert not proof.passed
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
        _, witness, model = watch(kind, steps=14)
        seed_gradients(model, 0)
        witness.before_step()
        assert not any(watcher.invariant._pending for watcher in witness._watches)


@pytest.mark.parametrize("name", ["adamw", "muon", "soap"])
def test_passes_on_the_real_model(name):
    model = Llama(SCALES["nano-65k"], 64)
    model.initialize(0)
    optimizer = create(name, model, learning_rate=0.01)
    witness = Witness(optimizer)
    generator = torch.Generator().manual_seed(0)
    for step in range(4):
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * step / 100
        tokens = torch.randint(0, 64, (2, 33), generator=generator)
        optimizer.zero_grad()
        model.loss(tokens[:, :-1], tokens[:, 1:]).backward()
        witness.before_step()
        optimizer.step()
        witness.after_step()
    proof = witness.proof()
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
    (Muon, (PlainMomentum(), AdamWRule()), {"muon.singular_values", "muon.orthogonal_map"}),
    (Muon, (Signs(), AdamWRule()), {"muon.singular_values", "muon.orthogonal_map"}),
    (Muon, (NoNesterov(), AdamWRule()), {"muon.orthogonal_map"}),
    (Muon, (MuonRule(), PlainDescent()), {"adamw.update"}),
    (SOAP, (IdentityBasis(), AdamWRule()), {"soap.eigenbasis", "soap.turned", "soap.refresh"}),
    (SOAP, (IgnoredBasis(), AdamWRule()), {"soap.update"}),
    (SOAP, (FrozenBasis(), AdamWRule()), {"soap.refresh"}),
    (SOAP, (SkewedBasis(), AdamWRule()), {"soap.orthogonal", "soap.eigenbasis"}),
    (AdamW, (CoupledDecay(),), {"adamw.update"}),
    (AdamW, (NoBiasCorrection(),), {"adamw.update"}),
    (AdamW, (Unclipped(),), {"adamw.update"}),
]


@pytest.mark.parametrize(("kind", "rules", "claims"), BROKEN, ids=[type(rules[0]).__name__ for _, rules, _ in BROKEN])
def test_a_broken_optimizer_is_caught_by_the_claim_it_breaks(kind, rules, claims):
    broken = type("Broken", (kind,), {"rules": rules})
    sizes = (0.5, 0.01, 0.2, 0.05)
    proof, _, _ = watch(broken, scale=lambda step: sizes[step % 4])
    assert not proof.passed
    assert claims <= failed(proof)


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
    witness = Witness(optimizer)
    for seed in range(4):
        norm.grad = torch.randn(8, generator=torch.Generator().manual_seed(seed))
        witness.before_step()
        optimizer.step()
        witness.after_step()
    assert failed(witness.proof()) == {"muon.parameters.parameters"}


def test_a_foreign_optimizer_is_refused():
    with pytest.raises(InputError, match="has no invariants"):
        Witness(torch.optim.SGD(TinyModel().parameters()))


def test_watches_few_parameters_of_a_large_group():
    parameters = [(f"layers.{i}.q_proj.weight", torch.nn.Parameter(torch.randn(4, 4))) for i in range(50)]
    witness = Witness(Muon(parameters))
    assert [len(watcher.positions) for watcher in witness._watches] == [8]
    assert max(witness._watches[0].positions) > 40
