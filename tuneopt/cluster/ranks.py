"""Trials on several ranks: Ray Train inside a Ray Tune trial.

The trial's Tune worker holds no device. It starts a Ray Train run, whose workers are the ranks, hears from rank 0 how
far they are, and passes that on to Tune. When a rank dies Ray Train starts all of them again, and they go on from the
trial's last checkpoint; rank 0 writes the record. The ranks stay for the next trial of the same Tune worker: to start
them takes longer than a small trial (266 s against 142 for three, docs/decisions.md).

`Ranked` is what Tune sees; `Group` is one Ray Train run, which blocks a thread of the Tune worker for as long as it has
ranks; `Line` and `train_rank` (`tuneopt.cluster.rank_worker`) are what the two ends talk through, and the far end.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any

from tuneopt.cluster.rank_worker import Job, Line, train_rank
from tuneopt.cluster.trainable import TrialTrainable, outcome
from tuneopt.errors import NoRoomError
from tuneopt.outside import sources_of
from tuneopt.paths import temporary_folder
from tuneopt.spec import InputError
from tuneopt.training.config import ParallelConfig
from tuneopt.training.ranks import TIMEOUT

RESTARTS = 2
"""How often the ranks are started again, together, after one of them died; then Tune starts the trial anew, as often
(`tuneopt.cluster.backend.RETRIES`)."""

POLL_SECONDS = 0.5
"""Time between two looks of Ray Train at its workers: so long a dead rank stays unnoticed."""

_TRAIN = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": str(POLL_SECONDS),
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # one more process per trial, for a warning that ranks do not need
}


class Ranked(TrialTrainable):
    """Trains each trial as its scale is placed: on ranks of its own, or in this warm worker like every other.

    `tuneopt.cluster.backend.worker_class` takes it where a scale asks for ranks.
    """

    group: Group | None = None  # outlives trials: Tune reuses the worker

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another trial."""
        taken = super().reset_config(new_config)
        self.gpus_per_rank = float(new_config["gpus_per_rank"])
        self.together = bool(new_config["together"])  # on one machine, because the trial's checkpoints are
        self.given = False  # whether the ranks have this trial
        return taken

    def _train_on(self) -> dict[str, Any]:
        """Wait for the ranks' next word; the last one carries the outcome, already in the ledger."""
        if not self.placement.distributed:
            self._dismiss()
            return super()._train_on()
        if not self.given:
            self.placement.micro_batch(self.spec)  # a batch that does not divide starts no ranks
            self._give()
        assert self.group is not None
        word = self.group.next_word()
        if word is not None:
            return {"trial": self.spec.id, **word, "busy_seconds": self.group.busy_seconds, "done": False}
        record = self.ledger.get(self.spec.id)
        if record is None:
            missing = f"the ranks ended, but trial {self.spec.id} is not in the ledger {self.ledger.uri}"
            raise self.group.error or RuntimeError(missing)
        return {
            **outcome(record),
            "busy_seconds": self.group.busy_seconds,
            "reused": self.group.reused,
            "done": True,
        }

    def _give(self) -> None:
        """Give the trial to the ranks that are there, or to new ones."""
        job = Job(
            spec=self.spec,
            corpus=self.corpus_source,
            sources=sources_of(self.spec),
            ledger=self.ledger,
            placement=self.placement,
            keep_weights=self.keep_weights,
            report_seconds=self.report_seconds,
        )
        # Another number of ranks is another process group.
        if self.group is not None and self.group.placement != self.placement:
            self._dismiss()
        # Ranks that are there have imported torch and met each other, which takes seconds; they may have left.
        if self.group is None or not self.group.take_up(job):
            self.group = Group(self.placement, self.gpus_per_rank, self.together)
            self.group.take_up(job)
        self.given = True

    def _dismiss(self) -> None:
        if self.group is not None:
            self.group.dismiss()
            self.group = None


class Group:
    """The ranks of a Ray Train run, started and watched by a thread of this process."""

    def __init__(self, placement: ParallelConfig, gpus_per_rank: float, together: bool) -> None:
        import ray

        self.placement, self.gpus_per_rank, self.together = placement, gpus_per_rank, together
        self.error: BaseException | None = None
        """What made the ranks fail for good."""
        self.line = ray.remote(num_cpus=0)(Line).remote()  # no CPU: it must not wait for a slot, nor take one
        self._heard: deque[dict[str, Any]] = deque()  # words that came together and were not passed on yet
        self._thread = threading.Thread(target=self._fit, daemon=True, name="ranks")

    def take_up(self, job: Job) -> bool:
        """Let the ranks train a trial; False when they have left."""
        import ray

        self.job = job
        self.busy_seconds, self.reused = 0.0, False
        self._before = self._last = 0.0  # seconds of ranks that died, and of those that train as last heard
        if self._thread.ident is not None and not self._thread.is_alive():
            return False
        if not ray.get(self.line.give.remote(job)):
            return False
        if self._thread.ident is None:
            self._thread.start()
        return True

    def dismiss(self) -> None:
        """Let the ranks leave; they do so in their own time."""
        self.line.close.remote()

    def next_word(self) -> dict[str, Any] | None:
        """How far the trial is, when rank 0 says so next; None at its end, and when the ranks failed for good.

        Raises what a rank says is wrong with the trial itself, because to start it again would not help.
        """
        import ray

        while True:
            # Asked before the words are: a thread that ends in between has left its last words on the line.
            ending = not self._thread.is_alive()
            if not self._heard:
                self._heard.extend(ray.get(self.line.words.remote(0.0 if ending else POLL_SECONDS)))
            if not self._heard:
                if ending:
                    return None
                continue
            word = self._heard.popleft()
            if word.pop("trial") != self.job.spec.id:
                continue  # the trial before, which ranks that were started again looked up
            if "refused" in word:
                raise InputError(word["refused"])
            if "no_room" in word:
                raise NoRoomError(self.job.ledger.uri)
            self._count(word.pop("busy_seconds"))
            if "reused" in word:
                self.reused = word["reused"]
                return None
            return word

    def _count(self, busy_seconds: float) -> None:
        """Add up what ranks that were started again spent, each time from zero."""
        if busy_seconds < self._last:  # it fell: other ranks count from zero
            self._before += self._last
        self._last = busy_seconds
        self.busy_seconds = self._before + busy_seconds

    def _fit(self) -> None:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchTrainer

        from tuneopt.cluster.ray_fixes.rendezvous import BoundTorchConfig

        for name, value in _TRAIN.items():
            os.environ.setdefault(name, value)
        gpu = self.gpus_per_rank > 0
        try:
            # What Ray Train keeps of a run is of no use here: checkpoints and the record are the ranks' own.
            with temporary_folder("train") as scratch:
                TorchTrainer(
                    train_rank,
                    train_loop_config={"line": self.line},
                    torch_config=BoundTorchConfig(timeout_s=int(TIMEOUT.total_seconds())),
                    scaling_config=ScalingConfig(
                        num_workers=self.placement.ranks,
                        use_gpu=gpu,
                        resources_per_worker={"CPU": 1.0, **({"GPU": self.gpus_per_rank} if gpu else {})},
                        placement_strategy="STRICT_PACK" if self.together else "PACK",
                    ),
                    run_config=RunConfig(
                        name="ranks", storage_path=str(scratch), failure_config=FailureConfig(max_failures=RESTARTS)
                    ),
                ).fit()
        except BaseException as error:  # `Ranked._train_on` raises it, where Tune can see it
            self.error = error
