"""Optimizers by name and search-space words; what is known of them without torch."""

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from tuneopt.optim import AdamW, Bounds, Optimizer, RouteRule, create, info
from tuneopt.optim.factory import hyperparameter_names, implementation
from tuneopt.optim.info import entry_of
from tuneopt.optim.reference import references
from tuneopt.optim.rule import MatrixRule
from tuneopt.optim.switches import laid_out, needs_weights
from tuneopt.optim.testing import TinyModel
from tuneopt.spec import SCALES, InputError
from tuneopt.training.model import Decoder

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "paper" / "grids.json"
LOOP = {"train_batch_size", "warmup", "decay", "lr_schedule", "min_lr_ratio"}


def test_search_space_words_become_class_arguments():
    optimizer = create(
        "muon",
        TinyModel(),
        learning_rate=0.5,
        beta1=0.8,
        beta2=0.9,
        epsilon=1e-12,
        weight_decay=0.3,
        momentum=0.7,
        muon_epsilon=1e-6,
        muon_to_adam_lr=0.1,
        max_grad_norm=0,
    )
    assert type(optimizer).__name__ == "Muon"
    expected = {"lr": 0.5, "betas": (0.8, 0.9), "eps": 1e-12, "weight_decay": 0.3, "momentum": 0.7}
    assert expected.items() <= optimizer.defaults.items()


def test_routing_rules_can_be_given():
    rules = (RouteRule("", "adamw", False, "all of it"),)
    assert {entry.rule for entry in create("soap", TinyModel(), rules=rules).routing} == {"adamw"}


def test_whole_numbers_may_come_as_floats():
    group = create("soap", TinyModel(), block_size=16.0, precondition_frequency=5.0).param_groups[0]
    assert [type(group[key]) for key in ("block_size", "precondition_frequency")] == [int, int]


def test_one_beta_alone_keeps_the_default_of_the_other():
    assert create("adamw", TinyModel(), beta1=0.5).defaults["betas"] == (0.5, 0.95)


@pytest.mark.parametrize("name", [entry.name for entry in info()])
def test_every_published_start_is_accepted(name):
    if not PUBLISHED.exists():
        pytest.skip("the published grids are not beside this checkout")
    for config in json.loads(PUBLISHED.read_text()).get(name, {"start": {}})["start"].values():
        create(name, TinyModel(), **{word: value for word, value in config.items() if word not in LOOP})


@pytest.mark.parametrize(
    ("name", "words", "message"),
    [
        ("sopa", {}, "unknown optimizer 'sopa'; did you mean 'soap'"),
        ("adamw", {"learning_rat": 1.0}, "adamw has no hyperparameter 'learning_rat'; did you mean 'learning_rate'"),
        ("adamw", {"momentum": 0.9}, "adamw has no hyperparameter 'momentum'"),
        ("adamw", {"warmup": 100}, "warmup belongs to the training loop"),
        ("adamw", {"nesterov": True}, "nesterov is always False for adamw"),
        ("soap", {"partition_grads_into_blocks": False}, "partition_grads_into_blocks is always True"),
        ("soap", {"learning_rate": "fast"}, "learning_rate must be a number"),
        ("adamw", {"beta1": "x"}, "beta1 must be a number"),
    ],
)
def test_mistakes_are_named(name, words, message):
    with pytest.raises(InputError, match=message):
        create(name, TinyModel(), **words)


def test_fixed_hyperparameters_are_accepted():
    create("adamw", TinyModel(), nesterov=False)
    create("soap", TinyModel(), partition_grads_into_blocks=True)


def test_words_of_a_class():
    words = hyperparameter_names(implementation("soap"))
    assert words[:5] == ("learning_rate", "beta1", "beta2", "epsilon", "weight_decay")
    assert "rules" not in words
    assert {"shampoo_beta", "precondition_frequency", "block_size", "max_grad_norm"} <= set(words)


def test_info_needs_no_torch():
    code = (
        "import sys, tuneopt.optim as o; assert len(o.info()) >= 3; "
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[2])


def test_unknown_attribute_of_the_package():
    import tuneopt.optim

    with pytest.raises(AttributeError, match="Adamm"):
        _ = tuneopt.optim.Adamm


@pytest.mark.parametrize("entry", info(), ids=lambda entry: entry.name)
def test_info_agrees_with_the_class(entry):
    kind = implementation(entry.name)
    assert kind.rules[0].name == next(iter(references(entry.name)))
    assert kind.rules[0].name == entry.name or entry.preset
    assert set(entry.preset) <= set(entry.switches)
    assert entry.needs_weights == any(needs_weights(group) for group in create(entry.name, TinyModel()).param_groups)
    assert entry.family in ("scalar", "matrix")
    assert (entry.fallback is None) == (len(kind.rules) == 1)
    # What the memory model of training takes from the table, without torch, follows from the class.
    assert entry.needs_all_gradients == (kind.prepare is not Optimizer.prepare)
    assert entry.curvature == bool(create(entry.name, TinyModel()).hessian_interval)
    assert (entry.workspace.stack > 0) == isinstance(kind.rules[0], MatrixRule)


@pytest.mark.parametrize("name", [entry.name for entry in info()])
def test_each_argument_of_a_class_is_a_setting_of_its_groups_under_its_own_name(name):
    """A hyperparameter is declared once, in the signature: defaults, groups and search-space words follow."""
    kind = implementation(name)
    optimizer = create(name, TinyModel())
    signature = inspect.signature(kind).parameters
    arguments = {key: signature[key].default for key in signature if key not in ("params", "rules")}
    assert set(arguments) == set(optimizer.defaults)
    for group in optimizer.param_groups:
        assert set(arguments) <= set(group)
    for key, default in arguments.items():
        assert optimizer.defaults[key] == entry_of(name).preset.get(key, default) or key == "heads", key
    assert set(kind.bounds) <= set(arguments)
    assert set(kind.declared) <= set(arguments)


def test_a_class_may_still_declare_its_bounds_apart():
    class Mine(AdamW):
        bounds: ClassVar = {"eps": Bounds(high=0.5)}

    assert Mine.bounds == {"eps": Bounds(high=0.5)}
    with pytest.raises(InputError, match=r"epsilon must be a number of at least 0 and below 0\.5"):
        Mine(TinyModel(), eps=0.5)


def test_annotations_that_only_a_type_checker_sees_declare_nothing():
    class Mine(AdamW):
        def __init__(self, params, lr: "Unheard" = 0.1):  # noqa: F821
            super().__init__(params, lr)

    assert Mine(TinyModel()).defaults["lr"] == 0.1


def test_settings_go_where_they_are_declared_to_go():
    optimizer = create("muon", TinyModel(), learning_rate=0.5, muon_to_adam_lr=0.1, max_grad_norm=3.0)
    rates = {group["rule"]: (group["lr"], group["max_grad_norm"]) for group in optimizer.param_groups}
    assert rates == {"muon": (0.5, 0.0), "adamw": (0.05, 3.0)}


@pytest.mark.parametrize("entry", info(), ids=lambda entry: entry.name)
def test_state_bytes_per_parameter_are_those_of_a_llama_matrix(entry):
    optimizer = create(entry.name, TinyModel())
    group = next(group for group in optimizer.param_groups if group["rule"] == optimizer.main.name) | {"pieces": 1}
    shapes = [(1024, 1024)] * 4 + [(4096, 1024)] * 2 + [(1024, 4096)]
    if isinstance(optimizer.main, MatrixRule):
        shapes = [tuple(laid_out(torch.empty(shape, device="meta"), group).shape) for shape in shapes]
    numbers = 0
    for rows, columns in shapes:
        state = optimizer.main.state_shapes((rows, columns), group)
        for shape in state.values():
            size = 4
            for side in shape:
                size *= side
            numbers += size
    assert numbers / sum(a * b for a, b in shapes) == entry.state_bytes_per_parameter


def test_state_bytes_of_a_real_model():
    scale = SCALES["nano-65k"]
    model = Decoder(scale, 64)
    rest = scale.total_parameters(64) - scale.parameters
    assert create("adamw", model).predicted_state_bytes() == 8 * scale.total_parameters(64)
    assert create("muon", model).predicted_state_bytes() == 4 * scale.parameters + 8 * rest
    assert create("soap", model, block_size=32).predicted_state_bytes() == 24 * scale.parameters + 8 * rest
