"""The Ray Tune trainable: one trial in a warm worker, from its configuration to its record.

The worker writes the record itself, before Tune or the driver hears of the result: a driver that dies a moment later
loses nothing, and one that is started anew finds the trial done. So what is returned to Tune is news for the display
and the scheduler, and never the result.
"""

from __future__ import annotations

import json
import time
from typing import Any

from ray import tune

from tuneopt.data import load_corpus
from tuneopt.errors import NoRoomError, no_room
from tuneopt.ledger import TrialRecord, open_ledger
from tuneopt.ledger.logs import TrialLog
from tuneopt.outside import adopt_all
from tuneopt.search.sampled import marked
from tuneopt.spec import TrialSpec
from tuneopt.training.building import WarmModels
from tuneopt.training.config import ParallelConfig
from tuneopt.training.run import TrialRun
from tuneopt.training.trial_log import logging_to

REPORT_SECONDS = 5.0
"""Least seconds between two reports to Tune: a worker waits idle while the driver takes one in."""


class TrialTrainable(tune.Trainable):  # type: ignore[misc]
    """Trains one specification, a curve point for each step, and writes its own record.

    The configuration is that of `tuneopt.cluster.tuning.worker_config`. The worker is used again for trial after trial:
    its torch import, corpus, models and compiled kernels stay.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Keep the engine for all trials of this worker, and take up the first."""
        gpus = float(config["gpus_per_rank"])
        self.engine = WarmModels(share=gpus if 0 < gpus < 1 else 1.0)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another trial in this warm worker.

        Only what cannot fail: Tune gives a trial up for good whose worker raises here, be it for too many open files.
        What `step` raises, it starts again.
        """
        self.config = new_config
        self.spec = TrialSpec.from_dict(json.loads(new_config["spec"]))
        # Where trials are judged by their curves, each point is compared with others at an equal fraction of the run.
        self.report_seconds = 0.0 if new_config["every_point"] else REPORT_SECONDS
        self.run: TrialRun | None = None
        self.begun = False
        return True  # "this worker can be used again": Tune would start another otherwise

    def _begin(self) -> None:
        """Open what the trial needs: its optimizer's files and its ledger."""
        adopt_all(json.loads(self.config["sources"]))
        self.ledger = marked(open_ledger(self.config["ledger"]), json.loads(self.config["marks"]))
        self.corpus_source = str(self.config["corpus"])
        self.placement = ParallelConfig(**json.loads(self.config["placement"]))
        self.keep_weights = bool(self.config["keep_weights"])
        self.begun = True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: a trial's checkpoints are its own, in the ledger, and outlive Tune's experiment."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing: `TrialRun` finds the newest checkpoint by the trial's id."""

    def step(self) -> dict[str, Any]:
        """Train for a while, curve point by curve point; the last step carries the outcome, already in the ledger.

        A full disk is no failure of the trial: its last step then says why the whole run has to stop.
        """
        try:
            if not self.begun:
                self._begin()
            return self._train_on()
        except (OSError, NoRoomError) as error:
            if not (no_room(error) or isinstance(error, NoRoomError)):
                raise
            why = str(error) if isinstance(error, NoRoomError) else str(NoRoomError(self.config["ledger"]))
            # A result and not an exception, which Tune would answer by starting the trial again, on the same disk.
            return {
                "trial": self.spec.id,
                "fraction": 0.0,
                "select_loss": None,
                "busy_seconds": self.run.busy_seconds if self.run else 0.0,
                "halt": why,
                "done": True,
            }

    def _train_on(self) -> dict[str, Any]:
        if self.run is None:
            with logging_to(TrialLog(self.ledger, self.spec.id)):  # it may wait for another process to build the corpus
                corpus = load_corpus(self.corpus_source, vocab_size=self.spec.regime.corpus.vocab_size)
            self.run = TrialRun(self.spec, corpus, self.ledger, self.engine, self.placement, self.keep_weights)
        began = time.monotonic()
        while self.run.record is None:
            self.run.advance()  # to the next curve point
            if time.monotonic() - began >= self.report_seconds:
                break
        if self.run.record is not None:
            return {
                **outcome(self.run.record),
                "busy_seconds": self.run.busy_seconds,
                "reused": self.run.reused,
                "done": True,
            }
        assert self.run.training is not None
        return {
            "trial": self.spec.id,
            "fraction": self.run.training.step / self.run.training.steps,
            "select_loss": self.run.training.curve[-1].select_loss,
            "busy_seconds": self.run.busy_seconds,
            "points": self.run.fresh_points(),
            "done": False,
        }


def outcome(record: TrialRecord) -> dict[str, Any]:
    """What Tune, and the driver through it, is told of a finished trial."""
    return {
        "trial": record.trial,
        "fraction": 1.0,
        "status": record.status,
        "select_loss": record.select_loss,
        "report_loss": record.report_loss,
        "proof_passed": record.proof_passed,
    }
