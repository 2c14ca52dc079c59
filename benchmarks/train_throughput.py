"""Training throughput: tokens/s and MFU of our loop, against transformers' Llama with the same settings, and where a
step's time goes.

    python benchmarks/train_throughput.py                                    # nano ladder, one CPU thread, AdamW
    python benchmarks/train_throughput.py --device cuda                      # 130m ... 1.2b in bf16, all optimizers
    torchrun --nproc-per-node 8 benchmarks/train_throughput.py --device cuda # the same on eight GPUs, through DDP

The GPU part needs torch and pyarrow alone: the corpus is random, and without transformers its rows are left out with a
note. All candidates of a row step in turn in one process, so that the machine's noise hits them alike. Both sides have
the same initial weights, tokens, optimizer, precision, threads and passes; a row shows that their losses agree. Passes
for Sophia's Hessian are in our steps alone. The MFU is counted against the dense peak of the device
(`tuneopt.training.machine`), one given with ``--peak-flops``, or, with ``--peak-flops measure``, the rate of large
products measured here. On a machine with other work, ``--clock cpu`` counts the seconds that the process ran, threads
that read batches included. Writes OUT.json and OUT.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib import util
from pathlib import Path
from typing import Any

import torch
from optimizer_step import CLOCKS, processor, versions
from throughput_sides import EVALUATION, RandomCorpus, Side, breakdown, ours, regime_scale, transformers_llama

from tuneopt.optim.info import BUILT_IN
from tuneopt.search.space import load_space
from tuneopt.spec import SCALES, Regime, Scale, TrialSpec
from tuneopt.training.building import WarmModels
from tuneopt.training.config import ParallelConfig
from tuneopt.training.launch import is_rank, leave
from tuneopt.training.machine import Peak, device_name, mfu, peak_memory, peak_of, reset_peak_memory
from tuneopt.training.ranks import Ranks, rank_of_environment

TINY = Scale("tiny", "nano", layers=2, d_model=32, d_ff=128, heads=1, seq_len=64)
KNOWN = {**SCALES, "tiny": TINY}
NANO = ("nano-65k", "nano-147k", "nano-262k", "nano-590k", "nano-1m")
PAPER = ("130m", "300m", "520m", "1.2b")
STUDY_TOKENS = 524_288
"""Tokens of an optimizer step in the study, at which the optimizer's share is stated."""
PACKAGES = ("torch", "transformers", "numpy", "pyarrow", "tuneopt")
PARTS = ("forward", "backward", "optimizer", "data", "communication")


def measured_peak(device: torch.device, precision: str, size: int = 2048, seconds: float = 2.0) -> Peak:
    """FLOP/s of ``size`` x ``size`` products here: what the libraries reach, a stand-in where no peak is known.

    The best of as many as fit into ``seconds``: other programs can only make a product slower.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    # Products of equal numbers draw less power, and a GPU then clocks higher than in training.
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    torch.mm(left, right)  # the first one chooses kernels and takes memory
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    # A product of n x n matrices takes n^3 multiplications and as many additions.
    return Peak(2 * size**3 / best, f"measured here: products of {size} x {size} matrices")


def compare(
    scale: Scale,
    optimizer: str,
    corpus: RandomCorpus,
    engine: WarmModels,
    wanted: argparse.Namespace,
    ranks: Ranks | None,
) -> dict[str, Any]:
    """One row: a scale and an optimizer, every candidate stepping in turn."""
    batch = wanted.batch or (16 if scale.ladder == "nano" else 32)
    space = load_space(optimizer).on(scale.ladder, {"train_batch_size": batch})
    spec = TrialSpec(
        optimizer,
        space.start,
        Regime(scale, 20.0, corpus.id),
        precision=wanted.precision,
        micro_batch=wanted.micro_batch or (batch if scale.ladder == "nano" else 1),
        evaluation=EVALUATION,
    )
    world = ranks.world if ranks else 1
    placement = ParallelConfig(ranks=world, checkpointing=wanted.checkpointing, sequences=wanted.micro_batch)
    sides: list[Side] = []
    row: dict[str, Any] = {"scale": scale.name, "optimizer": optimizer, "batch": batch, "seq_len": scale.seq_len}
    reset_peak_memory()
    modes = [mode == "compile" for mode in wanted.modes.split(",")]
    peers = peer_note(wanted, ranks) is None
    for compiled in modes:
        side, training = ours(replace(spec, compile=compiled), corpus, engine_for(engine, compiled), placement, ranks)
        sides.append(side)
        if peers:
            settings = replace(spec, compile=compiled)
            try:
                sides.append(transformers_llama(settings, corpus, engine.device, training.micro_batch, training))
            except torch.OutOfMemoryError:
                row["left_out"] = f"transformers has no room for a pass of {training.micro_batch} x {scale.seq_len}"
    row |= {"micro_batch": training.micro_batch, "losses": {side.label: side.first_loss() for side in sides}}
    for _ in range(wanted.warm):
        for side in sides:
            side.step()
    began = time.perf_counter()
    while more(time.perf_counter() - began < wanted.seconds or len(sides[0].times) < 3, ranks):
        for side in sides:
            side.timed(CLOCKS[wanted.clock])
    tokens = batch * scale.seq_len
    row["tokens_per_second"] = {side.label: side.rate(tokens) for side in sides}
    row["steps_timed"] = len(sides[0].times)
    row["peak_bytes"] = peak_memory(engine.device)
    row["breakdown"] = breakdown(training, 3)  # of our last candidate, compiled where that is asked for
    row["breakdown_of"] = next(side.label for side in reversed(sides) if side.label.startswith("tuneopt"))
    return row


ENGINES: dict[bool, WarmModels] = {}
"""One engine for each mode: candidates live side by side, and an engine hands its one model out again."""


def engine_for(engine: WarmModels, compiled: bool) -> WarmModels:
    return ENGINES.setdefault(compiled, WarmModels(engine.device))


def more(here: bool, ranks: Ranks | None) -> bool:
    """All ranks take equally many steps: as rank 0 says."""
    return ranks.first_says(here) if ranks else here


def peer_note(wanted: argparse.Namespace, ranks: Ranks | None) -> str | None:
    """Why transformers is left out; None where it is not."""
    if wanted.no_peer:
        return "transformers was left out as asked"
    if ranks is not None:
        return "transformers was left out: it runs in one process"
    return None if util.find_spec("transformers") else "transformers was left out: it is not installed"


def conclude(row: dict[str, Any], peak: Peak | None, vocabulary: int, world: int) -> None:
    """Add ratios, MFU and shares to a row."""
    rates = row["tokens_per_second"]
    per_token = regime_scale(KNOWN[row["scale"]], row["seq_len"]).flops_per_token(vocabulary)
    row["mfu"] = {label: mfu(rate, per_token, peak, world) for label, rate in rates.items()}
    row["ratios"] = {
        f"{own.removeprefix('tuneopt, ')} over transformers {other.removeprefix('transformers, ')}": rates[own] / rate
        for own in rates
        for other, rate in rates.items()
        if own.startswith("tuneopt") and other.startswith("transformers")
    }
    parts, tokens = row["breakdown"], row["batch"] * row["seq_len"]
    whole = sum(parts.values())
    row["shares"] = {name: parts[name] / whole for name in PARTS}
    passes = (whole - parts["optimizer"]) * STUDY_TOKENS / tokens
    row["optimizer_share_at_524288_tokens"] = parts["optimizer"] / (parts["optimizer"] + passes)


def about(
    wanted: argparse.Namespace, device: torch.device, peak: Peak | None, note: str | None, world: int
) -> dict[str, Any]:
    """The template of a performance claim: hardware, versions, date, command."""
    cpu = f"{processor()}, {torch.get_num_threads()} thread"
    return {
        "hardware": f"{world} x {device_name(device)}" if device.type == "cuda" else cpu,
        "precision": wanted.precision,
        "vocabulary": wanted.vocabulary,
        "clock": "wall time"
        if wanted.clock == "wall"
        else "CPU time of the process, all its threads; parts: wall time",
        "peak": asdict(peak) if peak else "unknown",
        "peer": note
        or "transformers' LlamaForCausalLM, SDPA attention, the same optimizer; eager and compiled as named",
        "attention": attention(device, wanted.precision),
        "versions": versions(PACKAGES),
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["python benchmarks/train_throughput.py", *sys.argv[1:]]),
    }


def attention(device: torch.device, precision: str) -> str:
    """Whether SDPA takes its flash kernel for the shapes of the ladder."""
    if device.type != "cuda":
        return "SDPA on the CPU"
    from torch.backends.cuda import SDPAParams, can_use_flash_attention

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    q = torch.empty(1, 8, 4096, 64, device=device, dtype=dtype)
    flash = can_use_flash_attention(SDPAParams(q, q, q, None, 0.0, True, False))
    if not flash:
        return "SDPA, no flash kernels for this precision and device"
    return "SDPA, fused kernels: torch chooses between flash and cuDNN's"


def markdown(head: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Two tables under the template: rates, and where a step's time goes."""
    versions = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
    peak = head["peak"]
    told = peak if isinstance(peak, str) else f"{peak['flops']:.4g} FLOP/s ({peak['source']})"
    lines = [
        f"- Hardware: {head['hardware']}; precision {head['precision']}; vocabulary {head['vocabulary']}",
        f"- Clock: {head['clock']}",
        f"- Versions: {versions}",
        f"- Date: {head['date']}",
        f"- Command: `{head['command']}`",
        f"- Peak for the MFU: {told}",
        f"- Peer: {head['peer']}",
        f"- Attention: {head['attention']}",
        "",
    ]
    labels = list(dict.fromkeys(label for row in rows for label in row["tokens_per_second"]))
    ratios = list(dict.fromkeys(name for row in rows for name in row["ratios"]))
    columns = ["scale", "optimizer", "batch x T (pass)", *(f"{label}: tokens/s (MFU)" for label in labels), *ratios]
    lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = [row["scale"], row["optimizer"], f"{row['batch']} x {row['seq_len']} ({row['micro_batch']})"]
        for label in labels:
            if label not in row["mfu"]:
                cells.append("no room")
                continue
            share = row["mfu"][label]
            cells.append(f"{row['tokens_per_second'][label]:,.0f} ({'unknown' if share is None else f'{share:.1%}'})")
        lines.append(
            "| "
            + " | ".join([*cells, *(f"{row['ratios'][name]:.2f}" if name in row["ratios"] else "" for name in ratios)])
            + " |"
        )
    columns = ["scale", "optimizer", "of", "step ms", *PARTS, "optimizer at 524,288 tokens", "peak GiB"]
    lines += ["", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for row in rows:
        cells = [row["scale"], row["optimizer"], row["breakdown_of"], f"{1e3 * sum(row['breakdown'].values()):.1f}"]
        cells += [f"{row['shares'][name]:.1%}" for name in PARTS] + [f"{row['optimizer_share_at_524288_tokens']:.1%}"]
        held = row["peak_bytes"]
        lines.append("| " + " | ".join([*cells, "unknown" if held is None else f"{held / 2**30:.2f}"]) + " |")
    return "\n".join(lines) + "\n"


def parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--scales", help="comma-separated; default: the nano ladder on a CPU, the paper's on a GPU")
    parser.add_argument("--optimizers", help="comma-separated; default: adamw on a CPU, all on a GPU")
    parser.add_argument("--modes", help="eager, compile; default: both on a CPU, compile on a GPU")
    parser.add_argument("--precision", choices=("fp32", "bf16"), help="default: fp32 on a CPU, bf16 on a GPU")
    parser.add_argument("--vocabulary", type=int, help="default: 1024 on a CPU, 128256 on a GPU")
    parser.add_argument("--batch", type=int, help="sequences per step; default: 16 nano, 32 paper")
    parser.add_argument(
        "--micro-batch", type=int, help="sequences per pass; default: what fits on a GPU, else the batch"
    )
    parser.add_argument("--seq-len", type=int, help="in place of the scale's own")
    parser.add_argument("--checkpointing", action="store_true", help="compute activations twice")
    parser.add_argument("--peak-flops", help="dense peak of a device in FLOP/s, or `measure`")
    parser.add_argument("--no-peer", action="store_true", help="leave transformers out")
    parser.add_argument("--seconds", type=float, default=10.0, help="least measuring time of a row")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: seconds that the process ran")
    parser.add_argument("--warm", type=int, default=5, help="steps of each candidate before measuring")
    parser.add_argument("--out", type=Path, help="path without suffix; default: reports/train-throughput-DEVICE")
    wanted = parser.parse_args(words)
    gpu = wanted.device == "cuda"
    wanted.scales = wanted.scales or ",".join(PAPER if gpu else NANO)
    wanted.optimizers = wanted.optimizers or (
        ",".join(entry.name for entry in BUILT_IN if not entry.preset) if gpu else "adamw"
    )
    wanted.modes = wanted.modes or ("compile" if gpu else "eager,compile")
    wanted.precision = wanted.precision or ("bf16" if gpu else "fp32")
    wanted.vocabulary = wanted.vocabulary or (128_256 if gpu else 1024)
    return wanted


@contextmanager
def process(wanted: argparse.Namespace) -> Iterator[Ranks | None]:
    """This process alone, or as the rank that a launcher made it."""
    if not is_rank():
        yield None
        return
    with rank_of_environment() as ranks:
        yield ranks


def main(words: list[str] | None = None) -> None:
    wanted = parse(words)
    with process(wanted) as ranks, tempfile.TemporaryDirectory() as folder:
        device = ranks.device if ranks else torch.device(wanted.device)
        world, first = (ranks.world, ranks.rank == 0) if ranks else (1, True)
        engine = WarmModels(device)
        given = wanted.peak_flops
        if given == "measure":
            peak: Peak | None = measured_peak(device, wanted.precision)
        else:
            peak = Peak(float(given), "as given") if given else peak_of(device_name(device), wanted.precision)
        head = about(wanted, device, peak, peer_note(wanted, ranks), world)
        rows: list[dict[str, Any]] = []
        out: Path = wanted.out or Path("reports") / f"train-throughput-{wanted.device}"
        out.parent.mkdir(parents=True, exist_ok=True)
        for name in wanted.scales.split(","):
            scale = regime_scale(KNOWN[name], wanted.seq_len)
            ENGINES.clear()  # the models of the scale before
            place = Path(folder) / name
            place.mkdir()
            corpus = RandomCorpus(place, wanted.vocabulary, scale.seq_len)
            for optimizer in wanted.optimizers.split(","):
                row = compare(scale, optimizer, corpus, engine, wanted, ranks)
                conclude(row, peak, wanted.vocabulary, world)
                rows.append(row)
                if first:
                    rates = "  ".join(f"{label} {rate:,.0f}" for label, rate in row["tokens_per_second"].items())
                    print(f"{name:10} {optimizer:10} {rates}", flush=True)
                    out.with_suffix(".json").write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n")
                    out.with_suffix(".md").write_text(markdown(head, rows))
        if first:
            print(f"{out}.md, {out}.json")


if __name__ == "__main__":
    main()
    if is_rank() and os.environ.get("WORLD_SIZE") != "1":
        leave(0)
