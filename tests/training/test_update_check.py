"""The update check of real trials: it catches broken rules by itself, and raises no false alarm.

What it cannot see: a clip whose limit no gradient of the watched steps reaches, a refresh or an estimate that is due
after more than 16 steps, and entries of large tensors outside the sample.
"""

import random
from dataclasses import replace

import pytest
import torch
from broken_rules import BROKEN, MISTAKES
from tiny_trials import TINY
from zero_specs import OPTIMIZERS

from tuneopt.training.loop import Training

TWO_HEADS = replace(TINY, heads=2)
PACE = {"prodigy": 100.0}
"""Whose rate is a factor of a distance; with an AdamW's, rounding would hide its steps."""
FAST = {(optimizer, mistakes[index][0]) for optimizer, mistakes in MISTAKES.items() for index in (0, 3)}
"""Two mistakes of every optimizer for the fast set; all of them take two minutes."""


def proof_of(spec, corpus, steps=60):
    """The proof of a trial's first steps, and the largest error over its bound."""
    training = Training(spec, corpus, None)
    check = training.update_check
    while training.proof is None and training.step < steps:
        training.train_step()
    shares = [error / f.bound for f in check._followers for error in f.errors.values()]
    return training.proof or check.proof().to_dict(), max(shares, default=0.0)


@pytest.fixture
def make(make_spec):
    def spec_of(optimizer, scale=TWO_HEADS, **changes):
        spec = make_spec(optimizer, **{"beta1": 0.9, "beta2": 0.98, **OPTIMIZERS[optimizer], **changes})
        return replace(spec, regime=replace(spec.regime, scale=scale))

    return spec_of


def test_there_are_seven_for_every_optimizer():
    assert len(BROKEN) >= 75
    assert all(len(mistakes) >= 7 for mistakes in MISTAKES.values()) and set(MISTAKES) == set(OPTIMIZERS)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(
            each,
            id=f"{each.optimizer}-{each.name}".replace(" ", "-"),
            marks=() if (each.optimizer, each.name) in FAST else pytest.mark.slow,
        )
        for each in BROKEN
    ],
)
def test_a_broken_rule_is_caught_by_the_trial_itself(corpus, make, monkeypatch, broken):
    spec = make(broken.optimizer, **broken.changes)
    broken.patch(monkeypatch)
    proof, _ = proof_of(spec, corpus)
    assert not proof["passed"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_honest_trials_pass(corpus, make, optimizer):
    for changes in ({}, {"max_grad_norm": 0.05}, {"train_batch_size": 4, "learning_rate": 0.001}):
        proof, share = proof_of(make(optimizer, **changes), corpus)
        assert proof["passed"], (changes, proof)
        assert share <= 0.5


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_no_false_alarm_in_ten_honest_runs_each(corpus, make, optimizer, record_property):
    """Over seeds, shapes, rates, batch sizes, clips and schedules; the largest error over its bound is recorded."""
    draw, worst = random.Random(f"honest {optimizer}"), 0.0
    for seed in range(10):
        width = draw.choice((16, 32))
        scale = replace(TINY, d_model=width, d_ff=4 * width, heads=draw.choice((1, 2)), seq_len=draw.choice((16, 32)))
        changes = {
            "learning_rate": PACE.get(optimizer, 1.0) * draw.choice((3e-4, 1e-3, 4e-3, 0.016)),
            "weight_decay": draw.choice((0.0, 0.1, 0.5)),
            "train_batch_size": draw.choice((2, 4, 8, 16)),
            "max_grad_norm": draw.choice((0, 0.1, 1.0)),
            "warmup": draw.choice((0, 0.1, 5)),
            "lr_schedule": draw.choice(("cosine", "linear")),
        }
        spec = replace(make(optimizer, scale=scale, **changes), seed=seed)
        proof, share = proof_of(spec, corpus)
        assert proof["passed"], (changes, scale, proof)
        worst = max(worst, share)
    record_property("largest error over its bound", worst)
    print(f"{optimizer}: {worst:.2g} of the bound")
    assert worst <= 0.5


def test_the_check_changes_no_bit_of_training(corpus, make):
    watched, plain = (Training(make("soap"), corpus, None) for _ in range(2))
    plain.update_check = None
    for training in (watched, plain):
        for _ in range(8):
            training.train_step()
    assert watched.proof is not None
    assert all(torch.equal(a, b) for a, b in zip(watched.model.parameters(), plain.model.parameters(), strict=True))
