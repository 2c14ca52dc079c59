"""How often the certificate of a whole sweep, its finish included, claims too much at the smallest scale.

    python benchmarks/certificate_claims.py --stars stars.json [--optimizer adamw] [--starts 64] [--first 0] \
[--replicates 1,3]

Sweeps from random starts on the surfaces of an optimizer's complete stars (see `search_efficiency`), with noise and
effects as at nano-65k: 0.025 nats, five times. Each starts without any evidence of noise but the prior. A claim is
false where some single change of the incumbent is in truth better by more than the resolution. One row for each number
of replicates and surface: false claims, the median resolution (nats), and the mean number of runs beyond the search.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from search_efficiency import SURFACES, Ground, Noise, Trials, complete, ground, magnified, start_at

from tuneopt.run.simulated import simulate
from tuneopt.scale_files import find_scale
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, Regime, TrialSpec

SIGMA, FACTOR = 0.025, 5.0
SMALL = Regime(find_scale("nano-65k"), 100_000, CorpusId("surface", "", 512))
"""Long enough for every batch and warmup of a grid; the prior of sigma follows from its parameters alone."""


def claims(
    grounds: Sequence[Ground], kind: str, numbers: Sequence[int], replicates: int
) -> Iterator[tuple[bool, float, int]]:
    """Of each sweep, whether its claim is false, its resolution in nats, and its runs beyond the search."""
    for number in numbers:
        chosen, seed = grounds[number % len(grounds)], f"{kind}|{number}"
        space = replace(start_at(chosen, random.Random(f"start|{seed}"), False), ladder="nano")

        def show(spec: TrialSpec, chosen: Ground = chosen, seed: str = seed) -> float | None:
            true = chosen.surface.true_loss(spec.config)
            order = random.Random(f"{seed}|{spec.hyperparameters}|{spec.seed}")
            return None if true is None else 4 + true + SIGMA * order.gauss(0, 1)

        state = simulate(Sweep(space, SMALL, replicates=replicates), show, slots=64).state
        missed = Trials(chosen.surface, seed, Noise(SIGMA)).missed(space, state.descent.incumbent)
        claim = state.certificate.resolution
        if claim is not None:
            yield missed > claim + 1e-9, claim, len(state.needed) - len(state.searched.asked)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--stars", type=Path, required=True, help="JSON list of stars")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--starts", type=int, default=64, help="random starts for each surface")
    parser.add_argument("--first", type=int, default=0, help="number of the first start")
    parser.add_argument("--replicates", default="1,3", help="numbers, separated by commas")
    asked = parser.parse_args(arguments)
    stars: list[Mapping[str, Any]] = json.loads(asked.stars.read_text())
    own = [magnified(star, FACTOR) for star in complete([s for s in stars if s["optimizer"] == asked.optimizer])]
    print(
        "| replicates | surface | false | resolution (median) | runs beyond the search (mean) |\n|---|---|---|---|---|"
    )
    for replicates in map(int, asked.replicates.split(",")):
        for kind in SURFACES:
            grounds = [ground(star, kind, number) for number, star in enumerate(own)]
            rows = list(claims(grounds, kind, range(asked.first, asked.first + asked.starts), replicates))
            false = sum(wrong for wrong, *_ in rows)
            middle, beyond = statistics.median(row[1] for row in rows), statistics.fmean(row[2] for row in rows)
            print(f"| {replicates} | {kind} | {false} of {len(rows)} | {middle:.4f} | {beyond:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
