"""A pretended CUDA: torch's fake tensors say "cuda", shapes and dtypes are followed, nothing is computed.

It shows what a CPU can show of a GPU's path: an operator that mixes devices or dtypes raises, as on a GPU; one that
makes the host wait for the device is named; live bytes and operator calls are counted at true shapes. It shows no time,
and no kernel runs.

A process has to load the shim before torch, so tests run scripts of this folder through `run_pretended`. The shim is
built from ``pretended_device.cpp`` once for each version of torch (needs g++ and torch's headers).
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).with_name("pretended_device.cpp")

WAITS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal", "aten::is_nonzero")
"""Operators after which the host knows a value of the device, and so has waited for it."""


def torch_folder() -> Path:
    """Where torch is installed; torch itself is not imported."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def build() -> Path:
    """The shim, built if it is not there; raises `subprocess.CalledProcessError` with the compiler's words."""
    torch = torch_folder()
    version = (torch / "version.py").read_bytes()
    name = hashlib.sha256(version + SOURCE.read_bytes()).hexdigest()[:16]
    shim = Path(tempfile.gettempdir()) / f"tuneopt-pretended-{os.getuid()}" / f"{name}.so"
    if not shim.exists():
        shim.parent.mkdir(mode=0o700, exist_ok=True)
        part = shim.with_suffix(f".{os.getpid()}")
        command = ["g++", "-shared", "-fPIC", "-std=c++20", f"-I{torch / 'include'}", str(SOURCE), "-o", str(part)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        part.rename(shim)
    return shim


def reason_to_skip() -> str:
    """Why nothing can be pretended here; empty where it can."""
    if shutil.which("g++") is None:
        return "a pretended CUDA needs g++"
    if not (torch_folder() / "include" / "ATen" / "detail" / "CUDAHooksInterface.h").exists():
        return "a pretended CUDA needs torch's headers"
    return ""


def pretend() -> None:
    """Give this process its device; to be called before torch is imported."""
    assert "torch" not in sys.modules, "the shim comes before torch"
    for library in ("libc10.so", "libtorch_cpu.so"):
        ctypes.CDLL(str(torch_folder() / "lib" / library), mode=ctypes.RTLD_GLOBAL)
    ctypes.CDLL(str(build()), mode=ctypes.RTLD_GLOBAL)
    import torch
    from torch.cuda.amp import common

    # Autocast is refused to a build without CUDA, unless these say that there is one.
    common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *arguments, **settings: True
    # What torch has no shape rule for: a fused update writes in place, geqrf gives reflectors and their factors.
    global _kept
    _kept = torch.library.Library("aten", "IMPL")
    _kept.impl("_fused_sgd_", lambda *arguments, **settings: None, "Meta")
    _kept.impl("geqrf", lambda a: (torch.empty_like(a), a.new_empty((*a.shape[:-2], min(a.shape[-2:])))), "Meta")


_kept: Any = None


def answer(result: Any) -> None:
    """Print a script's result and end its process at once.

    autograd has a thread for the device, which an orderly end of the interpreter sometimes finds alive and aborts on.
    """
    print(json.dumps(result), flush=True)
    os._exit(0)


def run_pretended(script: str, *arguments: str) -> Any:
    """What a script of this folder prints as its last line, read as JSON."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads(ended.stdout.splitlines()[-1])


class Account:
    """What ran on the device: calls by operator, live and peak bytes, and where the host waited."""

    def __init__(self) -> None:
        self.calls: collections.Counter[str] = collections.Counter()
        self.waits: collections.Counter[str] = collections.Counter()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def seen(self, tensor: Any) -> None:
        """Count a tensor's storage once, until it is freed."""
        if tensor.device.type != "cuda":
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self._known:
            self._known.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        if key in self._known:
            self._known.discard(key)
            self.live -= size


@contextlib.contextmanager
def counted() -> Iterator[Account]:
    """Fake tensors, and an `Account` of what happens to those on the device."""
    import traceback

    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    import tuneopt.optim.bucket
    import tuneopt.training.second_order

    account = Account()

    def drawn(like: torch.Tensor, *words: object) -> torch.Tensor:
        """Numbers of that shape: generators of the device need a driver, and fake numbers have no seed."""
        return torch.randn(like.shape, device=like.device).to(like.dtype)

    for module in (tuneopt.optim.bucket, tuneopt.training.second_order):
        module.gaussian = drawn

    def own_line() -> str:
        frames = [frame for frame in traceback.extract_stack() if f"{os.sep}tuneopt{os.sep}" in frame.filename]
        return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "elsewhere"

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            name = function._schema.name
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            on_device = any(tensor.device.type == "cuda" for tensor in tensors)
            to_host = name == "aten::_to_copy" and torch.device(kwargs.get("device") or "cuda").type == "cpu"
            if on_device and (name in WAITS or to_host):
                account.waits[f"{name} at {own_line()}"] += 1
            out = function(*args, **kwargs)
            for leaf in tree_leaves(out):
                if isinstance(leaf, torch.Tensor):
                    account.seen(leaf)
            account.calls[name] += 1
            return out

    with FakeTensorMode(allow_non_fake_inputs=True), Watch():
        yield account
