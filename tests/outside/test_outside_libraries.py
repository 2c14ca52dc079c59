"""Optimizers of installed libraries by name: ``torch:NAdam``."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect

import pytest
import torch

from tuneopt import cli, outside
from tuneopt.api.optimizers import space_of
from tuneopt.optim import external
from tuneopt.optim.factory import create
from tuneopt.spec import InputError

LIBRARIES = ("torch:NAdam", "torch:SGD", "pytorch_optimizer:CAME", "pytorch_optimizer:Lion")


@pytest.fixture(autouse=True)
def no_sources(monkeypatch):
    monkeypatch.setattr(outside, "SOURCES", {})


def at_hand(word):
    return importlib.util.find_spec(word.partition(":")[0]) is not None


def test_a_library_and_its_version_are_in_the_name(monkeypatch):
    name = external.resolve("torch:NAdam")
    assert name.startswith("NAdam@") and external.resolve("torch:NAdam") == name
    assert external.load(name) is torch.optim.NAdam
    monkeypatch.setattr(importlib.metadata, "version", lambda distribution: "1.0")
    other = external.resolve("torch:NAdam")
    assert other != name and "torch 1.0" in outside.source_of(other)


def test_another_version_is_refused_where_a_trial_runs(monkeypatch):
    """A worker gets the text and not the version that it was written on."""
    with monkeypatch.context() as pretended:
        pretended.setattr(importlib.metadata, "version", lambda distribution: "1.0")
        name = external.resolve("torch:NAdam")
    with pytest.raises(InputError, match=f"names torch 1.0, here is {torch.__version__.partition('+')[0]}"):
        external.load(name)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("nowhere_at_all:Adam", "not installed here"),
        ("torch:", "names no class"),
        (":NAdam", "names no class"),
        ("torch:NAdamm", "cannot import name 'NAdamm'"),
        ("torch:lion", "has the name of a built-in optimizer"),
        ("torch:lr_scheduler", "is no class"),
    ],
)
def test_mistakes_are_one_sentence(word, told):
    with pytest.raises(InputError, match=told) as refused:
        space_of(word)
    assert "\n" not in str(refused.value)


def test_a_space_follows_from_the_signature():
    space = space_of("torch:NAdam").on("nano")
    own = inspect.signature(torch.optim.NAdam).parameters
    start = dict(space.start)
    assert start["learning_rate"] == 8 * own["lr"].default
    assert (start["beta1"], start["beta2"]) == own["betas"].default
    assert start["weight_decay"] == own["weight_decay"].default
    assert {"train_batch_size", "warmup"} <= set(space.by_name)
    assert dict(space_of("torch:SGD").on("nano").start)["momentum"] == 0.9
    assert "beta1" not in space_of("torch:SGD").on("nano").by_name


def test_a_space_from_a_signature_promises_no_more_than_the_class_keeps(monkeypatch, capsys):
    """torch's NAdam couples its decay, and in one param group norms and embeddings decay as well."""
    monkeypatch.setattr("sys.argv", ["tuneopt", "space", "torch:NAdam"])
    with pytest.raises(SystemExit):
        cli.main()
    shown = capsys.readouterr().out
    assert "decoupled" not in shown and "are not spared" in shown
    assert "published" not in shown  # nobody tuned it, so there is no table of tuned points


@pytest.mark.parametrize("word", LIBRARIES)
def test_starts_are_taken_by_the_class(word):
    if not at_hand(word):
        pytest.skip(f"{word.partition(':')[0]} is not installed: pip install '.[peers]'")
    space = space_of(word).on("nano")
    loop = ("train_batch_size", "warmup", "decay", "lr_schedule", "min_lr_ratio")
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    settings = {name: value for name, value in space.start if name not in loop}
    optimizer = create(space.optimizer, model, **settings)
    assert optimizer.param_groups[0]["lr"] == settings["learning_rate"]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(5, 4)).square().sum().backward()
        optimizer.step()
    assert all(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_a_class_with_three_betas_keeps_the_third():
    if not at_hand("pytorch_optimizer:CAME"):
        pytest.skip("pytorch_optimizer is not installed: pip install '.[peers]'")
    name = external.resolve("pytorch_optimizer:CAME")
    third = inspect.signature(external.load(name)).parameters["betas"].default[2]
    optimizer = create(name, torch.nn.Linear(4, 4), learning_rate=1e-3, beta1=0.8)
    assert optimizer.param_groups[0]["betas"] == (0.8, 0.999, third)


def test_a_schedule_free_class_is_refused_by_name():
    if not at_hand("schedulefree:AdamWScheduleFree"):
        pytest.skip("schedulefree is not installed: pip install '.[peers]'")
    space = space_of("schedulefree:AdamWScheduleFree").on("nano")
    with pytest.raises(InputError, match=r"AdamWScheduleFree.*(train\(\)|schedule)"):
        create(space.optimizer, torch.nn.Linear(4, 4), learning_rate=1e-3)
