"""Groups, state and parameters belong to the user: what is edited between steps is what the next step works with."""

import copy
from collections import defaultdict

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CyclicLR, LambdaLR

from tuneopt.optim import AdamW, Muon, create, info
from tuneopt.optim.routing import route
from tuneopt.spec import InputError

NAMES = [entry.name for entry in info()]
SHAPES = {
    "embed_tokens.weight": (12, 8),
    "layers.0.q.weight": (8, 8),
    "layers.0.k.weight": (8, 8),
    "layers.0.up.weight": (24, 8),
    "layers.0.norm.weight": (8,),
    "lm_head.weight": (12, 8),
}
Q, K = "layers.0.q.weight", "layers.0.k.weight"

each = pytest.mark.parametrize("name", NAMES)


def parameters(shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    return {name: nn.Parameter(0.1 * torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def copied(named):
    return {name: nn.Parameter(parameter.detach().clone()) for name, parameter in named.items()}


def step(optimizer, named, *seeds):
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for parameter in named.values():
            parameter.grad = (0.01 * torch.randn(parameter.shape, generator=generator)).to(parameter.dtype)
        optimizer.step()


def equal(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


def made(name, named, **settings):
    return create(name, list(named.items()), **settings)


# ---- State.


@each
@pytest.mark.parametrize("how", ["another dict", "clear", "pop"])
def test_state_that_was_reset_starts_afresh(name, how):
    """ReLoRA and warm restarts: no old moment is used, and a checkpoint holds the new ones."""
    named = parameters()
    optimizer = made(name, named)
    step(optimizer, named, *range(3))
    twins = copied(named)
    fresh = made(name, twins)
    if how == "another dict":
        optimizer.state = defaultdict(dict)
    elif how == "clear":
        optimizer.state.clear()
    else:
        for parameter in named.values():
            optimizer.state.pop(parameter)
    step(optimizer, named, 50, 51)
    step(fresh, twins, 50, 51)
    assert equal(named, twins)
    assert len(optimizer.state_dict()["state"]) == len(named)
    assert optimizer.state[named[Q]]["step"] == 2


@each
def test_state_of_one_parameter_may_be_reset_alone(name):
    named = parameters()
    optimizer = made(name, named, max_grad_norm=0.0)
    twins = copied(named)
    undisturbed = made(name, twins, max_grad_norm=0.0)
    step(optimizer, named, 0, 1)
    step(undisturbed, twins, 0, 1)
    optimizer.state.pop(named[Q])
    step(optimizer, named, 2)
    step(undisturbed, twins, 2)
    assert (optimizer.state[named[Q]]["step"], optimizer.state[named[K]]["step"]) == (1, 3)
    assert not torch.equal(named[Q], twins[Q])
    torch.testing.assert_close(named[K], twins[K], rtol=1e-5, atol=1e-7)


def test_a_tensor_put_into_the_state_is_the_one_that_steps():
    named = parameters()
    optimizer = Muon(named.items(), momentum=0.5)
    step(optimizer, named, 0)
    optimizer.state[named[Q]]["momentum_buffer"] = torch.zeros(1, 8, 8)
    twins = copied(named)
    fresh = Muon(twins.items(), momentum=0.5)
    step(optimizer, named, 1)
    step(fresh, twins, 1)
    assert torch.equal(named[Q], twins[Q]) and not torch.equal(named[K], twins[K])


def test_state_of_another_shape_is_refused_by_name():
    named = parameters()
    optimizer = AdamW(named.items())
    step(optimizer, named, 0)
    optimizer.state[named[Q]] = {"step": 1, "exp_avg": torch.zeros(3), "exp_avg_sq": torch.zeros(3)}
    with pytest.raises(InputError, match=r"the state 'exp_avg' of layers\.0\.q\.weight has shape \(3,\), not \(8, 8\)"):
        step(optimizer, named, 1)


@each
def test_what_a_load_hook_returns_is_what_is_loaded(name):
    """torch's documented recipe: states are mapped by ``param_names``, so parameters may come in another order."""

    def by_name(optimizer, saved):
        pairs = (zip(group["param_names"], group["params"], strict=True) for group in saved["param_groups"])
        ids = dict(pair for some in pairs for pair in some)
        state, groups = {}, []
        for group, old in zip(optimizer.param_groups, saved["param_groups"], strict=True):
            for index, own in zip(old["params"], group["param_names"], strict=True):
                state[index] = saved["state"][ids[own]]
            groups.append({**old, "param_names": group["param_names"]})
        return {"state": state, "param_groups": groups}

    named = parameters()
    optimizer = made(name, named)
    step(optimizer, named, *range(3))
    order = ["embed_tokens.weight", K, Q, "layers.0.up.weight", "layers.0.norm.weight", "lm_head.weight"]
    twins = {key: copied(named)[key] for key in order}
    other = made(name, twins)
    seen = []
    other.register_load_state_dict_pre_hook(by_name)
    other.register_load_state_dict_post_hook(lambda loaded: seen.append(loaded.state[twins[Q]]["step"]))
    other.load_state_dict(optimizer.state_dict())
    assert seen == [3]
    for key, value in optimizer.state[named[Q]].items():
        loaded = other.state[twins[Q]][key]
        assert torch.equal(loaded, value) if isinstance(value, torch.Tensor) else loaded == value


# ---- Groups.


@each
def test_a_parameter_taken_out_of_its_group_is_left_alone(name):
    named = parameters()
    optimizer = made(name, named)
    step(optimizer, named, 0)
    gone, before = named[K], named[K].detach().clone()
    for group in optimizer.param_groups:
        group["params"] = [parameter for parameter in group["params"] if parameter is not gone]
    step(optimizer, named, 1)
    assert torch.equal(gone, before)
    assert not any(K in group["param_names"] for group in optimizer.param_groups)
    assert {name for group in optimizer.param_groups for name in group["param_names"]} == set(SHAPES) - {K}


@each
def test_parameters_put_in_the_place_of_others_train_under_their_names(name):
    named = parameters()
    optimizer = made(name, named)
    step(optimizer, named, 0)
    others = copied(named)
    twins = copied(named)
    fresh = made(name, twins)
    new = {id(parameter): others[key] for key, parameter in named.items()}
    for group in optimizer.param_groups:
        group["params"] = [new[id(parameter)] for parameter in group["params"]]
    step(optimizer, others, 1, 2)
    step(fresh, twins, 1, 2)
    assert equal(others, twins)


def test_a_vocabulary_may_grow():
    named = parameters()
    optimizer = AdamW(named.items())
    step(optimizer, named, 0)
    wider = nn.Parameter(torch.ones(16, 8))
    group = next(group for group in optimizer.param_groups if "embed_tokens.weight" in group["param_names"])
    group["params"][group["param_names"].index("embed_tokens.weight")] = wider
    named["embed_tokens.weight"] = wider
    step(optimizer, named, 1)
    assert not torch.equal(wider, torch.ones(16, 8))


@pytest.mark.parametrize("other", [nn.Parameter(torch.zeros(32)), nn.Parameter(torch.zeros(8, 4))])
def test_what_cannot_take_a_parameters_place_is_refused(other):
    named = parameters()
    optimizer = AdamW(named.items())
    optimizer.param_groups[1]["params"][0] = other
    with pytest.raises(InputError, match=r"works on whole tensors and was handed a shard"):
        step(optimizer, named, 0)


def test_a_tensor_without_a_name_is_added_with_add_param_group():
    named = parameters()
    optimizer = Muon(named.items())
    optimizer.param_groups[0]["params"].append(nn.Parameter(torch.zeros(8, 8)))
    with pytest.raises(InputError, match="add parameters with add_param_group"):
        step(optimizer, named, 0)


# ---- Rates.


@each
def test_a_rate_set_by_hand_is_where_a_scheduler_starts(name):
    optimizer = made(name, parameters(), learning_rate=1e-3)
    for group in optimizer.param_groups:
        group["lr"] = 5e-4
    LambdaLR(optimizer, lambda step: 1.0)
    assert {group["lr"] for group in optimizer.param_groups} == {5e-4}


def test_a_cyclic_schedule_starts_at_its_base():
    optimizer = AdamW(parameters().items(), lr=0.5)
    CyclicLR(optimizer, base_lr=0.001, max_lr=0.1, cycle_momentum=False)
    assert {group["lr"] for group in optimizer.param_groups} == {0.001}


# ---- Frozen parameters.


@each
def test_a_parameter_that_thaws_trains_as_if_it_had_been_there(name):
    """It joins the group of its kind, in the place that it would have had, so a `state_dict` fits a fresh optimizer."""
    named = parameters()
    named[Q].requires_grad_(False)
    optimizer = made(name, named, max_grad_norm=0.0)
    frozen = next(entry for entry in optimizer.routing if entry.parameter == Q)
    assert frozen.rule == "frozen"
    before = named[Q].detach().clone()
    step(optimizer, {key: p for key, p in named.items() if key != Q}, 0)
    assert torch.equal(named[Q], before) and named[Q] not in optimizer.state
    named[Q].requires_grad_(True)
    twins = copied(named)
    fresh = made(name, twins, max_grad_norm=0.0)
    step(optimizer, named, 1, 2)
    step(fresh, twins, 1, 2)
    assert torch.equal(named[Q], twins[Q]) and not torch.equal(named[Q], before)
    assert optimizer.routing == fresh.routing
    assert [group["param_names"] for group in optimizer.param_groups] == [
        group["param_names"] for group in fresh.param_groups
    ]
    fresh.load_state_dict(optimizer.state_dict())
    assert fresh.state[twins[Q]]["step"] == 2


def test_a_thawed_parameter_of_a_kind_of_its_own_gets_a_group():
    named = parameters()
    for key in (Q, K, "layers.0.up.weight"):
        named[key].requires_grad_(False)
    optimizer = Muon([{"params": list(named.items()), "lr": 0.25}])
    assert all(group["rule"] == "adamw" for group in optimizer.param_groups)
    named[Q].requires_grad_(True)
    copy_of = copy.deepcopy((named, optimizer))
    for own, stepper in ((named, optimizer), copy_of):
        before = own[Q].detach().clone()
        step(stepper, own, 0)
        assert not torch.equal(own[Q], before)
        assert (stepper.param_groups[-1]["rule"], stepper.param_groups[-1]["lr"]) == ("muon", 0.25)


# ---- Layouts and dtypes.


def as_it_is(tensor):
    return tensor


def transposed(tensor):
    return tensor.t().contiguous().t() if tensor.ndim == 2 else tensor


def with_gaps(tensor):
    return torch.stack([tensor, torch.zeros_like(tensor)], dim=-1)[..., 0]


@each
@pytest.mark.parametrize("stored", [transposed, with_gaps])
@pytest.mark.parametrize("gradients", [as_it_is, transposed, with_gaps])
def test_strides_do_not_matter(name, stored, gradients):
    """Fused kernels go through memory: a weight that is stored otherwise learns what its contiguous twin learns."""
    named = parameters()
    others = {key: nn.Parameter(stored(parameter.detach().clone())) for key, parameter in named.items()}
    assert not others[Q].is_contiguous()
    left, right = made(name, named), made(name, others)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        for key, parameter in named.items():
            parameter.grad = 0.01 * torch.randn(parameter.shape, generator=generator)
            others[key].grad = None
            others[key].grad = gradients(parameter.grad.clone())
        left.step()
        right.step()
    for key, parameter in named.items():
        torch.testing.assert_close(others[key], parameter, rtol=1e-6, atol=1e-8, msg=key)


def test_a_weight_in_channels_last_is_stepped_in_place():
    plain = nn.Parameter(torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)))
    other = nn.Parameter(plain.detach().clone().to(memory_format=torch.channels_last))
    left, right = AdamW([("conv.weight", plain)]), AdamW([("conv.weight", other)])
    for seed in range(3):
        plain.grad = torch.randn(plain.shape, generator=torch.Generator().manual_seed(seed))
        other.grad = plain.grad.clone()
        left.step()
        right.step()
    torch.testing.assert_close(other, plain, rtol=1e-6, atol=1e-8)
    assert other.is_contiguous(memory_format=torch.channels_last)


@each
@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float64", "float32"), ("bfloat16", "float64")])
def test_mixed_dtypes_clip_by_one_norm_in_any_order(name, dtypes):
    kinds = [getattr(torch, dtype) for dtype in dtypes]
    named = {key: nn.Parameter(p.detach().to(kinds[i > 2])) for i, (key, p) in enumerate(parameters().items())}
    seen = {"initial_distance": 0.01} if name == "prodigy" else {}  # bf16 rounds smaller steps away
    optimizer = made(name, named, max_grad_norm=0.01, **seen)
    before = copied(named)
    step(optimizer, named, 0, 1)
    for key, parameter in named.items():
        assert parameter.dtype == before[key].dtype and parameter.isfinite().all()
        assert not torch.equal(parameter, before[key]), key


# ---- Wrappers.


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "_fsdp_wrapped_module._orig_mod.",
        "base_model.model.",
        "module.base_model.model.model.",
        "model.model.",
    ],
)
def test_a_head_stays_a_head_however_it_is_wrapped(prefix):
    heads = ("output", "head", "score", "classifier", "lm_head", "embed_tokens")
    named = [(f"{prefix}{head}.weight", torch.zeros(12, 8, requires_grad=True)) for head in heads]
    assert [entry.rule for entry in route(named)] == ["fallback"] * len(heads)
    hidden = [(f"{prefix}layers.0._orig_mod.attention.output.dense.weight", torch.zeros(8, 8, requires_grad=True))]
    assert [entry.rule for entry in route(hidden)] == ["main"]


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.classifier.modules_to_save.default.weight",
        "base_model.model.lm_head.base_layer.weight",
        "_fsdp_wrapped_module.head._fsdp_wrapped_module.weight",
        "module.score._checkpoint_wrapped_module.weight",
    ],
)
def test_wrappers_of_the_head_itself_are_seen_through(name):
    assert [entry.rule for entry in route([(name, torch.zeros(12, 8, requires_grad=True))])] == ["fallback"]


def test_groups_that_were_replaced_are_the_ones_that_step():
    named = parameters()
    optimizer = AdamW(named.items())
    step(optimizer, named, 0)
    optimizer.param_groups = [{**group, "lr": 0.0} for group in optimizer.param_groups]
    before = copied(named)
    step(optimizer, named, 1)
    assert equal(named, before)
