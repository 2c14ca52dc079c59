"""A conformance suite for optimizers: inherit it, give it a name, and pytest runs every check on your class.

    class TestMine(OptimizerConformance):
        def make(self, params, **overrides):
            return MyOptimizer(params, **overrides)

``params`` is a model or an iterable of named parameters, ``overrides`` use the class's own argument names. The suite
asks for what the training loop, the ledger and the comparison rely on.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tuneopt.optim.base import Optimizer
from tuneopt.optim.proof import UpdateCheck
from tuneopt.spec import InputError

__all__ = ["OptimizerConformance", "TinyModel", "seed_gradients"]


class TinyModel(nn.Module):
    """One parameter of every class that a transformer has: embedding, square, tall and wide matrices, norm, head."""

    def __init__(self, dtype: torch.dtype = torch.float32, width: int = 8) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        shapes = {
            "embed_tokens.weight": (12, width),
            "q_proj.weight": (width, width),
            "k_proj.weight": (width, width),
            "up_proj.weight": (3 * width, width),
            "down_proj.weight": (width, 3 * width),
            "norm.weight": (width,),
            "lm_head.weight": (12, width),
        }
        for name, shape in shapes.items():
            holder, _, leaf = name.partition(".")
            module = nn.Module()
            value = 0.1 * torch.randn(shape, generator=generator, dtype=torch.float32)
            module.register_parameter(leaf, nn.Parameter(value.to(dtype)))
            self.add_module(holder, module)


def seed_gradients(model: nn.Module, seed: int, scale: float = 0.01) -> None:
    """Give every parameter a gradient that depends on ``seed`` alone."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = (scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float32)).to(parameter)


def seed_hessian(
    model: nn.Module, optimizer: Optimizer, seed: int, scale: float = 0.01, check: UpdateCheck | None = None
) -> None:
    """Give an optimizer that asks for the Hessian's diagonal one made of ``seed``, the step done, where it is due.

    ``check`` sees what the optimizer gets.
    """
    if optimizer.hessian_interval and (seed + 1) % optimizer.hessian_interval == 0:
        generator = torch.Generator().manual_seed(seed)
        numbers = {
            p: scale * torch.randn(p.shape, generator=generator, dtype=torch.float32) for p in model.parameters()
        }
        diagonal: dict[Tensor, Tensor] = {p: number.to(p) for p, number in numbers.items()}
        optimizer.update_hessian(diagonal)
        if check:
            check.see_hessian(diagonal)


class OptimizerConformance:
    """Checks that every optimizer here passes; `make` is the one thing to fill in."""

    def make(self, params: nn.Module | Iterable[tuple[str, Tensor]], **overrides: Any) -> Optimizer:
        """The optimizer under test."""
        raise AttributeError("override make(params, **overrides) to return your optimizer")

    def run(self, steps: int, dtype: torch.dtype = torch.float32, **overrides: Any) -> tuple[TinyModel, Optimizer]:
        """A model after some steps."""
        model = TinyModel(dtype)
        optimizer = self.make(model, **overrides)
        self.advance(model, optimizer, range(steps))
        return model, optimizer

    def advance(self, model: nn.Module, optimizer: Optimizer, seeds: Iterable[int]) -> None:
        """One step per seed."""
        for seed in seeds:
            seed_gradients(model, seed)
            optimizer.step()
            seed_hessian(model, optimizer, seed)

    def test_every_parameter_with_a_gradient_moves(self) -> None:
        """Nothing stays in place, nothing becomes infinite."""
        start = TinyModel()
        model, _ = self.run(3)
        for (name, before), after in zip(start.named_parameters(), model.parameters(), strict=True):
            assert torch.isfinite(after).all(), name
            assert not torch.equal(before, after), name

    def test_same_gradients_give_same_parameters(self) -> None:
        """Two runs are equal bit for bit."""
        assert_equal_models(self.run(12)[0], self.run(12)[0])

    def test_learning_rate_zero_moves_nothing(self) -> None:
        """Parameters are scaled by the rate alone, decay included."""
        model = TinyModel()
        optimizer = self.make(model)
        for group in optimizer.param_groups:
            group["lr"] = 0.0
        self.advance(model, optimizer, range(3))
        assert_equal_models(model, TinyModel())

    def test_groups_are_complete_and_disjoint(self) -> None:
        """Each parameter is in one group, each group has all settings."""
        model = TinyModel()
        optimizer = self.make(model)
        seen = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        assert {id(p) for p in seen} == {id(p) for p in model.parameters()}
        assert len(seen) == len({id(p) for p in seen})
        for group in optimizer.param_groups:
            assert {*optimizer.defaults, "rule", "param_names"} <= set(group)

    def test_routing_names_every_parameter_once_and_explains(self) -> None:
        """The routing table is complete."""
        model = TinyModel()
        routing = self.make(model).routing
        assert [entry.parameter for entry in routing] == [name for name, _ in model.named_parameters()]
        assert all(entry.rule and entry.reason for entry in routing)

    def test_norms_and_embeddings_do_not_decay(self) -> None:
        """With zero gradients only decay moves a parameter, by the factor 1 - lr wd per step."""
        model = TinyModel()
        optimizer = self.make(model, weight_decay=0.5)
        for _ in range(2):
            for parameter in model.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
        rates = {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}
        for (name, before), after in zip(TinyModel().named_parameters(), model.parameters(), strict=True):
            decays = not name.startswith(("norm", "embed"))
            factor = (1 - 0.5 * rates[name]) ** 2 if decays else 1.0
            torch.testing.assert_close(after, before * factor, rtol=1e-6, atol=1e-9)

    def test_state_dict_resumes_bit_for_bit(self) -> None:
        """Saving and loading at several steps, through a file, changes nothing."""
        undisturbed, _ = self.run(25)
        for stop in (1, 3, 11):  # early and late: some rules do something every few steps
            model, optimizer = self.run(stop)
            resumed = copy.deepcopy(model)
            other = self.make(resumed)
            other.load_state_dict(through_file(optimizer.state_dict()))
            self.advance(resumed, other, range(stop, 25))
            assert_equal_models(undisturbed, resumed)

    def test_deep_copy_goes_on_alike(self) -> None:
        """A copied model and optimizer train like the original."""
        model, optimizer = self.run(3)
        twin, copied = copy.deepcopy((model, optimizer))
        self.advance(model, optimizer, range(3, 14))
        self.advance(twin, copied, range(3, 14))
        assert_equal_models(model, twin)
        assert copied.routing == optimizer.routing

    def test_parameters_without_gradient_are_left_alone(self) -> None:
        """A parameter that joins late ends as if it had stepped alone; the others do not notice."""
        model = TinyModel()
        # Without a clip, whose joint norm would let the late parameter change the steps of the others.
        optimizer = self.make(model, max_grad_norm=0.0)
        late = model.get_parameter("k_proj.weight")
        before = late.detach().clone()
        for seed in range(4):
            seed_gradients(model, seed)
            late.grad = None
            optimizer.step()
            seed_hessian(model, optimizer, seed)
        assert torch.equal(late, before)
        self.advance(model, optimizer, range(4, 8))
        full = TinyModel()
        steady = self.make(full, max_grad_norm=0.0)
        self.advance(full, steady, range(8))
        for (name, ours), theirs in zip(model.named_parameters(), full.parameters(), strict=True):
            if ours is late:  # it took four steps of eight, and must have begun with its own step 1
                assert not torch.equal(ours, before)
            else:
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6, msg=name)

    def test_no_gradient_at_all_is_no_step(self) -> None:
        """A step before any backward pass does nothing."""
        model = TinyModel()
        self.make(model).step()
        assert_equal_models(model, TinyModel())

    def test_sparse_gradient_is_refused_by_name(self) -> None:
        """The error names the parameter."""
        model = TinyModel()
        optimizer = self.make(model)
        seed_gradients(model, 0)
        embedding = model.get_parameter("embed_tokens.weight")
        embedding.grad = torch.zeros_like(embedding).to_sparse()
        try:
            optimizer.step()
        except InputError as error:
            assert "embed_tokens.weight" in str(error)
        else:
            raise AssertionError("a sparse gradient was taken silently")

    def test_not_a_number_reaches_the_parameters_and_raises_nothing(self) -> None:
        """Divergence is a status of the trial, not an exception."""
        for when in (0, 3):  # in the first step, which some rules take otherwise, and later
            model, optimizer = self.run(when)
            seed_gradients(model, when)
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.grad.fill_(float("nan"))
            optimizer.step()
            self.advance(model, optimizer, range(12))
            assert all(parameter.isnan().any() for parameter in model.parameters())

    def test_closure_runs_with_gradients_enabled_and_its_loss_comes_back(self) -> None:
        """A linear loss has the gradients that `seed_gradients` sets, so both ways must end alike."""
        model = TinyModel()
        optimizer = self.make(model)
        for seed in range(4):
            coefficients = TinyModel()
            seed_gradients(coefficients, seed)

            slopes = [parameter.grad for parameter in coefficients.parameters() if parameter.grad is not None]

            def closure(slopes: list[Tensor] = slopes) -> Tensor:
                optimizer.zero_grad()
                pairs = zip(model.parameters(), slopes, strict=True)
                loss = torch.stack([(mine * slope).sum() for mine, slope in pairs]).sum()
                loss.backward()  # type: ignore[no-untyped-call]
                return loss

            with torch.no_grad():
                assert torch.isfinite(optimizer.step(closure))
        assert_equal_models(model, self.run(4)[0])

    def test_schedulers_drive_every_group(self) -> None:
        """torch's schedulers work on all groups, and start from the rate that a group has, set by hand or not."""
        model = TinyModel()
        optimizer = self.make(model)
        # Set by hand after the optimizer was built: torch's schedulers note the rate that a group has when they begin.
        rates = [0.25 * group["lr"] for group in optimizer.param_groups]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
        for seed in range(3):
            seed_gradients(model, seed)
            optimizer.step()
            scheduler.step()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            assert group["initial_lr"] == rate
            assert abs(group["lr"] - rate * 0.125) <= 1e-12

    def test_added_group_is_routed_and_trained(self) -> None:
        """`add_param_group` after some steps keeps the state of the others."""
        model, optimizer = self.run(2)
        extra = nn.Parameter(torch.full((8, 8), 0.1))
        optimizer.add_param_group({"params": [("extra.q_proj.weight", extra)], "lr": 0.01})
        assert optimizer.routing[-1].parameter == "extra.q_proj.weight"
        assert optimizer.param_groups[-1]["lr"] == 0.01
        for seed in range(2, 5):
            seed_gradients(model, seed)
            extra.grad = torch.randn(8, 8, generator=torch.Generator().manual_seed(seed))
            optimizer.step()
        assert not torch.equal(extra, torch.full((8, 8), 0.1))
        undisturbed, _ = self.run(2)
        assert not torch.equal(model.get_parameter("q_proj.weight"), undisturbed.get_parameter("q_proj.weight"))

    def test_bf16_parameters_keep_fp32_state(self) -> None:
        """Also after a round trip through a file."""
        model, optimizer = self.run(3, torch.bfloat16)
        held = [v for entry in optimizer.state.values() for v in entry.values() if isinstance(v, Tensor)]
        assert held and all(tensor.dtype == torch.float32 for tensor in held)
        other = self.make(copy.deepcopy(model))
        other.load_state_dict(through_file(optimizer.state_dict()))
        for mine, loaded in zip(optimizer.state.values(), other.state.values(), strict=True):
            for key, value in mine.items():
                same = torch.equal(value, loaded[key]) if isinstance(value, Tensor) else value == loaded[key]
                assert same, key
        assert all(parameter.dtype == torch.bfloat16 for parameter in model.parameters())

    def test_state_bytes_are_as_predicted_from_shapes(self) -> None:
        """What a plan says about memory is what training holds."""
        _, optimizer = self.run(1)
        assert optimizer.state_bytes() == optimizer.predicted_state_bytes() > 0

    def test_proof_passes_and_watching_changes_nothing(self) -> None:
        """The optimizer is what its name or its reference says, as far as it gives one, and the check is silent."""
        model = TinyModel()
        optimizer = self.make(model)
        check = UpdateCheck(optimizer)
        for seed in range(14):
            seed_gradients(model, seed)
            check.before_step()
            optimizer.step()
            check.after_step()
            seed_hessian(model, optimizer, seed, check=check)
        proof = check.proof()
        assert proof.passed, [claim for claim in proof.checks if not claim.passed]
        assert_equal_models(model, self.run(14)[0])


def through_file(state: dict[str, Any]) -> dict[str, Any]:
    """The state as it comes back from a file that may hold no pickled code."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    loaded: dict[str, Any] = torch.load(buffer, weights_only=True)
    return loaded


def assert_equal_models(left: nn.Module, right: nn.Module) -> None:
    """Every parameter equal, bit for bit."""
    for (name, mine), other in zip(left.named_parameters(), right.parameters(), strict=True):
        assert torch.equal(mine, other), name
