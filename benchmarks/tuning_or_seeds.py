"""Of a fixed number of runs, how many should tune an optimizer, and how many measure what the tuning ended on?

    python benchmarks/tuning_or_seeds.py --stars stars.json [--optimizer adamw] [--coordinates 6] [--runs 32]
        [--tunings 19,28] [--starts 100] [--sigma 0.025] [--magnify 5]

As in a comparison: a tuning by ``--policy model`` with one seed over the most important coordinates, in at most so many
trials; the other runs are seeds of what it ended on. The surfaces are those of an optimizer's complete stars with noise
and effects as at nano-65k. A tuning starts from the lowest point of its surface with three coordinates moved by a grid
step, as a declared start may lie. One row for each surface and size of the tuning: how far what it ended on lies above
the lowest loss of the tuned coordinates, in truth (regret) and as measured by its seeds (error), in nats: mean and
standard deviation over the starts. The second is what two comparisons of the same question differ by. Nothing here
depends on the clock.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from search_efficiency import SURFACES, Ground, complete, ground, magnified

from tuneopt.scale_files import find_scale
from tuneopt.search.plan import Outcome
from tuneopt.search.space import Config, LadderSpace
from tuneopt.search.standing import Task, stand
from tuneopt.search.study.comparison import importance
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, Regime, TrialSpec

ROOMY = Regime(find_scale("nano-65k"), 100_000, CorpusId("surface", "", 512))
"""Long enough for every batch and warmup of a grid."""

MOVED = 3
"""Coordinates of a start that lie a grid step beside the lowest point."""


@dataclass(frozen=True)
class Tuned:
    """How one tuning ended: nats above the lowest loss, in truth and as measured, and the seeds of the measurement."""

    regret: float
    error: float
    seeds: int


def lowest(space: LadderSpace, chosen: Ground) -> Config:
    """The lowest point that single changes lead to from the start of ``space``."""

    def loss(config: Config) -> float:
        true = chosen.surface.true_loss(dict(config))
        return math.inf if true is None else true

    here = space.start
    while True:
        best = min((config for _, _, config in space.star(here)), key=loss)
        if loss(best) >= loss(here):
            return here
        here = best


def start_beside(chosen: Ground, order: random.Random, coordinates: int) -> LadderSpace:
    """The space of a ground on the nano ladder, all but its most important coordinates pinned at the start's values."""
    space = replace(chosen.space, ladder="nano")
    best = lowest(space, chosen)
    start = {axis.name: space.value(best, axis.name) for axis in space.axes}
    for name in order.sample([axis.name for axis in space.varied], MOVED):
        start[name] = order.choice(list(space.by_name[name].neighbours(start[name])) or [start[name]])
    tuned = importance(space)[:coordinates]
    return space.begin_at(start).pin({name: value for name, value in start.items() if name not in tuned})


def tune(space: LadderSpace, chosen: Ground, tuning: int, runs: int, sigma: float, seed: str) -> Tuned:
    """Tune in at most ``tuning`` trials, and measure what that ended on with the rest of the ``runs``."""

    def run(spec: TrialSpec) -> float | None:
        true = chosen.surface.true_loss(spec.config)
        noise = random.Random(f"{seed}|{spec.hyperparameters}|{spec.seed}").gauss(0, sigma)
        return None if true is None else 4 + true + noise

    sweep = Sweep(space, ROOMY, replicates=1, policy="model")
    outcomes: dict[str, Outcome] = {}
    while not (standing := stand(Task(sweep, quota=tuning), outcomes)).finished:
        for spec in standing.pending:
            loss = run(spec)
            outcomes[spec.id] = Outcome("diverged" if loss is None else "completed", loss, loss)
    config = standing.state.descent.incumbent
    ran = {spec.seed for spec in standing.state.needed if spec.hyperparameters == config and spec.id in outcomes}
    fresh = (number for number in range(runs) if number not in ran)
    seeds = [*ran, *(next(fresh) for _ in range(runs - len(standing.trials)))]
    measured = statistics.fmean(loss for number in seeds if (loss := run(sweep.spec(config, number))) is not None)
    best, ended = (chosen.surface.true_loss(dict(point)) for point in (lowest(space, chosen), config))
    assert best is not None and ended is not None, "neither a lowest point nor an incumbent diverges"
    return Tuned(ended - best, measured - 4 - best, len(seeds))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--stars", type=Path, required=True, help="JSON list of stars")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--coordinates", type=int, default=6, help="how many are tuned")
    parser.add_argument("--runs", type=int, default=32, help="of each optimizer, tuning and seeds together")
    parser.add_argument("--tunings", default="19,28", help="most trials of a tuning, numbers separated by commas")
    parser.add_argument("--starts", type=int, default=100, help="random starts for each surface")
    parser.add_argument("--sigma", type=float, default=0.025, help="standard deviation over seeds, nats")
    parser.add_argument("--magnify", type=float, default=5.0, help="factor on all effects")
    asked = parser.parse_args(arguments)
    stars = json.loads(asked.stars.read_text())
    own = [magnified(star, asked.magnify) for star in complete([s for s in stars if s["optimizer"] == asked.optimizer])]
    print("| surface | runs | tuning | seeds (median) | regret, mean (sd) | error, mean (sd) |")
    print("|---|---|---|---|---|---|")
    for kind in SURFACES:
        grounds = [ground(star, kind, number) for number, star in enumerate(own)]
        for tuning in map(int, asked.tunings.split(",")):
            found = []
            for number in range(asked.starts):
                chosen, order = grounds[number % len(grounds)], random.Random(f"start|{kind}|{number}")
                space = start_beside(chosen, order, asked.coordinates)
                if chosen.surface.true_loss(dict(space.start)) is not None:  # a start that diverges is another question
                    found.append(tune(space, chosen, tuning, asked.runs, asked.sigma, f"{kind}|{number}"))
            cells = [
                f"{statistics.fmean(values):.4f} ({statistics.stdev(values):.4f})"
                for values in ([one.regret for one in found], [one.error for one in found])
            ]
            seeds = statistics.median(one.seeds for one in found)
            print(f"| {kind} | {asked.runs} | {tuning} | {seeds:g} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
