"""Whole trials on two ranks: their record, a rank that dies, and the engine that must not get an optimizer itself."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from zero_specs import OPTIMIZERS

from tuneopt import api
from tuneopt.ledger import Ledger
from tuneopt.training.checkpoint import CheckpointStore
from tuneopt.training.config import ParallelConfig
from tuneopt.training.launch import RankFailedError, launch
from tuneopt.training.run import run_ranks, run_trial

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_trial_on_two_ranks_leaves_the_record_of_one(corpus, make_spec, tmp_path: Path) -> None:
    spec = make_spec("muon", **OPTIMIZERS["muon"])
    points = []
    record = run_ranks(spec, corpus, Ledger(tmp_path / "two"), ParallelConfig(2, 2), points.append)
    alone = run_trial(spec, corpus, Ledger(tmp_path / "one"))
    assert record.trial == alone.trial and record.comparable
    assert record.select_loss == pytest.approx(alone.select_loss, rel=1e-4)
    assert record.report_loss == pytest.approx(alone.report_loss, rel=1e-4)
    assert [point.step for point in points] == [point.step for point in alone.curve[1:]]
    assert [p.train_loss for p in record.curve] == pytest.approx([p.train_loss for p in alone.curve], rel=1e-4)
    told = {name: record.environment[name] for name in ("ranks", "zero", "micro_batch")}
    assert told == {"ranks": "2", "zero": "2", "micro_batch": "4"}
    assert (record.tokens, record.flops, record.routing) == (alone.tokens, alone.flops, alone.routing)
    assert record.optimizer_state_bytes == alone.optimizer_state_bytes
    assert not Ledger(tmp_path / "two").checkpoint_dir(spec.id).exists()
    assert run_ranks(spec, corpus, Ledger(tmp_path / "two"), ParallelConfig(2, 2)) == record, "it is not trained again"


def test_divergence_under_zero_is_a_status(corpus, make_spec, tmp_path: Path) -> None:
    spec = make_spec(learning_rate=1e30, max_grad_norm=0, warmup=0)
    record = run_ranks(spec, corpus, Ledger(tmp_path), ParallelConfig(2, 1))
    assert record.status == "diverged" and record.select_loss is None


def test_a_trial_goes_on_after_a_rank_died(corpus, make_spec, tmp_path: Path, monkeypatch) -> None:
    # Every step is saved, so that there is something to go on from, whenever the rank dies.
    code = "import tuneopt.training.config as pause\npause.PAUSE_SECONDS = 0.0\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    spec = make_spec("adamw", ratio=0.4)
    ledger = Ledger(tmp_path / "ledger")
    alone = run_trial(spec, corpus, Ledger(tmp_path / "one"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def kill_one_rank() -> None:
        while len(list(ledger.checkpoint_dir(spec.id).glob("step-*"))) < 2:
            time.sleep(0.02)
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _is_rank_of(entry, os.getpid(), 1):
                os.kill(int(entry.name), signal.SIGKILL)

    killer = threading.Thread(target=kill_one_rank)
    killer.start()
    with pytest.raises(RankFailedError, match=r"^rank 1 of 2 was ended by SIGKILL .*; run the same command again"):
        run_ranks(spec, corpus, ledger, ParallelConfig(2, 2))
    killer.join()
    assert ledger.get(spec.id) is None and CheckpointStore(ledger.checkpoint_dir(spec.id)).steps()
    record = run_ranks(spec, corpus, ledger, ParallelConfig(2, 2))
    assert record.resumes == 1 and record.comparable
    assert record.select_loss == pytest.approx(alone.select_loss, rel=1e-4)


def _is_rank_of(entry: Path, parent: int, rank: int) -> bool:
    """Whether a process is the given rank among the children of ``parent``."""
    try:
        status = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        return int(status[1]) == parent and f"RANK={rank}".encode() in (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


HANDED_OVER = """
import torch
from torch import nn
from tuneopt.optim import create
from tuneopt.spec import InputError
from tuneopt.training.launch import leave
from tuneopt.training.ranks import rank_of_environment
from tuneopt.training.zero.engine import quiet_deepspeed

with rank_of_environment() as ranks:
    deepspeed = quiet_deepspeed(ranks.device)
    model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8))
    config = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": {"stage": STAGE},
              "zero_allow_untested_optimizer": True}
    try:
        engine, *_ = deepspeed.initialize(
            model=model, optimizer=create("muon", model), config=config, dist_init_required=False
        )
        engine.backward(engine(torch.ones(1, 8)).square().mean())
        engine.step()
        print("trained")
    except InputError as error:
        print("refused", error)
leave(0)
"""


@pytest.mark.parametrize("stage", [1, 3])
def test_an_engine_that_gets_muon_itself_is_refused(stage: int) -> None:
    lines = list(launch([sys.executable, "-c", HANDED_OVER.replace("STAGE", str(stage))], 1))
    told = [line for line in lines if line.startswith(("refused", "trained"))]
    assert len(told) == 1 and told[0].startswith("refused Muon works on whole tensors and was handed a shard"), lines


def test_the_module_trains_under_torchrun(corpus, make_spec, tmp_path: Path) -> None:
    spec = make_spec("lion", **OPTIMIZERS["lion"])
    (tmp_path / "spec.json").write_text(json.dumps(spec.to_dict()))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tuneopt.training.zero", str(tmp_path / "spec.json"), "--corpus", str(corpus.folder)]
    command += ["--ledger", str(tmp_path / "ledger"), "--zero", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ended.returncode == 0, ended.stderr[-2000:]
    record = Ledger(tmp_path / "ledger").get(spec.id)
    assert record is not None and record.comparable and record.environment["zero"] == "3"


def test_the_check_of_devices_says_what_it_measured() -> None:
    command = [sys.executable, "-m", "tuneopt.training.zero.check", "--json", "--scale", "nano-65k", "--steps", "3"]
    ended = subprocess.run([*command, "--stages", "1,3", "--optimizer", "lion"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    results = json.loads(ended.stdout)
    assert [(result["ranks"], result["zero"]) for result in results] == [(1, 0), (2, 1), (2, 3)]
    assert results[0]["difference"] == 0.0 and all(result["difference"] < 1e-4 for result in results)
    assert all(len(result["losses"]) == 3 and result["seconds"] > 0 < result["peak_bytes"] for result in results)
    again = subprocess.run([*command, "--stages", "1", "--tolerance", "-1"], capture_output=True, text=True)
    assert again.returncode == 1, "a tolerance that nothing meets"


@pytest.mark.slow
@pytest.mark.parametrize(
    "scale", ["2x32,seq=32,family=gpt2", "2x32,seq=32,family=nanochat,heads=2,kv_heads=1,tied=true"]
)
def test_a_tied_head_has_one_owner_at_every_stage(scale: str) -> None:
    """A tensor under two names is cut up, gathered and updated once."""
    command = [sys.executable, "-m", "tuneopt.training.zero.check", "--json", "--scale", scale, "--steps", "3"]
    ended = subprocess.run([*command, "--stages", "0,1,3"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert all(result["difference"] < 1e-6 for result in json.loads(ended.stdout))


def test_several_ranks_take_the_stage_that_memory_asks_for(corpus, make_spec, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("tuneopt.training.memory.SHARDED", 1)  # every model counts as large
    record = api.train(make_spec("lion", **OPTIMIZERS["lion"]), corpus, Ledger(tmp_path), ranks=2)
    assert (record.environment["ranks"], record.environment["zero"]) == ("2", "1")
