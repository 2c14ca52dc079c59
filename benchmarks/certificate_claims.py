"""How often the certificate of a whole sweep, its finish included, claims too much.

    python benchmarks/certificate_claims.py --stars stars.json [--optimizer adamw] [--starts 64] [--first 0] \
[--replicates 1,3] [--policy joint] [--resolution NATS] [--sigma 0.025] [--magnify 5] [--uneven] [--scale nano-65k] \
[--invented jump]

Sweeps from random starts on the surfaces of an optimizer's complete stars (see `search_efficiency`), by default with
noise and effects as at nano-65k: 0.025 nats, five times. ``--invented`` keeps the values of the stars and draws what
they cost (`invented`). Each sweep starts without any evidence of noise but the prior of its scale. A claim is false
where some single change of the incumbent is in truth better by more than the resolution. One row for each number of
replicates and surface: false claims, those certified at the asked resolution, the median resolution (nats), and the
mean number of runs beyond the search. *Even* is the older scheme at equal cost: as many runs beyond the search, one
after another over the incumbent of the search and its whole star, and the resolution that they reach.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from search_efficiency import SURFACES, Ground, Noise, Trials, complete, ground, magnified, start_at

from tuneopt.run.simulated import simulate
from tuneopt.scale_files import find_scale
from tuneopt.search.belief import resolution
from tuneopt.search.descent import POLICIES
from tuneopt.search.space import Config
from tuneopt.search.state import SweepState
from tuneopt.search.study.surfaces import DIVERGED
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, Regime, TrialSpec


@dataclass(frozen=True)
class World:
    """How runs scatter, and what is asked: noise (nats), whether it differs between configurations, and the sweeps'."""

    sigma: float
    uneven: bool
    regime: Regime
    policy: str
    resolution: float | None


@dataclass(frozen=True)
class Claim:
    """What one sweep claims: resolution (nats), whether it is false, whether certified, and runs beyond the search.

    ``even`` is the resolution (nats) that as many runs reach when they go evenly over the star.
    """

    nats: float
    false: bool
    certified: bool
    beyond: int
    even: float


def invented(star: Mapping[str, Any], kind: str, seed: int) -> Mapping[str, Any]:
    """A star with the values of another, and effects (nats at the paper's scales) that are drawn by ``kind``.

    ``jump``: coordinates are all but flat, and in most one value is better by 0.002 to 0.01. ``rough``: every value
    costs an amount of its own, 0.006 in the mean, whatever its neighbours cost. ``bowl``: squares of the steps from a
    best value, lopsided. What diverges still does.
    """
    order, incumbent = random.Random(f"{kind}|{seed}"), dict(star["incumbent"])
    values: dict[str, list[Any]] = {}
    failed: dict[str, list[Any]] = {}
    for name, value, loss in star["changes"]:
        fails = loss is None or not math.isfinite(loss) or loss > DIVERGED
        (failed if fails else values).setdefault(name, []).append(value)
    changes = [[name, value, None] for name, bad in failed.items() for value in bad]
    for name, others in values.items():
        known = sorted([incumbent[name], *others], key=lambda value: (isinstance(value, str), value))
        if kind == "bowl":
            cost, best, above = (
                order.lognormvariate(math.log(0.003), 1),
                order.randrange(len(known)),
                order.uniform(0.5, 2),
            )
            effects = [cost * (at - best) ** 2 * (above if at > best else 1) for at in range(len(known))]
        elif kind == "rough":
            effects = [order.expovariate(1 / 0.006) for _ in known]
        else:
            effects = [abs(order.gauss(0, 0.0004)) for _ in known]
            effects[order.randrange(len(known))] -= order.uniform(0.002, 0.01) * (order.random() < 0.6)
        least = min(effects)
        incumbent[name] = known[effects.index(least)]
        pairs = zip(known, effects, strict=True)
        changes += [[name, value, star["incumbent_loss"] + one - least] for value, one in pairs if one > least]
    return {**star, "incumbent": incumbent, "changes": changes}


def claims(
    world: World, grounds: Sequence[Ground], kind: str, numbers: Sequence[int], replicates: int
) -> Iterator[Claim]:
    """The claim of each sweep that ends with one."""
    for number in numbers:
        chosen, seed = grounds[number % len(grounds)], f"{kind}|{number}"
        ladder = world.regime.scale.ladder
        space = replace(start_at(chosen, random.Random(f"start|{seed}"), False), ladder=ladder)

        def show(spec: TrialSpec, chosen: Ground = chosen, seed: str = seed) -> float | None:
            true = chosen.surface.true_loss(spec.config)
            noise = world.sigma * random.Random(f"{seed}|{spec.hyperparameters}|{spec.seed}").gauss(0, 1)
            if world.uneven:
                noise *= 2.0 ** random.Random(f"{seed}|{spec.hyperparameters}").uniform(-1, 1)
            return None if true is None else 4 + true + noise

        sweep = Sweep(space, world.regime, replicates=replicates, policy=world.policy, resolution=world.resolution)
        state = simulate(sweep, show, slots=64).state
        missed = Trials(chosen.surface, seed, Noise(world.sigma)).missed(space, state.descent.incumbent)
        nats = state.certificate.resolution
        if nats is not None and state.spread is not None:
            beyond = len(state.needed) - len(state.searched.asked)
            even = spread_evenly(sweep, state, show, beyond)
            yield Claim(nats, missed > nats + 1e-9, state.certificate.certified, beyond, even)


def spread_evenly(sweep: Sweep, state: SweepState, show: Callable[[TrialSpec], float | None], beyond: int) -> float:
    """The resolution (nats) around the search's incumbent when ``beyond`` runs go evenly over it and its star."""
    runs: dict[Config, dict[int, float | None]] = {
        config: {sweep.seed: show(sweep.spec(config))} for config in state.searched.asked
    }
    centre = state.searched.incumbent
    star = [centre, *(change.config for change in state.searched.star if runs.get(change.config, {}).get(sweep.seed))]
    for number in range(beyond):
        config, seed = star[number % len(star)], sweep.seed + 1 + number // len(star)
        runs[config][seed] = show(sweep.spec(config, seed))
    assert state.spread is not None, "a sweep that claims something knows its noise"
    return resolution(sweep.space, runs, centre, state.spread, feasible=sweep.feasible).nats


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--stars", type=Path, required=True, help="JSON list of stars")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--starts", type=int, default=64, help="random starts for each surface")
    parser.add_argument("--first", type=int, default=0, help="number of the first start")
    parser.add_argument("--replicates", default="1,3", help="numbers, separated by commas")
    parser.add_argument("--policy", default="joint", choices=POLICIES)
    parser.add_argument("--resolution", type=float, help="nats that are asked for; by default what the scale affords")
    parser.add_argument("--sigma", type=float, default=0.025, help="standard deviation over seeds, nats")
    parser.add_argument("--magnify", type=float, default=5.0, help="factor on all effects")
    parser.add_argument("--uneven", action="store_true", help="noise that differs between configurations")
    parser.add_argument("--invented", choices=("jump", "rough", "bowl"), help="draw what values cost")
    parser.add_argument("--scale", default="nano-65k", help="whose prior of sigma and default question are used")
    asked = parser.parse_args(arguments)
    stars: list[Mapping[str, Any]] = json.loads(asked.stars.read_text())
    own = complete([star for star in stars if star["optimizer"] == asked.optimizer])
    if asked.invented:
        own = [invented(star, asked.invented, seed) for seed, star in enumerate(4 * own)]
    own = [magnified(star, asked.magnify) for star in own]
    # Long enough for every batch and warmup of a grid; the prior of sigma follows from the parameters alone.
    regime = Regime(find_scale(asked.scale), 100_000, CorpusId("surface", "", 512))
    world = World(asked.sigma, asked.uneven, regime, asked.policy, asked.resolution)
    print("| replicates | surface | false | certified | resolution (median) | runs beyond the search (mean) | even |")
    print("|---|---|---|---|---|---|---|")
    for replicates in map(int, asked.replicates.split(",")):
        for kind in SURFACES:
            grounds = [ground(star, kind, number) for number, star in enumerate(own)]
            numbers = range(asked.first, asked.first + asked.starts)
            found = list(claims(world, grounds, kind, numbers, replicates))
            cells = (
                f"{sum(one.false for one in found)} of {len(found)}",
                f"{sum(one.certified for one in found)}",
                f"{statistics.median(one.nats for one in found):.4f}",
                f"{statistics.fmean(one.beyond for one in found):.1f}",
                f"{statistics.median(one.even for one in found):.4f}",
            )
            print(f"| {replicates} | {kind} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
