"""Check ZeRO on the devices at hand: ``python -m tuneopt.training.zero.check --ranks 2``.

Trains a few steps of one model in one process and at every stage on several ranks, on GPUs where there are any, and
prints for each the losses' largest relative difference from one process, the peak memory of the fullest rank with the
model's figure, and the seconds of a step. Exit code 1 where a loss is off by more than ``--tolerance``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from tuneopt.data import Corpus, load_corpus
from tuneopt.scale_files import find_scale
from tuneopt.search.space import load_space
from tuneopt.spec import CorpusId, Evaluation, Regime, TrialSpec
from tuneopt.training.config import ParallelConfig
from tuneopt.training.fitting import step_memory
from tuneopt.training.launch import is_rank, launch, leave
from tuneopt.training.loop import Training
from tuneopt.training.machine import peak_memory, reset_peak_memory
from tuneopt.training.ranks import Ranks, rank_of_environment

RESULT = "result "
CORPUS = "embedded"


def main(arguments: Sequence[str]) -> int:
    """Print a table, or with ``--json`` one document."""
    parser = argparse.ArgumentParser(prog="python -m tuneopt.training.zero.check", description=__doc__)
    parser.add_argument("--ranks", type=int, default=2, help="one for each GPU (default: %(default)s)")
    parser.add_argument("--stages", default="0,1,2,3", help="(default: %(default)s)")
    parser.add_argument("--offload", action="store_true", help="keep state in host memory from stage 1 on")
    parser.add_argument("--optimizer", default="muon", help="(default: %(default)s)")
    parser.add_argument("--scale", default="nano-1m", help="(default: %(default)s)")
    parser.add_argument("--seq-len", type=int, help="tokens of a sequence (default: the scale's)")
    parser.add_argument("--vocabulary", type=int, default=1024, help="entries, at least 1024 (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=8, help="sequences of a step (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="(default: %(default)s)")
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="relative; 2e-3 suits bf16 (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    spec = _spec(options, load_corpus(CORPUS, vocab_size=1024))
    stages = [int(word) for word in options.stages.split(",")]
    sharded = [ParallelConfig(options.ranks, zero, options.offload and zero > 0) for zero in stages]
    results = [_measured(spec, parallel, options.steps) for parallel in (ParallelConfig(), *sharded)]
    alone = results[0]["losses"]
    for result in results:
        pairs = zip(result["losses"], alone, strict=True)
        result["difference"] = max(abs(loss - other) / other for loss, other in pairs)
    if options.json:
        print(json.dumps(results, indent=2))
    else:
        for line in _table(results):
            print(line)
    return int(any(not result["difference"] <= options.tolerance for result in results))


def _spec(options: argparse.Namespace, corpus: Corpus) -> TrialSpec:
    scale = find_scale(options.scale)
    space = load_space(options.optimizer).on(scale.ladder)
    start = {**dict(space.start), "train_batch_size": options.batch, "warmup": 1}
    # The text is that of the corpus, the vocabulary the model's own.
    identity = CorpusId(corpus.id.name, corpus.id.fingerprint, options.vocabulary)
    share = options.batch // options.ranks
    return TrialSpec(
        options.optimizer,
        TrialSpec.freeze(start),
        Regime(replace(scale, seq_len=options.seq_len or scale.seq_len), 1.0, identity),
        precision=options.precision,
        micro_batch=share,
        evaluation=Evaluation(points=1, curve_sequences=share, final_sequences=share),
    )


def _measured(spec: TrialSpec, parallel: ParallelConfig, steps: int) -> dict[str, Any]:
    job = {"spec": spec.to_dict(), "parallel": asdict(parallel), "steps": steps}
    lines = launch([sys.executable, "-m", "tuneopt.training.zero.check", json.dumps(job)], parallel.ranks)
    found: dict[str, Any] = next(json.loads(line.removeprefix(RESULT)) for line in lines if line.startswith(RESULT))
    return found


def _work(job: str, ranks: Ranks) -> dict[str, Any]:
    """What one rank does: a few steps, and what they took."""
    plain = json.loads(job)
    spec, parallel = TrialSpec.from_dict(plain["spec"]), ParallelConfig(**plain["parallel"])
    reset_peak_memory()
    training = Training(spec, load_corpus(CORPUS, vocab_size=1024), None, parallel=parallel, ranks=ranks)
    losses, seconds = [], []
    for _ in range(plain["steps"]):
        began = time.perf_counter()
        losses.append(training.step_loss())
        seconds.append(time.perf_counter() - began)
    peaks = ranks.gather(peak_memory(ranks.device) or 0)
    training.close()
    return {
        "device": str(ranks.device),
        "ranks": ranks.world,
        "zero": parallel.zero,
        "losses": losses,
        "seconds": statistics.median(seconds[1:] or seconds),
        "peak_bytes": max(peaks),
        "model_bytes": step_memory(spec, parallel, training.micro_batch, on_cpu=ranks.device.type == "cpu").device,
    }


def _table(results: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["ranks  stage  difference  peak GiB  model GiB  s/step"]
    for result in results:
        peak, model = result["peak_bytes"] / 2**30, result["model_bytes"] / 2**30
        lines.append(
            f"{result['ranks']:5}  {result['zero']:5}  {result['difference']:10.1e}  {peak:8.2f}  {model:9.2f}  "
            f"{result['seconds']:6.2f}"
        )
    if results[0]["device"] == "cpu":
        lines.append("on CPUs a peak holds Python and its libraries, about 0.5 GiB, which the model leaves out")
    return lines


if __name__ == "__main__":
    if is_rank():
        try:
            with rank_of_environment() as ranks:
                result = _work(sys.argv[1], ranks)
                if ranks.rank == 0:
                    print(RESULT + json.dumps(result), flush=True)
        except BaseException:
            traceback.print_exc()
            leave(1)
        leave(0)
    sys.exit(main(sys.argv[1:]))
