"""What a search costs and how often it ends near the optimum: our policies, Optuna's TPE and random search.

    python benchmarks/search_efficiency.py --stars stars.json [--starts 100] [--only adamw,muon] [--searchers model]
        [--noise 0.0012] [--uneven] [--magnify 1] [-o FILE.md]

Every optimizer of the file is searched on the surfaces of its complete stars (see `complete`), as an additive surface
and with pairwise interactions (`PairwiseSurrogate`). The surface is known on the table's values alone, so the grids end
there for every searcher. Starts are drawn evenly over the values whose runs converged, and dealt over the
stars of the optimizer; with --any-start over all values, diverging ones too. A trial's noise has the given standard
deviation; with --uneven that differs between configurations, from half of it to twice. The tolerance is what a sweep
that knows the noise would set. --magnify multiplies all effects, as at smaller scales. TPE and random search get as
many trials as `joint` took from the same start, which is their first trial, TPE in five waves; they end with the lowest
loss that they saw. A search succeeds when its final configuration lies less than the tolerance (0.003 nats, unless the
noise raises it) above the lowest point of the surface, noise not counted.

A false certificate: some single change of the incumbent is better, noise not counted, by more than the resolution that
the search stated; for policies that state none, by more than the tolerance although the certificate is complete. The
share is of the searches that state either. Nothing here depends on the clock.

Prints a Markdown table; -o writes it, and the same figures beside it as JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tuneopt.constants import DIFFERENCE_95, TOLERANCE
from tuneopt.run.options import RunOptions
from tuneopt.run.simulated import SimulatedBackend
from tuneopt.run.spine import run
from tuneopt.scale_files import find_scale
from tuneopt.search.axis import is_number
from tuneopt.search.descent import POLICIES, descend
from tuneopt.search.sampled import SampledSearch
from tuneopt.search.sampled_plan import SampledPlan
from tuneopt.search.space import Config, LadderSpace, load_space
from tuneopt.search.study.surfaces import DIVERGED, AdditiveSurrogate
from tuneopt.search.sweep import Sweep
from tuneopt.spec import CorpusId, Regime, Value, canonical

NOISE = 0.0012
"""Standard deviation over seeds, nats per token, at the paper's scales."""
TPE_WAVES = 5
ROOMY = Regime(find_scale("130m"), 100, CorpusId("surface", "", 128256))
"""Long enough for every batch and warmup of a grid: a surface is known on the table's values, whatever the regime."""

COUPLING = 0.75
"""How strongly a pairwise surface couples its coordinates, from 0 (additive) to below 1 (a valley without a bottom)."""

SEARCHERS = (*POLICIES, "tpe", "random")
SURFACES = ("additive", "pairwise")


@dataclass(frozen=True)
class PairwiseSurrogate:
    """An additive surface whose coordinates interact in pairs, its lowest point and the slices through it unchanged.

    With x the signed root of each coordinate's excess over its best value (negative below it, positive above), the
    loss is the lowest loss + x'Mx: M has ones on its diagonal and random off-diagonal entries whose absolute sum in a
    row is at most ``coupling`` < 1. M is positive definite, so the lowest point stays, known exactly, while away from
    it the best value of one coordinate moves with the others: a rotated valley.
    """

    additive: AdditiveSurrogate
    seed: int = 0
    coupling: float = COUPLING

    @cached_property
    def _pairs(self) -> tuple[tuple[str, str, float], ...]:
        """The off-diagonal entries of M, one for each pair of coordinates."""
        order = random.Random(self.seed)
        names = sorted(self.additive.effects)
        draws = {(one, other): order.uniform(-1, 1) for place, one in enumerate(names) for other in names[:place]}
        row = max((sum(abs(draw) for pair, draw in draws.items() if name in pair) for name in names), default=1.0)
        scale = self.coupling / row if row else 0.0
        return tuple((*pair, scale * draw) for pair, draw in draws.items())

    @cached_property
    def _roots(self) -> Mapping[str, Mapping[Value, float | None]]:
        """By coordinate, the signed root of each value's excess over the best one; words count as above it."""
        found = {}
        for name, effect in self.additive.effects.items():
            known = {value: each for value, each in effect.items() if each is not None}
            best = min(known, key=lambda value: known[value])
            roots: dict[Value, float | None] = {}
            for value, each in effect.items():
                below = is_number(value) and is_number(best) and float(value) < float(best)
                roots[value] = None if each is None else (-1 if below else 1) * math.sqrt(each - known[best])
            found[name] = roots
        return found

    def regret(self, config: Mapping[str, Value]) -> float | None:
        """How far ``config`` lies above the lowest point of the surface, in nats; None where it diverges."""
        roots = {name: root.get(config[name]) for name, root in self._roots.items()}
        known = {name: root for name, root in roots.items() if root is not None}
        if len(known) < len(roots):
            return None
        squares = sum(root * root for root in known.values())
        return squares + 2 * sum(weight * known[one] * known[other] for one, other, weight in self._pairs)

    def true_loss(self, config: Mapping[str, Value]) -> float | None:
        """The loss without noise, None where the configuration diverges."""
        regret = self.regret(config)
        return None if regret is None else self.additive.lowest + regret


Surface = AdditiveSurrogate | PairwiseSurrogate


@dataclass(frozen=True)
class Ground:
    """One star as a closed space and its surface."""

    space: LadderSpace
    surface: Surface


@dataclass(frozen=True)
class Ending:
    """How one search ended; regret is None when it found nothing that converges."""

    trials: int
    waves: int
    regret: float | None
    tolerance: float = TOLERANCE
    claim: float | None = None
    """Nats by which no single change is better, as the search claims; None where it claims nothing."""
    missed: float = 0.0
    """Nats by which the best single change is in truth better."""

    @property
    def success(self) -> bool:
        return self.regret is not None and self.regret < self.tolerance

    @property
    def false(self) -> bool:
        return self.claim is not None and self.missed > self.claim + 1e-9


@dataclass(frozen=True)
class Noise:
    """How runs scatter: the standard deviation in nats, and whether it differs between configurations."""

    sigma: float = NOISE
    uneven: bool = False

    @property
    def tolerance(self) -> float:
        """What a sweep that knows ``sigma`` sets."""
        return max(TOLERANCE, DIFFERENCE_95 * self.sigma)

    def draw(self, order: random.Random) -> float:
        noise = self.sigma * order.gauss(0.0, 1.0)
        return noise * 2.0 ** order.uniform(-1.0, 1.0) if self.uneven else noise


def complete(stars: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The stars with half as many changes as the largest of their optimizer, or more: those that vary all of it.

    Left out, too, is a star whose incumbent has no loss or diverged, or none of whose changes converged: what its
    changes cost is not known, so that there is no surface.
    """
    most = max((len(star["changes"]) for star in stars), default=0)
    return [star for star in stars if 2 * len(star["changes"]) >= most and known(star)]


def known(star: Mapping[str, Any]) -> bool:
    """Whether a star says what its changes cost."""
    losses = [loss for _, _, loss in star["changes"]]
    return _converged(star["incumbent_loss"]) and any(map(_converged, losses))


def _converged(loss: float | None) -> bool:
    return loss is not None and math.isfinite(loss) and loss <= DIVERGED


def magnified(star: Mapping[str, Any], factor: float) -> Mapping[str, Any]:
    """The star with all effects multiplied; what diverged still does, and nothing else."""
    if factor == 1.0 or not known(star):
        return star
    base = star["incumbent_loss"]
    changes = [
        [name, value, factor * (loss - base) if _converged(loss) else None] for name, value, loss in star["changes"]
    ]
    # Around 0, so that no magnified loss passes for a diverged one: only differences matter on a surface.
    return {**star, "incumbent_loss": 0.0, "changes": changes}


def ground(star: Mapping[str, Any], kind: str, seed: int) -> Ground:
    """The space of a star, closed at the table's values, and the surface over it."""
    additive = AdditiveSurrogate.from_star(star)
    declared = load_space(star["optimizer"])
    held = {
        each.name: star["incumbent"][each.name]
        for each in declared.coordinates
        if each.name not in additive.effects and each.name in star["incumbent"]
    }
    space = declared.on("paper", held)
    axes = tuple(
        replace(axis.over(tuple(values), canonical(star["incumbent"][axis.name])), extend="none")
        if (values := additive.effects.get(axis.name))
        else axis
        for axis in space.axes
    )
    return Ground(replace(space, axes=axes), additive if kind == "additive" else PairwiseSurrogate(additive, seed))


def start_at(ground: Ground, order: random.Random, any_start: bool) -> LadderSpace:
    """The space with a start drawn evenly over the values that converge, or over all of them."""
    surface = ground.surface
    effects = surface.effects if isinstance(surface, AdditiveSurrogate) else surface.additive.effects
    drawn: dict[str, Value] = {}
    for axis in ground.space.axes:
        if not axis.pinned:
            values = effects[axis.name]
            drawn[axis.name] = order.choice([each for each in axis.values if any_start or values[each] is not None])
    return ground.space.begin_at(drawn)


class Trials:
    """Runs trials on a surface: the same configuration always ends with the same loss."""

    def __init__(self, surface: Surface, seed: str, noise: Noise) -> None:
        self.surface, self.seed, self.noise = surface, seed, noise
        self.done: dict[Config, float | None] = {}

    def run(self, config: Config) -> float | None:
        if config not in self.done:
            true = self.surface.true_loss(dict(config))
            noise = self.noise.draw(random.Random(f"{self.seed}|{config}"))
            self.done[config] = None if true is None else true + noise
        return self.done[config]

    def ending(self, config: Config, trials: int, waves: int) -> Ending:
        return Ending(trials, waves, self.surface.regret(dict(config)), self.noise.tolerance)

    def missed(self, space: LadderSpace, config: Config) -> float:
        """By how much the best single change of ``config`` is in truth better, in nats."""
        here = self.surface.regret(dict(config))
        around = [self.surface.regret(dict(changed)) for _, _, changed in space.star(config)]
        return 0.0 if here is None else max((here - each for each in around if each is not None), default=0.0)


def by_policy(space: LadderSpace, trials: Trials, policy: str) -> Ending:
    """One descent to its end."""
    while (found := descend(space, trials.done, trials.noise.tolerance, policy)).pending:
        for config in found.pending:
            trials.run(config)
    certificate = found.certificate
    claim = certificate.resolution
    if claim is None and certificate.complete:
        claim = certificate.tolerance
    ending = trials.ending(found.incumbent, len(found.asked), found.waves)
    return replace(ending, claim=claim, missed=trials.missed(space, found.incumbent))


def by_sampling(space: LadderSpace, trials: Trials, name: str, budget: int, seed: str) -> Ending:
    """A sampled search on the simulator, as ``tuneopt tune --search`` runs it; ends with the lowest loss it saw.

    Random search needs one wave, since it learns nothing. TPE gets a fifth of its trials as slots, rounded up: five
    waves.
    """
    sweep = Sweep(space, ROOMY, seed=random.Random(f"{name}|{seed}").randrange(2**31), replicates=1)
    plan = SampledPlan(SampledSearch(sweep, name), budget)
    slots = budget if name == "random" else -(-budget // TPE_WAVES)
    backend = SimulatedBackend(lambda spec: trials.run(spec.hyperparameters), slots=slots)
    run(plan, backend, RunOptions())
    best = plan.search.best(plan.specs, plan.outcomes)
    return trials.ending(best or space.start, len(plan.own), round(backend.clock.seconds))


def search(
    stars: Sequence[Mapping[str, Any]],
    kind: str,
    starts: int,
    any_start: bool,
    which: Sequence[str],
    noise: Noise,
) -> Endings:
    """All searches of one optimizer on one kind of surface, by searcher."""
    grounds = [ground(star, kind, seed) for seed, star in enumerate(stars)]
    found: Endings = {name: [] for name in which}
    for number in range(starts):
        chosen = grounds[number % len(grounds)]
        seed = f"{kind}|{number}"
        space = start_at(chosen, random.Random(f"start|{seed}"), any_start)
        budget = 0
        for name in SEARCHERS:
            if name not in which and (name != "joint" or not {"tpe", "random"} & set(which)):
                continue
            trials = Trials(chosen.surface, seed, noise)
            if name in POLICIES:
                ending = by_policy(space, trials, name)
            else:
                ending = by_sampling(space, trials, name, budget, seed)
            budget = ending.trials if name == "joint" else budget
            if name in which:
                found[name].append(ending)
    return found


Endings = dict[str, list[Ending]]


def figures(endings: Sequence[Ending]) -> dict[str, float | None]:
    """Medians, 90th percentiles, the share of successes and the regrets of some searches."""
    regrets = sorted(each.regret for each in endings if each.regret is not None)
    claims = sorted(each.claim for each in endings if each.claim is not None)
    return {
        "starts": len(endings),
        "trials": statistics.median(each.trials for each in endings),
        "trials_p90": sorted(each.trials for each in endings)[int(0.9 * (len(endings) - 1))],
        "waves": statistics.median(each.waves for each in endings),
        "waves_p90": sorted(each.waves for each in endings)[int(0.9 * (len(endings) - 1))],
        "success": sum(each.success for each in endings) / len(endings),
        "regret": statistics.median(regrets) if regrets else None,
        "regret_p90": regrets[int(0.9 * (len(regrets) - 1))] if regrets else None,
        "claim": statistics.median(claims) if claims else None,
        "claim_p90": claims[int(0.9 * (len(claims) - 1))] if claims else None,
        "false": sum(each.false for each in endings) / len(claims) if claims else None,
        "nothing": sum(each.regret is None for each in endings),
    }


def rows(
    stars: Sequence[Mapping[str, Any]], starts: int, any_start: bool, which: Sequence[str], noise: Noise
) -> Iterator[dict[str, Any]]:
    """One row for each optimizer, surface and searcher."""
    for name in sorted({star["optimizer"] for star in stars}):
        whole = complete([star for star in stars if star["optimizer"] == name])
        if not whole:
            print(f"{name}: no star with the losses of its incumbent and of a change; left out", file=sys.stderr)
            continue
        size = statistics.median(len(star["changes"]) for star in whole)
        for kind in SURFACES:
            found = search(whole, kind, starts, any_start, which, noise)
            for searcher, endings in found.items():
                about = {"optimizer": name, "star": size, "surface": kind, "searcher": searcher}
                yield about | figures(endings)


def markdown(table: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| optimizer (star) | surface | search | trials, median (p90) | waves (p90) | success | regret (p90) | "
        "claim (p90) | false |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table:
        regret = "-" if row["regret"] is None else f"{row['regret']:.4f} ({row['regret_p90']:.4f})"
        claim = "- | -" if row["claim"] is None else f"{row['claim']:.4f} ({row['claim_p90']:.4f}) | {row['false']:.0%}"
        lines.append(
            f"| {row['optimizer']} ({row['star']:g}) | {row['surface']} | {row['searcher']} | {row['trials']:g} "
            f"({row['trials_p90']:g}) | {row['waves']:g} ({row['waves_p90']:g}) | {row['success']:.0%} | {regret} | "
            f"{claim} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=Path, required=True, help="JSON list of stars")
    parser.add_argument("--starts", type=int, default=100, help="random starts for each optimizer and surface")
    parser.add_argument("--only", help="optimizers, separated by commas")
    parser.add_argument("--searchers", default=",".join(SEARCHERS), help=f"of {', '.join(SEARCHERS)}")
    parser.add_argument("--any-start", action="store_true", help="draw diverging starts too")
    parser.add_argument("--noise", type=float, default=NOISE, help="standard deviation over seeds, nats")
    parser.add_argument("--uneven", action="store_true", help="noise that differs between configurations")
    parser.add_argument("--magnify", type=float, default=1.0, help="factor on all effects; about 5 at nano-65k")
    parser.add_argument("-o", "--output", type=Path, help="Markdown file; the JSON lies beside it")
    given = parser.parse_args(arguments)
    stars = json.loads(given.stars.read_text())
    wanted = set(given.only.split(",")) if given.only else {star["optimizer"] for star in stars}
    stars = [magnified(star, given.magnify) for star in stars if star["optimizer"] in wanted]
    noise = Noise(given.noise, given.uneven)
    table = []
    for row in rows(stars, given.starts, given.any_start, given.searchers.split(","), noise):
        table.append(row)
        print(f"{row['optimizer']} {row['surface']} {row['searcher']}: {row['trials']:g} trials", file=sys.stderr)
    sys.stdout.write(markdown(table))
    if given.output:
        given.output.write_text(markdown(table))
        about = {"starts": given.starts, "any_start": given.any_start, "noise": noise.sigma, "uneven": noise.uneven,
                 "magnify": given.magnify, "tolerance": noise.tolerance}  # fmt: skip
        given.output.with_suffix(".json").write_text(json.dumps(about | {"rows": table}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
