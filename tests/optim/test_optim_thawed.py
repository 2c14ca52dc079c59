"""Parameters that thaw meet groups that are added by hand, and state that is loaded."""

import copy

import pytest
import torch
from test_optim_buckets import K, Q, copied, each, equal, made, parameters, step
from torch import nn

from tuneopt.optim import AdamMini, AdamW, Muon
from tuneopt.optim.adapter import adapted
from tuneopt.optim.routing import DEFAULT_RULES, RouteRule
from tuneopt.spec import InputError

TABLE = "embed_tokens.weight"


def frozen(*names):
    named = parameters()
    for name in names:
        named[name].requires_grad_(False)
    return named


def thaw(named):
    for parameter in named.values():
        parameter.requires_grad_(True)


def trained(named):
    return {name: parameter for name, parameter in named.items() if parameter.requires_grad}


def groups(optimizer):
    return [group["param_names"] for group in optimizer.param_groups]


@each
@pytest.mark.parametrize("late", [False, True])
def test_one_that_thaws_and_is_added_by_hand_is_in_that_group_alone(name, late):
    named = frozen(Q)
    optimizer = made(name, named, max_grad_norm=0.0)
    step(optimizer, trained(named), 0)
    if late:  # the added group waits for it, too
        optimizer.add_param_group({"params": [(Q, named[Q])], "lr": 0.5})
    thaw(named)
    if not late:
        optimizer.add_param_group({"params": [(Q, named[Q])], "lr": 0.5})
    twins = copied(named)
    fresh = made(name, {key: twin for key, twin in twins.items() if key != Q}, max_grad_norm=0.0)
    fresh.add_param_group({"params": [(Q, twins[Q])], "lr": 0.5})
    step(optimizer, named, 1)
    step(fresh, twins, 1)
    assert torch.equal(named[Q], twins[Q])
    assert [members for members in groups(optimizer) if Q in members] == [[Q]]
    assert sorted(entry.parameter for entry in optimizer.routing) == sorted(named)
    assert all(entry.rule != "frozen" for entry in optimizer.routing)


@each
def test_one_that_thaws_and_is_put_into_a_group_by_hand_moves_once(name):
    named = frozen(K)
    optimizer = made(name, named)
    thaw(named)
    group = next(group for group in optimizer.param_groups if Q in group["param_names"])
    group["params"].append(named[K])
    step(optimizer, named, 0)
    assert optimizer.state[named[K]]["step"] == 1
    assert sum(K in members for members in groups(optimizer)) == 1


@each
@pytest.mark.parametrize(
    "late", [(TABLE,), (Q, K, "layers.0.up.weight"), (TABLE, "layers.0.norm.weight", Q), ("lm_head.weight",)]
)
def test_a_run_in_which_parameters_thawed_goes_on_in_a_fresh_optimizer(name, late):
    """The kind that thawed has the last group there and another one here; bit for bit, under the joint clip too."""
    named = frozen(*late)
    optimizer = made(name, named, max_grad_norm=0.01)
    step(optimizer, trained(named), *range(3))
    thaw(named)
    step(optimizer, named, 3)
    twins = copied(named)
    fresh = made(name, twins, max_grad_norm=0.01)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert groups(fresh) == groups(optimizer)
    assert {fresh.state[twins[key]]["step"] for key in late} == {1}
    step(optimizer, named, 4, 5)
    step(fresh, twins, 4, 5)
    assert equal(named, twins)
    assert [group["weight_decay"] for group in fresh.param_groups] == [
        group["weight_decay"] for group in optimizer.param_groups
    ]


@each
def test_a_parameter_that_thawed_here_too_joins_before_state_is_loaded(name):
    named = frozen(Q, TABLE)
    optimizer = made(name, named)
    step(optimizer, trained(named), 0)
    before = copy.deepcopy(optimizer.state_dict())
    thaw(named)
    step(optimizer, named, 1)
    twins = frozen(Q, TABLE)
    other = made(name, twins)
    thaw(twins)
    other.load_state_dict(before)  # of when they were frozen: they go on waiting for a step
    with torch.no_grad():
        for key, twin in twins.items():
            twin.copy_(named[key])
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(optimizer, named, 2)
    step(other, twins, 2)
    assert equal(named, twins)


def test_one_of_a_plain_optimizer_joins_before_state_is_loaded():
    runs = []
    for _ in range(2):
        named = frozen(Q)
        runs.append((named, adapted(torch.optim.Adam)(list(named.items()), lr=0.1)))
        thaw(named)
    (named, optimizer), (twins, other) = runs
    step(optimizer, named, 0)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert float(other.state[twins[Q]]["step"]) == 1


def test_a_state_dict_without_names_is_loaded_by_position():
    named, twins = parameters(), parameters()
    optimizer, other = AdamW(named.items()), AdamW(twins.items())
    step(optimizer, named, 0)
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        del group["param_names"]
    other.load_state_dict(saved)
    assert torch.equal(other.state[twins[Q]]["exp_avg"], optimizer.state[named[Q]]["exp_avg"])


@each
@pytest.mark.parametrize("refused", [{}, {"weight_decay": -1.0}, {"rule": "none"}])
def test_a_group_that_is_refused_leaves_nothing(name, refused):
    named, twins = frozen(K), frozen(K)
    optimizer, other = made(name, named), made(name, twins)
    before, routes = groups(optimizer), optimizer.routing
    known = (Q, named[Q]) if not refused else ("another.weight", nn.Parameter(torch.ones(3)))
    members = [("new.weight", nn.Parameter(torch.ones(8, 8))), (K, named[K]), known]
    with pytest.raises(ValueError):
        optimizer.add_param_group({"params": members, **refused})
    assert (groups(optimizer), optimizer.routing) == (before, routes)
    for own, stepper in ((named, optimizer), (twins, other)):
        thaw(own)
        step(stepper, own, 0)
    assert equal(named, twins)


def test_a_thawed_parameter_that_cannot_be_routed_is_refused_each_time():
    named = frozen(Q)
    optimizer = Muon(named.items(), rules=(RouteRule("q", "main", True, "fused", pieces=3), *DEFAULT_RULES))
    thaw(named)
    for _ in range(2):
        with pytest.raises(InputError, match="cannot be cut into 3 logical matrices"):
            step(optimizer, named, 0)


def test_heads_that_do_not_divide_leave_nothing_either():
    optimizer = AdamMini(parameters().items(), heads=4)
    before = groups(optimizer)
    with pytest.raises(InputError, match="cannot be cut into 4 heads"):
        optimizer.add_param_group({"params": [("layers.1.q_proj.weight", nn.Parameter(torch.ones(6, 8)))]})
    assert groups(optimizer) == before


@each
def test_state_of_parameters_that_come_in_another_order_goes_by_name(name):
    named = parameters()
    optimizer = made(name, named, max_grad_norm=0.01)
    step(optimizer, named, 0, 1)
    twins = copied(named)
    other = made(name, dict(reversed(twins.items())), max_grad_norm=0.01)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(optimizer, named, 2)
    step(other, twins, 2)
    assert equal(named, twins)
