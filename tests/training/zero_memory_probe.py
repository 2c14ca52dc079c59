"""Prints the bytes that one rank of a trial added to its process: at the start, in steps, and after them."""

import ctypes
import gc
import json
import sys
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tiny_trials import CONFIG
from zero_specs import OPTIMIZERS

from tuneopt.data import Corpus, open_corpus
from tuneopt.spec import CorpusId, Evaluation, Regime, Scale, TrialSpec
from tuneopt.training.config import ParallelConfig
from tuneopt.training.launch import is_rank, launch, leave
from tuneopt.training.loop import Training
from tuneopt.training.machine import peak_memory, reset_peak_memory
from tuneopt.training.ranks import Ranks, rank_of_environment
from tuneopt.training.zero.strategy import Zero


@dataclass(frozen=True)
class Load:
    """What a rank is to hold: shapes, optimizer and placement."""

    scale: list[Any]
    vocab_size: int
    optimizer: str
    zero: int
    micro_batch: int = 1
    passes: int = 1
    precision: str = "fp32"
    offload: bool = False
    steps: int = 4

    def spec(self, corpus: Corpus, ranks: int) -> TrialSpec:
        changes = {"block_size": 256} if self.optimizer == "soap" else {}
        config = {**CONFIG, **OPTIMIZERS[self.optimizer], **changes, "warmup": 0, "train_batch_size": None}
        config["train_batch_size"] = ranks * self.micro_batch * self.passes
        # The text of the corpus counts, its vocabulary is the model's.
        identity = CorpusId(corpus.id.name, corpus.id.fingerprint, self.vocab_size)
        return TrialSpec(
            self.optimizer,
            TrialSpec.freeze({name: value for name, value in config.items() if value is not None}),
            Regime(Scale(*self.scale), 1.0, identity),
            precision=self.precision,
            micro_batch=self.micro_batch,
            evaluation=Evaluation(points=1, curve_sequences=self.micro_batch, final_sequences=self.micro_batch),
        )


def measure(load: Load, ranks: int, corpus: Corpus) -> list[dict[str, Any]]:
    """What every rank of a trial measured, by rank, from processes that are started for it."""
    command = [sys.executable, __file__, str(corpus.folder), json.dumps(vars(load))]
    lines = [line for line in launch(command, ranks) if line.startswith('[{"rank"')]
    assert len(lines) == 1, lines
    return json.loads(lines[0])


def resident() -> int:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def train(load: Load, corpus: Corpus, ranks: Ranks, base: int) -> dict[str, Any]:
    drawn = []
    set_weights = Zero._set_weights

    def watched(strategy: Zero, saved: Any) -> None:
        set_weights(strategy, saved)
        drawn.append((peak_memory(ranks.device) or 0) - base)

    Zero._set_weights = watched
    spec = load.spec(corpus, ranks.world)
    reset_peak_memory()
    began = time.perf_counter()
    parallel = ParallelConfig(ranks.world, load.zero, load.offload)
    training = Training(spec, corpus, None, parallel=parallel, ranks=ranks)
    Zero._set_weights = set_weights
    start, started = (peak_memory(ranks.device) or 0) - base, time.perf_counter() - began
    losses, seconds = [], []
    reset_peak_memory()
    for _ in range(load.steps):
        began = time.perf_counter()
        losses.append(training.step_loss())
        seconds.append(round(time.perf_counter() - began, 2))
    result = {
        "rank": ranks.rank,
        "drawn": drawn[0] if drawn else None,
        "start": start,
        "parameters": Scale(*load.scale).total_parameters(load.vocab_size),
        "peak": (peak_memory(ranks.device) or 0) - base,
        "held": resident() - base,
        "base": base,
        "state": sum(optimizer.state_bytes() for optimizer in training.strategy.optimizers),
        "losses": losses,
        "seconds": seconds,
        "start_seconds": started,
        "proof": training.proof["passed"] if training.proof else None,
    }
    training.close()
    return result


def main(corpus: str, plain: str) -> None:
    load = Load(**json.loads(plain))
    with rank_of_environment() as ranks:
        opened = open_corpus(Path(corpus))
        tiny = [*load.scale[:2], 2, 64, 256, 1, *load.scale[6:]]
        train(replace(load, scale=tiny, vocab_size=1024, steps=4), opened, ranks, 0)  # libraries and thread pools
        results = ranks.gather(train(load, opened, ranks, resident()))
        if ranks.rank == 0:
            print(json.dumps(results), flush=True)


if __name__ == "__main__" and is_rank():
    torch.set_num_threads(1)
    try:
        main(*sys.argv[1:])
    except BaseException:
        traceback.print_exc()
        leave(1)
    leave(0)
