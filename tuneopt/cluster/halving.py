"""ASHA as it is asked for by name: it ranks trials on intermediate loss, which every result then says."""

from __future__ import annotations

from typing import Any

from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from tuneopt.cluster.live_queue import LiveQueue


class Halving(LiveQueue, ASHAScheduler):  # type: ignore[misc]
    """Asynchronous successive halving over the fraction of a run (Li et al., arXiv 1810.05934).

    Reruns of the winner with other seeds are never stopped: they measure, they do not compete. A trial without a
    finite loss at a rung is left to its own end, which is near: divergence stops it.
    """

    def __init__(self, grace: float, reduction: float) -> None:
        super().__init__(
            time_attr="fraction",
            metric="select_loss",
            mode="min",
            max_t=1.0,
            grace_period=grace,
            reduction_factor=reduction,
            stop_last_trials=False,
        )

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """The metric is fixed; Tune may offer the same."""
        return True

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""
        if trial.config["confirming"] or result["select_loss"] is None or result["done"]:
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Let a finished trial count at the rungs it passed."""
        if not trial.config["confirming"] and result["select_loss"] is not None:
            super().on_trial_complete(tune_controller, trial, result)
