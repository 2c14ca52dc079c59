"""The parts of ZeRO that need no engine: ownership, exchange, whole-tensor steps, placements, refusals."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from zero_specs import OPTIMIZERS

from tuneopt.optim import Muon, create
from tuneopt.optim.adapter import adapted
from tuneopt.optim.proof import UpdateCheck
from tuneopt.optim.testing import TinyModel
from tuneopt.spec import InputError
from tuneopt.training.batches import HeldOut
from tuneopt.training.building import fresh
from tuneopt.training.checkpoint import CheckpointStore, by_name, by_position, write_parts
from tuneopt.training.config import ParallelConfig
from tuneopt.training.launch import RankFailedError, launch
from tuneopt.training.ranks import Ranks, joined
from tuneopt.training.zero.engine import Apply
from tuneopt.training.zero.owned import Owned, assign, cut, decay_of_holders, loads, needs_all
from tuneopt.training.zero.shards import Exchange
from tuneopt.training.zero.strategy import ShardedUpdateCheck

CPU = torch.device("cpu")
ROUTED = nn.ModuleDict(
    {
        "embed_tokens": nn.Embedding(300, 16),
        "up": nn.Linear(16, 64, bias=False),
        "down": nn.Linear(64, 16, bias=False),
        "norm": nn.RMSNorm(16),
        "lm_head": nn.Linear(16, 300, bias=False),
    }
)
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


def updated(
    owned: Owned, gradients: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The update of every tensor, bucket by bucket."""
    found = {}
    for bucket in owned.buckets:
        for name, place in bucket.gradients.items():
            place.copy_(gradients[name].reshape(-1))
        for name, place in bucket.weights.items():
            place.copy_(weights[name].detach().reshape(-1))
        owned.compute_updates(bucket)
        found.update({name: view.view(bucket.parameters[name].shape).clone() for name, view in bucket.updates.items()})
    owned.settle()
    return found


def by_limit(optimizer, gradients: dict[str, torch.Tensor]) -> dict[float, list[torch.Tensor]]:
    found: dict[float, list[torch.Tensor]] = {}
    for group in optimizer.param_groups:
        found.setdefault(group["max_grad_norm"], []).extend(gradients[name] for name in group["param_names"])
    return found


@pytest.mark.parametrize("limit", [2**24, 1500])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_update_then_apply_is_a_step(name: str, limit: int, make_spec, alone: Ranks, monkeypatch) -> None:
    monkeypatch.setattr("tuneopt.training.zero.owned.OWNER_BUCKET", limit)
    model, optimizer = built(name, make_spec)
    twin, stepping = built(name, make_spec)
    buckets = cut(optimizer, dict.fromkeys(dict(model.named_parameters()), 0), 1)
    assert len(buckets) == 1 if limit > 1500 or name == "mars" else len(buckets) > 8
    owned = Owned(optimizer, buckets, alone, CPU)
    groups = [{**group, "params": group["params"]} for group in optimizer.param_groups]
    apply = Apply([{key: group[key] for key in ("params", "lr", "weight_decay")} for group in groups])
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        gradients = {n: torch.randn(p.shape, generator=generator) for n, p in model.named_parameters()}
        for rates in (optimizer, stepping, apply):
            for group in rates.param_groups:
                group["lr"] = 0.01 * step  # the first step of a warmup has rate zero
        for flat, group in zip(apply.param_groups, optimizer.param_groups, strict=True):
            flat["weight_decay"] = decay_of_holders(group)
        for parameter_name, parameter in twin.named_parameters():
            parameter.grad = gradients[parameter_name].clone()
        stepping.step()
        if len(owned.limits) == 1:
            owned.clip(None if len(buckets) == 1 else by_limit(optimizer, gradients))
        updates = updated(owned, gradients, dict(model.named_parameters()))
        for parameter_name, parameter in model.named_parameters():
            parameter.grad = updates[parameter_name]
        apply.step()
    for mine, reference in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-5, atol=1e-6)
    assert sum(bucket.optimizer.state_bytes() for bucket in owned.buckets) == stepping.state_bytes()
    assert not optimizer.state, "the optimizer of the whole model holds no state"


def test_state_travels_by_name(make_spec, alone: Ranks) -> None:
    model, optimizer = built("soap", make_spec)
    names = list(dict(model.named_parameters()))
    owned = Owned(optimizer, [names], alone, CPU)
    updated(owned, {name: torch.randn(p.shape) for name, p in model.named_parameters()}, {})
    state = owned.state(owned.buckets[0])
    again = Owned(optimizer, [names[3:5], names[5:7]], alone, CPU)  # fewer tensors than were saved, in other buckets
    again.load(state)
    loaded = {name: held for bucket in again.buckets for name, held in again.state(bucket).items()}
    assert set(loaded) == set(names[3:7])
    for name in names[3:7]:
        for key, value in loaded[name].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(state[name][key])), (name, key)
    plain = built("soap", make_spec)[1]
    plain.load_state_dict(by_position({"state": state}, plain))
    assert by_name({"optimizer": plain.state_dict()}, plain).keys() == state.keys()
    assert plain.state_bytes() == sum(bucket.optimizer.state_bytes() for bucket in owned.buckets)


def test_a_plain_torch_optimizer_cannot_be_sharded(alone: Ranks) -> None:
    model = nn.Linear(4, 4)
    with pytest.raises(InputError, match="train it without ZeRO"):
        Owned(adapted(torch.optim.Adagrad)(model, lr=0.1), [["weight"]], alone, CPU)


@settings(max_examples=40, deadline=None)
@given(ranks=st.integers(1, 6), limit=st.integers(1, 9000), data=st.data())
def test_buckets_hold_every_tensor_once_and_no_owner_too_much(ranks: int, limit: int, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["muon", "lion", "mars"]))
    optimizer = create(name, ROUTED)
    sizes = {name: parameter.numel() for name, parameter in ROUTED.named_parameters()}
    owners = {each: data.draw(st.integers(0, ranks - 1)) for each in sizes}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tuneopt.training.zero.owned.OWNER_BUCKET", limit)
        buckets = cut(optimizer, owners, ranks)
    assert sorted(each for bucket in buckets for each in bucket) == sorted(sizes)
    if needs_all(optimizer):
        assert len(buckets) == 1
        return
    for bucket in buckets:
        for rank in range(ranks):
            held = [sizes[each] for each in bucket if owners[each] == rank]
            assert len(held) <= 1 or sum(held) <= limit
    # No two buckets of one owner that follow each other could have been one.
    for rank in range(ranks):
        held = [sum(sizes[each] for each in bucket if owners[each] == rank) for bucket in buckets]
        first = [next((sizes[each] for each in bucket if owners[each] == rank), 0) for bucket in buckets]
        assert all(a + b > limit or b == 0 for a, b in zip(held, first[1:], strict=False))


@pytest.mark.parametrize("name", ["muon", "adamw", "adam_mini"])
def test_flattened_shards_are_refused_in_one_sentence(name: str, make_spec) -> None:
    _, optimizer = built(name, make_spec)
    for group in optimizer.param_groups:
        flat = torch.cat([parameter.detach().reshape(-1) for parameter in group["params"]])
        group["params"] = [nn.Parameter(flat[: flat.numel() // 2])]
        group["params"][0].grad = torch.ones_like(group["params"][0])
    with pytest.raises(
        InputError, match=r"whole tensors and was handed a shard: \S+ of shape .*tuneopt\.training\.zero"
    ):
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


def test_pieces_travel_to_owners_and_back(alone: Ranks) -> None:
    sizes = {"a": 7, "b": 4, "c": 25, "d": 1}
    pieces = {name: torch.randn(size) for name, size in sizes.items()}
    transfers = [["a", "c"], ["b"], ["d"]]
    exchange = Exchange(alone, transfers, dict.fromkeys(sizes, 0), {name: (0, size) for name, size in sizes.items()})
    whole = {name: torch.zeros(size) for name, size in sizes.items()}
    back: dict[str, torch.Tensor] = {}
    there = [exchange.to_owners(number, pieces.__getitem__) for number in range(3)]  # several may be under way
    for transfer in there:
        transfer.fill(whole.__getitem__)
    for number in range(len(exchange)):
        transfer = exchange.to_holders(number, whole.__getitem__)
        transfer.hand_out(lambda piece, values: back.update({piece.name: values.clone()}))
    for name in sizes:
        assert torch.equal(pieces[name], whole[name]) and torch.equal(pieces[name], back[name])


def test_shared_evaluation_gives_the_very_losses(corpus, make_spec, monkeypatch) -> None:
    """Three ranks in one process, one after the other: what each measures is gathered as a collective would."""
    built = fresh(make_spec(micro_batch=2), CPU)
    alone = HeldOut.of(corpus, make_spec(micro_batch=2), Ranks(0, 1, CPU))
    measured: list[torch.Tensor] = []
    monkeypatch.setattr(Ranks, "all_gather", lambda ranks, tensor: measured.append(tensor) or tensor[None])
    for final in (False, True):
        expected = alone.losses(built.loss, final=final)
        measured.clear()
        for rank in range(3):
            replace(alone, ranks=Ranks(rank, 3, CPU)).losses(built.loss, final=final)
        count = (alone.curve_sequences if not final else len(alone.windows["select"])) // 2
        for split in (0, 1):
            shares = measured[split::2]
            assert len({len(share) for share in shares}) == 1, "all run the model together"
            losses = torch.stack(shares).T.flatten()[:count]
            assert float(losses.sum()) / count == expected[split]


def test_parts_make_one_checkpoint_and_the_newest_two_stay(tmp_path: Path, alone: Ranks) -> None:
    store = CheckpointStore(tmp_path)

    def parts(step: int):
        backing = torch.arange(1000.0)
        first = {"model": {"w": backing[:2] + step}, "state": {"w": {"step": step}}}
        return [first, {"model": {"v": backing[5:6]}, "state": {}}].__getitem__

    for step in (1, 2, 3):
        write_parts(store, step, 2, parts(step), alone)
    assert store.steps() == [2, 3] and not list(tmp_path.glob("*.tmp"))
    step, state = store.load_newest(CPU)
    assert step == 3 and state["state"]["w"]["step"] == 3 and state["model"]["w"].tolist() == [3.0, 4.0]
    assert state["model"]["v"].tolist() == [5.0]
    assert store.last_bytes == sum(path.stat().st_size for path in (tmp_path / "step-000000003").iterdir()) < 6000
    (tmp_path / "step-000000003" / "rank-00000.pt").write_bytes(b"damaged")
    assert store.load_newest(CPU)[0] == 2
    store.save(4, {"trial": "one process"})
    assert store.steps() == [3, 4] and store.load_newest(CPU)[1] == {"trial": "one process"}


def test_a_part_that_is_missing_makes_the_checkpoint_damaged(tmp_path: Path, alone: Ranks) -> None:
    store = CheckpointStore(tmp_path)
    write_parts(store, 1, 2, lambda number: {"model": {}, "state": {}}, alone)
    (tmp_path / "step-000000001" / "rank-00001.pt").unlink()
    assert store.load_newest(CPU) is None


def test_every_rank_knows_what_the_owners_measured() -> None:
    """The error of a parameter comes from its owner; a failure on one rank fails the proof on all."""
    model = TinyModel()
    whole = Muon(model)
    proofs = []
    for error in (1e-6, 0.5):
        check = UpdateCheck(whole, "muon")
        told = [{"errors": {1: error}, "bound": 1e-3, "stuck": []} for _ in check._followers]
        check.__class__ = ShardedUpdateCheck
        check._parameters = {}  # this rank owns nothing, the other one everything
        check._ranks = SimpleNamespace(gather=lambda mine, told=told: [mine, told])
        proofs.append(check.proof())
    assert proofs[0].passed and {c.measured for c in proofs[0].checks[1:]} == {1e-6}
    assert not proofs[1].passed


def test_placements(make_spec) -> None:
    spec = make_spec(train_batch_size=24, micro_batch=8)
    assert [ParallelConfig(ranks, 2).micro_batch(spec) for ranks in (1, 2, 3, 4, 6, 8, 24)] == [8, 6, 8, 6, 4, 3, 1]
    assert ParallelConfig(2, 3, True).facts(spec) == {"ranks": "2", "zero": "3", "micro_batch": "6", "offload": "cpu"}
    assert not ParallelConfig().distributed and ParallelConfig(zero=1).distributed and ParallelConfig(2).distributed
    for wrong, words in [((0,), "at least 1"), ((2, 4), "stages"), ((2, 0, True), "needs ZeRO")]:
        with pytest.raises(InputError, match=words):
            ParallelConfig(*wrong)
    with pytest.raises(InputError, match="does not divide among 5 ranks"):
        ParallelConfig(5).micro_batch(spec)


LATE = """
import os, signal, sys, time
if os.environ["RANK"] == "1":
    print("first line", file=sys.stderr)
    ENDING
print("started", flush=True)
time.sleep(0 if LOST else 60)
print("RuntimeError: [gloo] Connection closed by peer", file=sys.stderr)
sys.exit(1)
"""


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize(
    ("ending", "sentence"),
    [
        ("print('MemoryError: no room', file=sys.stderr); sys.exit(3)", "rank 1 of 2 failed: MemoryError: no room"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "rank 1 of 2 was ended by SIGKILL (which is how the kernel ends"),
        ("os._exit(7)", "rank 1 of 2 failed: first line"),
    ],
)
def test_a_rank_that_fails_ends_the_others_and_is_named(ending: str, sentence: str, lost: bool, monkeypatch) -> None:
    monkeypatch.setattr("tuneopt.training.launch.PATIENCE", 20.0 if lost else 0.1)
    code = LATE.replace("ENDING", "sys.stderr.flush(); " + ending).replace("LOST", str(lost))
    began, lines = time.monotonic(), []
    with pytest.raises(RankFailedError, match=re.escape(sentence)) as caught:
        lines.extend(launch([sys.executable, "-c", code], 2))
    assert str(caught.value).endswith("; run the same command again to go on from the last checkpoint")
    assert "\n" not in str(caught.value) and "first line" in caught.value.log
    assert time.monotonic() - began < 30


def test_bad_input_that_ranks_find_stays_bad_input() -> None:
    with pytest.raises(InputError, match=r"^the corpus is gone$"):
        list(launch([sys.executable, "-c", "import sys; print('the corpus is gone', file=sys.stderr); sys.exit(2)"], 2))


ORPHANS = """
import os, signal, sys, time
from tuneopt.training.launch import launch
code = "import os, time; from tuneopt.training.ranks import rank_of_environment\\n"
code += "with rank_of_environment() as ranks:\\n    print(os.getpid(), flush=True); time.sleep(60)"
for line in launch([sys.executable, "-c", code], 1):
    print(line, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's prctl")
def test_ranks_end_when_the_process_that_started_them_dies() -> None:
    ended = subprocess.run([sys.executable, "-c", ORPHANS], capture_output=True, text=True, timeout=100)
    rank = Path("/proc") / ended.stdout.split()[0]
    deadline = time.monotonic() + 20
    while rank.exists() and " Z " not in (rank / "stat").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert ended.returncode == -9
    assert not rank.exists() or " Z " in (rank / "stat").read_text(), "the rank outlived its launcher"


def test_ranks_know_who_they_are() -> None:
    code = "import os; print(os.environ['RANK'], os.environ['WORLD_SIZE'], os.environ['EXTRA'])"
    assert list(launch([sys.executable, "-c", code], 2, {"EXTRA": "more"})) == ["0 2 more"]


AGREEING = """
from tuneopt.training.launch import leave
from tuneopt.training.ranks import rank_of_environment
with rank_of_environment() as ranks:
    free = [7 * 2**40, 5 * 2**40][ranks.rank]
    print(ranks.least(free) // 2**40, ranks.all(True), ranks.all(ranks.rank == 0))
leave(0)
"""


def test_ranks_plan_with_the_memory_of_the_fullest() -> None:
    assert list(launch([sys.executable, "-c", AGREEING], 2)) == ["5 True False"]


@pytest.mark.slow
def test_one_process_needs_no_deepspeed() -> None:
    code = "import sys, tuneopt.training.run; print('deepspeed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.slow
def test_the_command_refuses_bad_input_in_one_line(corpus, make_spec, tmp_path: Path) -> None:
    trial = tmp_path / "spec.json"
    trial.write_text(json.dumps(make_spec().to_dict()))
    command = [sys.executable, "-m", "tuneopt.training.zero", str(trial), "--corpus", str(corpus.folder)]
    command += ["--ledger", str(tmp_path / "ledger"), "--ranks", "3"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stdout == ""
    assert ended.stderr.strip().splitlines() == [
        "train_batch_size 8 does not divide among 3 ranks; choose a number of ranks that divides it"
    ]
