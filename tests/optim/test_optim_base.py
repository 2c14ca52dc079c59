"""What callers may pass, how groups get their settings, and how steps are counted."""

import re

import pytest
import torch
from torch import nn

from tuneopt.optim import SOAP, AdamW, Muon, create
from tuneopt.optim.bucket import StackBucket
from tuneopt.optim.factory import implementation
from tuneopt.optim.info import names
from tuneopt.optim.routing import DEFAULT_RULES, RouteRule
from tuneopt.optim.rule import MatrixRule
from tuneopt.optim.testing import TinyModel, seed_gradients
from tuneopt.spec import InputError


def settings(optimizer, name):
    return next(group for group in optimizer.param_groups if name in group["param_names"])


def test_muon_groups_have_their_own_rate_and_clip():
    optimizer = Muon(TinyModel(), lr=0.1, muon_to_adam_lr=0.3, max_grad_norm=2.0)
    hidden, rest = settings(optimizer, "q_proj.weight"), settings(optimizer, "norm.weight")
    assert (hidden["rule"], hidden["lr"], hidden["max_grad_norm"]) == ("muon", 0.1, 0.0)
    assert rest["rule"] == "adamw" and rest["lr"] == pytest.approx(0.03)
    assert rest["max_grad_norm"] == 2.0


def test_soap_clips_all_groups_alike_and_falls_back_at_the_same_rate():
    optimizer = SOAP(TinyModel(), lr=0.1, max_grad_norm=2.0)
    assert {group["max_grad_norm"] for group in optimizer.param_groups} == {2.0}
    assert {group["lr"] for group in optimizer.param_groups} == {0.1}


def test_a_mixed_group_may_carry_its_own_settings():
    model = TinyModel()
    named = dict(model.named_parameters())
    first = {"params": [("q_proj.weight", named.pop("q_proj.weight")), ("norm.weight", named.pop("norm.weight"))]}
    optimizer = Muon([{**first, "lr": 0.5}, {"params": list(named.items())}], lr=0.1, muon_to_adam_lr=0.2)
    assert settings(optimizer, "q_proj.weight")["lr"] == 0.5
    assert settings(optimizer, "norm.weight")["lr"] == pytest.approx(0.1)
    assert settings(optimizer, "k_proj.weight")["lr"] == 0.1


def test_a_group_that_names_its_rule_needs_no_names():
    matrix, vector = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4))
    optimizer = Muon([{"params": [matrix], "rule": "muon"}, {"params": [vector], "rule": "adamw", "lr": 0.7}], lr=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.7]
    assert [entry.reason for entry in optimizer.routing] == ["named by its group"] * 2
    with pytest.raises(InputError, match="did you mean 'muon'"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.randn(4, 4))], "rule": "mouon"})


def test_unnamed_parameters_are_fine_for_adamw_and_refused_by_matrix_rules():
    parameters = list(TinyModel().parameters())
    assert len(AdamW(parameters).routing) == len(parameters)
    with pytest.raises(InputError, match=r"routes parameters by name; pass the model"):
        Muon(parameters)


@pytest.mark.parametrize("form", ["model", "named", "mapping", "group of a model"])
def test_forms_of_parameters(form):
    model = TinyModel()
    given = {
        "model": model,
        "named": model.named_parameters(),
        "mapping": dict(model.named_parameters()),
        "group of a model": [{"params": model}],
    }[form]
    assert [entry.parameter for entry in Muon(given).routing] == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([], "no parameter"),
        (torch.zeros(3), "not one tensor"),
        ([("w", torch.zeros(2, dtype=torch.complex64, requires_grad=True))], "w is complex"),
        ([("w", 3)], r"expected \(name, tensor\)"),
        ([3], r"expected \(name, tensor\)"),
    ],
)
def test_what_is_no_parameter_is_refused(bad, message):
    with pytest.raises(InputError, match=message):
        AdamW(bad)


@pytest.mark.parametrize(
    ("kind", "bad", "message"),
    [
        (AdamW, {"lr": -1.0}, "learning_rate must be a number of at least 0, not -1.0"),
        (AdamW, {"lr": "fast"}, "learning_rate must be a number .* not 'fast'"),
        (AdamW, {"lr": True}, "learning_rate"),
        (AdamW, {"betas": (0.9, 1.0)}, "beta2 must be a number of at least 0 and below 1"),
        (AdamW, {"eps": float("nan")}, "epsilon"),
        (Muon, {"muon_epsilon": 0.0}, "muon_epsilon must be a number above 0"),
        (Muon, {"momentum": 1.0}, "momentum"),
        (Muon, {"ns_steps": 2.5}, "ns_steps must be a whole number of at least 1"),
        (Muon, {"ns_precision": "fp16"}, "known: fp32, tf32, bf16"),
        (SOAP, {"block_size": 0}, "block_size must be a whole number"),
        (SOAP, {"precondition_frequency": 0}, "precondition_frequency"),
        (SOAP, {"bias_correction": "step"}, "did you mean 'steps'"),
    ],
)
def test_bad_settings_are_named_in_the_words_of_the_search_space(kind, bad, message):
    with pytest.raises(InputError, match=message):
        kind(TinyModel(), **bad)


def test_a_group_with_bad_settings_is_refused():
    with pytest.raises(InputError, match="weight_decay"):
        AdamW([{"params": TinyModel(), "weight_decay": -1.0}])


@pytest.mark.parametrize("name", names())
def test_a_tensor_that_is_given_twice_is_refused(name):
    named = list(TinyModel().named_parameters())
    with pytest.raises(InputError, match=r"q_proj.weight is a tensor that was given before; give tied weights once"):
        create(name, [*named, ("tied.q_proj.weight", dict(named)["q_proj.weight"])])


@pytest.mark.parametrize("name", names())
def test_a_rate_may_be_a_tensor(name):
    models = TinyModel(), TinyModel()
    models[1].load_state_dict(models[0].state_dict())
    for model in models:
        optimizer = create(name, model)
        for group in optimizer.param_groups if model is models[1] else ():
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)
        for seed in range(2):
            seed_gradients(model, seed)
            optimizer.step()
    for plain, by_tensor in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(plain, by_tensor)


@pytest.mark.parametrize("name", names())
def test_parameters_without_elements_are_left_alone(name):
    model = TinyModel()
    empty = [
        ("layers.9.q_proj.weight", nn.Parameter(torch.empty(0, 8))),
        ("layers.9.norm.weight", nn.Parameter(torch.empty(0))),
    ]
    optimizer = create(name, [*model.named_parameters(), *empty])
    before = [parameter.detach().clone() for parameter in model.parameters()]
    seed_gradients(model, 0)
    for _, parameter in empty:
        parameter.grad = torch.empty_like(parameter)
    for _ in range(2):  # ADOPT's first step moves nothing that does not decay
        optimizer.step()
    assert optimizer.predicted_state_bytes() == optimizer.state_bytes() > 0
    assert all((now != old).any() for now, old in zip(model.parameters(), before, strict=True))
    optimizer.load_state_dict(optimizer.state_dict())


def test_step_numbers_belong_to_parameters():
    model = TinyModel()
    optimizer = SOAP(model)
    late = model.get_parameter("k_proj.weight")
    for seed in range(3):
        seed_gradients(model, seed)
        if seed < 2:
            late.grad = None
        optimizer.step()
    assert optimizer.state[late]["step"] == 1
    assert optimizer.state[model.get_parameter("q_proj.weight")]["step"] == 3


def test_same_shapes_are_stacked_whatever_their_orientation():
    optimizer = Muon(TinyModel())
    shapes = {tuple(b.stacks["momentum_buffer"].shape) for b in optimizer.buckets() if isinstance(b, StackBucket)}
    assert shapes == {(2, 1, 8, 8), (2, 1, 8, 24)}


def test_state_entries_are_views_of_the_stacks():
    model = TinyModel()
    optimizer = Muon(model)
    seed_gradients(model, 0)
    optimizer.step()
    buffers = [optimizer.state[model.get_parameter(f"{k}_proj.weight")]["momentum_buffer"] for k in "qk"]
    assert buffers[0].untyped_storage().data_ptr() == buffers[1].untyped_storage().data_ptr()
    assert not torch.equal(buffers[0], buffers[1])


def test_a_torch_adamw_state_loads():
    """Step counters that torch keeps as tensors become whole numbers, and training goes on as torch's would."""
    ours, theirs = TinyModel(), TinyModel()
    names = [name for name, _ in theirs.named_parameters()]
    peer = torch.optim.AdamW(theirs.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    for seed in range(3):
        seed_gradients(theirs, seed)
        peer.step()
    ours.load_state_dict(theirs.state_dict())
    optimizer = AdamW([{"params": ours, "rule": "adamw"}], weight_decay=0.0, max_grad_norm=0.0)
    state = peer.state_dict()
    state["param_groups"] = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(state)
    for model, stepper in ((ours, optimizer), (theirs, peer)):
        seed_gradients(model, 9)
        stepper.step()
    for name in names:
        assert torch.equal(ours.get_parameter(name), theirs.get_parameter(name)), name


def test_a_step_may_change_gradients_but_not_their_direction():
    model = TinyModel()
    optimizer = AdamW(model, max_grad_norm=0.1)
    seed_gradients(model, 0, scale=1.0)
    before = [p.grad.clone() for p in model.parameters()]
    optimizer.step()
    factors = [float((p.grad / g).mean()) for p, g in zip(model.parameters(), before, strict=True)]
    assert max(factors) - min(factors) < 1e-6


def test_hooks_run():
    model, calls = TinyModel(), []
    optimizer = AdamW(model)
    optimizer.register_step_pre_hook(lambda *_: calls.append("pre"))
    optimizer.register_step_post_hook(lambda *_: calls.append("post"))
    optimizer.step()
    assert calls == ["pre", "post"]


def test_float64_parameters_keep_float64_state():
    model = TinyModel(torch.float64)
    optimizer = SOAP(model)
    seed_gradients(model, 0)
    optimizer.step()
    tensors = [v for entry in optimizer.state.values() for v in entry.values() if isinstance(v, torch.Tensor)]
    assert {tensor.dtype for tensor in tensors} == {torch.float64}


def test_repr_shows_the_settings():
    text = repr(Muon(TinyModel(), lr=0.25))
    assert "rule: muon" in text and "lr: 0.25" in text


@pytest.mark.parametrize("kind", [AdamW, Muon, SOAP])
def test_a_step_asks_no_tensor_for_its_value(kind):
    """Fake tensors have no values: whatever would wait for the device (.item(), a condition) raises."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

    with FakeTensorMode():
        model = TinyModel()
        optimizer = kind(model)
        for _ in range(11):
            for parameter in model.parameters():
                parameter.grad = torch.empty_like(parameter)
            optimizer.step()
        assert optimizer.state_bytes() == optimizer.predicted_state_bytes()
        with pytest.raises(DataDependentOutputException):
            float(model.get_parameter("norm.weight").detach().sum())


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 4)])
def test_what_is_no_matrix_is_refused_under_a_rule_for_matrices(name, shape):
    for rule in implementation(name).rules:
        tensor = nn.Parameter(torch.ones(shape))
        routes = (RouteRule("mixer", rule.name, True, "mine"), *DEFAULT_RULES)
        for params, more in (
            ([{"params": [("mixer", tensor)], "rule": rule.name}], {}),
            ([("mixer", tensor)], {"rules": routes}),
        ):
            if not rule.takes(shape):
                with pytest.raises(InputError, match=rf"'mixer' of shape {re.escape(str(shape))} is no matrix"):
                    create(name, params, **more)
            else:
                optimizer = create(name, params, learning_rate=0.01, **more)
                tensor.grad = torch.ones(shape)
                optimizer.step()
                assert tensor.isfinite().all()
        assert isinstance(rule, MatrixRule) <= (not rule.takes(shape))


@pytest.mark.parametrize("name", names())
def test_a_parameter_without_a_shape_is_refused_by_name(name):
    with pytest.raises(InputError, match=r"0\.weight has no shape yet; run a batch"):
        create(name, nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 4)))
