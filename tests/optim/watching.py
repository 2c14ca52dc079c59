"""Runs of a small model under an update check, with a Hessian for optimizers that ask for one."""

import pytest
import torch

from tuneopt.optim import UpdateCheck
from tuneopt.optim.info import BUILT_IN
from tuneopt.optim.testing import TinyModel, seed_gradients


def estimate(model, step, scale=0.05):
    """Numbers of both signs in place of an estimate of the Hessian's diagonal."""
    generator = torch.Generator().manual_seed(10_000 + step)
    return {p: scale * torch.randn(p.shape, generator=generator) for p in model.parameters()}


def claimed(kind):
    """The built-in optimizer that a class is, or is derived from to break it."""
    homes = {entry.implementation: entry.reference or entry.name for entry in BUILT_IN}
    return next((homes[key] for c in kind.__mro__ if (key := f"{c.__module__}:{c.__name__}") in homes), "")


def watch(kind, steps=14, rate=lambda step: 1.0, start=0, scale=lambda step: 0.01, feed=True, width=16, **settings):
    """The proof of some steps on random gradients, the check and the model."""
    model = TinyModel(width=width)
    optimizer = kind(model, **settings)
    check = None
    for step in range(steps):
        if step == start:
            check = UpdateCheck(optimizer, claimed(kind))
        for group in optimizer.param_groups:
            group["lr"] = group.setdefault("initial_lr", group["lr"]) * rate(step)
        seed_gradients(model, step, scale(step))
        if check:
            check.before_step()
        optimizer.step()
        if check:
            check.after_step()
        if feed and optimizer.hessian_interval and (step + 1) % optimizer.hessian_interval == 0:
            optimizer.update_hessian(estimate(model, step))
            check.see_hessian(estimate(model, step))
    return check.proof(), check, model


def failed(proof):
    """The claims that failed, as rule.kind."""
    return {check.name for check in proof.checks if not check.passed}


def failed_rules(proof):
    """The rules of which a claim failed."""
    return {name.partition(".")[0] for name in failed(proof)}


def with_rules(kind, *rules):
    """The optimizer under its own name with other rules inside."""
    return type("Broken", (kind,), {"rules": rules})


class HonestRuns:
    """What every optimizer's proof must do; a subclass names the optimizer as ``kind``."""

    kind = None

    def test_passes_and_stops_looking(self):
        proof, check, _ = watch(self.kind)
        assert proof.passed, failed(proof)
        assert check.complete

    def test_passes_through_a_warmup_that_starts_at_zero(self):
        proof, _, _ = watch(self.kind, rate=lambda step: step / 1000, steps=25)
        assert proof.passed, failed(proof)

    def test_says_so_when_it_starts_late(self):
        proof, check, _ = watch(self.kind, start=5, steps=25)
        assert (proof.passed, proof.status, check.complete) == (False, "not measurable", True)
        assert "after the optimizer's first steps" in proof.reason

    @pytest.mark.parametrize("limit", [0.0, 1.0])
    def test_passes_with_and_without_clipping(self, limit):
        sizes = (0.5, 0.001, 2.0, 0.01)
        proof, _, _ = watch(self.kind, scale=lambda step: sizes[step % 4], max_grad_norm=limit)
        assert proof.passed, failed(proof)

    def test_does_not_pass_before_it_has_seen_a_step(self):
        proof = UpdateCheck(self.kind(TinyModel())).proof()
        assert not proof.passed
        assert any(check.detail == "not measured" and check.measured is None for check in proof.checks)

    def test_fails_on_gradients_that_are_no_numbers(self):
        assert not watch(self.kind, scale=lambda step: float("nan"))[0].passed

    @pytest.mark.parametrize("factor", [0.9, 1.1])
    def test_a_wrong_learning_rate_is_caught(self, factor):
        class Cheating(self.kind):
            def step(self, closure=None):
                before = [p.detach().clone() for group in self.param_groups for p in group["params"]]
                super().step(closure)
                with torch.no_grad():
                    for old, new in zip(before, (p for g in self.param_groups for p in g["params"]), strict=True):
                        new.copy_(old + factor * (new - old))

        assert not watch(Cheating)[0].passed

    def test_a_step_asks_no_tensor_for_its_value(self):
        """Fake tensors have no values: whatever would wait for the device raises."""
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode():
            model = TinyModel()
            optimizer = self.kind(model)
            for _ in range(11):
                for parameter in model.parameters():
                    parameter.grad = torch.empty_like(parameter)
                optimizer.step()
                optimizer.update_hessian({p: torch.empty_like(p) for p in model.parameters()})
            assert optimizer.state_bytes() == optimizer.predicted_state_bytes()
