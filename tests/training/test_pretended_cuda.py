"""The path of a GPU on a pretended one: devices and dtypes agree, nothing waits, memory is bounded at true shapes."""

from dataclasses import replace
from typing import Any

import pytest
from pretended_cuda import reason_to_skip, run_pretended

from tuneopt.optim.info import BUILT_IN
from tuneopt.optim.portions import DEVICE_PORTION, DEVICE_SLICE
from tuneopt.spec import SCALES, Scale
from tuneopt.training.memory import SLICE, STACK, chunk_tokens, memory

pytestmark = pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip() or "can be pretended")

NAMES = [entry.name for entry in BUILT_IN]
GIB = 2**30


def test_a_wait_is_seen() -> None:
    """Else the test below could not fail."""
    assert run_pretended("pretended_steps.py", "--wait") == {"aten::_local_scalar_dense": 1}


STEPS = ("1", "2", "10", "5003")
"""The first step makes bases, the tenth refreshes them; of Kron the last is one without a fit."""


def workspaces(measured: dict[str, dict[str, dict[str, int]]]) -> dict[str, int]:
    """Bytes of the fullest step, by optimizer."""
    return {name: max(step["workspace"] for step in steps.values()) for name, steps in measured.items()}


def predicted(scale: Scale) -> dict[str, int]:
    """What the memory model says of them."""
    listed = {entry.name: entry.state_bytes_per_parameter for entry in BUILT_IN}
    return {name: memory(scale, 128_256, name, listed[name] or 0).workspace for name in NAMES}


@pytest.fixture(scope="module")
def steps() -> dict[str, dict[str, dict[str, Any]]]:
    """All optimizers at the width of 130m; an operator that mixes devices raises."""
    return run_pretended("pretended_steps.py", "130m", "2", ",".join(STEPS), *NAMES)


def test_no_step_makes_the_host_wait(steps: dict[str, dict[str, dict[str, Any]]]) -> None:
    assert sorted(steps) == sorted(NAMES)
    waits = {(name, number): step["waits"] for name, own in steps.items() for number, step in own.items()}
    assert {key: value for key, value in waits.items() if value} == {}
    assert all(step["state"] > 0 and step["calls"] for own in steps.values() for step in own.values())


def test_the_memory_model_knows_what_updates_compute_with(steps: dict[str, dict[str, dict[str, Any]]]) -> None:
    scale = replace(SCALES["130m"], layers=2)
    assert predicted(scale) == pytest.approx(workspaces(steps), rel=0.1, abs=2**20)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_updates_of_the_largest_scale_are_bounded_and_predicted() -> None:
    measured = run_pretended("pretended_steps.py", "1.2b", "32", ",".join(STEPS), *NAMES)
    found = workspaces(measured)
    assert all(count < 6 * GIB for count in found.values()), found
    assert predicted(SCALES["1.2b"]) == pytest.approx(found, rel=0.1, abs=2**20)
    refresh = measured["soap"]["10"]["calls"]
    assert 1000 * refresh["aten::geqrf"] <= 36_864, "one matrix at a time there are 36,864"
    assert "aten::linalg_qr" not in refresh


def passes_predicted(word: str, *, compiled: bool = False) -> int:
    """What the memory model says of a pass, the cast weights with it: ``SCALE:LAYERS:SEQUENCES``."""
    name, layers, sequences = word.split(":")
    scale, tokens = replace(SCALES[name], layers=int(layers)), int(sequences) * SCALES[name].seq_len
    need = memory(
        scale, 128_256, "adamw", 8.0, precision="bf16", micro_batch=int(sequences),
        head_chunk=chunk_tokens(tokens, 128_256), compiled=compiled,
    )  # fmt: skip
    return need.passes + need.weights - 4 * scale.total_parameters(128_256)


@pytest.mark.parametrize(
    "words",
    [("130m:2:2", "1.2b:4:2"), pytest.param(("130m:32:4", "300m:32:2", "1.2b:32:2"), marks=pytest.mark.slow)],
)
def test_the_memory_model_knows_passes(words: tuple[str, ...]) -> None:
    """FLOPs are the scale's own, too, but that a kernel counts all of attention's squares where half is masked."""
    measured = run_pretended("pretended_passes.py", *words)
    for word in words:
        scale = replace(SCALES[word.split(":")[0]], layers=int(word.split(":")[1]))
        assert measured[word]["waits"] == {}
        assert passes_predicted(word) == pytest.approx(measured[word]["peak"], rel=0.1), word
        squares = 6 * scale.layers * scale.seq_len * scale.attention_width
        assert scale.flops_per_token(128_256) + squares == pytest.approx(measured[word]["flops"], rel=0.1), word
        assert passes_predicted(word, compiled=True) < passes_predicted(word)


def test_state_of_a_checkpoint_is_on_the_device_once() -> None:
    measured = run_pretended("pretended_steps.py", "--resume", "adamw", "muon", "soap", "kron")
    for name, own in measured.items():
        assert own["on_host"] == 0 and own["peak"] <= 1.05 * own["state"] > 0, name


def test_portions_of_the_memory_model_are_those_of_the_optimizers() -> None:
    assert (STACK, SLICE) == (DEVICE_PORTION, DEVICE_SLICE)


def test_the_heads_chunks_run_on_the_device() -> None:
    """Under autocast, forward and backward: bf16 products that add up in fp32, logits of one chunk at a time."""
    measured = run_pretended("pretended_head.py")
    assert measured["waits"] == {} and measured["dtypes"] == ["torch.float32", "torch.float32"]
    assert measured["addmm"] == measured["chunks"] > 1
