"""Plain torch optimizers under tuneopt's interface."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tuneopt.optim import Optimizer, UpdateCheck
from tuneopt.optim.adapter import Adapted, adapted
from tuneopt.optim.factory import create, from_outside, hyperparameter_names
from tuneopt.optim.testing import OptimizerConformance, TinyModel, assert_equal_models, seed_gradients, through_file
from tuneopt.spec import InputError

ADAM = adapted(torch.optim.Adam)


def train(model, optimizer, seeds):
    for seed in seeds:
        seed_gradients(model, seed)
        optimizer.step()


def proof_of(kind, steps=5, rate=lambda step: 1.0, scale=1.0, **settings):
    model = TinyModel()
    optimizer = adapted(kind)(model, **settings)
    check = UpdateCheck(optimizer)
    for seed in range(steps):
        group = optimizer.param_groups[0]
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * rate(seed)
        seed_gradients(model, seed, scale)
        check.before_step()
        optimizer.step()
        check.after_step()
    return check.proof()


def failed(proof):
    return {check.name.partition(".")[2] for check in proof.checks if not check.passed}


class TestAdam(OptimizerConformance):
    """A plain class passes what does not ask for rules: these checks are off."""

    test_norms_and_embeddings_do_not_decay = None
    test_added_group_is_routed_and_trained = None
    test_state_bytes_are_as_predicted_from_shapes = None
    test_sparse_gradient_is_refused_by_name = None
    test_bf16_parameters_keep_fp32_state = None

    def make(self, params, **overrides):
        return ADAM(params, **overrides)


def test_it_steps_as_the_class_does_alone():
    ours, theirs = TinyModel(), TinyModel()
    train(ours, ADAM(ours, lr=0.01, betas=(0.8, 0.9), weight_decay=0.1), range(6))
    train(theirs, torch.optim.Adam(theirs.parameters(), lr=0.01, betas=(0.8, 0.9), weight_decay=0.1), range(6))
    assert_equal_models(ours, theirs)


def test_search_space_words_become_its_arguments():
    kind = from_outside("Adam", torch.optim.Adam)
    assert issubclass(kind, Adapted) and issubclass(kind, Optimizer)
    words = hyperparameter_names(kind)
    assert {"learning_rate", "beta1", "beta2", "epsilon", "weight_decay", "amsgrad", "max_grad_norm"} <= set(words)
    assert kind.model_facts == () and kind.fixed == {}


def test_gradients_are_clipped_where_the_class_has_no_clip_of_its_own():
    model = TinyModel()
    optimizer = adapted(torch.optim.SGD)(model, lr=1.0, max_grad_norm=0.5)
    seed_gradients(model, 0, scale=3.0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.step()
    moved = torch.cat([(old - new.detach()).flatten() for old, new in zip(before, model.parameters(), strict=True)])
    assert float(moved.norm()) == pytest.approx(0.5, rel=1e-4)
    with pytest.raises(InputError, match="max_grad_norm must be a number"):
        ADAM(model, max_grad_norm=-1.0)


class OwnClip(torch.optim.SGD):
    def __init__(self, params, lr, max_grad_norm=7.0):
        super().__init__(params, lr=lr)
        self.given = max_grad_norm


def test_a_clip_of_the_class_is_left_to_it():
    optimizer = adapted(OwnClip)(TinyModel(), lr=0.1, max_grad_norm=3.0)
    assert optimizer.inner.given == 3.0 and optimizer._limit == 0.0


def test_state_goes_through_a_file_and_a_copy_goes_on_alike():
    whole, model = TinyModel(), TinyModel()
    train(whole, ADAM(whole, lr=0.01), range(9))
    optimizer = ADAM(model, lr=0.01)
    train(model, optimizer, range(4))
    resumed = copy.deepcopy(model)
    other = ADAM(resumed, lr=0.01)
    other.load_state_dict(through_file(optimizer.state_dict()))
    twin, copied = copy.deepcopy((model, optimizer))
    train(resumed, other, range(4, 9))
    train(twin, copied, range(4, 9))
    assert_equal_models(whole, resumed)
    assert_equal_models(whole, twin)


def test_one_group_holds_everything_and_says_so():
    model = TinyModel()
    model.get_parameter("q_proj.weight").requires_grad_(False)
    optimizer = ADAM(model, weight_decay=0.1)
    assert len(optimizer.param_groups) == 1 and optimizer.hessian_interval == 0
    rules = {route.parameter: (route.rule, route.decay) for route in optimizer.routing}
    assert rules.pop("q_proj.weight") == ("frozen", False)
    assert set(rules.values()) == {("Adam", True)}, "what the class decays, it decays everywhere"
    assert "declares no routing" in optimizer.routing[0].reason
    with pytest.raises(InputError, match="takes one param group"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    with pytest.raises(InputError, match="takes one param group"):
        ADAM([{"params": model}, {"params": TinyModel()}])
    with pytest.raises(InputError, match="no parameter that requires a gradient"):
        ADAM(model.requires_grad_(False))


def test_its_state_is_measured_and_not_predicted():
    model = TinyModel()
    optimizer = adapted(torch.optim.SGD)(model, lr=0.1, momentum=0.9)
    train(model, optimizer, range(1))
    assert optimizer.state_bytes() == 4 * sum(p.numel() for p in model.parameters())
    with pytest.raises(InputError, match="does not declare its state"):
        optimizer.predicted_state_bytes()
    with pytest.raises(InputError, match="runs unsharded only"):
        _ = optimizer.buckets()


class Lazy(torch.optim.SGD):
    """Does nothing, as an optimizer that was built on other parameters would."""

    def step(self, closure=None):
        pass


class Bursting(torch.optim.SGD):
    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        self.param_groups[0]["params"][0].fill_(float("inf"))


class Restless(torch.optim.SGD):
    """Moves by a distance that the schedule does not govern."""

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            parameter.sub_(parameter.grad)


class Partial(torch.optim.SGD):
    """Keeps state for half of what it moves."""

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for parameter in self.param_groups[0]["params"][::2]:
            self.state[parameter]["extra"] = torch.zeros_like(parameter)


def test_the_generic_proof_passes_and_says_what_it_is_worth():
    proof = proof_of(torch.optim.Adam, lr=0.01, rate=lambda step: step / 5)
    assert proof.passed and failed(proof) == set()
    names = [check.name.partition(".")[2] for check in proof.checks]
    assert names == ["parameters", "rate", "moved", "finite", "state"]
    assert all("cannot show which rule ran" in check.detail for check in proof.checks[1:])
    assert proof_of(torch.optim.SGD, lr=0.1).passed, "a rule without memory is one too"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(Lazy, {"moved"}), (Bursting, {"finite", "moved", "rate"}), (Restless, {"rate"}), (Partial, {"state"})],
)
def test_the_generic_proof_catches_what_no_optimizer_does(kind, expected):
    assert failed(proof_of(kind, lr=0.1, rate=lambda step: min(step, 1))) == expected


def test_the_generic_proof_fails_where_nothing_could_be_seen():
    assert {"moved", "finite", "state"} <= failed(proof_of(torch.optim.SGD, lr=0.0))
    assert "moved" in failed(proof_of(torch.optim.SGD, lr=0.1, scale=float("nan")))


class NeedsBetas(torch.optim.Adam):
    def __init__(self, params, lr, betas, **rest):
        super().__init__(params, lr=lr, betas=betas, **rest)


class NoRate(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})


def test_classes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="step needs a closure"):
        adapted(torch.optim.LBFGS)
    with pytest.raises(InputError, match="no learning rate 'lr'"):
        adapted(NoRate)(TinyModel())


def test_arguments_without_a_default_must_be_given(monkeypatch):
    monkeypatch.setattr("tuneopt.optim.external.load", lambda name: NeedsBetas)
    with pytest.raises(InputError, match="needs learning_rate, which"):
        create("needs", TinyModel(), beta1=0.9, beta2=0.9)
    with pytest.raises(InputError, match="needs beta1 and beta2, which"):
        create("needs", TinyModel(), learning_rate=0.1, beta1=0.9)
    with pytest.raises(InputError, match="no hyperparameter 'rest'"):
        create("needs", TinyModel(), learning_rate=0.1, beta1=0.9, beta2=0.9, rest=1)
    optimizer = create("needs", TinyModel(), learning_rate=0.1, beta1=0.9, beta2=0.8)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.8)


def test_a_frozen_parameter_joins_once_it_thaws():
    kind = adapted(torch.optim.Adam)
    named = {name: torch.nn.Parameter(torch.ones(2)) for name in "abc"}
    named["b"].requires_grad_(False)
    optimizer = kind(list(named.items()))
    assert [entry.rule for entry in optimizer.routing] == ["Adam", "frozen", "Adam"]
    named["b"].requires_grad_(True)
    for parameter in named.values():
        parameter.grad = torch.ones(2)
    optimizer.step()
    assert all(not torch.equal(parameter, torch.ones(2)) for parameter in named.values())
    assert optimizer.param_groups[0]["param_names"] == ["a", "b", "c"]
    assert [entry.rule for entry in optimizer.routing] == ["Adam"] * 3


def test_a_schedule_free_class_is_refused_in_a_sentence():
    class ScheduleFree(torch.optim.SGD):
        def train(self):
            """Weights to train."""

        def eval(self):
            """Weights to judge."""

    with pytest.raises(InputError, match="ScheduleFree is schedule-free: it keeps other weights"):
        adapted(ScheduleFree)


class Dropping(torch.optim.SGD):
    def step(self, closure=None):
        self.param_groups[0]["params"].pop()
        return super().step(closure)


class Replacing(torch.optim.SGD):
    def step(self, closure=None):
        members = self.param_groups[0]["params"]
        members[0] = nn.Parameter(members[0].detach().clone())
        return super().step(closure)


class Scheduling(torch.optim.SGD):
    def step(self, closure=None):
        super().step(closure)
        self.param_groups[0]["lr"] *= 2


class Widening(torch.optim.SGD):
    def step(self, closure=None):
        super().step(closure)
        torch.set_default_dtype(torch.float64)


class Forgetting(torch.optim.SGD):
    def state_dict(self):
        return {"state": {}, "param_groups": super().state_dict()["param_groups"]}


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        (Dropping, "which parameters it has"),
        (Replacing, "which parameters it has"),
        (Scheduling, "learning rate from 0.1 to 0.2"),
        (Widening, "Widening changes torch's default dtype to torch.float64"),
        (Forgetting, "state_dict leaves out state"),
    ],
)
def test_a_class_that_changes_what_it_was_given_or_forgets_is_refused(kind, sentence):
    model = TinyModel()
    optimizer = adapted(kind)(model, lr=0.1, momentum=0.9)
    with pytest.raises(InputError, match=sentence):
        for seed in range(3):
            train(model, optimizer, [seed])
            optimizer.state_dict()
    assert torch.get_default_dtype() == torch.float32
