"""The memory model: it adds up, it shards as ZeRO does, and it meets measured peaks."""

import json
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import pytest

from tuneopt.spec import SCALES, Scale
from tuneopt.train.memory import memory

VOCAB = 128_256
MIDDLE = Scale("middle", "nano", layers=8, d_model=512, d_ff=2048, heads=8, seq_len=64)


def test_one_process_holds_weights_gradients_and_state() -> None:
    scale = SCALES["130m"]
    count = scale.total_parameters(VOCAB)
    found = memory(scale, VOCAB, "adamw", 8.0)
    assert (found.weights, found.gradients, found.state) == (4 * count, 4 * count, 8 * count)
    assert found.master == found.buffers == found.workspace == found.host == 0
    assert found.logits == 3 * 4096 * VOCAB * 4
    assert found.total == 16 * count + found.activations + found.logits
    assert found.to_dict()["total"] == found.total


def test_every_stage_needs_less_of_what_it_shards() -> None:
    scale = SCALES["1.2b"]
    stages = [memory(scale, VOCAB, "adamw", 8.0, ranks=8, zero=stage) for stage in (0, 1, 2, 3)]
    states = [found.state for found in stages]
    assert states[0] > 7 * states[1] and states[1] == states[2] == states[3]
    assert stages[1].gradients == stages[0].gradients == 8 * stages[2].gradients
    assert stages[3].weights < 0.5 * stages[2].weights == 0.5 * stages[0].weights
    totals = [found.total for found in stages]
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_more_ranks_never_need_more(zero: int) -> None:
    totals = [memory(SCALES["520m"], VOCAB, "muon", 5.0, ranks=ranks, zero=zero).total for ranks in (2, 4, 8, 64)]
    assert totals == sorted(totals, reverse=True)


def test_an_owner_never_holds_less_than_the_largest_tensor() -> None:
    scale = SCALES["1.2b"]
    found = memory(scale, VOCAB, "adamw", 8.0, ranks=1024, zero=3)
    assert found.state == 8 * VOCAB * scale.d_model


def test_what_a_trial_asks_for_moves_its_part_alone() -> None:
    base = memory(SCALES["130m"], VOCAB, "adamw", 8.0, ranks=2, zero=2)
    offloaded = memory(SCALES["130m"], VOCAB, "adamw", 8.0, ranks=2, zero=2, offload=True)
    assert astuple(offloaded)[:-1] == astuple(base)[:-1]
    assert offloaded.host == base.master + base.state + base.gradients and base.host == 0
    double = memory(SCALES["130m"], VOCAB, "adamw", 8.0, ranks=2, zero=2, micro_batch=2)
    assert (double.activations, double.logits) == (2 * base.activations, 2 * base.logits)
    half = memory(SCALES["130m"], VOCAB, "adamw", 8.0, ranks=2, zero=2, precision="bf16")
    assert half.activations < 0.75 * base.activations and half.weights == 1.5 * base.weights
    matrix = memory(SCALES["130m"], VOCAB, "muon", 8.0, ranks=2, zero=2)
    assert matrix.workspace > 0 == base.workspace


def test_it_imports_no_torch() -> None:
    code = "import sys, tuneopt.train.memory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "soap"])
def test_the_model_meets_the_measured_peak(name: str) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peaks are read from Linux's /proc")
    vocab_size = 32_768
    command = [sys.executable, str(Path(__file__).with_name("memory_probe.py")), name]
    command += [json.dumps(astuple(MIDDLE)), str(vocab_size), "2"]
    measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    state_bytes = measured["state"] / MIDDLE.total_parameters(vocab_size)
    assert memory(MIDDLE, vocab_size, name, state_bytes, micro_batch=2).total == pytest.approx(
        measured["peak"], rel=0.1
    )
