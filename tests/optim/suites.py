"""What every elementwise optimizer is tested for beside the conformance suite: inherit, and say which one."""

import json
import types
from typing import ClassVar

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from watching import failed, watch

from tuneopt.optim import UpdateCheck, create
from tuneopt.optim import portions as portions_module
from tuneopt.optim.rule import ElementwiseRule
from tuneopt.optim.testing import TinyModel, assert_equal_models, seed_gradients
from tuneopt.spec import SCALES
from tuneopt.training.model import Decoder

SIZES = (0.5, 0.01, 0.2, 0.05)
"""Gradient scales whose joint norm is on both sides of a clip at 1."""


def broken(kind, *rules):
    """An optimizer that carries a name and runs other rules."""
    return type("Broken", (kind,), {"rules": rules})


def unfused(kind):
    """The same optimizer by way of `direction` and `apply` on whole tensors, as sharded training runs it."""

    class Unfused(kind):
        def __init__(self, params, **settings):
            plain = []
            for rule in kind.rules:
                twin = type(rule)()
                twin.separable = False
                twin.advance = types.MethodType(ElementwiseRule.advance, twin)
                plain.append(twin)
            self.rules = tuple(plain)
            super().__init__(params, **settings)

    return Unfused


class ElementwiseSuite:
    """Set ``kind``, ``name``, ``settings`` and ``words``."""

    settings: ClassVar = {}
    words: ClassVar = {}
    """Hyperparameters of the real model, in search-space words."""

    def watch(self, kind=None, **how):
        return watch(kind or self.kind, **self.settings, **how)

    def test_the_proof_passes_and_is_json(self):
        proof, *_ = self.watch()
        assert proof.passed, failed(proof)
        assert json.loads(json.dumps(proof.to_dict(), allow_nan=False))["passed"] is True

    def test_the_proof_passes_through_a_warmup_that_starts_at_zero(self):
        assert self.watch(rate=lambda step: step / 1000)[0].passed

    def test_a_check_that_starts_late_says_so(self):
        assert self.watch(start=5, steps=14)[0].status == "not measurable"

    @pytest.mark.parametrize("limit", [0.0, 1.0])
    def test_the_proof_passes_with_and_without_clipping(self, limit):
        proof, *_ = self.watch(scale=lambda step: SIZES[step % 4], max_grad_norm=limit)
        assert proof.passed, failed(proof)

    def test_the_proof_fails_on_gradients_that_are_no_numbers(self):
        proof, *_ = self.watch(scale=lambda step: float("nan"))
        assert not proof.passed
        json.dumps(proof.to_dict(), allow_nan=False)

    @pytest.mark.parametrize("factor", [0.9, 1.1])
    def test_a_wrong_learning_rate_is_caught(self, factor):
        class Cheating(self.kind):
            def step(self, closure=None):
                before = [p.detach().clone() for group in self.param_groups for p in group["params"]]
                super().step(closure)
                with torch.no_grad():
                    for old, new in zip(before, (p for g in self.param_groups for p in g["params"]), strict=True):
                        new.copy_(old + factor * (new - old))

        assert not self.watch(Cheating)[0].passed

    def test_a_missing_clip_is_caught(self):
        class Unclipped(self.kind):
            def step(self, closure=None):
                limits = [group["max_grad_norm"] for group in self.param_groups]
                for group in self.param_groups:
                    group["max_grad_norm"] = 0.0
                super().step(closure)
                for group, limit in zip(self.param_groups, limits, strict=True):
                    group["max_grad_norm"] = limit

        assert not self.watch(Unclipped, scale=lambda step: SIZES[step % 4], max_grad_norm=0.5)[0].passed

    def test_the_proof_passes_on_the_real_model(self):
        model = Decoder(SCALES["nano-65k"], 64)
        model.initialize(0)
        optimizer = create(self.name, model, **self.words)
        check = UpdateCheck(optimizer)
        generator = torch.Generator().manual_seed(0)
        for step in range(6):
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

    def test_a_step_asks_no_tensor_for_its_value(self):
        """Fake tensors have no values: whatever would wait for the device raises."""
        with FakeTensorMode():
            model = TinyModel(width=16)
            optimizer = self.kind(model, **self.settings)
            for _ in range(3):
                for parameter in model.parameters():
                    parameter.grad = torch.empty_like(parameter)
                optimizer.step()
            assert optimizer.state_bytes() == optimizer.predicted_state_bytes()

    @pytest.mark.parametrize("limit", [0.0, 1.0])
    def test_direction_and_apply_on_whole_tensors_is_the_same_rule(self, limit, monkeypatch):
        """The fast path runs in portions of a few rows, the other on whole tensors."""
        monkeypatch.setattr(portions_module, "PORTION", 50)
        ours, theirs = TinyModel(width=16), TinyModel(width=16)
        fast = self.kind(ours, **self.settings, max_grad_norm=limit)
        plain = unfused(self.kind)(theirs, **self.settings, max_grad_norm=limit)
        for seed in range(6):
            for model, optimizer in ((ours, fast), (theirs, plain)):
                seed_gradients(model, seed, SIZES[seed % 4])
                optimizer.step()
        for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7, msg=name)

    def test_a_step_leaves_gradients_in_their_direction(self):
        model = TinyModel(width=16)
        optimizer = self.kind(model, **self.settings, max_grad_norm=0.1)
        for seed in range(2):
            seed_gradients(model, seed, 1.0)
            before = [p.grad.clone() for p in model.parameters()]
            optimizer.step()
            for parameter, gradient in zip(model.parameters(), before, strict=True):
                factor = parameter.grad.norm() / gradient.norm()
                torch.testing.assert_close(parameter.grad, factor * gradient)

    def test_watching_changes_nothing(self):
        plain = TinyModel(width=16)
        optimizer = self.kind(plain, **self.settings)
        for seed in range(8):
            seed_gradients(plain, seed)
            optimizer.step()
        assert_equal_models(self.watch(steps=8)[2], plain)
