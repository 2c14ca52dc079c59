"""The inline backend: trials one after another in this process, for notebooks, debuggers and single trials.

It needs no Ray. A trial on several ranks starts processes of its own on this machine. Nothing hides what goes wrong: an
error of a trial ends the run with its traceback, and to run it again goes on from the trial's last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tuneopt.errors import in_words
from tuneopt.observe.state import TrialEnd
from tuneopt.run.options import RunOptions
from tuneopt.run.spine import RunController
from tuneopt.search.plan import Plan
from tuneopt.search.sampled import marked
from tuneopt.spec import TrialSpec
from tuneopt.training.config import HIDDEN, ParallelConfig

if TYPE_CHECKING:
    from tuneopt.data import Corpus
    from tuneopt.ledger import CurvePoint
    from tuneopt.training.building import WarmModels


class _CutError(BaseException):
    """A scheduler stops the trial. No `Exception`: to be stopped is no failure, and the trial's log calls it none."""


class InlineBackend:
    """Trains on ``corpus``; without one, on the corpus that the options name.

    Trials train on a GPU where the options give them one; with ``any_device`` also where there merely is one.
    """

    remote = False

    def __init__(self, corpus: Corpus | None = None, *, any_device: bool = False) -> None:
        self.corpus, self.any_device = corpus, any_device

    @contextmanager
    def connect(self, plan: Plan, options: RunOptions) -> Iterator[int]:
        """One slot: this process."""
        yield 1

    def drive(self, controller: RunController) -> None:
        """Train trial after trial; models and compiled kernels are kept from one to the next."""
        import torch

        from tuneopt.training.building import WarmModels

        self.hidden = not (self.any_device or controller.options.gpus_per_trial)
        # Models also set one thread for sums, as in Ray's workers: equal bits.
        models = WarmModels(torch.device("cpu") if self.hidden else None)
        while (spec := controller.ask()) is not None:
            try:
                self._train(spec, controller, models)
            except Exception as error:
                controller.failed(spec, in_words(error))
                raise

    def _train(self, spec: TrialSpec, controller: RunController, models: WarmModels) -> None:
        from tuneopt.data import load_corpus
        from tuneopt.training.run import run_ranks, run_trial

        options = controller.options
        assert options.ledger is not None, "trials leave their records in a ledger"
        # A plan asks the ledger before it hands a trial out, but another process may have ended it since. A plan of a
        # single trial does not ask.
        if options.ledger.sound(spec.id) is not None:
            controller.reused(spec)
            return
        controller.started(spec)
        ledger = marked(options.ledger, controller.plan.marks)
        corpus = self.corpus or load_corpus(options.corpus, vocab_size=spec.regime.corpus.vocab_size)
        parallel = options.parallel.get(spec.regime.scale.name, ParallelConfig())
        taken = 0.0  # seconds at the newest curve point

        def on_point(point: CurvePoint) -> None:
            nonlocal taken
            taken = point.seconds
            controller.points(spec, [point], taken)
            if not controller.goes_on(spec, point.step / spec.steps, point.select_loss, taken):
                raise _CutError  # through the training code: nothing is written, and the checkpoint stays

        try:
            if parallel.distributed:
                variables = HIDDEN if self.hidden else {}
                record = run_ranks(spec, corpus, ledger, parallel, on_point, options.keep_weights, variables)
            else:
                record = run_trial(
                    spec, corpus, ledger, models=models, parallel=parallel, keep_weights=options.keep_weights,
                    on_point=on_point,
                )  # fmt: skip
        except _CutError:
            controller.cut(spec, taken)
            return
        seconds = record.seconds["train"] + record.seconds["eval"]
        controller.ended(spec, TrialEnd(record.status, record.select_loss, record.report_loss, seconds))
