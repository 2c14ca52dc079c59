"""A comparison's question: read, checked, and kept beside the ledger with the plan that was made for it.

What the pages of reports are called follows from the question, so that none overwrites the page of another.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tuneopt.api.budgets import budget, over
from tuneopt.api.devices import compiles_at
from tuneopt.api.optimizers import check_outside, space_of
from tuneopt.api.own_models import check_on_model, scale_named
from tuneopt.api.sweeps import PRECISIONS
from tuneopt.constants import VOCAB_SIZES
from tuneopt.data.sources import EMBEDDED
from tuneopt.errors import enough
from tuneopt.search.space import DECAY, space_names
from tuneopt.search.study.budget import Draft, Question, TrialTime
from tuneopt.search.sweep import Sweep, micro_batch
from tuneopt.spec import SCALES, CorpusId, Evaluation, InputError, Regime, TrialSpec, Value, canonical_json, nearest

if TYPE_CHECKING:
    from tuneopt.search.sampled import SampledSearch
    from tuneopt.search.space import LadderSpace

DIGITS = 6
"""Hexadecimal digits of an id in the name of a report: of a thousand pages two share them by chance in 3% of cases."""


def question_of(
    optimizers: Sequence[str], baseline: str, spaces: Mapping[str, str], overrides: Mapping[str, Value], **about: Any
) -> Question:
    """The question in its own terms; raises `InputError` for what cannot be asked."""
    scale, hours, resolution, ratio = scale_named(about["scale"]), about["hours"], about["resolution"], about["ratio"]
    if (hours is None) == (resolution is None):
        raise InputError("a comparison needs a budget or a resolution: give --hours or --minutes, or --resolution")
    for name, number in (("--hours or --minutes", hours), ("--resolution", resolution), ("--ratio", ratio)):
        if number is not None and not 0 < number < float("inf"):
            raise InputError(f"{name} must be a positive number, not {number:g}")
    precision = about["precision"] or scale.precision
    if precision not in PRECISIONS:
        raise InputError(f"unknown precision {precision!r}; {nearest(precision, PRECISIONS)}")
    words = list(dict.fromkeys([baseline, *optimizers]))
    if len(words) < 2:
        raise InputError(f"{baseline} is the baseline; name at least one optimizer to compare it with")
    unknown = [word for word in spaces if word not in words]
    if unknown:
        raise InputError(f"--space names {unknown[0]!r}, which is not compared; {nearest(unknown[0], words)}")
    chosen: dict[str, LadderSpace] = {}
    parts: dict[str, dict[str, Any]] = {}
    for word in words:
        # One list of overrides is for all optimizers; each takes those that it knows, and one that nobody knows is an
        # error below. A decay phase belongs to the linear schedule alone, so it comes and goes with that.
        declared = space_of(word, spaces.get(word))
        known = declared.on(scale.ladder)
        takes = {*known.by_name, *dict(known.fixed)}
        if overrides.get("lr_schedule", dict(known.fixed).get("lr_schedule")) == "linear":
            takes.add(DECAY)
        elif "lr_schedule" in overrides:
            takes.discard(DECAY)
        mine = {name: value for name, value in overrides.items() if name in takes}
        chosen[word] = over(declared.on(scale.ladder, mine), about["coordinates"], passing=True)
        check_outside(chosen[word])
        check_on_model(chosen[word], scale)
        # What a plan's file must say of the optimizer, to be read again as the same space.
        own = {"space": spaces[word]} if word in spaces else {}
        parts[word] = {**own, "set": mine} if mine else own
    lost = [name for name in overrides if not any(name in part.get("set", ()) for part in parts.values())]
    if lost:
        every = sorted({name for space in chosen.values() for name in (*space.by_name, *dict(space.fixed))})
        raise InputError(f"no optimizer here has a hyperparameter {lost[0]!r}; {nearest(lost[0], every)}")
    missing = [name for name in about["coordinates"] if not any(name in space.by_name for space in chosen.values())]
    if missing:
        every = sorted({axis.name for space in chosen.values() for axis in space.axes})
        raise InputError(f"no optimizer here has a coordinate {missing[0]!r}; {nearest(missing[0], every)}")
    ratio, asked = budget(scale, chosen[baseline], ratio, about["tokens"], about["steps"], default=None)
    if ratio is not None:
        # The largest batch of any optimizer: at that one the budget has the fewest steps.
        batch = max(int(space.value(space.start, "train_batch_size")) for space in chosen.values())
        least = batch * scale.seq_len / Regime(scale, 1, CorpusId(about["corpus"], "", 0)).tokens
        if ratio < least:
            raise InputError(
                f"{asked or f'--ratio {ratio:g}'} is less than one step of {batch} sequences of {scale.seq_len} tokens "
                f"at {scale.name}; give --ratio {enough(least)} or more"
            )
    return Question(
        spaces=chosen,
        baseline=baseline,
        scale=scale,
        corpus=about["corpus"],
        vocabulary=VOCAB_SIZES[scale.ladder],
        slots=about["slots"] or os.cpu_count() or 1,
        seconds=None if hours is None else 3600 * hours,
        resolution=resolution,
        ratio=ratio,
        seed=about["seed"],
        precision=precision,
        compile=about["compile"],
        parts=parts,
        asked=asked,
    )


def starts_of(question: Question) -> dict[str, TrialSpec]:
    """A trial of each optimizer at its start, by the words of the question; which ratio it has does not matter."""
    specs = {}
    for word, space in question.spaces.items():
        batch = int(space.value(space.start, "train_batch_size"))
        specs[word] = TrialSpec(
            optimizer=space.optimizer,
            hyperparameters=space.start,
            regime=question.regime(question.ratio or 1.0),
            precision=question.precision,
            compile=compiles_at(question.compile, [question.scale]),
            micro_batch=micro_batch(batch, question.scale),
            evaluation=Evaluation(),
        )
    return specs


def question_id(question: Question) -> str:
    """Sixteen digits that identify a question; slots are left out: another machine goes on with the same plan."""
    plain = {
        "spaces": {word: space.to_dict() for word, space in question.spaces.items()},
        "baseline": question.baseline,
        "scale": question.scale.to_dict(),
        **{name: getattr(question, name) for name in ("corpus", "seed", "precision")},
        # Left out where nobody asked, so that questions of releases without one of them keep their id.
        **{
            name: value
            for name in ("seconds", "resolution", "ratio", "compile")
            if (value := getattr(question, name)) is not None
        },
    }
    return hashlib.sha256(canonical_json(plain).encode()).hexdigest()[:16]


def plan_text(document: Mapping[str, Any], part: Draft, times: Mapping[str, TrialTime], origin: str) -> str:
    """The study file of a plan, with what it rests on as remarks."""
    import yaml  # type: ignore[import-untyped]

    speeds = ", ".join(f"{word} {time.rate:,.0f} tokens/s and {time.fixed:.1f} s" for word, time in times.items())
    head = [
        "A comparison, planned for a budget by `tuneopt compare`; docs/compare.md explains every choice.",
        f"Step times: {speeds} ({origin}).",
        f"{part.coordinates} coordinates, {part.trials} trials and {part.seeds} seeds for each optimizer.",
    ]
    body: str = yaml.safe_dump(dict(document), sort_keys=False, default_flow_style=None, width=120)
    return "".join(f"# {line}\n" for line in head) + body


def page_name(sweep: Sweep, search: SampledSearch | None = None) -> str:
    """A name for the report of a sweep or a search over it, without its ending.

    Two questions have two names, so that neither overwrites the other's page: what is asked beyond optimizer, scale,
    ratio and corpus shows as digits of the sweep's id.
    """
    regime, optimizer = sweep.regime, sweep.space.optimizer
    parts = [optimizer, regime.scale.name, f"{regime.ratio:g}x", *corpus_part(regime.corpus)]
    if search is not None:
        parts += [search.search] if search.scheduler == "none" else [search.search, search.scheduler]
    # Digits only where something is not as by default: most pages then have a name that people can type.
    usual = None
    if optimizer in space_names() and SCALES.get(regime.scale.name) == regime.scale:
        declared, compiled = space_of(optimizer).on(sweep.space.ladder), compiles_at(None, [regime.scale])
        # A run too short for the declared start has one of its own, so that its sweep is another one.
        with contextlib.suppress(InputError):
            usual = Sweep(declared, regime, precision=regime.scale.precision, compile=compiled).id
    return "-".join([*parts, *([] if sweep.id == usual else [sweep.id[:DIGITS]])]).replace("/", "-")


def corpus_part(corpus: CorpusId) -> list[str]:
    """What the name of a page says of its corpus: nothing of the built-in one, and digits of the content of others."""
    return [] if corpus.name == EMBEDDED else [corpus.name, corpus.fingerprint[:DIGITS]]


def comparison_page(question: Question, corpus: CorpusId) -> str:
    """A name for the report of a comparison, without its ending; two questions have two names (`page_name`)."""
    if question.resolution is not None:
        budget = f"{question.resolution:g}nats"
    else:
        minutes = (question.seconds or 0.0) / 60
        budget = f"{minutes:g}min" if minutes < 120 else f"{minutes / 60:g}h"
    # The budget stands in the name. All else that makes another question of it shows as digits of the question's id.
    usual = (None, None, 0, question.scale.precision)
    more = (question.ratio, question.compile, question.seed, question.precision) != usual
    usual_spaces = all(
        word in space_names() and space == space_of(word).on(question.scale.ladder)
        for word, space in question.spaces.items()
    )
    own = SCALES.get(question.scale.name) != question.scale or not usual_spaces
    digits = [question_id(question)[:DIGITS]] if more or own else []
    return "-".join([question.name, budget, *corpus_part(corpus), *digits]).replace("/", "-")
