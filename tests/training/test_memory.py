"""The memory model: it adds up, it shards as ZeRO does, and it meets measured peaks."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, astuple, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.spec import SCALES, Scale
from tuneopt.training.fitting import chosen_stage
from tuneopt.training.memory import Memory, chunk_tokens, memory, stage_for

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
    def need(**changes):
        return memory(SCALES["130m"], VOCAB, "adamw", 8.0, **{"ranks": 2, "zero": 2, **changes})

    def moved(other: Memory) -> set[str]:
        return {name for name, value in asdict(other).items() if value != getattr(base, name)}

    base = need()
    offloaded = need(offload=True)
    assert moved(offloaded) == {"host"} and offloaded.device == base.total - offloaded.host
    assert offloaded.host > base.master + base.state + base.gradients
    double = need(micro_batch=2)
    assert moved(double) == {"activations", "logits"} and base.total < double.total
    assert (double.activations, double.logits) == (2 * base.activations, 2 * base.logits)
    half = need(precision="bf16")
    body = SCALES["130m"].total_parameters(VOCAB) - VOCAB * 512
    assert half.activations < 0.75 * base.activations and half.weights == base.weights + 2 * body
    chunked = need(head_chunk=1024)
    assert moved(chunked) == {"logits"} and chunked.logits < 0.25 * base.logits
    assert moved(need(checkpointing=True)) == {"activations"}
    assert need(checkpointing=True).activations < 0.1 * base.activations
    assert moved(need(passes=1)) == {"accumulates"} and need(passes=1).total <= base.total
    matrix = memory(SCALES["130m"], VOCAB, "muon", 8.0, ranks=2, zero=2)
    assert matrix.workspace > 0 == base.workspace


def test_a_hessian_vector_product_holds_copies_of_the_model_and_no_square_of_the_length() -> None:
    scale = replace(SCALES["1.2b"], seq_len=4096)
    count = scale.total_parameters(VOCAB)
    short, long = (
        memory(replace(scale, seq_len=seq_len), VOCAB, "sophia", 8.0, precision="bf16", head_chunk=512).curvature
        for seq_len in (4096, 8192)
    )
    assert 4 * 4 * count < short < 80e9 and long < 2 * short
    assert memory(scale, VOCAB, "sophia", 8.0, ranks=2, zero=3).curvature - 4 * count == pytest.approx(
        memory(scale, VOCAB, "sophia", 8.0, ranks=2, zero=2).curvature
    )
    assert memory(scale, VOCAB, "adamw", 8.0).curvature == 0


def test_data_parallel_ranks_hold_their_gradients_throughout() -> None:
    alone, two = (memory(MIDDLE, 1024, "lion", 4.0, ranks=ranks, passes=1, on_cpu=True) for ranks in (1, 2))
    assert two.accumulates and not alone.accumulates
    assert two.total == alone.total + alone.activations + alone.logits + two.reduction
    more = memory(MIDDLE, 1024, "lion", 4.0, ranks=2, passes=2, on_cpu=True)
    assert more.total == two.total + two.gradients, "those of passes that are not averaged, beside the buckets"


def test_a_rule_that_needs_all_gradients_holds_what_it_owns() -> None:
    streamed, whole = (memory(SCALES["1.2b"], 1024, name, 12.0, ranks=4, zero=3) for name in ("adamw", "mars"))
    share = -(-SCALES["1.2b"].total_parameters(1024) // 4)
    assert whole.buffers - streamed.buffers > 1.8 * 4 * share
    assert whole.total > streamed.total


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["130m", "520m", "1.2b"]),
    ranks=st.sampled_from([2, 4, 8, 64]),
    gigabytes=st.integers(8, 200),
    micro_batch=st.integers(1, 4),
    offload=st.booleans(),
)
def test_the_chosen_stage_is_the_lowest_that_fits(name, ranks, gigabytes, micro_batch, offload) -> None:
    settled = {"ranks": ranks, "micro_batch": micro_batch, "offload": offload, "precision": "bf16", "head_chunk": 2048}
    available = gigabytes * 2**30
    chosen = stage_for(SCALES[name], VOCAB, "muon", 5.0, available, **settled)
    needs = [memory(SCALES[name], VOCAB, "muon", 5.0, zero=zero, **settled).device for zero in range(1, chosen)]
    assert all(need > available for need in needs)
    if chosen in (1, 2):
        assert memory(SCALES[name], VOCAB, "muon", 5.0, zero=chosen, **settled).device <= available
    assert chosen > 0 or not offload
    assert chosen > 0 or name != "1.2b", "large models share their state wherever they run"


def test_one_rank_has_nothing_to_share() -> None:
    assert stage_for(SCALES["1.2b"], VOCAB, "adamw", 8.0, 2**30, ranks=1) == 0
    assert stage_for(SCALES["1.2b"], VOCAB, "adamw", 8.0, 2**50, ranks=1, offload=True) == 1
    assert stage_for(SCALES["130m"], VOCAB, "adamw", 8.0, 2**50, ranks=8) == 0


def test_a_trial_is_judged_by_what_it_would_run(make_spec) -> None:
    spec = make_spec("muon", train_batch_size=8)
    assert chosen_stage(spec, 2, available=2**40) == 0
    assert chosen_stage(spec, 2, available=1) == 3
    assert chosen_stage(spec, 2) == 0, "this machine holds a tiny model whole"
    large = replace(spec, regime=replace(spec.regime, scale=SCALES["1.2b"]))
    assert chosen_stage(large, 2, available=2**40) == 1 and chosen_stage(large, 1, available=2**40) == 0


def test_it_imports_no_torch() -> None:
    code = "import sys, tuneopt.training.memory; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def measured(name: str, scale: Scale, vocab_size: int, micro_batch: int) -> dict[str, int]:
    """Bytes that two steps of one pass each added to a process at their peak, and the optimizer's state."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("peaks are read from Linux's /proc")
    command = [sys.executable, str(Path(__file__).with_name("memory_probe.py")), name]
    command += [json.dumps(astuple(scale)), str(vocab_size), str(micro_batch)]
    # Passes for second derivatives leave small blocks of all sizes; the C library cannot place large ones in the gaps.
    environment = os.environ | ({"MALLOC_MMAP_THRESHOLD_": "65536"} if name == "sophia" else {})
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def predicted(name: str, scale: Scale, vocab_size: int, micro_batch: int, state: int) -> int:
    chunk = chunk_tokens(micro_batch * scale.seq_len, vocab_size)
    state_bytes = state / scale.total_parameters(vocab_size)
    settled = {"micro_batch": micro_batch, "passes": 1, "head_chunk": chunk, "on_cpu": True}
    return memory(scale, vocab_size, name, state_bytes, **settled).total


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "lion", "muon", "soap"])
def test_the_model_meets_the_measured_peak(name: str) -> None:
    found = measured(name, MIDDLE, 32_768, 2)
    assert predicted(name, MIDDLE, 32_768, 2, found["state"]) == pytest.approx(found["peak"], rel=0.1)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["adamw", "lion"])
def test_the_model_meets_the_measured_peak_of_130m(name: str) -> None:
    scale = replace(SCALES["130m"], seq_len=64)
    found = measured(name, scale, VOCAB, 1)
    assert predicted(name, scale, VOCAB, 1, found["state"]) == pytest.approx(found["peak"], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("seq_len", "vocab_size"), [(64, 1024), (192, 1024), (512, 1024), (1024, 1024), (512, 32_768)])
def test_the_model_meets_the_peak_of_a_step_with_a_hessian_vector_product(seq_len: int, vocab_size: int) -> None:
    scale = replace(MIDDLE, layers=4, seq_len=seq_len)
    found = measured("sophia", scale, vocab_size, 1)
    assert predicted("sophia", scale, vocab_size, 1, found["state"]) == pytest.approx(found["peak"], rel=0.1)
