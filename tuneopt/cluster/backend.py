"""The Ray backend: trials in warm workers of Ray Tune, on this machine or a cluster.

Tune brings the loop, the workers and their restarts; nothing else of it is used. It keeps nothing: its folder is
temporary, records and checkpoints are the workers' own. `tuneopt.cluster.tuning` holds the three objects that Tune
calls, `tuneopt.cluster.trainable` is what runs in a worker, and `tuneopt.cluster.ranks` spreads a trial over several.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

from tuneopt.cluster.session import connect, worker_environment
from tuneopt.observe.waiting import Times, Waits, WaitTimer
from tuneopt.paths import temporary_folder
from tuneopt.run.options import RunOptions
from tuneopt.run.spine import RunController
from tuneopt.search.plan import Plan
from tuneopt.spec import TrialSpec
from tuneopt.training.kernels import compiling

_log = logging.getLogger(__name__)

RETRIES = 2
"""How often a trial whose worker died is started again; it goes on from its last checkpoint."""

HOLDER = {"memory": 1.0}
"""What Tune reserves for a trial on ranks: nearly nothing, because Ray Train reserves the devices of its ranks. Tune
refuses a request of no CPU and nothing else, so it is a byte of memory."""

TIMES = Times()
"""When a run says why it waits."""


class RayBackend:
    """Trains each trial in a worker of Ray Tune; ``trainable`` stands in for the worker class in benchmarks."""

    remote = True

    def __init__(self, trainable: Any = None) -> None:
        self._trainable = trainable

    @contextmanager
    def connect(self, plan: Plan, options: RunOptions) -> Iterator[int]:
        """Connect to Ray, or start it, on machines that hold trials of all the plan's scales.

        On this machine the kernels of the first trial compile while Ray starts; on a cluster they are needed elsewhere,
        and the first worker of each machine compiles.
        """
        ranks = {
            options.parallel[scale].ranks if scale in options.parallel else 1
            for scale in (*plan.scales, *options.parallel)
        }
        first = plan.coming(1)
        compiled = as_compiled(options, first)
        # Compiling begins before Ray starts, and both take seconds: the first worker finds its kernels in the cache.
        with ExitStack() as stack:
            if compiled and compiled[0].compile and options.address is None and options.gpus_per_trial == 0:
                stack.enter_context(compiling(compiled[0], worker_environment(0)))
            session = stack.enter_context(
                connect(options.address, gpus_per_trial=options.gpus_per_trial, ranks=ranks, together=options.together)
            )
            if session.gpus and not options.gpus_per_trial and any(s.regime.scale.ladder == "paper" for s in first):
                _log.warning(idle_gpus(session.gpus, first[0].regime.scale.name))
            yield session.slots

    def drive(self, controller: RunController) -> None:
        """Let Tune run what the controller hands out; meanwhile a thread says why the run waits, if it does."""
        import ray
        from ray import tune

        from tuneopt.cluster.holders import look_at_cluster
        from tuneopt.cluster.ray_fixes.output import errors_as_asked
        from tuneopt.cluster.tuning import TuneCallback, TuneScheduler, TuneSearcher, own_errors

        options, slots = controller.options, controller.state.slots
        assert options.ledger is not None, "workers write their records into a ledger"
        searcher = TuneSearcher(controller)
        machines = sum(bool(node["Alive"]) for node in ray.nodes())
        waits = Waits(controller.state, options.ledger, lambda: look_at_cluster(machines))
        with (
            temporary_folder("tune") as scratch,
            errors_as_asked(),
            own_errors(),
            WaitTimer(waits, controller.waiting, TIMES),
        ):
            tune.Tuner(
                tune.with_resources(self._trainable or worker_class(options), reserved(options)),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=TuneScheduler(searcher),
                    num_samples=-1,  # until the searcher says that it has finished
                    # A trial on ranks that is cut ends with its worker, which has nothing to keep warm.
                    reuse_actors=not (controller.plan.judges and options.distributed),
                    max_concurrent_trials=slots,
                    # Tune's own names hold the whole configuration, which is longer than a file's name may be.
                    trial_dirname_creator=lambda trial: str(trial.trial_id),
                ),
                run_config=tune.RunConfig(
                    name=controller.plan.id,
                    storage_path=str(scratch),
                    callbacks=[TuneCallback(searcher)],
                    # A trial's checkpoints are its own, and go on under its id whatever Tune calls it.
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=RETRIES),
                    verbose=0,
                ),
            ).fit()


def idle_gpus(count: int, scale: str) -> str:
    """What is said of a run at a scale meant for GPUs that takes none of those that are there."""
    there = "a GPU is" if count == 1 else f"{count} GPUs are"
    return (
        f"{there} there, and trials at {scale} take none: they train on CPU cores, which takes months; "
        "give --gpus-per-trial 1, or a fraction of one"
    )


def worker_class(options: RunOptions) -> Any:
    """The class of the workers: one that can spread a trial over ranks only where a scale asks for it."""
    if options.distributed:
        from tuneopt.cluster.ranks import Ranked

        return Ranked
    from tuneopt.cluster.trainable import TrialTrainable

    return TrialTrainable


def reserved(options: RunOptions) -> Any:
    """What Tune reserves for a trial, or a function that says it for a trial's configuration."""
    alone = {"cpu": 1.0, "gpu": options.gpus_per_trial}
    if not options.distributed:
        return alone
    from ray.tune.execution.placement_groups import resource_dict_to_pg_factory

    def request(config: dict[str, Any]) -> Any:
        placement = options.parallel.get(json.loads(config["spec"])["regime"]["scale"]["name"])
        return resource_dict_to_pg_factory(dict(HOLDER if placement is not None and placement.distributed else alone))

    return request


def as_compiled(options: RunOptions, specs: list[TrialSpec]) -> list[TrialSpec]:
    """The trials with the micro-batch that their ranks will compile for; without those that compile nothing."""
    compiled = []
    for spec in specs:
        placement = options.parallel.get(spec.regime.scale.name)
        if placement is None or not placement.distributed:
            compiled.append(spec)
        elif placement.zero < 3 and spec.batch % placement.ranks == 0:  # stage 3 runs uncompiled
            compiled.append(replace(spec, micro_batch=placement.micro_batch(spec)))
    return compiled
