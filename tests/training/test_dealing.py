"""Whole-tensor updates under plain data parallelism: each matrix is computed once, and nothing else changes."""

from pathlib import Path

import pytest
import torch
from torch import nn
from zero_rank import Case, run_cases, step_losses
from zero_specs import OPTIMIZERS

from tuneopt.optim import create
from tuneopt.optim.bucket import norm_divisors
from tuneopt.training.dealing import Dealt, is_dealt
from tuneopt.training.loop import Training
from tuneopt.training.ranks import Ranks

MATRIX = (
    "muon", "scion", "kron", "soap", "kl_soap", "soap_muon", "shampoo", "muonh", "normuon", "muonc", "moonlight",
    "adamh", "adamc", "sf_muon", "dion",
)  # fmt: skip


def test_matrix_rules_are_dealt_out_and_others_are_not() -> None:
    assert [name for name in OPTIMIZERS if is_dealt(name)] == list(MATRIX)
    assert not is_dealt("somebody's")


@pytest.mark.parametrize("name", MATRIX)
def test_owners_share_all_tensors_out_and_clip_by_the_norm_of_all(name: str) -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = {"embed_tokens.weight": (64, 16), "norm.weight": (16,)}
    shapes |= {f"layers.{layer}.{side}.weight": (32, 16) for layer in range(3) for side in ("up_proj", "gate_proj")}
    parameters = {key: nn.Parameter(torch.randn(shape, generator=draw)) for key, shape in shapes.items()}
    whole = create(name, parameters, learning_rate=0.01, max_grad_norm=0.5)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=draw)
    dealt = [Dealt(whole, Ranks(rank, 3, torch.device("cpu"))) for rank in range(3)]
    assert sorted(name for names in dealt[0].owned for name in names) == sorted(parameters)
    assert all(part.owned == dealt[0].owned for part in dealt)
    batches = [batch for bucket in whole.buckets() for batch in bucket.batches()]
    expected = {float(b.settings["max_grad_norm"]): d for b, d in zip(batches, norm_divisors(batches), strict=True)}
    for part in dealt:
        own = [batch for bucket in part.mine.buckets() for batch in bucket.batches()]
        assert {key for group in part.mine.param_groups for key in group["param_names"]} == set(
            part.owned[part._ranks.rank]
        )
        for batch, divisor in zip(own, part._clip_divisors(own), strict=True):
            torch.testing.assert_close(divisor, expected[float(batch.settings["max_grad_norm"])])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_ranks_do_each_matrix_once_and_train_as_one_process(corpus, module_spec, tmp_path: Path) -> None:
    specs = {name: module_spec(name, train_batch_size=16, **OPTIMIZERS[name]) for name in MATRIX}
    folders = {name: tmp_path / name for name in MATRIX}
    first = run_cases(
        [Case(specs[name], 0, 5, folder=folders[name], save=True) for name in MATRIX], 2, corpus, tmp_path
    )
    then = run_cases([Case(specs[name], 0, 5, folder=folders[name]) for name in MATRIX], 2, corpus, tmp_path)
    for name, begun, resumed in zip(MATRIX, first, then, strict=True):
        training = Training(specs[name], corpus, None)
        losses = step_losses(training, 10)
        assert losses[-1] < losses[0] - 0.05, "the run must move, or equal losses show nothing"
        assert resumed["resumed"] == 5
        assert begun["losses"] + resumed["losses"] == pytest.approx(losses, rel=1e-6), name
        assert begun["proof"]["passed"], begun["proof"]
        matrices = sum(route.rule == training.optimizer.main.name for route in training.optimizer.routing)
        assert sum(begun["matrices"]) == 5 * matrices and all(0 < own < 5 * matrices for own in begun["matrices"])
        assert sum(begun["state_bytes"]) == training.optimizer.state_bytes()
        alone = Training(specs[name], corpus, folders[name])  # one process goes on from what ranks left
        assert alone.step == 5 and step_losses(alone, 5) == pytest.approx(losses[5:], rel=1e-6)
