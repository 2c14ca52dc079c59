"""What people outside tuneopt would write: the page's own example, small files, and packages with entry points."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bring-your-own-optimizer.md"

PLAIN = """
import torch

class Plain(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1, betas=(0.9, 0.99), nesterov=False):
        super().__init__(params, {"lr": lr, "betas": betas, "nesterov": nesterov})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    m = self.state[p].setdefault("m", torch.zeros_like(p))
                    m.lerp_(p.grad, 1 - group["betas"][0])
                    p.sub_(m.sign(), alpha=group["lr"])

class NotOne:
    pass

def function(params):
    return params
"""

SPACE = """
from tuneopt.search.space import SearchSpace, learning_rate, train_batch_size, warmup
FIXED = {{"lr_schedule": "cosine", "min_lr_ratio": 0, "beta1": 0.9}}
SPACE = SearchSpace(
    "{name}", (learning_rate({{"nano": (0.01, 0.1)}}, {{"nano": 0.1}}), train_batch_size(), warmup()),
    {{"nano": FIXED}}, "here", "by trying")
"""


def page_files(folder: Path) -> Path:
    """Write every Python block of the page to the file that its first line names; returns the folder."""
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        name = re.match(r"# (\w+\.py)\n", block)
        assert name, "a block of the page names no file"
        (folder / name[1]).write_text(block)
    return folder


def install(folder: Path, package: str, optimizers: str, spaces: str = "", version: str = "1.0", **files: str) -> None:
    """A package in ``folder`` as an installer would leave it; ``files`` are its modules."""
    home = folder / package
    home.mkdir(parents=True)
    for name, text in {"__init__": "", **files}.items():
        (home / f"{name}.py").write_text(text)
    info = folder / f"{package}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[tuneopt.optimizers]\n{optimizers}\n[tuneopt.search_spaces]\n{spaces}\n")
