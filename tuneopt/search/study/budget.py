"""A comparison for a budget: which ratios, how many coordinates, trials and seeds, as a study file.

The rule, from what matters most (docs/compare.md has the reasons):

1. The largest ratio up to 1 at which every optimizer gets `USUAL` care: its three most important coordinates in ten
   trials, four seeds of the winner, and the baseline three ratios and the money for a fourth.
2. There, more care as far as the budget goes; longer ratios than 1 only with the most care.
3. Where even the shortest ratio that makes sense is too dear for usual care, less care, and at last shorter ratios.

What is left buys two more trials of every tuning with each further seed, until a tuning has `ENOUGH`; then seeds
alone, a whole one for all at a time. The rest goes into the reserve. Every choice is arithmetic over the arguments, so
that the same question with the same step times has the same plan.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tuneopt.constants import DIFFERENCE_95, TOLERANCE
from tuneopt.errors import enough
from tuneopt.search.noise import Cell, NoiseRegime, SpreadModel
from tuneopt.search.space import LadderSpace
from tuneopt.search.study.comparison import FEWEST_RATIOS, FURTHER, RATIO_STEP, importance, rounded
from tuneopt.search.sweep import LARGEST_REPLICATES
from tuneopt.spec import SCALES, CorpusId, InputError, Regime, Scale, ratio_of

RATIOS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625)
"""Ratios at which rivals may meet; 1 is what most people ask about, and longer ones cost what they promise."""

LEAST_STEPS = 500
"""Steps below which a ratio is a last resort. At nano-65k AdamW's seeds spread by 0.2 nats after 320 steps and 0.4 to
0.7 after 160, against 0.02 to 0.045 from 640 on: a short run is cheaper and tells less."""

RATE_TRIALS = 3
"""Learning rates tried at each further ratio of the baseline: the best one and its neighbours."""

STARTING_SECONDS = 30.0
"""Seconds by the clock until the first trial trains: Ray, and compiling the model."""

BUSY = 0.95
"""Share of the slots' time that goes into trials; the rest waits for others to end. Measured: 0.87 to 0.99."""

LIMIT = 1.25
"""Times the planned slots and hours at which a comparison stops, in device time, whatever is still open."""

ENOUGH = 5.0
"""Trials of a tuning for each coordinate, beyond which more of them are worth less than seeds. With six coordinates, 28
of 32 runs in the tuning end a third to three fifths closer to the lowest loss than 19 of 32; with three, ten are nearly
enough (docs/compare.md). What a tuning does not use becomes seeds anyway."""

PER_SEED = 2
"""Trials that every tuning gets with each further seed until then."""

MOST_SEEDS = 32
"""Seeds beyond which a budget is not spent: they would tell apart what no reader cares for."""


@dataclass(frozen=True, slots=True)
class Care:
    """How carefully each optimizer is tuned: so many coordinates, in so many trials, and seeds of the winner."""

    coordinates: int
    seeds: int

    @property
    def trials(self) -> int:
        """The start, two values of each coordinate, and one more each to go on from there."""
        return 1 + 3 * self.coordinates


CARES = (Care(1, 2), Care(2, 3), Care(3, 4), Care(4, 5), Care(6, 6), Care(10, 8))
"""From the least care to the most; one coordinate is the learning rate."""

USUAL = 2
"""Its place among `CARES`."""


@dataclass(frozen=True, slots=True)
class TrialTime:
    """About how long trials of an optimizer take on one slot: ``fixed`` seconds, and tokens per second in training."""

    fixed: float
    rate: float

    def seconds(self, tokens: float) -> float:
        """Of one trial."""
        return self.fixed + tokens / self.rate


@dataclass(frozen=True)
class Question:
    """What is asked: which optimizers, where, and for what.

    ``spaces`` holds each optimizer's search space by the word that it was asked for by, the ``baseline`` among them;
    ``parts`` what a study file says of it besides; the baseline comes first. The budget is ``seconds`` by the clock on
    ``slots`` slots, or what the ``resolution`` (nats) takes; ``ratio`` is where the rivals meet, None for the best that
    the budget allows. ``asked`` are the words of a budget that was given in tokens or steps.
    """

    spaces: Mapping[str, LadderSpace]
    baseline: str
    scale: Scale
    corpus: str
    vocabulary: int
    slots: int
    seconds: float | None = None
    resolution: float | None = None
    ratio: float | None = None
    seed: int = 0
    precision: str = "fp32"
    compile: bool | None = None
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    asked: str = ""

    @property
    def rivals(self) -> tuple[str, ...]:
        """The optimizers but the baseline."""
        return tuple(name for name in self.spaces if name != self.baseline)

    @property
    def name(self) -> str:
        """A name for the study, its report and its file."""
        plain = [word.rpartition(":")[2] for word in (*self.rivals, self.baseline)]
        return f"{'-'.join(plain[:-1])}-vs-{plain[-1]}-{self.scale.name}"

    def regime(self, ratio: float) -> Regime:
        """The regime of a ratio; the corpus counts by name alone."""
        return Regime(self.scale, ratio, CorpusId(self.corpus, "", self.vocabulary))


@dataclass(frozen=True, slots=True)
class Draft:
    """A plan as figures: the rivals' ratio, the care, and what is kept for further ratios (device seconds)."""

    ratio: float
    coordinates: int
    trials: int
    seeds: int
    reserve: float = 0.0

    @property
    def ratios(self) -> tuple[float, ...]:
        """The baseline's ratios: where the rivals meet, and above."""
        # The first as it is: it may stand for a budget in tokens, to the token.
        return (self.ratio, *(rounded(self.ratio * RATIO_STEP**step) for step in range(1, FEWEST_RATIOS)))

    @property
    def further(self) -> float:
        """The ratio that comes next."""
        return rounded(self.ratios[-1] * FURTHER)


def draft(question: Question, times: Mapping[str, TrialTime], noise: SpreadModel) -> Draft:
    """The plan for a question. Raises `InputError` where the budget is too small for any."""
    if question.resolution is not None:
        return _for_resolution(question, times, noise, question.resolution)
    for part in _preferred(question, times):
        return _filled(part, question, times)
    least = _reserved(_smallest(question), question, times)
    needed = wall_seconds(least, question, times)
    place = "" if question.ratio is None else f" at ratio {question.ratio:g}"
    minutes, count = math.ceil(needed / 60), len(question.spaces)
    tokens = _longest(question, times)
    shorter = f"ask for shorter runs (--tokens {tokens} fits) or take" if tokens else "or take"
    raise InputError(
        f"{(question.seconds or 0) / 60:.3g} minutes are too few: the smallest comparison of {count} optimizers at "
        f"{question.scale.name}{place} takes about {minutes} minutes on {question.slots} slots; give --minutes "
        f"{minutes} or more, {shorter} a smaller scale"
    )


def device_seconds(part: Draft, question: Question, times: Mapping[str, TrialTime]) -> float:
    """Device seconds of a draft, its reserve among them."""
    base = times[question.baseline]
    each = part.trials + part.seeds - 1  # the first seed of what a tuning ends on is one of its trials
    seconds = sum(each * time.seconds(question.regime(part.ratio).tokens) for time in times.values())
    again = RATE_TRIALS + part.seeds - 1
    seconds += sum(again * base.seconds(question.regime(ratio).tokens) for ratio in part.ratios[1:])
    return seconds + part.reserve


def wall_seconds(part: Draft, question: Question, times: Mapping[str, TrialTime]) -> float:
    """Seconds by the clock: starting, and all trials on the slots; not less than those that wait for one another."""
    base = times[question.baseline]
    longest = max(time.seconds(question.regime(part.ratio).tokens) for time in times.values())
    # Two waves of tuning and one of seeds; learning rates and seeds at the longest ratio; the same once more.
    chain = 3 * longest + 2 * sum(
        base.seconds(question.regime(ratio).tokens) for ratio in (part.ratios[-1], part.further)
    )
    return STARTING_SECONDS + max(chain, device_seconds(part, question, times) / (question.slots * BUSY))


def study_document(
    question: Question, part: Draft, times: Mapping[str, TrialTime], noise: SpreadModel
) -> dict[str, Any]:
    """The study file of a draft, as plain data."""
    place = NoiseRegime(float(question.scale.parameters), part.ratio)
    names = {word: space.optimizer for word, space in question.spaces.items()}
    cells = [Cell(name, place) for name in names.values()]
    bars = [noise.resolution(cells[0], part.seeds, cell, part.seeds) for cell in cells[1:]]
    sigma = max(noise.spread(*cell).sigma for cell in cells)
    hours = float(f"{wall_seconds(part, question, times) / 3600:.4g}")
    optimizers: dict[str, dict[str, Any]] = {}
    for word, space in question.spaces.items():
        optimizers[word] = {
            **question.parts.get(word, {}),
            "coordinates": list(importance(space)[: part.coordinates]),
        }
    return {
        "name": question.name,
        "optimizers": optimizers,
        # A scale that is not built in stands in the plan as a whole: its file may move, or come to say something else.
        "scales": [question.scale.name if question.scale.name in SCALES else question.scale.declaration()],
        "ratios": [part.ratio],
        "corpus": question.corpus,
        "vocabulary": question.vocabulary,
        "seed": question.seed,
        "policy": "model",
        "tolerance": float(f"{max(TOLERANCE, DIFFERENCE_95 * sigma):.3g}"),
        "precision": question.precision,
        "compile": "auto" if question.compile is None else question.compile,
        "comparison": {
            "baseline": question.baseline,
            "ratios": list(part.ratios),
            "trials": part.trials,
            "rate_trials": RATE_TRIALS,
            "seeds": part.seeds,
            "reserve": round(part.reserve, 1),
            "prices": {
                word: [float(f"{seconds:.3g}") for seconds in (time.fixed, question.regime(1.0).tokens / time.rate)]
                for word, time in times.items()
            },
            "margin": float(f"{max(bars):.3g}"),
            "hours": hours,
        },
        "limits": {"max_device_hours": float(f"{LIMIT * question.slots * hours:.3g}")},
    }


def _preferred(question: Question, times: Mapping[str, TrialTime]) -> Iterator[Draft]:
    """The drafts that fit, the preferred first."""

    def fits(part: Draft) -> bool:
        assert question.seconds is not None, "a budget was given"
        return wall_seconds(part, question, times) <= question.seconds

    def drafts(ratio: float, cares: range) -> Iterator[Draft]:
        for place in cares:
            part = _reserved(_draft(question, ratio, CARES[place]), question, times)
            if fits(part):
                yield part

    # From long runs to short ones; at each, from the most care to the least.
    most = len(CARES) - 1
    if question.ratio is not None:
        yield from drafts(question.ratio, range(most, -1, -1))
        return
    usual = [ratio for ratio in RATIOS if _steps(question, ratio) >= LEAST_STEPS] or [RATIOS[-1]]
    for ratio in usual:  # beyond 1 with the most care alone; up to 1 with the usual care, or with what more fits there
        yield from drafts(ratio, range(most, (most if ratio > 1 else USUAL) - 1, -1))
    shorter = [ratio for ratio in RATIOS if ratio < usual[-1] and _steps(question, ratio) >= 1]
    for ratio in (usual[-1], *shorter):
        yield from drafts(ratio, range(USUAL - 1, -1, -1))


def _draft(question: Question, ratio: float, care: Care) -> Draft:
    # An optimizer with fewer coordinates is tuned over those that it has, in as many trials.
    most = max(len(importance(space)) for space in question.spaces.values())
    coordinates = max(1, min(care.coordinates, most))
    return Draft(ratio, coordinates, replace(care, coordinates=coordinates).trials, care.seeds)


def _smallest(question: Question) -> Draft:
    ratio = question.ratio or min(ratio for ratio in RATIOS if _steps(question, ratio) >= 1)
    return _draft(question, ratio, CARES[0])


def _longest(question: Question, times: Mapping[str, TrialTime]) -> int | None:
    """The tokens, in round numbers, of the longest runs that the budget pays for with the least care; None for none."""
    tokens = question.regime(question.ratio or RATIOS[0]).tokens
    while True:
        tokens = int(float(f"{0.9 * tokens:.1e}"))  # two digits are said, and what is said must fit
        ratio = ratio_of(question.scale, max(1, tokens))
        if _steps(question, ratio) < 1:
            return None
        part = _reserved(_draft(question, ratio, CARES[0]), question, times)
        if wall_seconds(part, question, times) <= (question.seconds or 0):
            return tokens


def _reserved(part: Draft, question: Question, times: Mapping[str, TrialTime]) -> Draft:
    """The draft with the money for one further ratio of the baseline."""
    one = times[question.baseline].seconds(question.regime(part.further).tokens)
    return replace(part, reserve=(RATE_TRIALS + part.seeds - 1) * one)


def _filled(part: Draft, question: Question, times: Mapping[str, TrialTime]) -> Draft:
    """The draft with the trials and seeds that its budget pays for, and what is then left in its reserve."""
    assert question.seconds is not None, "a budget was given"
    # Seed by seed; a tuning that has too few trials gets some with each.
    while part.seeds < MOST_SEEDS:
        further = PER_SEED if part.trials < ENOUGH * part.coordinates else 0
        more = _reserved(replace(part, trials=part.trials + further, seeds=part.seeds + 1), question, times)
        if wall_seconds(more, question, times) > question.seconds:
            break
        part = more
    left = (question.seconds - STARTING_SECONDS) * question.slots * BUSY - device_seconds(part, question, times)
    return part if part.seeds == MOST_SEEDS else replace(part, reserve=part.reserve + max(0.0, left))


def _for_resolution(question: Question, times: Mapping[str, TrialTime], noise: SpreadModel, resolution: float) -> Draft:
    """The usual care at ratio 1, or at the ratio asked for, with the seeds that the resolution takes."""
    ratio = question.ratio or 1.0
    place = NoiseRegime(float(question.scale.parameters), ratio)
    base = Cell(question.spaces[question.baseline].optimizer, place)
    seeds = max(
        noise.seeds_needed(resolution, base, Cell(question.spaces[name].optimizer, place)) for name in question.rivals
    )
    part = _draft(question, ratio, CARES[USUAL])

    def cost(count: int) -> tuple[Draft, float]:
        """The plan with so many seeds, and its hours by the clock."""
        planned = _reserved(replace(part, seeds=max(count, CARES[0].seeds)), question, times)
        return planned, wall_seconds(planned, question, times) / 3600

    planned, hours = cost(seeds)
    if seeds > LARGEST_REPLICATES:
        finest = max(
            noise.resolution(base, LARGEST_REPLICATES, Cell(question.spaces[name].optimizer, place), LARGEST_REPLICATES)
            for name in question.rivals
        )
        raise InputError(
            f"{resolution:g} nats take about {seeds:,} seeds of each optimizer at {question.scale.name}, {hours:,.0f} "
            f"hours by the clock on {question.slots} slots, and a comparison has {LARGEST_REPLICATES:,} seeds at most: "
            f"ask for {enough(1.05 * finest)} nats or more ({cost(LARGEST_REPLICATES)[1]:,.0f} hours for "
            f"{finest:.2g}), or compare at a larger --scale, where seeds differ less"
        )
    return planned


def _steps(question: Question, ratio: float) -> int:
    """Steps of the shortest start at a ratio; 0 where a start has none."""
    batches = [float(space.value(space.start, "train_batch_size")) for space in question.spaces.values()]
    return int(question.regime(ratio).tokens / (max(batches) * question.scale.seq_len))
