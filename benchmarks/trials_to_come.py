"""How many trials sweeps take, in stars: the spread behind the estimate of what is still to come.

    python benchmarks/trials_to_come.py --stars stars.json [--starts 4] [--policies joint,single,cyclic,model]

Every optimizer of the file is swept on the surfaces of its complete stars, additive and with pairwise interactions,
from ``--starts`` random starts each (see `search_efficiency`), at the paper's noise (0.0012 nats) and with noise and
effects as at nano-65k (0.025 nats, five times), three replicates, the default resolution. A star is the start's, its
centre included. Prints the 10%, 50% and 90% quantiles of the trials of the search in stars, and of the runs of the
finish in trials of the search: the figures of `tuneopt.search.state`. Nothing depends on the clock.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

from search_efficiency import ROOMY, SURFACES, complete, ground, magnified, start_at

from tuneopt.run.simulated import simulate
from tuneopt.search.sweep import Sweep
from tuneopt.spec import TrialSpec

WORLDS = ((0.0012, 1.0, None), (0.025, 5.0, 0.05))
"""Noise (nats), factor on effects, and the resolution asked for: the paper's scales by their default, nano-65k's."""


def sweeps(
    stars: Sequence[Mapping[str, Any]], starts: int, policy: str, sigma: float, factor: float, resolution: float | None
) -> Iterator[tuple[float, float]]:
    """Of each sweep, the trials of its search in stars, and the runs of its finish in trials of the search."""
    for name in sorted({star["optimizer"] for star in stars}):
        own = complete([magnified(star, factor) for star in stars if star["optimizer"] == name])
        for kind in SURFACES:
            for number in range(starts):
                chosen = ground(own[number % len(own)], kind, number % len(own))
                space = start_at(chosen, random.Random(f"start|{kind}|{number}"), False)

                def show(spec: TrialSpec, chosen: Any = chosen, seed: str = f"{kind}|{number}") -> float | None:
                    true = chosen.surface.true_loss(spec.config)
                    return None if true is None else true + 10 + sigma * random.Random(f"{seed}|{spec.id}").gauss(0, 1)

                sweep = Sweep(space, ROOMY, policy=policy, resolution=resolution)
                state = simulate(replace(sweep), show, slots=64).state
                searched = len(state.searched.asked)
                seeds = 2 * (sweep.replicates - 1) if state.searched.path else sweep.replicates - 1
                star = 1 + sum(len(axis.line(axis.start)) for axis in space.axes)
                yield searched / star, max(0, len(state.needed) - searched - seeds) / searched


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=Path, required=True, help="JSON list of stars")
    parser.add_argument("--starts", type=int, default=4, help="random starts for each optimizer, surface and noise")
    parser.add_argument("--policies", default="joint,single,cyclic,model")
    given = parser.parse_args(arguments)
    stars = json.loads(given.stars.read_text())
    print("| policy | sweeps | search, in stars (10%, 50%, 90%) | finish, in trials of the search (10%, 50%, 90%) |")
    print("|---|---|---|---|")
    for policy in given.policies.split(","):
        found = np.array([one for world in WORLDS for one in sweeps(stars, given.starts, policy, *world)])
        quantiles = np.quantile(found, [0.1, 0.5, 0.9], axis=0).T
        cells = [", ".join(f"{value:.2f}" for value in row) for row in quantiles]
        print(f"| {policy} | {len(found)} | {cells[0]} | {cells[1]} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
