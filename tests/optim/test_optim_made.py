"""Optimizers that a function makes: param groups of one torch optimizer or of several, by name and role."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from tuneopt.optim import UpdateCheck
from tuneopt.optim.adapter import Made, adapted
from tuneopt.optim.factory import create, from_outside, hyperparameter_names
from tuneopt.optim.testing import TinyModel, assert_equal_models, seed_gradients, through_file
from tuneopt.spec import InputError


def muon_and_adamw(named_parameters, roles, lr=0.02, momentum=0.95, weight_decay=0.1, adam_lr=0.003):
    matrices = [p for name, p in named_parameters if roles[name] == "matrix"]
    others = [p for name, p in named_parameters if roles[name] != "matrix"]
    return [
        torch.optim.Muon(matrices, lr=lr, momentum=momentum, weight_decay=weight_decay),
        torch.optim.AdamW(others, lr=adam_lr, weight_decay=0.0),
    ]


def two_groups(model, lr=0.01, weight_decay=0.1):
    decays = [p for p in model.parameters() if p.ndim > 1]
    return torch.optim.AdamW(
        [{"params": decays, "weight_decay": weight_decay},
         {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0, "lr": 2 * lr}],
        lr=lr,
    )  # fmt: skip


def train(model, optimizer, seeds):
    for seed in seeds:
        seed_gradients(model, seed)
        optimizer.step()


def matrices_of(model):
    return {
        name for name, p in model.named_parameters() if p.ndim == 2 and not any(w in name for w in ("embed", "head"))
    }


def test_it_steps_as_its_optimizers_do_alone():
    ours, theirs = TinyModel(), TinyModel()
    train(ours, adapted(muon_and_adamw)(ours, lr=0.01), range(6))
    own = matrices_of(theirs)
    named = list(theirs.named_parameters())
    alone = [
        torch.optim.Muon([p for n, p in named if n in own], lr=0.01, momentum=0.95, weight_decay=0.1),
        torch.optim.AdamW([p for n, p in named if n not in own], lr=0.003, weight_decay=0.0),
    ]
    for seed in range(6):
        seed_gradients(theirs, seed)
        for optimizer in alone:
            optimizer.step()
    assert_equal_models(ours, theirs)


def test_the_routing_table_says_which_optimizer_took_what():
    model = TinyModel()
    optimizer = adapted(muon_and_adamw)(model)
    by_rule = {route.parameter: route.rule for route in optimizer.routing}
    assert {name for name, rule in by_rule.items() if rule == "Muon"} == matrices_of(model) != set()
    assert set(by_rule.values()) == {"Muon", "AdamW"} and optimizer.main.name == "Muon"
    decays = {route.rule: route.decay for route in optimizer.routing}
    assert decays == {"Muon": True, "AdamW": False}
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.003]


def test_hyperparameters_are_the_arguments_without_what_describes_the_model():
    kind = from_outside("muon_and_adamw", muon_and_adamw)
    assert issubclass(kind, Made)
    words = ("learning_rate", "momentum", "weight_decay", "adam_lr", "max_grad_norm")
    assert hyperparameter_names(kind) == words
    assert hyperparameter_names(adapted(two_groups)) == ("learning_rate", "weight_decay", "max_grad_norm")


def test_a_function_may_take_the_model_and_give_each_group_a_rate():
    model = TinyModel()
    optimizer = adapted(two_groups)(model, lr=0.02)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.04]
    with pytest.raises(InputError, match="pass it the model"):
        adapted(two_groups)(model.named_parameters())


def proof_of(kind, steps=5, **settings):
    model = TinyModel()
    optimizer = adapted(kind)(model, **settings)
    check = UpdateCheck(optimizer)
    peaks = [group["lr"] for group in optimizer.param_groups]
    for seed in range(steps):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * seed / steps
        seed_gradients(model, seed)
        check.before_step()
        optimizer.step()
        check.after_step()
    return check.proof()


def test_the_generic_proof_looks_at_every_optimizer():
    proof = proof_of(muon_and_adamw)
    assert proof.passed
    claimed = {"parameters", "rate", "moved", "finite", "state"}
    assert {check.name for check in proof.checks} == {f"Muon.{claim}" for claim in claimed} | {
        f"AdamW.{claim}" for claim in claimed - {"parameters"}
    }


class Lazy(torch.optim.SGD):
    def step(self, closure=None):
        """Moves nothing."""


def half_asleep(named_parameters, lr=0.1):
    tensors = [p for _, p in named_parameters]
    return torch.optim.SGD(tensors[:4], lr=lr), Lazy(tensors[4:], lr=lr)


def test_the_proof_fails_where_one_of_several_optimizers_does_nothing():
    proof = proof_of(half_asleep)
    assert not proof.passed
    assert "Lazy.moved" in {check.name for check in proof.checks if not check.passed}


def test_gradients_are_clipped_together_unless_the_function_clips():
    def plain(named_parameters, lr=1.0):
        tensors = [p for _, p in named_parameters]
        return [torch.optim.SGD(tensors[:3], lr=lr), torch.optim.SGD(tensors[3:], lr=lr)]

    model = TinyModel()
    optimizer = adapted(plain)(model, max_grad_norm=0.5)
    seed_gradients(model, 0, scale=3.0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer.step()
    moved = torch.cat([(old - new.detach()).flatten() for old, new in zip(before, model.parameters(), strict=True)])
    assert float(moved.norm()) == pytest.approx(0.5, rel=1e-4)


def test_state_goes_through_a_file_and_a_copy_goes_on_alike():
    kind = adapted(muon_and_adamw)
    whole, model = TinyModel(), TinyModel()
    train(whole, kind(whole), range(9))
    optimizer = kind(model)
    assert not any(optimizer.state.values())
    train(model, optimizer, range(4))
    assert len(optimizer.state) == len(list(model.parameters())) and optimizer.state_bytes() > 0
    resumed = copy.deepcopy(model)
    other = kind(resumed)
    other.load_state_dict(through_file(optimizer.state_dict()))
    twin, copied = copy.deepcopy((model, optimizer))
    train(resumed, other, range(4, 9))
    train(twin, copied, range(4, 9))
    assert_equal_models(whole, resumed)
    assert_equal_models(whole, twin)


def test_a_frozen_parameter_is_in_no_group():
    model = TinyModel()
    model.get_parameter("q_proj.weight").requires_grad_(False)
    optimizer = adapted(muon_and_adamw)(model)
    assert {route.parameter: route.rule for route in optimizer.routing}["q_proj.weight"] == "frozen"
    train(model, optimizer, range(2))


def leaves_out(named_parameters, lr=0.1):
    return torch.optim.SGD([p for _, p in named_parameters][1:], lr=lr)


def takes_twice(named_parameters, lr=0.1):
    tensors = [p for _, p in named_parameters]
    return torch.optim.SGD(tensors, lr=lr), torch.optim.SGD(tensors[:1], lr=lr)


def takes_a_stranger(named_parameters, lr=0.1):
    return torch.optim.SGD([*(p for _, p in named_parameters), nn.Parameter(torch.ones(2))], lr=lr)


def needs_a_closure(named_parameters, lr=0.1):
    return torch.optim.LBFGS([p for _, p in named_parameters], lr=lr)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda named_parameters, lr=0.1: None, "returned NoneType; return a torch optimizer, or a list"),
        (lambda named_parameters, lr=0.1: [], "returned an empty list"),
        (leaves_out, r"leaves_out leaves out .* \(1 in all\)"),
        (takes_twice, "into two param groups"),
        (takes_a_stranger, "no trained parameter"),
        (needs_a_closure, "step needs a closure"),
    ],
)
def test_what_cannot_train_the_model_is_refused_in_a_sentence(function, words):
    with pytest.raises(InputError, match=words):
        adapted(function)(TinyModel())


def test_a_function_without_arguments_and_an_unknown_hyperparameter_are_refused(monkeypatch):
    with pytest.raises(InputError, match="takes no argument"):
        adapted(lambda: None)
    monkeypatch.setattr("tuneopt.optim.external.load", lambda name: muon_and_adamw)
    with pytest.raises(InputError, match="no hyperparameter 'roles'"):
        create("made", TinyModel(), roles={})
    assert create("made", TinyModel(), learning_rate=0.1, momentum=0.9).param_groups[0]["momentum"] == 0.9
