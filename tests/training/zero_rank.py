"""What one rank does for the tests of ZeRO: many cases in one process group, one line of JSON for each."""

import gc
import json
import sys
import traceback
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuneopt.data import Corpus, open_corpus
from tuneopt.optim.base import Optimizer
from tuneopt.optim.rule import MatrixRule
from tuneopt.spec import TrialSpec
from tuneopt.training.config import ParallelConfig
from tuneopt.training.launch import is_rank, launch, leave
from tuneopt.training.loop import Training
from tuneopt.training.ranks import Ranks, rank_of_environment
from tuneopt.training.run import state_bytes
from tuneopt.training.zero import owned


@dataclass
class Case:
    """Train ``steps`` steps, from the newest checkpoint of ``folder`` where there is one, and save there if asked.

    ``evaluates`` says whether to evaluate after each step, too. ``bucket`` is the most elements of an owner's tensors
    that step together.
    """

    spec: TrialSpec
    stage: int
    steps: int = 10
    offload: bool = False
    folder: Path | None = None
    save: bool = False
    checkpointing: bool = False
    deterministic: bool = False
    evaluates: bool = False
    bucket: int = owned.OWNER_BUCKET

    def to_dict(self) -> dict[str, Any]:
        folder = str(self.folder) if self.folder else None
        return {**vars(self), "spec": self.spec.to_dict(), "folder": folder}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Case":
        folder = Path(plain["folder"]) if plain["folder"] else None
        return cls(**{**plain, "spec": TrialSpec.from_dict(plain["spec"]), "folder": folder})


def step_losses(training: Training, steps: int, evaluates: bool = False) -> list[float]:
    """The training loss of each of the next steps, over all ranks."""
    losses = []
    for _ in range(steps):
        losses.append(training.step_loss())
        if evaluates:
            training.evaluate(final=False)
    return losses


@contextmanager
def counted_matrices(optimizer: Optimizer) -> Iterator[list[int]]:
    """How many whole matrices every call of the main rule computes on this rank, if it is a matrix rule."""
    kind, counts = type(optimizer.main), []
    if not issubclass(kind, MatrixRule):
        yield counts
        return
    genuine = kind.direction

    def direction(self: MatrixRule, gradients: Any, *more: Any) -> Any:
        counts.append(len(gradients))
        return genuine(self, gradients, *more)

    kind.direction = direction
    try:
        yield counts
    finally:
        kind.direction = genuine


def run_cases(cases: list[Case], ranks: int, corpus: Corpus, folder: Path) -> list[dict[str, Any]]:
    """The results of all cases, in order, from ranks that are started for them."""
    listed = folder / "cases.json"
    listed.write_text(json.dumps([case.to_dict() for case in cases]))
    lines = list(launch([sys.executable, __file__, str(corpus.folder), str(listed)], ranks))
    results = [json.loads(line) for line in lines if line.startswith('{"case"')]
    assert len(results) == len(cases), lines
    return results


def run_case(case: Case, corpus: Corpus, ranks: Ranks) -> dict[str, Any]:
    parallel = ParallelConfig(
        ranks.world, case.stage, case.offload, case.checkpointing, deterministic=case.deterministic
    )
    owned.OWNER_BUCKET = case.bucket
    training = Training(case.spec, corpus, case.folder, parallel=parallel, ranks=ranks)
    resumed = training.step
    with counted_matrices(training.optimizer) as matrices:
        losses = step_losses(training, case.steps, case.evaluates)
    proof = training.proof or (training.update_check.proof().to_dict() if training.update_check else None)
    if case.save:
        training.save()
    held_out = training.evaluate(final=True)
    bytes_held = ranks.gather(sum(state_bytes(optimizer) for optimizer in training.strategy.optimizers))
    repeats, model = torch.are_deterministic_algorithms_enabled(), weakref.ref(training.model)
    training.close()
    del training
    gc.collect()
    stepped = ranks.gather(sum(matrices))
    result = {
        "matrices": stepped,
        "losses": losses,
        "proof": proof,
        "held_out": held_out,
        "state_bytes": bytes_held,
        "resumed": resumed,
    }
    return {"case": case.spec.optimizer, "repeats": repeats, "freed": model() is None, **result}


def main(corpus: str, cases: str) -> None:
    with rank_of_environment() as ranks:
        opened = open_corpus(Path(corpus))
        for plain in json.loads(Path(cases).read_text()):
            result = run_case(Case.from_dict(plain), opened, ranks)
            if ranks.rank == 0:
                print(json.dumps(result), flush=True)


if __name__ == "__main__" and is_rank():
    try:
        main(*sys.argv[1:])
    except BaseException:
        traceback.print_exc()
        leave(1)
    leave(0)
