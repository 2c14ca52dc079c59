"""Prints the bytes that two training steps added to this process at their peak, and the optimizer's state."""

import json
import sys
from pathlib import Path

import torch
from tiny_trials import CONFIG
from zero_specs import OPTIMIZERS

from tuneopt.optim import create
from tuneopt.optim.factory import LOOP
from tuneopt.spec import CorpusId, Regime, Scale, TrialSpec
from tuneopt.training.building import fresh
from tuneopt.training.machine import peak_memory, reset_peak_memory
from tuneopt.training.second_order import hessian_diagonal

CPU = torch.device("cpu")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def train(name: str, scale: Scale, vocab_size: int, micro_batch: int) -> int:
    changes = {"block_size": 256} if name == "soap" else {}
    config = {word: value for word, value in {**CONFIG, **OPTIMIZERS[name], **changes}.items() if value is not None}
    regime = Regime(scale, 1.0, CorpusId("none", "none", vocab_size))
    warm = fresh(TrialSpec(name, TrialSpec.freeze(config), regime, micro_batch=micro_batch), CPU)
    own = {word: value for word, value in config.items() if word not in LOOP}
    optimizer = create(name, warm.model, **own)
    curved = optimizer.hessian_interval > 0
    for _ in range(2):
        optimizer.zero_grad(set_to_none=True)
        window = torch.randint(0, vocab_size, (micro_batch, scale.seq_len + 1))
        warm.loss(window[:, :-1], window[:, 1:]).backward()
        diagonal = hessian_diagonal(warm.model, window[:, :-1], window[:, 1:], 0, 0) if curved else None
        optimizer.step()
        if diagonal is not None:
            optimizer.update_hessian(diagonal)
    return optimizer.state_bytes()


if __name__ == "__main__":
    torch.set_num_threads(1)
    scale, vocab_size, micro_batch = Scale(*json.loads(sys.argv[2])), int(sys.argv[3]), int(sys.argv[4])
    train(sys.argv[1], Scale("warm", "nano", 2, 64, 256, 1, scale.seq_len), 256, 1)  # libraries and thread pools
    before = resident()
    reset_peak_memory()
    state = train(sys.argv[1], scale, vocab_size, micro_batch)
    print(json.dumps({"peak": (peak_memory(CPU) or 0) - before, "state": state}))
