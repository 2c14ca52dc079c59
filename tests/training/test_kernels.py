"""Compiled kernels that a kill cut off are built again; kernels that were complete stay."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.nn import attention

from tuneopt.training import kernels
from tuneopt.training.building import can_compile
from tuneopt.training.kernels import UNFINISHED, allow_many_shapes, compile_alone, kernels_of_this_machine


@pytest.fixture
def inductor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "inductor"
    (folder / "ab").mkdir(parents=True)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    return folder


def unfinished() -> Path:
    return Path(f"{kernels_of_this_machine()}{UNFINISHED}")


def library(inductor: Path, name: str, content: bytes, seconds: float) -> Path:
    path = inductor / "ab" / name
    path.write_bytes(content)
    os.utime(path, (seconds, seconds))
    return path


def test_what_an_ended_process_built_last_is_removed(inductor: Path) -> None:
    before, after = library(inductor, "one.main.so", b"ELF", 1000), library(inductor, "two.main.so", b"EL", 1020)
    source = library(inductor, "two.main.cpp", b"int x;", 1020)
    marker = unfinished()
    marker.touch()
    os.utime(marker, (1010, 1010))
    compile_alone(lambda: None)
    assert before.exists() and source.exists() and not after.exists() and not marker.exists()


def test_what_another_machine_is_building_in_a_shared_cache_is_left_alone(inductor: Path) -> None:
    building = library(inductor, "one.main.so", b"EL", 1020)
    other = inductor / f"tuneopt-elsewhere{UNFINISHED}"
    other.touch()
    os.utime(other, (1010, 1010))
    compile_alone(lambda: None)
    assert building.exists() and other.exists()


def test_without_one_only_empty_libraries_are_removed(inductor: Path) -> None:
    whole, empty = library(inductor, "one.main.so", b"ELF", 1000), library(inductor, "two.main.so", b"", 1000)
    seen = []
    compile_alone(lambda: seen.append((whole.exists(), empty.exists(), unfinished().exists())))
    assert seen == [(True, False, True)]


def test_a_failure_is_no_end_and_an_interruption_is_one(inductor: Path) -> None:
    def fail(error: BaseException) -> None:
        raise error

    with pytest.raises(RuntimeError):
        compile_alone(lambda: fail(RuntimeError("out of memory")))
    assert not unfinished().exists()
    with pytest.raises(KeyboardInterrupt):
        compile_alone(lambda: fail(KeyboardInterrupt()))
    assert unfinished().exists()


def test_the_ninth_shape_is_compiled_like_the_first() -> None:
    torch._dynamo.reset()
    allow_many_shapes()
    counter = CompileCounter()

    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    for width in range(2, 14):
        assert torch.compile(twice, backend=counter, dynamic=False)(torch.ones(width)).sum() == 2 * width
    assert counter.frame_count == 12
    torch._dynamo.reset()


CODE = """
import torch
from tuneopt.spec import CorpusId, Regime, Scale, TrialSpec
from tuneopt.training.building import WarmModels
scale = Scale("flat", "nano", layers=1, d_model=32, d_ff=64, heads=1, seq_len=32)
spec = TrialSpec("adamw", TrialSpec.freeze({"train_batch_size": 2}), Regime(scale, 1.0, CorpusId("text", "0" * 16, 97)),
                 micro_batch=2, compile=True)
warm = WarmModels(torch.device("cpu")).prepare(spec)
tokens = torch.randint(97, (2, 33), generator=torch.Generator().manual_seed(0))
print(warm.loss(tokens[:, :-1], tokens[:, 1:]).item())
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_process_that_is_killed_while_it_compiles_leaves_no_broken_kernel(inductor: Path) -> None:
    if not can_compile():
        pytest.skip("no C++ compiler")
    first = subprocess.Popen([sys.executable, "-c", CODE], start_new_session=True)
    while len(list(inductor.rglob("*.main.so"))) < 3:
        assert first.poll() is None, "it was to be killed while it compiled"
        time.sleep(0.01)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    for built in inductor.rglob("*.main.so"):
        built.write_bytes(built.read_bytes()[:4096])  # as if less had reached the disk; whoever loads it gets SIGBUS
    told = [subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True) for _ in range(2)]
    assert [each.returncode for each in told] == [0, 0], told[0].stderr[-2000:]
    assert told[0].stdout == told[1].stdout and 4 < float(told[0].stdout) < 5


@pytest.mark.parametrize(
    ("installed", "capability", "taken"), [(True, (9, 0), True), (True, (10, 0), False), (False, (9, 0), False)]
)
def test_flash_attention_3_is_taken_where_it_is_installed_and_runs(monkeypatch, installed, capability, taken) -> None:
    done: list[object] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if installed else None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(attention, "list_flash_attention_impls", lambda: ["FA3", "FA4"], raising=False)
    monkeypatch.setattr(attention, "activate_flash_attention_impl", done.append, raising=False)
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", done.append)
    assert kernels.take_flash_attention_3(torch.device("cuda", 0)) is taken
    assert done == (["FA3", False] if taken else [])
