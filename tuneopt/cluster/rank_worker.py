"""One rank of a trial inside a Ray Train worker, which takes up trial after trial while there are any.

Three parties: the trial's Tune worker (`tuneopt.cluster.ranks`), the ranks, and between them `Line`, an actor that both
can reach. Ray Train offers no way to hand a running worker more work, and its own reports wait for all ranks; the line
carries the next trial one way and rank 0's progress the other (docs/decisions.md, "Trials on several ranks").
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuneopt.cluster.trainable import REPORT_SECONDS
from tuneopt.errors import NoRoomError, no_room
from tuneopt.spec import InputError, TrialSpec

if TYPE_CHECKING:
    from tuneopt.ledger import Ledger
    from tuneopt.training.config import ParallelConfig
    from tuneopt.training.ranks import Ranks

PATIENCE = 5.0
"""Seconds that ranks keep their devices without a trial. Others may wait for these, and the next trial of a sweep comes
after tenths of a second (docs/decisions.md)."""


@dataclass(frozen=True)
class Job:
    """What every rank of a trial is given; it travels to the workers pickled."""

    spec: TrialSpec
    corpus: str
    sources: Mapping[str, str]
    """Text of the optimizer's file, empty unless it is a class of a user's file."""
    ledger: Ledger
    placement: ParallelConfig
    keep_weights: bool = False
    report_seconds: float = REPORT_SECONDS


class Line:
    """An actor between a trial's Tune worker and its ranks: jobs go one way, how far they are the other.

    Every rank is told the same: a job by its number, or that there are no more.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self._patience = patience  # seconds
        # A job's number is its position, so that all ranks mean the same one. Jobs that were taken up become None.
        self._jobs: list[Job | None] = []
        self._words: list[dict[str, Any]] = []
        self._closed = False

    async def give(self, job: Job) -> bool:
        """Give the ranks their next trial; False when they have left."""
        if not self._closed:
            self._jobs = [*(None for _ in self._jobs), job]
        return not self._closed

    async def close(self) -> None:
        """Let the ranks leave after their trial."""
        self._closed = True

    async def newest(self) -> int:
        """The number of the newest job."""
        return len(self._jobs) - 1

    async def job(self, number: int) -> Job | None:
        """Job ``number``, as soon as it is there; None when the ranks are to leave."""
        began = time.monotonic()
        while len(self._jobs) <= number:
            # Once closed, for good: ranks that left one by one would leave the others waiting in a collective call.
            self._closed |= time.monotonic() - began > self._patience
            if self._closed:
                return None
            await asyncio.sleep(0.02)
        return self._jobs[number]

    async def tell(self, word: dict[str, Any]) -> None:
        """What a rank has to say of its trial."""
        self._words.append(word)

    async def words(self, seconds: float) -> list[dict[str, Any]]:
        """What was told since the last call, as soon as there is something, after ``seconds`` at the latest."""
        began = time.monotonic()
        while not self._words and time.monotonic() - began < seconds:
            await asyncio.sleep(0.02)
        fresh, self._words = self._words, []  # no await in between: no word is lost or told twice
        return fresh


def train_rank(config: dict[str, Any]) -> None:
    """A rank's life: its part of the trial that the line names, then of the next.

    Ray Train has started the worker and joined the process group. Ranks that are started again after one of them died
    find the checkpoint by the trial's id, like any other process.
    """
    import ray
    from ray import train
    from ray.train.torch import get_device

    from tuneopt.training.ranks import Ranks

    line, context = config["line"], train.get_context()
    ranks = Ranks(context.get_world_rank(), context.get_world_size(), get_device())
    # A trial may just have ended and another been given while the ranks ask, so that they hear different numbers.
    # All begin with rank 0's.
    number = int(ranks.gather(ray.get(line.newest.remote()))[0])
    while (job := ray.get(line.job.remote(number))) is not None:

        def tell(job: Job = job, **word: Any) -> None:
            ray.get(line.tell.remote({"trial": job.spec.id, **word}))

        try:
            _train(job, ranks, tell)
        except (OSError, InputError) as error:
            # Ray Train would start the ranks again. Where that mends nothing, the Tune worker is told and gives up.
            if no_room(error) or isinstance(error, NoRoomError):
                tell(no_room=True)
            elif isinstance(error, InputError):
                tell(refused=str(error))
            raise
        number += 1


def _train(job: Job, ranks: Ranks, tell: Any) -> None:
    """This rank's part of one trial, from its newest checkpoint to its record, which rank 0 writes."""
    from tuneopt.data import load_corpus
    from tuneopt.outside import adopt_all
    from tuneopt.training.run import TrialRun

    adopt_all(job.sources)
    corpus = load_corpus(job.corpus, vocab_size=job.spec.regime.corpus.vocab_size)
    run = TrialRun(job.spec, corpus, job.ledger, None, job.placement, job.keep_weights, ranks)
    last_word = time.monotonic()
    while run.record is None:
        run.advance()
        # Points of small trials come by the dozen in a second, and each word is a call over the cluster.
        due = time.monotonic() - last_word >= job.report_seconds
        if ranks.rank == 0 and due and run.training is not None and run.record is None:
            last_word = time.monotonic()
            tell(
                fraction=run.training.step / run.training.steps,
                select_loss=run.training.curve[-1].select_loss,
                busy_seconds=run.busy_seconds,
                points=run.fresh_points(),
            )
    if ranks.rank == 0:  # "reused" is what marks the last word (`Group.next_word`)
        tell(busy_seconds=run.busy_seconds, reused=run.reused)
