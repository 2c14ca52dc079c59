"""What a trial ran on, and what it took of it: versions, hardware, peak memory, and the share of peak FLOP/s (MFU).

These are facts for the record. Nothing here changes a result or names a user or host.

MFU counts the model's own FLOPs: 6 N + 6 L T d + 6 d V per token (`Scale.flops_per_token`), whatever was computed again
or on top (Chowdhery et al., arXiv 2204.02311, appendix B). Peaks are those of the vendors' data sheets, dense (no
sparsity), with fp32 accumulation: in bf16 that of the matrix units, in fp32 that of the vector units, because torch
does not round fp32 products to TF32 by default. A device that is not listed, and every CPU, has no peak here: the
MFU is then unknown unless somebody gives one or measures it.
"""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from tuneopt.training.fitting import ALLOCATOR, ALLOCATOR_VARIABLES

# Those whose version can change a result, or that a reader would ask for when two ledgers disagree.
PACKAGES = ("tuneopt", "torch", "ray", "deepspeed", "numpy", "pyarrow", "tokenizers", "optuna", "scipy", "plotly")

TERA = 1e12


@dataclass(frozen=True, slots=True)
class Peak:
    """Dense peak FLOP/s of one device, and where the figure is from."""

    flops: float
    source: str


@dataclass(frozen=True, slots=True)
class _Device:
    """A device by the beginning of its name in CUDA; teraFLOP/s in bf16 and fp32."""

    name: str
    bf16: float
    fp32: float
    sheet: str


DEVICES = (  # more special names first: the first that fits counts
    #       name, bf16, fp32, sheet; an H100 has three sheets, because its cards differ in clock and power
    _Device("NVIDIA H100 PCIe", 756.5, 51.0, "NVIDIA H100 data sheet, PCIe"),
    _Device("NVIDIA H100 NVL", 835.5, 60.0, "NVIDIA H100 data sheet, NVL"),
    _Device("NVIDIA H100", 989.5, 67.0, "NVIDIA H100 data sheet, SXM"),
    _Device("NVIDIA H200", 989.5, 67.0, "NVIDIA H200 data sheet, SXM"),
    _Device("NVIDIA GH200", 989.5, 67.0, "NVIDIA GH200 data sheet"),
    _Device("NVIDIA A100", 312.0, 19.5, "NVIDIA A100 data sheet"),
    _Device("NVIDIA L40S", 362.05, 91.6, "NVIDIA L40S data sheet"),
    _Device("NVIDIA L4", 121.0, 30.3, "NVIDIA L4 data sheet, half of the figure with sparsity"),
    _Device("NVIDIA GeForce RTX 4090", 165.2, 82.6, "NVIDIA Ada architecture paper, appendix A"),
    _Device("NVIDIA GeForce RTX 3090", 71.0, 35.6, "NVIDIA GA102 architecture paper, appendix A"),
    _Device("AMD Instinct MI300X", 1307.4, 163.4, "AMD Instinct MI300X data sheet"),
)


@functools.cache
def environment(device_type: str = "cpu") -> dict[str, str]:
    """Plain facts for a trial record; a package that is not installed is left out, and GPUs that it did not train on.

    Asked once per process: it starts git twice, and a warm worker writes hundreds of records.
    """
    facts = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        try:
            facts[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    facts["cpu"] = f"{os.cpu_count()} x {_cpu_model()}"
    try:
        facts["memory_gib"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f}"
    except (ValueError, OSError, AttributeError):  # not Linux
        facts["memory_gib"] = "0"
    if device_type == "cuda":
        # All that this process sees, whether or not the trial takes them: its ranks are said beside.
        facts["gpu"] = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}"
        facts["cuda"] = torch.version.cuda or "unknown"
    if commit := _commit():
        facts["commit"] = commit
    return facts


def reset_peak_memory() -> None:
    """Start peak memory counting afresh, so that a warm worker reports each trial's own peak."""
    # To ask a GPU that nothing runs on would take half a GiB of it.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # "5" resets VmHWM, the peak of resident memory (man 5 proc)
    except OSError:
        return  # not Linux, or not allowed: the peak is then that of the whole process


def peak_memory(device: torch.device) -> int | None:
    """Peak bytes since `reset_peak_memory`: of the GPU's allocator, or the resident set of this process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
    kilobytes = lines.get("VmHWM", "").split()
    return int(kilobytes[0]) * 1024 if kilobytes else None


def device_facts(device: torch.device) -> dict[str, str]:
    """Which attention ran, how CUDA's allocator was set, and how often it had to give memory back and try again.

    Nothing on a CPU.
    """
    if device.type != "cuda":
        return {}
    flash = getattr(torch.nn.attention, "current_flash_attention_impl", lambda: None)()
    named = next(filter(None, map(os.environ.get, ALLOCATOR_VARIABLES)), ALLOCATOR)
    retries = torch.cuda.memory_stats(device).get("num_alloc_retries", 0)
    attention = f"SDPA, {flash}" if flash else "SDPA, a kernel of torch's choice"
    return {"attention": attention, "allocator": named, "allocator_retries": str(retries)}


def device_name(device: torch.device) -> str:
    """What CUDA calls the device; ``cpu`` for others."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def peak_of(name: str, precision: str) -> Peak | None:
    """The listed peak of a device in ``bf16`` or ``fp32``; None for one that is not listed."""
    for device in DEVICES:
        # "NVIDIA L4" is not the beginning of "NVIDIA L40", which is another device.
        if name == device.name or name.startswith((f"{device.name} ", f"{device.name}-")):
            return Peak(TERA * (device.bf16 if precision == "bf16" else device.fp32), device.sheet)
    return None


def mfu(tokens_per_second: float, flops_per_token: float, peak: Peak | None, devices: int = 1) -> float | None:
    """Model FLOP/s over the peak of all devices; None where no peak is known."""
    return tokens_per_second * flops_per_token / (peak.flops * devices) if peak else None


def speed_facts(
    tokens_per_second: float, flops_per_token: float, device: torch.device, precision: str, devices: int
) -> dict[str, str]:
    """What a trial record says of its speed besides tokens per second: the MFU and the peak that it assumes."""
    peak = peak_of(device_name(device), precision)
    share = mfu(tokens_per_second, flops_per_token, peak, devices)
    if peak is None or share is None:
        return {"mfu": "unknown", "peak_flops": "unknown"}
    return {"mfu": f"{share:.4f}", "peak_flops": f"{peak.flops:.4g} ({peak.source}, {precision}, dense)"}


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the source tree this package runs from, with ``+`` when files were changed; None when installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, timeout=10
        )
        changed = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "--untracked-files=no"],
            capture_output=True, text=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    if head.returncode != 0:
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
