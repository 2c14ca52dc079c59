"""The memory model against what ranks really take: resident bytes at their peak, libraries taken off."""

from pathlib import Path

import pytest
from zero_memory_probe import Load, measure

from tuneopt.spec import SCALES, Scale
from tuneopt.training.memory import chunk_tokens, memory

RANKS = 2
MIDDLE = ["middle", "nano", 8, 512, 2048, 8, 64]
PAPER = ["1.2b", "paper", 32, 1536, 6144, 24, 64]
ALLOWED = 24 * 2**30
"""What the 1.2b shape may take on both ranks together, libraries included."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are read from Linux's /proc"),
]


def predicted(load: Load, state_bytes: int) -> int:
    scale = Scale(*load.scale)
    return memory(
        scale,
        load.vocab_size,
        load.optimizer,
        state_bytes / scale.total_parameters(load.vocab_size),
        precision=load.precision,
        micro_batch=load.micro_batch,
        ranks=RANKS,
        zero=load.zero,
        offload=load.offload,
        head_chunk=chunk_tokens(load.micro_batch * scale.seq_len, load.vocab_size),
        passes=load.passes,
        on_cpu=True,
    ).total


def free_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


@pytest.mark.parametrize(
    ("optimizer", "zero", "vocab_size", "passes"),
    [
        ("lion", 0, 1024, 1),
        ("lion", 0, 1024, 2),
        ("adamw", 1, 1024, 1),
        ("adamw", 2, 1024, 1),
        ("lion", 3, 1024, 1),
        ("muon", 3, 16_000, 1),
    ],
)
def test_the_model_meets_the_peak_of_each_rank(corpus, optimizer: str, zero: int, vocab_size: int, passes: int) -> None:
    load = Load(MIDDLE, vocab_size, optimizer, zero, passes=passes, steps=3)
    results = measure(load, RANKS, corpus)
    state = sum(rank["state"] for rank in results) if zero else results[0]["state"]
    assert predicted(load, state) == pytest.approx(max(rank["peak"] for rank in results), rel=0.1)


def test_the_1_2b_shape_takes_a_step_on_two_ranks_in_24_gib(corpus) -> None:
    load = Load(PAPER, 1024, "lion", 3, precision="bf16", steps=1)
    assert load.scale[2:6] == [getattr(SCALES["1.2b"], name) for name in ("layers", "d_model", "d_ff", "heads")]
    parameters = SCALES["1.2b"].total_parameters(1024)
    need = predicted(load, 4 * parameters)
    if free_bytes() < (wanted := int(1.1 * RANKS * need) + 2**31):
        pytest.skip(f"needs {wanted / 2**30:.1f} GiB of free memory, and {free_bytes() / 2**30:.1f} GiB are free")
    results = measure(load, RANKS, corpus)
    print([{key: rank[key] for key in ("drawn", "start", "peak", "base", "seconds", "losses")} for rank in results])
    assert sum(rank["state"] for rank in results) == 4 * parameters, "Lion has one moment"
    assert sum(max(rank["peak"], rank["start"]) + rank["base"] for rank in results) < ALLOWED
    assert need == pytest.approx(max(rank["peak"] for rank in results), rel=0.1)
    share = 4 * parameters / RANKS
    for rank in results:
        assert share <= rank["drawn"] <= 1.1 * share, "no rank ever holds the model"
        assert 6.5 < rank["losses"][0] < 7.5, "an untrained model of 1024 words: ln 1024 is 6.9"
