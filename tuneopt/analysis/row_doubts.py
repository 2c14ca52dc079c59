"""What a table says that may not be meant: a sentence on each doubt about its rows, before anything is computed.

What cannot be meant is refused (`tuneopt.analysis.rows`); this may be, and a reader must know it before quoting any
number.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from tuneopt.analysis.regimes import ONE_RATIO, near
from tuneopt.analysis.row import UNSEEDED
from tuneopt.analysis.runs import LARGEST_LOSS, RegimeKey, TrainingRun

ONE_END = 0.3
"""Nats between a curve's end and the final loss beyond which they are no two splits of one run."""

MEANT = 0.75
"""The share of a scale's optimizers that budgets meant as one bring together."""

MEASURES = re.compile(
    r"(padded_|n_)?vocab(ulary)?(_size)?|tokeni[sz]er.*|split|"
    r"(eval|val|valid|validation|test)_?(set|data|dataset|split|corpus)"
)
"""Settings that say what a loss is measured on, and nothing of how a model was trained."""

MOMENTS, EVEN = 6, 0.02
"""So many steps at equal distances (relative) look like the moments of a log; the budgets of a study mostly double."""


def row_doubts(runs: Sequence[TrainingRun]) -> list[str]:
    """The doubts about the runs of a table, as they were read from its rows."""
    every = (_other_unit, _other_measures, _moments, _repeats, _near_regimes, _other_ends, _without_corpus)
    return [doubt for find in every for doubt in find(runs)]


def _other_unit(runs: Iterable[TrainingRun]) -> Iterator[str]:
    """A note on losses that are all too large for nats per token, as perplexities are."""
    lowest = min((run.report_loss for run in runs if run.report_loss is not None), default=0.0)
    if lowest > LARGEST_LOSS:
        yield (
            f"every loss is {lowest:.4g} or more, which no loss in nats per token is: perplexities, perhaps, whose "
            "logarithm is one; then nothing that is said in nats is in nats, and assumed noise is of another size"
        )


def _other_measures(runs: Iterable[TrainingRun]) -> Iterator[str]:
    """A note on losses of one regime that are measured on other texts or tokens, and so differ by that alone."""
    values: dict[tuple[str, RegimeKey], dict[str, None]] = defaultdict(dict)
    for run in runs:
        for name, value in run.config:
            if MEASURES.fullmatch(name):
                values[name, run.regime][str(value)] = None
    mixed = {name: known for (name, _), known in values.items() if len(known) > 1}
    for name, known in mixed.items():
        shown = ", ".join([*known][:3]) + (", ..." if len(known) > 3 else "")
        yield (
            f"losses with another {name} ({shown}) are compared, though a loss depends on what it is measured on: the "
            "lowest may be lowest for that alone; give each its own corpus"
        )


def _moments(runs: Iterable[TrainingRun]) -> Iterator[str]:
    """A note on rows that look like the moments of a run: a loss before its schedule ended is none of a shorter run."""
    logs: dict[tuple[object, ...], set[float]] = defaultdict(set)
    for run in runs:
        if run.steps is not None and run.report_loss is not None:
            logs[run.optimizer, run.regime[:2], run.config, run.seed].add(run.steps)
    even = []
    for (optimizer, *_), steps in logs.items():
        gaps = [after - before for before, after in pairwise(sorted(steps))]
        if len(steps) >= MOMENTS and max(gaps) <= min(gaps) * (1 + EVEN):
            even.append((str(optimizer), len(steps)))
    if even:
        yield (
            f"losses with one configuration and seed lie at equal distances of steps ({_up_to(even)}), as in the log "
            "of one run; each counts as a run that ended there, so if they are moments of a run, keep its last row"
        )


def _repeats(runs: Iterable[TrainingRun]) -> Iterator[str]:
    """A note on rows without seeds that differ in nothing: more draws make the best of them better by luck alone."""
    counts = Counter(run.setting for run in runs if run.seed == UNSEEDED)
    if repeated := [(optimizer, count) for (_, optimizer, *_), count in counts.items() if count > 1]:
        yield (
            "rows without a seed that differ in nothing count as configurations, of which the best stands "
            f"({_up_to(repeated)}); give the column seed, and their mean does"
        )


def _up_to(counts: Iterable[tuple[str, int]]) -> str:
    """The largest count of each optimizer, in words; of many optimizers the first five."""
    most: dict[str, int] = {}
    for optimizer, count in counts:
        most[optimizer] = max(count, most.get(optimizer, 0))
    return ", ".join(f"{optimizer} up to {count}" for optimizer, count in list(most.items())[:5])


def _near_regimes(runs: Iterable[TrainingRun]) -> Iterator[str]:
    """A note on each scale with budgets so near that they may be meant as one: losses are compared within each.

    Budgets that one optimizer has with one seed are lengths that it was given. So are those of a race, where few meet
    anyway: taken as one, near budgets must bring `MEANT` of a scale's optimizers together.
    """
    lines: dict[tuple[str, str], set[tuple[tuple[str, int], float]]] = defaultdict(set)
    for run in runs:
        lines[run.regime[:2]].add(((run.optimizer, run.seed), run.regime.ratio))
    for (_, scale), here in lines.items():
        most = MEANT * len({name for (name, _), _ in here})
        groups = [sorted({ratio for _, ratio in group}) for group in near(sorted(here), ONE_RATIO, tuple)
                  if len({name for (name, _), _ in group}) >= most]  # fmt: skip
        apart = [f"{', '.join(f'{ratio:g}x' for ratio in group[:-1])} and {group[-1]:g}x"
                 for group in groups if len(group) > 1]  # fmt: skip
        if apart:
            shown = "; ".join(apart[:3]) + ("; ..." if apart[3:] else "")
            yield (
                f"budgets at {scale} that may be meant as one are compared apart ({shown}); give each its planned ratio"
            )


def _without_corpus(runs: Sequence[TrainingRun]) -> Iterator[str]:
    """A note on rows that name no corpus where others do: they are compared among themselves alone."""
    blank = sum(not run.regime.corpus for run in runs)
    if 0 < blank < len(runs):
        many = "1 row names" if blank == 1 else f"{blank} rows name"
        yield f"{many} no corpus, and {'is' if blank == 1 else 'are'} compared apart from those that do"


def _other_ends(runs: Iterable[TrainingRun]) -> Iterator[str]:
    """A note on runs whose curve ends with another loss than their final one: one of the two may be another run's."""
    ends = [(run, run.curve[-1].report_loss) for run in runs if run.curve and run.curve[-1].fraction == 1]
    apart = [(run, end) for run, end in ends if run.report_loss and end and abs(end - run.report_loss) > ONE_END]
    if apart:
        run, end = apart[0]
        many = "1 run ends" if len(apart) == 1 else f"{len(apart)} runs end"
        yield f"the curve of {many} elsewhere than the final loss ({run.trial}: {end:g}, and {run.report_loss:g})"
