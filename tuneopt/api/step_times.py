"""How long trials will take here: from what the ledger has seen, a few steps trained now, or a known machine."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from tuneopt.api.devices import known_rate
from tuneopt.search.study.budget import Question, TrialTime
from tuneopt.spec import Evaluation, InputError, TrialSpec

if TYPE_CHECKING:
    from tuneopt.data import Corpus
    from tuneopt.ledger import Ledger

FORWARD = 1 / 3
"""Share of a training step's FLOPs that a forward pass has: evaluation does no more."""


GIVEN, RECORDED, MEASURED, KNOWN = (
    "as given",
    "trials in the ledger",
    "a few steps trained now",
    "a known core, not measured here",
)
"""Where step times are from."""

ERRORS = {GIVEN: (0.9, 1.2), RECORDED: (0.95, 1.1), MEASURED: (0.9, 1.2), KNOWN: (0.5, 2.0)}
"""Factors by which times from there may be off: slots share caches, memory and what else a machine does."""


def trial_times(
    question: Question,
    ledger: Ledger,
    corpus: Corpus | None = None,
    *,
    measure: bool = False,
    tokens_per_second: float | None = None,
) -> tuple[dict[str, TrialTime], str]:
    """About how long trials of each optimizer take, by the words of the question, and where that is from.

    ``tokens_per_second`` of a slot is taken as given. Else finished trials of the ledger count as a measurement; where
    an optimizer has none, a few steps are trained now if ``measure`` allows it, on ``corpus``. Otherwise it is taken to
    be as fast as the others or, on the nano ladder, as a known core. Raises `InputError` where nothing is known.
    """
    if tokens_per_second is not None:
        if not 0 < tokens_per_second < float("inf"):
            raise InputError(f"--tokens-per-second must be a positive number, not {tokens_per_second:g}")
        return {
            word: TrialTime(evaluation_seconds(_spec(question, word), tokens_per_second), tokens_per_second)
            for word in question.spaces
        }, GIVEN
    specs = {word: _spec(question, word) for word in question.spaces}
    times = recorded_times(ledger, specs)
    origin = RECORDED
    lacking = [word for word in specs if word not in times]
    if lacking and measure and corpus is not None:
        from tuneopt.training.building import WarmModels
        from tuneopt.training.run import trained_throughput

        models = WarmModels()  # all optimizers train the same compiled model
        for word in lacking:
            spec = replace(specs[word], regime=replace(specs[word].regime, corpus=corpus.id))
            rate = trained_throughput(spec, corpus, models)
            times[word] = TrialTime(evaluation_seconds(specs[word], rate), rate)
        origin = MEASURED
    elif lacking:
        known = [time.rate for time in times.values()]
        usual = statistics.fmean(known) if known else known_rate(question.scale, question.vocabulary)
        if usual is None:
            raise InputError(
                f"nothing is known of how fast {question.scale.name} trains here; give --tokens-per-second of one "
                "slot, or --measure on a machine like those that will train"
            )
        for word in lacking:
            times[word] = TrialTime(evaluation_seconds(specs[word], usual), usual)
        origin = RECORDED if known else KNOWN
    return {word: times[word] for word in specs}, origin


def recorded_times(ledger: Ledger, specs: Mapping[str, TrialSpec]) -> dict[str, TrialTime]:
    """Medians over the ledger's trials of the same optimizer, scale, evaluation and mode; others are absent."""
    rates: dict[str, list[float]] = defaultdict(list)
    fixed: dict[str, list[float]] = defaultdict(list)
    alike = {word: _mode(spec) for word, spec in specs.items()}
    for record in ledger.records():
        mode = _mode(record.spec)
        for word, wanted in alike.items():
            if mode == wanted and record.status == "completed" and record.seconds["train"] > 0:
                rates[word].append(record.tokens / record.seconds["train"])
                fixed[word].append(record.seconds["eval"] + record.seconds["checkpoint"])
    return {word: TrialTime(statistics.median(fixed[word]), statistics.median(rates[word])) for word in rates}


def evaluation_seconds(spec: TrialSpec, rate: float) -> float:
    """Seconds of a trial's evaluations, at ``rate`` tokens per second in training."""
    plan = spec.evaluation
    sequences = 2 * (plan.points * plan.curve_sequences + plan.final_sequences)  # both splits
    return FORWARD * sequences * spec.regime.scale.seq_len / rate


def _spec(question: Question, word: str) -> TrialSpec:
    """A trial of an optimizer at its start; which ratio it has does not matter here."""
    from tuneopt.api.sweeps import compiles
    from tuneopt.search.sweep import micro_batch

    space = question.spaces[word]
    batch = int(space.value(space.start, "train_batch_size"))
    return TrialSpec(
        optimizer=space.optimizer,
        hyperparameters=space.start,
        regime=question.regime(question.ratio or 1.0),
        precision=question.precision,
        compile=compiles(question.compile),
        micro_batch=micro_batch(batch, question.scale),
        evaluation=Evaluation(),
    )


def _mode(spec: TrialSpec) -> tuple[object, ...]:
    return spec.optimizer, spec.regime.scale, spec.compile, spec.precision, spec.evaluation
