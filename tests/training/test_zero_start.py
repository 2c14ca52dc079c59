"""Stage 3 from its start: the weights of one process, drawn into shards, and no rank with the whole model."""

from pathlib import Path

import pytest
import torch
from tiny_trials import TINY
from torch import nn
from zero_memory_probe import Load, measure
from zero_rank import Case, run_cases

from tuneopt.optim import create
from tuneopt.spec import Scale
from tuneopt.training.building import blank, fresh
from tuneopt.training.checkpoint import CheckpointStore
from tuneopt.training.memory import BUCKET, memory
from tuneopt.training.zero.engine import follow, saved_values

CPU = torch.device("cpu")


def test_a_blank_model_has_shapes_and_tables_but_no_weights(make_spec) -> None:
    empty, full = blank(make_spec(), CPU).model, fresh(make_spec(), CPU).model
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    assert [(n, p.shape) for n, p in empty.named_parameters()] == [(n, p.shape) for n, p in full.named_parameters()]
    for own, other in zip(empty.buffers(), full.buffers(), strict=True):
        assert torch.equal(own, other)


def test_values_are_drawn_one_by_one_as_the_model_draws_them(make_spec) -> None:
    drawn = blank(make_spec(), CPU).model.initial_values(5)
    for (name, value), (own, parameter) in zip(
        drawn, fresh(make_spec(seed=5), CPU).model.named_parameters(), strict=True
    ):
        assert name == own and torch.equal(value, parameter)


def test_an_optimizer_that_was_routed_on_a_blank_model_follows_it(make_spec) -> None:
    model = blank(make_spec("muon"), CPU).model
    optimizer = create("muon", model)
    routes = optimizer.routing
    for name, _ in list(model.named_parameters()):
        owner, own = model.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2]
        setattr(owner, own, nn.Parameter(torch.empty(0)))
    follow(optimizer, model)
    named = dict(model.named_parameters())
    for group in optimizer.param_groups:
        assert all(p is named[name] for name, p in zip(group["param_names"], group["params"], strict=True))
    assert optimizer.routing == routes and all(route.shape != (0,) for route in routes)


def test_saved_weights_come_in_the_order_of_the_model(make_spec) -> None:
    model = fresh(make_spec(), CPU).model
    saved = dict(reversed([(name, p.detach()) for name, p in model.named_parameters()]))
    values = dict(saved_values(model, saved))
    assert list(values) == [name for name, _ in model.named_parameters()]
    assert all(torch.equal(values[name], saved[name]) and values[name] is not saved[name] for name in saved)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("ranks", [2, 3])
def test_shards_start_with_the_very_bits_of_one_process(corpus, module_spec, tmp_path: Path, ranks: int) -> None:
    spec = module_spec("muon", train_batch_size=12, seed=7)
    run_cases([Case(spec, 3, steps=0, folder=tmp_path / "trial", save=True)], ranks, corpus, tmp_path)
    step, saved = CheckpointStore(tmp_path / "trial").load_newest(CPU)
    weights = dict(fresh(spec, CPU).model.named_parameters())
    assert step == 0 and set(saved["model"]) == set(weights)
    for name, weight in weights.items():
        assert torch.equal(saved["model"][name], weight), name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_rank_starts_with_its_shard_and_one_tensor(corpus) -> None:
    scale = ["start", "nano", 8, 512, 2048, 8, TINY.seq_len]
    (first, second) = measure(Load(scale, 1024, "lion", 3, steps=1), 2, corpus)
    whole = 4 * first["parameters"]
    largest = 4 * 2048 * 512
    for rank in (first, second):
        assert whole / 2 <= rank["drawn"] <= whole / 2 + 6 * largest, "while weights are drawn"
        # Then the buffers of a step are made, and all weights pass by in an evaluation; there is no state yet.
        need = memory(Scale(*scale), 1024, "lion", 4.0, ranks=2, zero=3, on_cpu=True)
        ahead = 4 * BUCKET // 2  # weights that are fetched ahead
        parts = need.weights + need.gradients + need.buffers + need.fetched + ahead
        assert rank["start"] < parts + 0.3 * whole, "there is no room for another copy of a shard"
