"""Time of one optimizer step: ours against the public implementations, on one set of shapes, in one process.

    python benchmarks/optimizer_step.py                                  # 10.5M parameters, one CPU thread
    python benchmarks/optimizer_step.py --device cuda --shapes 130m     # or 1.2b; --only muon,soap

Torch alone is enough to run it; a peer that is not installed is listed with the extra that brings it. The candidates of
one optimizer step in turn, so that noise of the machine hits all alike; where other work runs as well, ``--clock cpu``
counts the seconds that this process ran. Each optimizer has a process of its own, which takes with it what its
candidates leave behind. Writes OUT.md and OUT.json.

A time counts only where a step was made. Every step gets its gradients anew, because some peers drop them. Before
anything is timed, all tensors must have moved in every step, and a peer of the same rule as far as ours, which the
tests hold to a float64 reference.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from step_builders import Candidate, Steps, split
from step_peers import CANDIDATES, CYCLES
from torch import Tensor, nn

from tuneopt.spec import SCALES, Scale
from tuneopt.training.model import Decoder

TEN = Scale("10m", "paper", 8, 256, 1024, 4, 128)
SHAPES = {
    "nano": (SCALES["nano-65k"], 1024),
    "10m": (TEN, 4096),
    "130m": (SCALES["130m"], 32_000),
    "1.2b": (SCALES["1.2b"], 32_000),
}
"""Architecture and vocabulary; 10m has 10.5M parameters, embedding and head included."""
PACKAGES = (
    "torch",
    "pytorch_optimizer",
    "heavyball",
    "timm",
    "lion-pytorch",
    "adam-mini",
    "kron-torch",
    "schedulefree",
)


SAMPLED = 4096
"""Entries of a tensor that are followed when its movement is checked."""

CHECKED = 4
"""Steps over which movements are compared: some peers use their first one to set themselves up."""

NEAR = 0.05
"""How far a peer of the same rule may move otherwise than ours: products in bf16 differ by a percent."""


class DidNotStepError(Exception):
    """A candidate did not move its parameters by what its rule says, so that its time is that of something else."""


class Entrant:
    """One candidate on its own model and gradients, with the times of its steps in ms."""

    def __init__(self, candidate: Candidate, model: nn.Module) -> None:
        self.candidate, self.model = candidate, model
        self.times: list[float] = []
        generator = torch.Generator(device=next(model.parameters()).device).manual_seed(0)
        self.gradients = [
            torch.randn(parameter.shape, generator=generator, device=parameter.device).mul_(1e-4)
            for parameter in model.parameters()
        ]
        self.set_gradients()
        self.steps: Steps = candidate.build(model)

    def set_gradients(self) -> None:
        """The same gradients again: heavyball drops them, and some rules write into them."""
        for parameter, gradient in zip(self.model.parameters(), self.gradients, strict=True):
            parameter.grad = gradient.clone()

    def step(self) -> None:
        for optimizer in self.steps:
            optimizer.step()

    def timed(self, clock: Callable[[], float]) -> None:
        self.set_gradients()
        synchronize()
        start = clock()
        self.step()
        synchronize()
        self.times.append(1e3 * (clock() - start))

    def sample(self) -> list[Tensor]:
        """Some entries of every parameter, in float64."""
        return [p.detach().flatten()[:: max(1, p.numel() // SAMPLED)].double() for p in self.model.parameters()]

    def checked(self, steps: int) -> Tensor:
        """The movement of the hidden matrices over ``steps``; raises `DidNotStepError` where a tensor stood still."""
        start = before = self.sample()
        for number in range(steps):
            self.set_gradients()
            self.step()
            after = self.sample()
            still = sum(not bool((new != old).any()) for new, old in zip(after, before, strict=True))
            if still:
                raise DidNotStepError(f"did not step: {still} of {len(after)} tensors stood still in step {number + 1}")
            before = after
        hidden = {id(parameter) for parameter in split(self.model)[0]}
        moved = [new - old for new, old, parameter in zip(before, start, self.model.parameters(), strict=True)
                 if id(parameter) in hidden]  # fmt: skip
        return torch.cat(moved)

    def state_bytes(self) -> float:
        """Bytes of state tensors per parameter."""
        held = sum(t.numel() * t.element_size() for one in self.steps for t in tensors(list(one.state.values())))
        return held / sum(parameter.numel() for parameter in self.model.parameters())


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""``cpu`` counts the seconds that the process ran, for machines that are shared with other work."""


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def tensors(held: Any) -> Iterator[Tensor]:
    """All tensors in nested state."""
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, dict):
        for value in held.values():
            yield from tensors(value)
    elif isinstance(held, list | tuple):
        for value in held:
            yield from tensors(value)


def reason(error: BaseException) -> str:
    """Why a candidate is missing: the extra where it is not installed, the first line of its error otherwise."""
    if isinstance(error, ModuleNotFoundError):
        return "not installed: pip install '.[peers]'"
    if isinstance(error, DidNotStepError):
        return str(error)
    return f"failed: {type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"


def compare(
    name: str, scale: Scale, vocabulary: int, device: str, seconds: float, warm: int, clock: str = "wall"
) -> list[dict[str, Any]]:
    """One row for every candidate of an optimizer."""
    rows: list[dict[str, Any]] = []
    entrants: list[Entrant] = []
    ours: Tensor | None = None
    for candidate in CANDIDATES[name]:
        row = {
            "optimizer": name,
            "implementation": candidate.label,
            "ours": candidate.ours,
            "same_rule": candidate.same,
            "note": candidate.note,
        }
        rows.append(row)
        try:
            torch.manual_seed(0)
            model = Decoder(scale, vocabulary).to(device)
            model.scale = scale  # type: ignore[assignment]  # Adam-mini asks for its heads
            entrant = Entrant(candidate, model)
            moved = entrant.checked(max(warm, CHECKED))
            ours = moved if ours is None else ours
            row["moved"], row["aligned"] = likeness(moved, ours)
            if candidate.exact and not (abs(row["moved"] - 1) <= NEAR and row["aligned"] >= 1 - NEAR):
                raise DidNotStepError(f"moved {row['moved']:.2g} times as far as the rule, cosine {row['aligned']:.2f}")
            row["entrant"] = entrant
            entrants.append(entrant)
        except Exception as error:  # a peer may fail in any way of its own, and the others still count
            if candidate.ours:
                raise
            row["missing"] = reason(error)
    start, cycle = time.perf_counter(), CYCLES.get(name, 1)
    while time.perf_counter() - start < seconds or len(entrants[0].times) < max(5, cycle):
        for _ in range(cycle):
            for entrant in entrants:
                entrant.timed(CLOCKS[clock])
    for row in rows:
        entrant = row.pop("entrant", None)
        if entrant is not None:
            row |= {
                "median_ms": statistics.median(entrant.times),
                "min_ms": min(entrant.times),
                "mean_ms": statistics.fmean(entrant.times),
                "max_ms": max(entrant.times),
                "steps": len(entrant.times),
                "state_bytes_per_parameter": entrant.state_bytes(),
            }
    add_ratios(rows)
    return rows


def likeness(moved: Tensor, ours: Tensor) -> tuple[float, float]:
    """How far a candidate moved over how far ours did, and the cosine between both."""
    both = float(moved.norm() * ours.norm())
    return float(moved.norm() / ours.norm()), float(moved @ ours) / both if both else 0.0


def compared(name: str, without: Sequence[str], threads: int | None, *how: Any) -> list[dict[str, Any]]:
    """As `compare`, in a fresh process; ``how`` are its other arguments."""
    if threads:
        torch.set_num_threads(threads)
    for key, candidates in CANDIDATES.items():
        CANDIDATES[key] = [one for one in candidates if one.package not in without]
    return compare(name, *how)


def add_ratios(rows: list[dict[str, Any]]) -> None:
    """For our rows the ratios to the fastest peer: of the same rule where there is one, else of a kindred one."""
    timed = [row for row in rows if "median_ms" in row and not row["ours"]]
    peers = [row for row in timed if row["same_rule"]] or timed
    for row in rows:
        if row["ours"] and peers:
            for figure in ("median", "min", "mean"):
                row[f"{figure}_ratio"] = row[f"{figure}_ms"] / min(other[f"{figure}_ms"] for other in peers)


def processor() -> str:
    """The name of the CPU and its vector extensions for bf16."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    field = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in lines if ":" in line}
    extras = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in field.get("flags", "").split()]
    return f"{field.get('model name', platform.machine())} ({', '.join(extras) or 'no AVX-512'})"


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Python's version, and each package's where it is installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def about(arguments: argparse.Namespace, parameters: int) -> dict[str, Any]:
    """The template of a performance claim: hardware, versions, date, command."""
    hardware = torch.cuda.get_device_name() if arguments.device == "cuda" else f"{processor()}, one thread"
    return {
        "hardware": hardware,
        "clock": "wall time" if arguments.clock == "wall" else "CPU time of the process",
        "parameters": parameters,
        "versions": versions(PACKAGES),
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["python benchmarks/optimizer_step.py", *sys.argv[1:]]),
    }


def markdown(head: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The table, under the template."""
    versions = ", ".join(f"{name} {version}" for name, version in head["versions"].items())
    lines = [
        f"- Hardware: {head['hardware']}",
        f"- Versions: {versions}",
        f"- Date: {head['date']}",
        f"- Command: `{head['command']}`",
        f"- Clock: {head['clock']}",
        f"- Shapes: {head['parameters'] / 1e6:.1f}M parameters; fp32; nothing is clipped on either side",
        "",
        "| optimizer | implementation | median ms | min ms | mean ms | median, min, mean over the fastest peer's "
        "| state bytes per parameter | same rule | remarks |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        name, same = (row["optimizer"], row["implementation"]), "yes" if row["same_rule"] else "no"
        if "missing" in row:
            lines.append(f"| {name[0]} | {name[1]} | | | | | | {same} | {row['missing']} |")
            continue
        ratios = [row.get(f"{figure}_ratio") for figure in ("median", "min", "mean") if row["ours"]]
        # Ours alone has ratios, and none where no peer of the rule is installed.
        ratio = " ".join(f"{value:.2f}" for value in ratios if value is not None)
        figures = " | ".join(f"{row[f'{figure}_ms']:.1f}" for figure in ("median", "min", "mean"))
        label = f"**{name[1]}**" if row["ours"] else name[1]
        held = f"{row['state_bytes_per_parameter']:.2f}"
        lines.append(f"| {name[0]} | {label} | {figures} | {ratio} | {held} | {same} | {row['note']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=SHAPES, default="10m")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", default=",".join(CANDIDATES), help="optimizers, comma-separated")
    parser.add_argument("--without", default="", help="packages to leave out, comma-separated")
    parser.add_argument("--seconds", type=float, default=6.0, help="least measuring time of an optimizer")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: seconds that the process ran")
    parser.add_argument("--warm", type=int, default=3, help="steps before measuring")
    parser.add_argument("--out", type=Path, help="path without suffix; default reports/optimizer-step-SHAPES-DEVICE")
    arguments = parser.parse_args()
    threads, without = 1 if arguments.device == "cpu" else None, arguments.without.split(",")
    scale, vocabulary = SHAPES[arguments.shapes]
    head = about(arguments, scale.total_parameters(vocabulary))
    rows: list[dict[str, Any]] = []
    out: Path = arguments.out or Path("reports") / f"optimizer-step-{arguments.shapes}-{arguments.device}"
    out.parent.mkdir(parents=True, exist_ok=True)
    how = (scale, vocabulary, arguments.device, arguments.seconds, arguments.warm, arguments.clock)
    for name in arguments.only.split(","):
        # A process for each: graphs that a peer keeps (SophiaH's second derivatives) would pile up in one.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as fresh:
            done = fresh.submit(compared, name, without, threads, *how).result()
        rows += done
        for row in done:
            figures = f"{row['median_ms']:9.1f} {row['min_ms']:9.1f}" if "median_ms" in row else row["missing"]
            print(f"{name:10} {row['implementation']:38} {figures}", flush=True)
        out.with_suffix(".json").write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n")
        out.with_suffix(".md").write_text(markdown(head, rows))
    print(f"{out}.md, {out}.json")


if __name__ == "__main__":
    main()
