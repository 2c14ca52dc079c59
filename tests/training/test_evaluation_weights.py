"""Weights that are evaluated and kept in the place of those that are trained: in and out, to the bit."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from zero_rank import Case, run_cases, step_losses
from zero_specs import OPTIMIZERS

from tuneopt.ledger import Ledger
from tuneopt.training import run
from tuneopt.training.batches import HeldOut
from tuneopt.training.building import fresh
from tuneopt.training.loop import Training
from tuneopt.training.ranks import Ranks

CPU = torch.device("cpu")


AVERAGED = ("schedule_free", "sf_muon")


@pytest.fixture(params=AVERAGED)
def spec(make_spec, request):
    return make_spec(request.param, **OPTIMIZERS[request.param])


def weights(training: Training) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in training.model.parameters()]


def equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def test_evaluating_after_every_step_changes_no_bit_of_training(spec, corpus) -> None:
    plain, evaluated = (Training(spec, corpus, None) for _ in range(2))
    for _ in range(8):
        plain.train_step()
        evaluated.train_step()
        before = weights(evaluated)
        evaluated.evaluate(final=False)
        assert equal(weights(evaluated), before)
    assert equal(weights(plain), weights(evaluated))


def test_the_loss_is_that_of_the_average(spec, corpus) -> None:
    training = Training(spec, corpus, None)
    step_losses(training, 10)
    trained = training.held_out.losses(training.strategy.loss, final=True)
    found = training.evaluate(final=True)
    averages = list(training.optimizer.evaluated().values())
    with torch.no_grad():
        for parameter, average in zip(training.optimizer.evaluated(), averages, strict=True):
            parameter.copy_(average)
    assert found == training.held_out.losses(training.strategy.loss, final=True) != trained


def test_an_evaluation_that_fails_leaves_the_weights_of_training(spec, corpus) -> None:
    training = Training(spec, corpus, None)
    step_losses(training, 3)
    before = weights(training)
    with pytest.raises(RuntimeError, match="in between"), training.strategy.evaluation_weights():
        assert not equal(weights(training), before)
        raise RuntimeError("in between")
    assert equal(weights(training), before)


def test_other_optimizers_evaluate_what_they_train(make_spec, corpus) -> None:
    training = Training(make_spec(), corpus, None)
    step_losses(training, 3)
    with training.strategy.evaluation_weights():
        assert training.optimizer.evaluated() == {} and not training.optimizer.evaluates_others


def test_a_resumed_run_ends_alike(spec, corpus, tmp_path: Path) -> None:
    undisturbed, interrupted = Training(spec, corpus, None), Training(spec, corpus, tmp_path)
    undisturbed.advance()
    interrupted.advance()
    for _ in range(5):
        interrupted.train_step()
    interrupted.save()
    resumed = Training(spec, corpus, tmp_path)
    assert resumed.resumes == 1
    for training in (undisturbed, resumed):
        while not training.finished:
            training.advance()
    assert resumed.final_losses == undisturbed.final_losses and equal(weights(resumed), weights(undisturbed))


def test_the_weights_that_are_kept_have_the_losses_of_the_record(spec, corpus, tmp_path: Path, monkeypatch) -> None:
    kept: dict[str, Any] = {}
    monkeypatch.setattr(run, "store_weights", lambda spec, corpus, ledger, found: kept.update(copy.deepcopy(found)))
    record = run.run_trial(spec, corpus, Ledger(tmp_path), keep_weights=True)
    built = fresh(spec, CPU)
    built.model.load_state_dict(kept)
    held_out = HeldOut.of(corpus, spec, Ranks(0, 1, CPU))
    assert held_out.losses(built.loss, final=True) == (record.select_loss, record.report_loss)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", AVERAGED)
def test_ranks_train_on_from_the_weights_of_training(name: str, module_spec, corpus, tmp_path: Path) -> None:
    """With and without an evaluation after every step, the same losses to the bit; buckets small enough for many."""
    spec = module_spec(name, train_batch_size=16, **OPTIMIZERS[name])
    stages = (0, 1, 2, 3)
    cases = [Case(spec, stage, evaluates=evaluates, bucket=2048) for stage in stages for evaluates in (False, True)]
    results = run_cases(cases, 2, corpus, tmp_path)
    for plain, evaluated in zip(results[::2], results[1::2], strict=True):
        assert plain["losses"] == evaluated["losses"] and plain["held_out"] == evaluated["held_out"]
        assert plain["proof"]["passed"] and evaluated["proof"]["passed"]
