"""The loop: it learns, measures, diverges honestly, and resumes to the bit."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tuneopt.ledger import Ledger
from tuneopt.spec import InputError
from tuneopt.training.building import WarmModels
from tuneopt.training.loop import Training, curve_steps, stays_above_start
from tuneopt.training.run import run_trial

MUON = {"momentum": 0.95, "muon_epsilon": 1e-5, "muon_to_adam_lr": 0.3, "lr_schedule": "linear", "decay": 0.8}
SOAP = {"shampoo_beta": 0.95, "precondition_frequency": 5, "block_size": 64, "partition_grads_into_blocks": True}
ONE_BETA = {"beta2": None, "epsilon": None}
SCION = {"momentum": 0.95, "scion_epsilon": 1e-5, "scion_to_signum_lr": 0.3, "lr_schedule": "linear", **ONE_BETA}
KRON = {"preconditioner_lr": 0.2, "update_prob_flat_start": 20, "normalize_grads": True, **ONE_BETA}


def finish(training: Training) -> Training:
    while not training.finished:
        training.advance()
    return training


def weights(training: Training) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in training.model.parameters()]


@pytest.mark.parametrize(
    ("optimizer", "changes"),
    [
        ("adamw", {}),
        ("muon", MUON),
        ("soap", SOAP),
        ("scion", SCION),
        ("kron", KRON),
    ],
)
def test_every_optimizer_learns_and_is_proven(corpus, make_spec, optimizer: str, changes: dict) -> None:
    training = finish(Training(make_spec(optimizer, **changes), corpus, None))
    assert not training.diverged
    assert training.final_losses is not None
    assert training.final_losses[0] < training.curve[0].select_loss - 0.5
    assert training.proof is not None and training.proof["passed"], training.proof


def test_curve_has_the_points_that_the_specification_names(corpus, make_spec) -> None:
    spec = make_spec()
    training = finish(Training(spec, corpus, None))
    assert [point.step for point in training.curve] == [0, *curve_steps(spec.steps, 4)]
    assert training.curve[-1].step == spec.steps
    assert training.tokens == spec.steps * 8 * 32 <= spec.regime.tokens
    assert [point.seconds for point in training.curve] == sorted(point.seconds for point in training.curve)


@pytest.mark.parametrize(
    ("steps", "points", "expected"), [(100, 4, [25, 50, 75, 100]), (3, 20, [1, 2, 3]), (1, 5, [1])]
)
def test_curve_steps(steps: int, points: int, expected: list[int]) -> None:
    assert curve_steps(steps, points) == expected


class Spy:
    """A sample order that notes what is drawn from it."""

    def __init__(self, order, taken: list[int]) -> None:
        self.order, self.taken = order, taken

    def indices(self, first: int, count: int):
        drawn = self.order.indices(first, count)
        self.taken.extend(drawn.tolist())
        return drawn


def test_batch_sizes_see_the_same_tokens_in_the_same_order(corpus, make_spec) -> None:
    seen: dict[int, list[int]] = {}
    for batch in (4, 8, 16):
        spec = make_spec(train_batch_size=batch, micro_batch=4)
        training = Training(spec, corpus, None)
        taken: list[int] = []
        training.batches.order = Spy(training.batches.order, taken)  # type: ignore[assignment]
        finish(training)
        seen[batch] = taken
    shortest = min(map(len, seen.values()))
    assert shortest > 500
    assert seen[4][:shortest] == seen[8][:shortest] == seen[16][:shortest]


def test_the_data_seed_moves_the_order_and_nothing_else(corpus, make_spec) -> None:
    plain, same = make_spec(seed=1), replace(make_spec(seed=1), data_seed=1)
    ordered, weighted = replace(plain, data_seed=2), replace(make_spec(seed=2), data_seed=1)
    runs = [finish(Training(spec, corpus, None)) for spec in (plain, same, ordered, weighted)]
    first = [run.curve[0].select_loss for run in runs]
    # Equal weights start from equal bits whatever the order, and end elsewhere; other weights start elsewhere.
    assert first[0] == first[1] == first[2] != first[3]
    assert runs[0].final_losses == runs[1].final_losses
    assert len({run.final_losses for run in runs}) == 3
    samples = [run.batches.order.indices(0, 50).tolist() for run in runs]
    assert samples[0] == samples[1] == samples[3] != samples[2]


def test_accumulated_micro_batches_give_the_whole_batch_gradient(corpus, make_spec) -> None:
    first, second = (Training(make_spec(micro_batch=size), corpus, None, WarmModels()) for size in (8, 2))
    for training in (first, second):
        training.train_step()
    gradients = [[p.grad for p in training.model.parameters()] for training in (first, second)]
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-7)


def test_a_warm_engine_leaves_no_trace_of_the_trial_before(corpus, make_spec) -> None:
    engine = WarmModels()
    finish(Training(make_spec("adamw", learning_rate=0.05, seed=3), corpus, None, engine))
    warm = finish(Training(make_spec(), corpus, None, engine))
    cold = finish(Training(make_spec(), corpus, None, WarmModels()))
    assert warm.final_losses == cold.final_losses
    assert all(torch.equal(a, b) for a, b in zip(weights(warm), weights(cold), strict=True))


def test_resuming_from_any_checkpoint_gives_the_same_bits(corpus, make_spec, tmp_path: Path) -> None:
    spec = make_spec("soap", **SOAP)
    undisturbed = finish(Training(spec, corpus, None))
    interrupted = Training(spec, corpus, tmp_path)
    interrupted.advance()
    for _ in range(7):  # between two curve points, where the running train loss is half collected
        interrupted.train_step()
    interrupted.save()
    resumed = finish(Training(spec, corpus, tmp_path))
    assert resumed.resumes == 1
    assert resumed.final_losses == undisturbed.final_losses
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(undisturbed), strict=True))
    curves = [[replace(point, seconds=0.0) for point in each.curve] for each in (resumed, undisturbed)]
    assert curves[0] == curves[1]
    assert resumed.proof == undisturbed.proof


def test_a_checkpoint_at_a_curve_point_that_is_not_measured_yet_loses_no_point(corpus, make_spec, tmp_path) -> None:
    undisturbed = finish(Training(make_spec(), corpus, None))
    interrupted = Training(make_spec(), corpus, tmp_path)
    for _ in range(undisturbed.curve[2].step):
        interrupted.train_step()
        if interrupted.step == undisturbed.curve[1].step:
            interrupted._measure()
    interrupted.save()
    resumed = finish(Training(make_spec(), corpus, tmp_path))
    curves = [[replace(point, seconds=0.0) for point in each.curve] for each in (resumed, undisturbed)]
    assert curves[0] == curves[1]


KILLED = """
import sys, pickle
from pathlib import Path
import tuneopt.training.config as pause
from tuneopt.data import open_corpus
from tuneopt.ledger import Ledger
from tuneopt.spec import TrialSpec
from tuneopt.training.run import run_trial
import json
pause.PAUSE_SECONDS = 0.0
spec = TrialSpec.from_dict(json.loads(sys.argv[1]))
corpus = open_corpus(Path(sys.argv[2]))
print("started", flush=True)
run_trial(spec, corpus, Ledger(sys.argv[3]), on_point=lambda point: print("point", point.step, flush=True))
"""


def test_a_killed_process_goes_on_to_the_same_loss(corpus, make_spec, tmp_path: Path) -> None:
    spec = make_spec(ratio=0.4)
    whole = run_trial(spec, corpus, Ledger(tmp_path / "whole"))
    broken = Ledger(tmp_path / "broken")
    arguments = [sys.executable, "-c", KILLED, json.dumps(spec.to_dict()), str(corpus.folder), str(tmp_path / "broken")]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("point"):
            break
    time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert broken.get(spec.id) is None, "the process was to be killed before its end"
    assert list(broken.checkpoint_dir(spec.id).glob("step-*.pt"))
    resumed = run_trial(spec, corpus, broken)
    assert resumed.resumes == 1
    assert (resumed.select_loss, resumed.report_loss) == (whole.select_loss, whole.report_loss)
    assert not broken.checkpoint_dir(spec.id).exists(), "checkpoints go once the record is safe"


def test_a_finished_trial_is_not_trained_again(corpus, make_spec, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    first = run_trial(make_spec(), corpus, ledger)
    points: list = []
    assert run_trial(make_spec(), corpus, ledger, on_point=points.append) == first
    assert points == []


def test_the_record_tells_what_it_cost_and_how_it_ran(corpus, make_spec, tmp_path: Path) -> None:
    spec = make_spec()
    record = run_trial(spec, corpus, Ledger(tmp_path))
    assert record.status == "completed" and record.comparable
    assert record.tokens == spec.steps * 8 * 32
    assert record.flops == record.tokens * spec.regime.scale.flops_per_token(272)
    assert record.epochs == pytest.approx(spec.steps * 8 / len(corpus.split("train").windows(32)))
    assert record.seconds["train"] > 0 and record.seconds["eval"] > 0
    assert {"python", "torch", "cpu"} <= set(record.environment)
    assert {route["parameter"] for route in record.routing} >= {"embed_tokens.weight", "norm.weight", "lm_head.weight"}
    # AdamW keeps two fp32 numbers for each parameter, and a step count for each tensor.
    parameters = spec.regime.scale.total_parameters(272)
    assert 8 * parameters <= record.optimizer_state_bytes <= 8 * parameters + 8 * len(record.routing)


def test_divergence_is_a_status_and_never_a_number(corpus, make_spec, tmp_path: Path) -> None:
    spec = make_spec(learning_rate=1e6, max_grad_norm=0, warmup=0)
    record = run_trial(spec, corpus, Ledger(tmp_path))
    assert record.status == "diverged"
    assert record.select_loss is None and record.report_loss is None
    assert not record.comparable


@pytest.mark.parametrize(
    ("losses", "at_end", "expected"),
    [
        ([5.0, 4.0, 3.0], True, False),
        ([5.0, 4.0, 5.1], True, True),
        ([5.0, 6.0, 6.0, 6.0, 6.0], False, False),
        ([5.0, 6.0, 6.0, 6.0, 6.0, 6.0], False, True),
        ([5.0, 6.0, 6.0, 4.9, 6.0, 6.0], False, False),
        ([5.0], False, False),
    ],
)
def test_a_loss_that_stays_above_its_start(losses: list[float], at_end: bool, expected: bool) -> None:
    assert stays_above_start(losses, at_end=at_end) is expected


def test_another_corpus_than_the_named_one_is_refused(corpus, make_spec) -> None:
    spec = make_spec()
    wrong = replace(spec, regime=replace(spec.regime, corpus=replace(corpus.id, fingerprint="other")))
    with pytest.raises(InputError, match="not the one"):
        Training(wrong, corpus, None)


def test_a_trial_whose_record_cannot_be_stored_keeps_its_checkpoints(corpus, make_spec, tmp_path, monkeypatch) -> None:
    spec, ledger = make_spec(), Ledger(tmp_path)
    monkeypatch.setenv("TUNEOPT_CHECKPOINT_SECONDS", "0")
    monkeypatch.setattr(Ledger, "put", lambda ledger, record: False)
    with pytest.raises(InputError, match=r"could not be stored.*checkpoints stay"):
        run_trial(spec, corpus, ledger)
    kept = sorted(path.name for path in ledger.checkpoint_dir(spec.id).glob("*.pt"))
    assert kept and not ledger.has(spec.id)
    monkeypatch.undo()
    record = run_trial(spec, corpus, ledger)
    assert record.resumes == 1 and ledger.get(spec.id) == record
    assert not list(ledger.checkpoint_dir(spec.id).glob("*.pt"))


def test_the_first_record_of_a_trial_is_the_one_that_counts(corpus, make_spec, tmp_path, monkeypatch) -> None:
    """Another worker recorded the trial while this one trained: both know of one record."""
    spec, ledger = make_spec(), Ledger(tmp_path)
    first = replace(run_trial(spec, corpus, Ledger(tmp_path / "elsewhere")), notes=("first",))
    real = Ledger.put

    def put(ledger: Ledger, record):
        real(ledger, first)
        return real(ledger, record)

    monkeypatch.setattr(Ledger, "put", put)
    assert run_trial(spec, corpus, ledger) == first == ledger.get(spec.id)


@pytest.mark.parametrize("stands", ["link", "folder"])
def test_what_stands_in_the_place_of_a_record_is_set_aside_and_the_trial_is_recorded(
    corpus, make_spec, tmp_path, stands: str
) -> None:
    spec, ledger = make_spec(), Ledger(tmp_path)
    place = tmp_path / "trials" / f"{spec.id}.json"
    place.parent.mkdir()
    place.symlink_to("nowhere") if stands == "link" else place.mkdir()
    record = run_trial(spec, corpus, ledger)
    assert ledger.get(spec.id) == record and len(list((tmp_path / "damaged" / "trials").iterdir())) == 1
