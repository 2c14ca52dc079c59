"""The parts of ZeRO that need no engine: ownership, exchange, whole-tensor steps, placements, refusals."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from zero_specs import OPTIMIZERS

from tuneopt.optim import create
from tuneopt.optim.adapter import adapted
from tuneopt.optim.proof import Check, Proof
from tuneopt.spec import InputError
from tuneopt.train.checkpoint import CheckpointStore, by_name, by_position
from tuneopt.train.distributed import Placement, Ranks, SharedHeldOut, joined
from tuneopt.train.distributed_launch import launch
from tuneopt.train.engine import fresh
from tuneopt.train.evaluate import HeldOut
from tuneopt.train.zero.checkpoint import write_part
from tuneopt.train.zero.engine import Apply
from tuneopt.train.zero.exchange import Exchange
from tuneopt.train.zero.owned import Owned
from tuneopt.train.zero.owners import assign, loads
from tuneopt.train.zero.witness import merged

CPU = torch.device("cpu")
LOOP = ("train_batch_size", "warmup", "decay", "lr_schedule", "min_lr_ratio")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """The only rank of a process group."""
    with joined(0, 1, CPU, f"file://{tmp_path_factory.mktemp('group') / 'meeting'}") as ranks:
        yield ranks


def built(name: str, make_spec):
    """A fresh tiny model and its optimizer."""
    spec = make_spec(name, **OPTIMIZERS[name])
    model = fresh(spec, CPU).model
    facts = {"heads": 1} if name == "adam_mini" else {}
    own = {word: value for word, value in spec.config.items() if word not in LOOP}
    return model, create(name, model, **facts, **own)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_displacement_then_apply_is_a_step(name: str, make_spec, alone: Ranks) -> None:
    model, optimizer = built(name, make_spec)
    twin, stepping = built(name, make_spec)
    owned = Owned(optimizer, list(dict(model.named_parameters())), alone, CPU)
    groups = [{**group, "params": group["params"]} for group in optimizer.param_groups]
    apply = Apply([{key: group[key] for key in ("params", "lr", "weight_decay")} for group in groups])
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        gradients = {n: torch.randn(p.shape, generator=generator) for n, p in model.named_parameters()}
        for rates in (optimizer, stepping, apply):
            for group in rates.param_groups:
                group["lr"] = 0.01 * step  # the first step of a warmup has rate zero
        for parameter_name, parameter in twin.named_parameters():
            parameter.grad = gradients[parameter_name].clone()
        stepping.step()
        owned.displace({n: gradient.reshape(-1).clone() for n, gradient in gradients.items()})
        for parameter_name, parameter in model.named_parameters():
            parameter.grad = owned.views[parameter_name].view(parameter.shape).clone()
        apply.step()
    for mine, reference in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)
    assert owned.optimizer.state_bytes() == stepping.state_bytes()
    assert not optimizer.state, "the optimizer of the whole model holds no state"


def test_state_travels_by_name(make_spec, alone: Ranks) -> None:
    model, optimizer = built("soap", make_spec)
    names = list(dict(model.named_parameters()))
    owned = Owned(optimizer, names, alone, CPU)
    owned.displace({name: torch.randn(p.numel()) for name, p in model.named_parameters()})
    state = owned.state()
    again = Owned(optimizer, names[3:7], alone, CPU)  # fewer tensors than were saved
    again.load(state)
    assert set(again.state()) == set(names[3:7])
    for name in names[3:7]:
        for key, value in again.state()[name].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(state[name][key])), (name, key)
    plain = built("soap", make_spec)[1]
    plain.load_state_dict(by_position({"state": state}, plain))
    assert by_name({"optimizer": plain.state_dict()}, plain).keys() == state.keys()
    assert plain.state_bytes() == owned.optimizer.state_bytes()


def test_a_plain_torch_optimizer_cannot_be_sharded(alone: Ranks) -> None:
    model = nn.Linear(4, 4)
    with pytest.raises(InputError, match="train it without ZeRO"):
        Owned(adapted(torch.optim.Adagrad)(model, lr=0.1), ["weight"], alone, CPU)


@pytest.mark.parametrize("name", ["muon", "adamw", "adam_mini"])
def test_flattened_shards_are_refused_in_one_sentence(name: str, make_spec) -> None:
    _, optimizer = built(name, make_spec)
    for group in optimizer.param_groups:
        flat = torch.cat([parameter.detach().reshape(-1) for parameter in group["params"]])
        group["params"] = [nn.Parameter(flat[: flat.numel() // 2])]
        group["params"][0].grad = torch.ones_like(group["params"][0])
    with pytest.raises(InputError, match=r"whole tensors and was handed a shard: \S+ of shape .*tuneopt\.train\.zero"):
        optimizer.step()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**9)), min_size=1, max_size=60),
    st.integers(1, 8),
)
def test_owners_share_fairly(weights: list[tuple[int, int]], ranks: int) -> None:
    loads = {f"p{number}": load for number, load in enumerate(weights)}
    owners = assign(loads, ranks)
    assert list(owners) == list(loads) and set(owners.values()) <= set(range(ranks))
    for kind in (0, 1):
        total = max(1, sum(load[kind] for load in loads.values()))
        shares = [sum(loads[n][kind] for n in loads if owners[n] == rank) / total for rank in range(ranks)]
        heaviest = max(max(load[k] / max(1, sum(w[k] for w in weights)) for k in (0, 1)) for load in weights)
        # Two loads at once: no rank exceeds twice an even share by more than the heaviest tensor.
        assert max(shares) <= 2 / ranks + heaviest + 1e-9


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_is_balanced_over_ranks(name: str, ranks: int, make_spec) -> None:
    model, optimizer = built(name, make_spec)
    found = loads(optimizer)
    owners = assign(found, ranks)
    assert set(owners) == set(dict(model.named_parameters()))
    assert 4 * sum(state for state, _ in found.values()) == optimizer.predicted_state_bytes()
    held = [sum(found[n][0] for n in found if owners[n] == rank) for rank in range(ranks)]
    # Embedding and head are a third of Muon's state each here, so four ranks cannot have a quarter each.
    assert max(held) <= (0.55 if ranks == 2 else 0.4) * sum(held)


def test_pieces_travel_to_owners_and_back(alone: Ranks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneopt.train.zero.exchange.PARCEL", 10)
    sizes = {"a": 7, "b": 4, "c": 25, "d": 1}
    pieces = {name: torch.randn(size) for name, size in sizes.items()}
    exchange = Exchange(alone, sizes, dict.fromkeys(sizes, 0), {name: (0, size) for name, size in sizes.items()})
    whole = {name: torch.zeros(size) for name, size in sizes.items()}
    exchange.to_owners(pieces.__getitem__, whole.__getitem__)
    assert exchange.owned == list(sizes)
    back: dict[str, torch.Tensor] = {}
    exchange.to_holders(whole.__getitem__, lambda name, value: back.update({name: value.clone()}))
    for name in sizes:
        assert torch.equal(pieces[name], whole[name]) and torch.equal(pieces[name], back[name])


def test_shared_evaluation_gives_the_very_losses(corpus, make_spec, alone: Ranks) -> None:
    warm = fresh(make_spec(), CPU)
    held_out = HeldOut.of(corpus, make_spec(), CPU)
    shared = SharedHeldOut(held_out, alone)
    for final in (False, True):
        assert shared.losses(warm.loss, final=final) == held_out.losses(warm.loss, final=final)


def test_parts_make_one_checkpoint_and_the_newest_two_stay(tmp_path: Path, alone: Ranks) -> None:
    store = CheckpointStore(tmp_path)
    for step in (1, 2, 3):
        backing = torch.arange(1000.0)
        write_part(store, step, {"model": {"w": backing[:2] + step}, "state": {"w": {"step": step}}}, alone)
    assert store.steps() == [2, 3] and not list(tmp_path.glob("*.tmp"))
    step, state = store.load_newest(CPU)
    assert step == 3 and state["state"]["w"]["step"] == 3 and state["model"]["w"].tolist() == [3.0, 4.0]
    (tmp_path / "step-000000003" / "rank-00000.pt").write_bytes(b"damaged")
    assert store.load_newest(CPU)[0] == 2
    store.save(4, {"trial": "one process"})
    assert store.steps() == [3, 4] and store.load_newest(CPU)[1] == {"trial": "one process"}


def test_a_part_that_is_missing_makes_the_checkpoint_damaged(tmp_path: Path, alone: Ranks) -> None:
    store = CheckpointStore(tmp_path)
    write_part(store, 1, {"model": {}, "state": {}}, alone)
    part = tmp_path / "step-000000001" / "rank-00000.pt"
    torch.save({**torch.load(part, weights_only=True), "parts": 2}, part)
    assert store.load_newest(CPU) is None


def test_a_proof_holds_where_it_holds_on_every_rank() -> None:
    count = Check("muon.parameters", True, 3.0, ">= 1", "")
    good, bad = Check("muon[0].band", True, 0.1, "< 1", "a"), Check("muon[0].band", False, 2.0, "< 1", "b")
    nothing = Check("muon.parameters", False, 0.0, ">= 1", "")
    only_here = Check("adamw[1].update", True, 0.0, "< 1", "")
    passed = merged([Proof(True, (count, good)), Proof(False, (nothing, only_here))], "muon")
    assert passed.passed and passed.checks[0].measured == 3.0
    assert {check.name for check in passed.checks} == {"muon.parameters", "muon[0].band", "adamw[1].update"}
    failed = merged([Proof(True, (count, good)), Proof(False, (count, bad))], "muon")
    assert not failed.passed and failed.checks[0].measured == 6.0 and bad in failed.checks


def test_placements(make_spec) -> None:
    spec = make_spec(train_batch_size=24, micro_batch=8)
    assert [Placement(ranks, 2).micro_batch(spec) for ranks in (1, 2, 3, 4, 6, 8, 24)] == [8, 6, 8, 6, 4, 3, 1]
    assert Placement(2, 3, True).facts(spec) == {"ranks": "2", "zero": "3", "micro_batch": "6", "offload": "cpu"}
    assert not Placement().distributed and Placement(zero=1).distributed and Placement(2).distributed
    for wrong, words in [((0,), "at least 1"), ((2, 4), "stages"), ((2, 0, True), "needs ZeRO")]:
        with pytest.raises(InputError, match=words):
            Placement(*wrong)
    with pytest.raises(InputError, match="does not divide among 5 ranks"):
        Placement(5).micro_batch(spec)


LATE = """
import os, sys, time
if os.environ["RANK"] == "1":
    print("out of memory", file=sys.stderr)
    sys.exit(3)
print("started", flush=True)
time.sleep(60)
"""


def test_a_rank_that_fails_ends_the_others_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneopt.train.distributed_launch.PATIENCE", 0.1)
    began, lines = time.monotonic(), []
    with pytest.raises(RuntimeError, match="rank 1 ended with code 3:\nout of memory"):
        lines.extend(launch([sys.executable, "-c", LATE], 2))
    assert time.monotonic() - began < 30


def test_ranks_know_who_they_are() -> None:
    code = "import os; print(os.environ['RANK'], os.environ['WORLD_SIZE'], os.environ['EXTRA'])"
    assert list(launch([sys.executable, "-c", code], 2, {"EXTRA": "more"})) == ["0 2 more"]


@pytest.mark.slow
def test_one_process_needs_no_deepspeed() -> None:
    code = "import sys, tuneopt.train.run, tuneopt.train.distributed_run; print('deepspeed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.slow
def test_the_command_refuses_bad_input_in_one_line(corpus, make_spec, tmp_path: Path) -> None:
    trial = tmp_path / "spec.json"
    trial.write_text(json.dumps(make_spec().to_dict()))
    command = [sys.executable, "-m", "tuneopt.train.zero", str(trial), "--corpus", str(corpus.folder)]
    command += ["--ledger", str(tmp_path / "ledger"), "--ranks", "3"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.strip().splitlines() == [
        "train_batch_size 8 does not divide among 3 ranks; choose a number of ranks that divides it"
    ]
