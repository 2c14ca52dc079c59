"""What this machine or cluster can run, and what is missing (``tuneopt doctor``).

Each look yields one `Diagnosis`, and the quick ones come first: importing torch and connecting to a cluster take
seconds, and a caller may show what is known meanwhile. Nothing here raises for what is missing; that is the answer.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

NEEDED_BYTES = 2 * 2**30
"""Free disk below which a sweep is likely to stop half-way: an estimate for records, two checkpoints of
each running trial, and Ray's session folder, where each kind of log takes up to 48 MiB (`tuneopt.cluster.session`)."""

# What an installation brings (pyproject.toml). Some are imported late, so an incomplete one shows only in mid-run.
_PACKAGES = ("torch", "ray", "deepspeed", "optuna", "pyarrow", "datasets", "plotly", "tokenizers")

_EXTRAS = {"tensorboard": ("tensorboardX",), "wandb": ("wandb",), "mlflow": ("mlflow", "mlflow-skinny")}
"""Options that need a package beyond these, and the distributions that bring it: any one of them will do."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing looked at: ``ok``, ``note`` (works, with less) or ``missing`` (something will not work)."""

    subject: str
    status: str
    detail: str
    mend: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def examine(address: str | None = None) -> Iterator[Diagnosis]:
    """Look at Python, packages, compiler, devices, disk and, with an address, the cluster there; yields as it goes."""
    version = ".".join(map(str, sys.version_info[:3]))
    fine = sys.version_info >= (3, 11)
    yield Diagnosis("python", "ok" if fine else "missing", version, "" if fine else "install Python 3.11 or newer")
    yield from _packages()
    yield from _extras()
    yield from _devices()
    yield from _compiler()
    yield from _disk()
    if address:
        yield _cluster(address)


def _packages() -> Iterator[Diagnosis]:
    for package in _PACKAGES:
        try:
            yield Diagnosis(package, "ok", metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Diagnosis(package, "missing", "not installed", f"pip install {package}")


def _extras() -> Iterator[Diagnosis]:
    for extra, packages in _EXTRAS.items():
        # `discover` finds nothing where `version` would raise, and these are allowed to be absent.
        versions = [f"{name} {part.version}" for name in packages for part in metadata.Distribution.discover(name=name)]
        if versions:
            yield Diagnosis(f"--{extra}", "ok", versions[0])
        else:
            yield Diagnosis(f"--{extra}", "note", "not installed", f"pip install {packages[-1]}")


def _devices() -> Iterator[Diagnosis]:
    yield Diagnosis("cpu", "ok", f"{os.cpu_count()} cores; nano trials take one core each")
    try:
        import torch
    except ModuleNotFoundError:  # said already: it is a package that is missing
        return
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield Diagnosis("gpu", "ok", names)
    else:
        yield Diagnosis("gpu", "note", "none", "the nano ladder runs on CPUs; the paper's scales need CUDA GPUs")
    if hasattr(torch.backends, "cpu"):
        yield Diagnosis("cpu kernels", "ok", torch.backends.cpu.get_cpu_capability())


def _compiler() -> Iterator[Diagnosis]:
    try:
        from tuneopt.training.building import can_compile
    except ModuleNotFoundError:
        return
    # A third: 37 thousand tokens a second eagerly and 52 compiled at nano-65k (docs/lab-notebook.md, "Compilation").
    if can_compile():
        yield Diagnosis("torch.compile", "ok", "a compiler is here; nano trials run compiled")
    else:
        yield Diagnosis(
            "torch.compile", "note", "no C++ compiler; trials run eagerly, about a third slower", "apt install g++"
        )


def _disk() -> Iterator[Diagnosis]:
    # Two places: the ledger is by default in the working folder, Ray's session always among the temporary files.
    for subject, folder in (("disk, working folder", "."), ("disk, temporary files", tempfile.gettempdir())):
        free = shutil.disk_usage(folder).free
        detail = f"{free / 2**30:.1f} GiB free"
        if free < NEEDED_BYTES:
            yield Diagnosis(subject, "missing", detail, f"free at least {NEEDED_BYTES / 2**30:.0f} GiB")
        else:
            yield Diagnosis(subject, "ok", detail)


def _cluster(address: str) -> Diagnosis:
    from tuneopt.cluster.session import connect
    from tuneopt.spec import InputError

    # Connecting asks everything at once: does it answer, do versions and secrets agree, would one trial ever fit.
    try:
        with connect(address) as session:
            return Diagnosis("cluster", "ok", f"room for {session.slots} trials of one CPU at {address}")
    except InputError as error:
        return Diagnosis("cluster", "missing", str(error), "ray up cluster.yaml, or leave --address out")
