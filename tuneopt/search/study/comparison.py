"""A comparison: a study that was planned for a budget, as the tasks of its agenda.

1. Every optimizer is tuned in one regime by the same number of trials (phase ``I``).
2. What that ended on runs with further seeds (``seeds``), as many for each optimizer; trials that a tuning did not use
   are seeds too, so that all optimizers take the same number there.
3. The baseline goes on to its other ratios (``baseline``): its learning rate is tuned again from where it ended, then
   seeds. That is the line on which D_eff is read off.
4. When all rivals have ended, `further_ratio` says whether the line must be longer for their losses to lie inside it.
5. What is left of the reserve buys more seeds for all that the speedups rest on.

Where the study says what trials were expected to take (`ComparisonRules.prices`), the reserve also pays for what they
took beyond that, and has what they saved: a budget is meant by the clock, and a machine is faster in one hour than in
another. What trials took stands in their records, so that a comparison that goes on after a kill decides as before.

Nothing here looks at a clock or remembers anything: tasks follow from the study and from how its tasks stand.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from tuneopt.constants import OTHER_STEP_COST, STEP_COSTS
from tuneopt.search.space import Config, LadderSpace
from tuneopt.search.standing import Standing, Task
from tuneopt.search.study.brackets import bracketing_ratios
from tuneopt.search.study.matching import Remember
from tuneopt.search.study.study import ComparisonRules, Study
from tuneopt.search.sweep import LARGEST_REPLICATES, Sweep
from tuneopt.spec import CorpusId, Regime

TUNING, SEEDS, BASELINE = "I", "seeds", "baseline"
"""Phases: tuning where the rivals meet, seeds of what it ended on, and the baseline's other ratios."""

RATIO_STEP = math.sqrt(2)
"""Factor between two ratios of the baseline. Between neighbours its loss is nearly a straight line in log D: the law's
exponent of 0.3 to 0.5 bends it by a hundredth of the difference between the ends."""

FURTHER = 2.0
"""Factor from the longest ratio to the one that a plan keeps money for, in case a rival is faster than expected."""

FEWEST_RATIOS = 3
"""Ratios at which the baseline runs at least: with two, nothing shows how its law bends."""

MOST_FURTHER = 4
"""Ratios that may be added: a factor of four in D_eff. A rival further away than that is known to be far."""

DIGITS = 4
"""Significant digits of a ratio, so that people can type it again."""


def rules_of(study: Study) -> ComparisonRules:
    """The rules of a comparison; other studies have none, and do not come here."""
    assert study.comparison is not None, "only comparisons have rules"
    return study.comparison


def importance(space: LadderSpace) -> tuple[str, ...]:
    """The coordinates that can be tuned, those of the largest usual effect first; the learning rate leads them all."""
    names = [axis.name for axis in space.varied]
    return tuple(sorted(names, key=lambda name: (name != "learning_rate", -STEP_COSTS.get(name, OTHER_STEP_COST))))


def rounded(ratio: float) -> float:
    """A ratio with `DIGITS` significant digits."""
    return float(f"{ratio:.{DIGITS}g}")


def further_ratio(line: Mapping[float, float], losses: Sequence[float], margin: float = 0.0) -> float | None:
    """The next ratio at which the baseline has to run so that ``losses`` lie inside its line; None where they do.

    ``line`` holds the baseline's loss by ratio, in nats. A loss within ``margin`` of an end of it counts as outside:
    its interval would reach beyond. Above comes first: the rivals that are faster are what is asked about.
    """
    needed = bracketing_ratios(line, losses, margin)
    return rounded(needed[-1]) if needed else None


@dataclass(frozen=True)
class Place:
    """What a comparison rests on in one place: an optimizer at a ratio, as its tuning ended and its seeds stand."""

    optimizer: str
    ratio: float
    tuning: Standing
    standing: Standing

    @property
    def loss(self) -> float | None:
        """The mean report loss over its seeds, in nats; None where none completed."""
        best = self.standing.state.best
        return None if best is None else best.report_loss


def comparing(
    study: Study, corpus: CorpusId, compile: bool, standings: Mapping[str, Standing], remember: Remember
) -> Generator[Task, None, None]:
    """The tasks so far, given how they stand; they only grow. Raises `InputError` where a start cannot run."""
    rules = rules_of(study)
    scale = study.regimes("I", corpus)[0].scale
    regimes = {ratio: Regime(scale, ratio, corpus) for ratio in rules.ratios}
    home = rules.ratios[0]
    places: list[Place] = []
    waiting = False
    winner: Config | None = None
    for name, space in study.spaces.items():
        task = _tuning(study, space, regimes[home], compile, remember)
        yield task
        ended = standings.get(task.id)
        if ended is None or not ended.finished:
            waiting = True
        elif ended.state.descent.incumbent_loss is not None:
            # Every optimizer gets as many trials: what a tuning did not use goes into seeds of what it ended on.
            spare = rules.trials - len(ended.trials)
            place = yield from _seeds(study, ended, rules.seeds + spare, SEEDS, standings, remember)
            waiting = waiting or place is None
            places += [place] if place else []
            winner = ended.state.descent.incumbent if name == rules.baseline else winner
    if winner is None:  # nothing can be read off without the baseline
        return
    line: list[Place] = [place for place in places if place.optimizer == rules.baseline]
    for ratio in rules.ratios[1:]:
        place = yield from _at(study, winner, regimes[ratio], compile, standings, remember)
        waiting = waiting or place is None
        line += [place] if place else []
    # What comes now depends on all losses, so that it begins when the last of them is in: tasks may only be added.
    if waiting:
        return
    rivals = [place for place in places if place.optimizer != rules.baseline]
    left, pace = _left(rules, [*rivals, *line])
    losses = [place.loss for place in rivals if place.loss is not None]
    for _ in range(MOST_FURTHER):
        known = {place.ratio: place.loss for place in line if place.loss is not None}
        if not known or not losses:
            break
        asked = further_ratio(known, losses, rules.margin)
        if asked is None:
            break
        # Half of the way where all of it is too dear: it may be enough, and it shows how the losses go on.
        half = rounded(math.sqrt(asked * (max(known) if asked > max(known) else min(known))))
        one = pace * (rules.rate_trials + rules.seeds - 1)
        paid = [each for each in (asked, half) if one * rules.price(rules.baseline, each) <= left]
        if not paid:
            break
        place = yield from _at(study, winner, Regime(scale, paid[0], corpus), compile, standings, remember)
        if place is None:
            return
        line.append(place)
        left, pace = _left(rules, [*rivals, *line])
    # Whatever is left buys seeds for all alike, in whole rounds: a few more for one would not narrow a difference.
    every = [*rivals, *(place for place in line if place.loss is not None)]
    round_of_seeds = pace * sum(rules.price(place.optimizer, place.ratio) for place in every)
    more = int(left / round_of_seeds) if every else 0
    for place in every if more > 0 else ():
        sweep = place.standing.task.sweep
        seeds = min(sweep.replicates + more, LARGEST_REPLICATES)
        again = remember("more", sweep.id, (seeds,), partial(replace, sweep, replicates=seeds))
        yield Task(again, place.standing.task.phase)


def _left(rules: ComparisonRules, places: Sequence[Place]) -> tuple[float, float]:
    """What is left of the reserve when ``places`` have ended, and how many times its price a trial took.

    The reserve was kept besides the trials of the planned ratios: what runs at others is paid from it.
    """
    priced, took, further = 0.0, 0.0, 0.0
    for place in places:
        price = rules.price(place.optimizer, place.ratio)
        seconds = {**place.tuning.seconds, **place.standing.seconds}
        trials = {*place.tuning.trials, *place.standing.trials}
        if place.ratio not in rules.ratios:
            further += len(trials) * price
        if rules.prices:
            priced += len(seconds) * price
            took += sum(seconds.values())
    pace = took / priced if priced and took else 1.0  # 1 before any trial has ended
    return rules.reserve - further - (took - priced), pace


def _tuning(study: Study, space: LadderSpace, regime: Regime, compile: bool, remember: Remember) -> Task:
    """The tuning of an optimizer where the rivals meet. One seed: the noise model says what a difference means."""
    sweep = remember(
        "tuning", space.optimizer, (), lambda: replace(study.sweep(space, regime, compile, lower=True), replicates=1)
    )
    return Task(sweep, TUNING, rules_of(study).trials)


def _at(
    study: Study,
    winner: Config,
    regime: Regime,
    compile: bool,
    standings: Mapping[str, Standing],
    remember: Remember,
) -> Generator[Task, None, Place | None]:
    """The baseline at another ratio: its learning rate tuned again from the ``winner``, then seeds."""
    rules = rules_of(study)
    space = study.spaces[rules.baseline]

    def sweep() -> Sweep:
        held = {axis.name: space.value(winner, axis.name) for axis in space.axes}
        # The learning rate is what moves most with the budget; all else stays as the tuning at home found it.
        leading = importance(space)[:1]
        plane = space.begin_at(held).pin({name: value for name, value in held.items() if name not in leading})
        return replace(study.sweep(plane, regime, compile, lower=True), replicates=1)

    task = Task(remember(f"baseline {regime.ratio}", rules.baseline, (winner,), sweep), BASELINE, rules.rate_trials)
    yield task
    ended = standings.get(task.id)
    if ended is None or not ended.finished:
        return None
    if ended.state.descent.incumbent_loss is None:
        return Place(rules.baseline, regime.ratio, ended, ended)  # everything diverged there: no loss, and no seeds
    spare = rules.rate_trials - len(ended.trials)
    return (yield from _seeds(study, ended, rules.seeds + spare, BASELINE, standings, remember))


def _seeds(
    study: Study, tuned: Standing, seeds: int, phase: str, standings: Mapping[str, Standing], remember: Remember
) -> Generator[Task, None, Place | None]:
    """What a tuning ended on, alone, with ``seeds`` seeds, its own and new ones; the place once they have ended."""
    sweep, config = tuned.task.sweep, tuned.state.descent.incumbent
    # Those that its certificate asked for come besides: every optimizer gets the same number of trials.
    trials = set(tuned.trials)
    ran = sum(spec.hyperparameters == config and spec.id in trials for spec in tuned.state.needed)
    seeds += max(0, ran - 1)

    def alone() -> Sweep:
        space = sweep.space.pin({axis.name: sweep.space.value(config, axis.name) for axis in sweep.space.axes})
        return replace(sweep, space=space, replicates=seeds)

    task = Task(remember("seeds", sweep.id, (config, seeds), alone), phase)
    yield task
    standing = standings.get(task.id)
    if standing is None or not standing.finished:
        return None
    return Place(tuned.task.optimizer, sweep.regime.ratio, tuned, standing)


def after(study: Study, standing: Standing, seconds: Callable[[float], float]) -> float:
    """Seconds of the trials that wait for a task's pending ones, one after another; ``seconds`` of one by its ratio.

    A tuning usually takes two waves. The baseline's longest ratio comes after its own; then perhaps one more.
    """
    rules, task = rules_of(study), standing.task
    own, longest = seconds(task.sweep.regime.ratio), seconds(max(rules.ratios))
    if task.phase == TUNING and task.optimizer == rules.baseline:
        return own + 2 * longest
    return own if task.phase == TUNING else 0.0


def planned(study: Study) -> tuple[tuple[str, str, float, float], ...]:
    """What a comparison will run, before it runs: (phase, optimizer, ratio, trials); the reserve among it.

    Every tuning is taken to use its trials, and the reserve to go into the baseline's next ratio above.
    """
    rules = rules_of(study)
    home, seeds = rules.ratios[0], float(rules.seeds - 1)
    parts = [(TUNING, name, home, float(rules.trials)) for name in study.optimizers]
    parts += [(SEEDS, name, home, seeds) for name in study.optimizers]
    parts += [(BASELINE, rules.baseline, ratio, rules.rate_trials + seeds) for ratio in rules.ratios[1:]]
    further = rounded(rules.ratios[-1] * FURTHER)
    return (*parts, (BASELINE, rules.baseline, further, rules.reserve / rules.price(rules.baseline, further)))


def coming(study: Study, standings: Mapping[str, Standing]) -> Iterator[tuple[str, str, float, float]]:
    """What of that lies beyond the places that were reached; nothing where all that was begun has ended."""
    begun: dict[tuple[str, str, float], list[Standing]] = defaultdict(list)
    for standing in standings.values():
        begun[standing.task.phase, standing.task.optimizer, standing.task.sweep.regime.ratio].append(standing)
    if begun and all(standing.finished for standing in standings.values()):
        return
    *parts, reserve = planned(study)
    # When all that was planned has its seeds, the reserve has become a further ratio, or more seeds: both stand there.
    seeded = {
        place
        for place, here in begun.items()
        if any(standing.finished and not standing.task.sweep.space.varied for standing in here)
    }
    settled = all((phase, name, ratio) in seeded for phase, name, ratio, _ in parts if phase != TUNING)
    for phase, name, ratio, trials in (*parts, *(() if settled else (reserve,))):
        if (phase, name, ratio) not in begun and round(trials):
            yield phase, name, ratio, trials
