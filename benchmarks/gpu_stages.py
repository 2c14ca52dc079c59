"""The stages of `gpu_check`: ``python benchmarks/gpu_stages.py STAGE --device cuda``. Each prints a line for each fact.

A fact is printed as soon as it is known, so that a stage that is ended at its limit keeps what it had. ``holds`` marks
those that are right or wrong; the others are figures.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gpu_check import FACT
from throughput_sides import EVALUATION, RandomCorpus, breakdown, synchronize
from torch.nn.attention import SDPBackend, sdpa_kernel

from tuneopt.optim import create
from tuneopt.optim.factory import LOOP, implementation
from tuneopt.optim.info import BUILT_IN
from tuneopt.optim.orthogonalize import newton_schulz
from tuneopt.optim.soap import assembled
from tuneopt.search.space import load_space
from tuneopt.spec import SCALES, Regime, Scale, TrialSpec
from tuneopt.training.building import WarmModels
from tuneopt.training.config import ParallelConfig
from tuneopt.training.fitting import step_memory
from tuneopt.training.head import loss_and_slope
from tuneopt.training.loop import Training
from tuneopt.training.machine import device_name, mfu, peak_of, reset_peak_memory
from tuneopt.training.model import Decoder
from tuneopt.training.second_order import estimate

STUDY_TOKENS = 524_288
"""Tokens of an optimizer step in the study."""

SMALL = Scale("check", "nano", layers=2, d_model=128, d_ff=512, heads=4, seq_len=128)
"""The model of the parity stage: large enough for blocks and stacks, small enough for eleven optimizers on a CPU."""

TINY = Scale("tiny", "paper", layers=2, d_model=64, d_ff=256, heads=1, seq_len=64)
"""What every scale is in a toy run."""

NAMES = [entry.name for entry in BUILT_IN if not entry.preset]


class Bench:
    """A device, whether it is all a toy, and how facts are told and calls timed."""

    def __init__(self, device: torch.device, toy: bool) -> None:
        self.device, self.toy = device, toy
        self.vocabulary = 20_000 if toy else 128_256

    def tell(self, name: str, value: Any = None, unit: str = "", holds: bool | None = None) -> None:
        """Print one fact."""
        fact = {"name": name, "value": value, "unit": unit} | ({} if holds is None else {"holds": holds})
        print(FACT + json.dumps(fact), flush=True)

    def scale(self, name: str) -> Scale:
        """A scale of the paper ladder, or the tiny one."""
        return TINY if self.toy else SCALES[name]

    def milliseconds(self, call: Callable[[], Any], count: int = 10) -> float:
        """The median time of a call, after one that is not counted."""
        call()
        times = []
        for _ in range(2 if self.toy else count):
            synchronize(self.device)
            began = time.perf_counter()
            call()
            synchronize(self.device)
            times.append(time.perf_counter() - began)
        return 1e3 * statistics.median(times)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Random numbers on the device: products of zeros or ones draw less power and run faster."""
        return torch.randn(shape, device=self.device).to(dtype)

    def clear(self) -> None:
        """Give back what the last candidate held."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def ceilings(bench: Bench) -> None:
    """What the machine can do at best: copies, products, attention."""
    bench.tell("torch", torch.__version__)
    bench.tell("device", device_name(bench.device))
    size = 2**20 if bench.toy else 2**30
    source = torch.empty(size, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    bench.tell("copy", 2 * size / bench.milliseconds(lambda: target.copy_(source)) / 1e9, "TB/s")
    side = 128 if bench.toy else 8192
    for name, dtype, tf32 in (("bf16", torch.bfloat16, False), ("tf32", torch.float32, True), ("fp32", None, False)):
        left, right = (bench.normal(side, side, dtype=dtype or torch.float32) for _ in range(2))
        torch.backends.cuda.matmul.allow_tf32 = tf32
        spent = bench.milliseconds(lambda left=left, right=right: left @ right)
        bench.tell(f"products_{name}", 2 * side**3 / spent / 1e9, "TFLOP/s")
    torch.backends.cuda.matmul.allow_tf32 = False
    shape = (1, 2, 64, 64) if bench.toy else (4, 24, 4096, 64)
    q, k, v = (bench.normal(*shape, dtype=torch.bfloat16).requires_grad_() for _ in range(3))
    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        try:
            with sdpa_kernel(backend):
                forward = bench.milliseconds(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))
                both = bench.milliseconds(
                    lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True).sum().backward()
                )
        except RuntimeError as error:
            bench.tell(f"attention_{name}", f"not here: {str(error).splitlines()[0][:80]}")
            continue
        bench.tell(f"attention_{name}_forward", forward, "ms")
        bench.tell(f"attention_{name}_both", both, "ms")


def optimizers(bench: Bench) -> None:
    """All optimizers on a small model: losses of the CPU, update checks, no host wait, resume to the bit."""
    cpu = torch.device("cpu")
    scale = replace(SMALL, d_model=32, d_ff=64, heads=1, seq_len=32) if bench.toy else SMALL
    steps = 6 if bench.toy else 12
    with tempfile.TemporaryDirectory() as folder:
        corpus = RandomCorpus(Path(folder), 1024, scale.seq_len)
        for name in NAMES:
            spec = trial(name, scale, corpus, 8, "fp32", compile=False, micro_batch=4)
            there, store = losses(spec, corpus, bench.device, steps, Path(folder) / name)
            here = (
                there["losses"] if bench.device == cpu and bench.toy else losses(spec, corpus, cpu, steps)[0]["losses"]
            )
            apart = max(abs(a - b) / b for a, b in zip(there["losses"], here, strict=True))
            # Rounding of SOAP's and Kron's bases turns directions without gradient; others differ by sums alone.
            bench.tell(
                f"{name}.apart", apart, "of the CPU's loss", holds=apart < (2e-3 if name in ("soap", "kron") else 1e-4)
            )
            bench.tell(f"{name}.update_check", there["proof"], holds=there["proof"] != "failed")
            again = Training(spec, corpus, store, WarmModels(bench.device))
            rest = [again.step_loss() for _ in range(steps - again.step)]
            apart = max(abs(a - b) / b for a, b in zip(rest, there["losses"][-len(rest) :], strict=True))
            bench.tell(f"{name}.resumed", apart, "of the loss of the run that went on", holds=apart < 1e-5)
            again.close()


def losses(
    spec: TrialSpec, corpus: Any, device: torch.device, steps: int, store: Path | None = None
) -> tuple[dict[str, Any], Path | None]:
    """Losses of some steps, half of them before a checkpoint; once its update check has ended, no step may wait."""
    training = Training(spec, corpus, store, WarmModels(device))
    found = []
    for number in range(steps):
        if number == steps // 2:
            training.save()
        training._train_loss.zero_()
        checked = training.update_check is None
        with no_waits(device) if checked else no_waits(torch.device("cpu")):
            training.train_step()
        found.append(float(training._train_loss))
    check = training.update_check
    proof = training.proof or (check.proof().to_dict() if check else {"status": "none"})
    training.close()
    return {"losses": found, "proof": proof["status"]}, store


@contextmanager
def no_waits(device: torch.device) -> Iterator[None]:
    """CUDA raises where the host waits for the device."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def trial(
    name: str, scale: Scale, corpus: Any, batch: int, precision: str, *, compile: bool, micro_batch: int = 1
) -> TrialSpec:
    """A trial at the start of its search space, without warmup, so that its first steps move."""
    space = load_space(name).on(scale.ladder)
    config = {**dict(space.start), "train_batch_size": batch, "warmup": 0}
    regime = Regime(scale, 20.0, corpus.id)
    return TrialSpec(
        name, TrialSpec.freeze(config), regime, precision=precision, micro_batch=micro_batch, compile=compile,
        evaluation=EVALUATION,
    )  # fmt: skip


def train(bench: Bench, name: str, scale_name: str, batch: int, steps: int, *, profiled: bool = True) -> None:
    """Whole steps of the loop: rate, parts, profile, peak beside the memory model's, retries of the allocator."""
    scale, batch = bench.scale(scale_name), 4 if bench.toy else batch
    with tempfile.TemporaryDirectory() as folder:
        corpus = RandomCorpus(Path(folder), bench.vocabulary, scale.seq_len)
        spec = trial(name, scale, corpus, batch, "bf16", compile=not bench.toy)
        reset_peak_memory()
        began = time.perf_counter()
        parallel = ParallelConfig()
        training = Training(spec, corpus, None, WarmModels(bench.device), parallel)
        bench.tell("start", time.perf_counter() - began, "s")
        bench.tell("pass", training.micro_batch, "sequences")
        times = []
        for _ in range(steps):
            synchronize(bench.device)
            began = time.perf_counter()
            training.train_step()
            synchronize(bench.device)
            times.append(time.perf_counter() - began)
        bench.tell("steps", [round(1e3 * seconds) for seconds in times], "ms, the first ones with update checks")
        rate = batch * scale.seq_len / statistics.median(times[1:])
        bench.tell("seconds_per_524288_tokens", STUDY_TOKENS / rate, "s")
        peak = peak_of(device_name(bench.device), "bf16")
        share = mfu(rate, scale.flops_per_token(bench.vocabulary), peak)
        bench.tell("mfu", None if share is None else round(100 * share, 1), "%")
        bench.tell("finite", holds=math.isfinite(float(training._train_loss)))
        memory_facts(bench, spec, training)
        bench.tell("parts", [f"{key} {1e3 * seconds:.0f}" for key, seconds in breakdown(training, 1).items()], "ms")
        if profiled:
            bench.tell("profile", profile(bench, training.train_step))
        training.close()


def memory_facts(bench: Bench, spec: TrialSpec, training: Training) -> None:
    """The peak of the allocator beside the memory model's figure, and how often it had to ask twice."""
    if bench.device.type != "cuda":
        return
    size = training.micro_batch
    peak, model = torch.cuda.max_memory_allocated(), step_memory(spec, ParallelConfig(sequences=size), size).device
    bench.tell("peak", peak / 2**30, "GiB")
    bench.tell("peak_over_model", peak / model, "", holds=0.7 < peak / model < 1.1)
    stats = torch.cuda.memory_stats()
    bench.tell("retries", stats["num_alloc_retries"], "of the allocator", holds=stats["num_alloc_retries"] == 0)


def profile(bench: Bench, call: Callable[[], Any], rows: int = 25) -> list[str]:
    """What one call spends most time in, with its milliseconds."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if bench.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as seen:
        call()
        synchronize(bench.device)
    key = "self_device_time_total" if bench.device.type == "cuda" else "self_cpu_time_total"
    events = sorted(seen.key_averages(), key=lambda event: -getattr(event, key))[:rows]
    return [f"{event.key[:60]} {getattr(event, key) / 1e3:.1f} ms x{event.count}" for event in events]


def small(bench: Bench) -> None:
    """AdamW at 130m."""
    train(bench, "adamw", "130m", 32, 6)


def large(bench: Bench) -> None:
    """AdamW at 1.2b, a quarter of a step of the study."""
    train(bench, "adamw", "1.2b", 32, 4)


def soap(bench: Bench) -> None:
    """SOAP at 130m beyond its first refresh."""
    train(bench, "soap", "130m", 16, 11, profiled=False)


def steps(bench: Bench) -> None:
    """Optimizer steps alone at the shapes of 1.2b; and QR as torch does it against the batched form."""
    blocks = bench.normal(8 if bench.toy else 288, 256, 256)
    bench.tell("qr_one_by_one", bench.milliseconds(lambda: torch.linalg.qr(blocks), 3) / len(blocks), "ms a matrix")
    bench.tell(
        "qr_batched", bench.milliseconds(lambda: assembled(*torch.geqrf(blocks)), 3) / len(blocks), "ms a matrix"
    )
    q = assembled(*torch.geqrf(blocks))
    wrong = float((q.mT @ q - torch.eye(256, device=bench.device)).abs().max())
    bench.tell("qr_orthogonal_to", wrong, "", holds=wrong < 1e-4)
    matrix = bench.normal(2, 64, 128) if bench.toy else bench.normal(2, 1536, 1536)
    exact = newton_schulz(matrix)
    for precision in ("tf32", "bf16"):
        apart = float(torch.dist(newton_schulz(matrix, precision=precision), exact) / exact.norm())
        bench.tell(f"newton_schulz_{precision}_apart", apart, "of fp32's norm", holds=apart < 0.13)
    del q, matrix, exact
    scale = bench.scale("1.2b")
    with torch.device(bench.device):
        model = Decoder(scale, bench.vocabulary)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter) * 1e-3
    candidates = [(name, name, {}) for name in NAMES if name not in ("muon", "scion", "soap")]
    candidates += [(f"muon_{word}", "muon", {"ns_precision": word}) for word in ("tf32", "bf16", "fp32")]
    for label, name, changes in [*candidates, ("soap", "soap", {})]:
        config = {key: value for key, value in load_space(name).on("paper").start if key not in LOOP}
        facts = scale.facts(implementation(name).model_facts)
        optimizer = create(name, model, **facts, **{**config, "learning_rate": 1e-6, **changes})
        optimizer.step()
        bench.tell(label, bench.milliseconds(optimizer.step, 3), "ms")
        if name == "soap":  # its next step refreshes the bases
            for bucket in optimizer.buckets():
                for entry in bucket.entries:
                    entry["step"] = 9
            synchronize(bench.device)
            began = time.perf_counter()
            optimizer.step()
            synchronize(bench.device)
            bench.tell("soap_refresh", 1e3 * (time.perf_counter() - began), "ms")
        del optimizer
        bench.clear()


def head(bench: Bench) -> None:
    """The loss of a chunk of logits in three forms, and the two ways to add up the head's gradient."""
    rows, width, vocabulary = (256, 64, 20_000) if bench.toy else (2048, 1536, 128_256)
    logits = bench.normal(rows, vocabulary, dtype=torch.bfloat16)
    targets = torch.randint(vocabulary, (rows,), device=bench.device)
    bench.tell("eager", bench.milliseconds(lambda: loss_and_slope(logits, targets, rows)), "ms a chunk")
    if not bench.toy:
        kernel = torch.compile(loss_and_slope, dynamic=False)
        bench.tell("compiled", bench.milliseconds(lambda: kernel(logits, targets, rows)), "ms a chunk")
    for count in (rows,) if bench.toy else (rows, 8192):
        slope, part = (bench.normal(count, side, dtype=torch.bfloat16) for side in (vocabulary, width))
        total = torch.zeros(vocabulary, width, device=bench.device)
        spent = bench.milliseconds(lambda slope=slope, part=part, total=total: total.add_(slope.T @ part))
        bench.tell(f"gradient_added_{count}", spent, "ms")
        if bench.device.type == "cuda":
            spent = bench.milliseconds(
                lambda slope=slope, part=part, total=total: torch.addmm(
                    total, slope.T, part, out_dtype=torch.float32, out=total
                )
            )
            bench.tell(f"gradient_in_product_{count}", spent, "ms")


def sophia(bench: Bench) -> None:
    """Sophia's pass for the Hessian's diagonal at 130m, one sequence."""
    scale = bench.scale("130m")
    with torch.device(bench.device):
        model = Decoder(scale, bench.vocabulary)
    window = torch.randint(bench.vocabulary, (1, scale.seq_len + 1), device=bench.device)
    diagonal = estimate(model, window, 1.0, 1, 0, 10)
    finite = all(bool(entry.isfinite().all()) for entry in diagonal.values())
    bench.tell("finite", holds=finite)
    bench.tell("pass", bench.milliseconds(lambda: estimate(model, window, 1.0, 1, 0, 10), 3), "ms")
    if bench.device.type == "cuda":
        bench.tell("peak", torch.cuda.max_memory_allocated() / 2**30, "GiB")


STAGES: dict[str, Callable[[Bench], None]] = {
    stage.__name__: stage for stage in (ceilings, optimizers, small, steps, large, head, soap, sophia)
}


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--toy", action="store_true")
    wanted = parser.parse_args(words)
    if wanted.device == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no CUDA device here; --device cpu --toy tries the logic")
    device = torch.device(wanted.device, 0) if wanted.device == "cuda" else torch.device("cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    STAGES[wanted.stage](Bench(device, wanted.toy))


if __name__ == "__main__":
    main()
