"""How often the analysis' intervals hold the truth, and how often it invents a difference: simulated studies.

    .venv/bin/python benchmarks/coverage.py [--studies 500] [--json]

Every study draws its losses from known power laws close to the published ones, adds noise of 0.0012 nats to each, and
goes through the functions that a report uses, told that tuning is perfect and that the law is one power law: what is
tested here is the noise between seeds alone. benchmarks/calibration.py tests the rest. Exit code 1 when a 90% interval
covers less than 87% or more than 93%, or a declared rate of 5% is exceeded by more than three standard errors.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import defaultdict
from functools import partial

import numpy as np

from tuneopt.analysis.joint import joint_fits
from tuneopt.analysis.noise import FAMILY_RATE, Noise, NoiseModel
from tuneopt.analysis.ranking import rankings, regime_flips
from tuneopt.analysis.runs import RegimeKey
from tuneopt.analysis.speedup import IntervalSettings, speedups
from tuneopt.analysis.winner import Winner
from tuneopt.spec import SCALES

SIGMA = 0.0012
RATIOS = (1.0, 2.0, 4.0, 8.0)
SPEEDS = {"adamw": 1.0, "lion": 0.95, "nadamw": 1.1, "soap": 1.2, "muon": 1.35}
LAW = {"130m": (19421.6, 0.495, 3.1113), "520m": (2231.0, 0.3788, 2.7487)}
"""alpha, B and beta of L(D) = alpha * D^-B + beta, D in tokens: about those of the published AdamW."""
LEVEL = 0.9
DRAWS = 600
SETTINGS = partial(IntervalSettings, level=LEVEL, draws=DRAWS, tuning=0.0, drift=0.0)


def study(
    rng: np.random.Generator, scale: str, speeds: dict[str, float], ratios: tuple[float, ...] = RATIOS
) -> list[Winner]:
    """The results of one study at one scale."""
    parameters = SCALES[scale].parameters
    alpha, exponent, beta = LAW[scale]
    found = []
    for name, speed in speeds.items():
        for ratio in ratios:
            tokens = 20.0 * parameters * ratio
            loss = alpha * (speed * tokens) ** -exponent + beta + SIGMA * float(rng.standard_normal())
            regime = RegimeKey("", scale, ratio)
            found.append(Winner(name, regime, parameters, tokens, loss, loss, 1, (), (f"{name} {scale} {ratio}",)))
    return found


def noise_of(results: list[Winner], rng: np.random.Generator, freedom: int | None) -> NoiseModel:
    """Sigma as it is known, or as replicates with ``freedom`` degrees of freedom would have measured it."""
    sigma = SIGMA if freedom is None else SIGMA * math.sqrt(rng.chisquare(freedom) / freedom)
    noise = Noise(sigma, freedom, "given" if freedom is None else "measured", "everywhere")
    return NoiseModel({result.regime: noise for result in results})


def holds(low: float | None, truth: float, high: float | None) -> bool:
    return (low is None or low <= truth) and (high is None or truth <= high)


def cover(studies: int) -> dict[str, list[bool]]:
    """Whether each interval of each study held the truth, by kind of figure."""
    hits: dict[str, list[bool]] = defaultdict(list)
    for freedom, word in ((None, "sigma known"), (12, "sigma measured, 12 degrees of freedom")):
        for scale in LAW:
            rng = np.random.default_rng([7, freedom or 0, len(scale), int(scale[:3])])
            for number in range(studies):
                results = study(rng, scale, SPEEDS)
                noise = noise_of(results, rng, freedom)
                for speed in speedups(results, noise, SETTINGS(seed=number)):
                    if speed.optimizer != "adamw":
                        place = "largest ratio" if speed.regime.ratio == RATIOS[-1] else "smaller ratios"
                        truth = SPEEDS[speed.optimizer]
                        hits[f"speedup, {scale}, {place}, {word}"].append(holds(speed.low, truth, speed.high))
                (fit,) = joint_fits(results, noise, SETTINGS(seed=number))
                for factor in fit.factors[1:]:
                    hits[f"joint factor, {scale}, {word}"].append(
                        holds(factor.low, SPEEDS[factor.optimizer], factor.high)
                    )
                hits[f"joint exponent, {scale}, {word}"].append(
                    holds(fit.exponent_low, LAW[scale][1], fit.exponent_high)
                )
    return dict(hits)


def cover_two(studies: int) -> list[bool]:
    """The same where the baseline has two ratios only, and the bend of its law is not known."""
    rng = np.random.default_rng(13)
    hits = []
    for number in range(studies):
        results = study(rng, "130m", SPEEDS, RATIOS[:2])
        found = speedups(results, noise_of(results, rng, None), SETTINGS(seed=number))
        hits += [holds(each.low, SPEEDS[each.optimizer], each.high) for each in found if each.optimizer != "adamw"]
    return hits


def invent(studies: int) -> dict[str, list[bool]]:
    """Whether each study of eleven equal optimizers called any pair different, or any flip significant."""
    rng = np.random.default_rng(11)
    equal = {f"optimizer-{number}": 1.0 for number in range(11)}
    hits: dict[str, list[bool]] = defaultdict(list)
    for _ in range(studies):
        results = study(rng, "130m", equal)
        noise = noise_of(results, rng, None)
        hits["a tie of 11 equals split, per regime"] += [
            max(ranking.groups or (1,)) > 1 for ranking in rankings(results, noise)
        ]
        hits["a flip among 11 equals called significant, per scale"].append(
            any(flip.significant for flip in regime_flips(results, noise))
        )
    return dict(hits)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=500)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    start = time.process_time()
    rows, failed = [], False
    for kind, hits in cover(arguments.studies).items():
        share = float(np.mean(hits))
        good = 0.87 <= share <= 0.93
        rows.append({"what": kind, "share": share, "of": len(hits), "declared": LEVEL, "good": good})
    share = float(np.mean(two := cover_two(arguments.studies)))
    what = "speedup, 130m, two ratios only (at least)"
    rows.append({"what": what, "share": share, "of": len(two), "declared": LEVEL, "good": share >= 0.87})
    for kind, hits in invent(arguments.studies).items():
        share = float(np.mean(hits))
        good = share <= FAMILY_RATE + 3 * math.sqrt(FAMILY_RATE * (1 - FAMILY_RATE) / len(hits))
        rows.append({"what": kind, "share": share, "of": len(hits), "declared": FAMILY_RATE, "good": good})
    failed = not all(row["good"] for row in rows)
    seconds = time.process_time() - start
    if arguments.json:
        print(json.dumps({"studies": arguments.studies, "seconds": seconds, "rows": rows}))
    else:
        for row in rows:
            mark = "" if row["good"] else "  <- not as declared"
            print(f"{row['share']:7.1%} of {row['of']:5d} (declared {row['declared']:.0%}): {row['what']}{mark}")
        print(f"{arguments.studies} studies of each kind in {seconds:.0f} s of CPU time")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
