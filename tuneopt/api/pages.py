"""What the pages of reports are called, so that no question overwrites the page of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuneopt.api.devices import compiles_at
from tuneopt.api.optimizers import space_of
from tuneopt.api.questions import question_id
from tuneopt.data.sources import EMBEDDED
from tuneopt.search.space import space_names
from tuneopt.search.sweep import Sweep
from tuneopt.spec import SCALES, CorpusId

if TYPE_CHECKING:
    from tuneopt.search.sampled import SampledSearch
    from tuneopt.search.study.budget import Question

DIGITS = 6
"""Digits of an id in the name of a report."""


def page_name(sweep: Sweep, search: SampledSearch | None = None) -> str:
    """A name for the report of a sweep or a search over it, without its ending.

    Two questions have two names, so that neither overwrites the other's page: what is asked beyond optimizer, scale,
    ratio and corpus shows as digits of the sweep's id.
    """
    regime, optimizer = sweep.regime, sweep.space.optimizer
    parts = [optimizer, regime.scale.name, f"{regime.ratio:g}x", *corpus_part(regime.corpus)]
    if search is not None:
        parts += [search.search] if search.scheduler == "none" else [search.search, search.scheduler]
    usual = None
    if optimizer in space_names() and SCALES.get(regime.scale.name) == regime.scale:
        declared, compiled = space_of(optimizer).on(sweep.space.ladder), compiles_at(None, [regime.scale])
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
    usual = (None, None, 0, question.scale.precision)
    more = (question.ratio, question.compile, question.seed, question.precision) != usual
    usual_spaces = all(
        word in space_names() and space == space_of(word).on(question.scale.ladder)
        for word, space in question.spaces.items()
    )
    own = SCALES.get(question.scale.name) != question.scale or not usual_spaces
    digits = [question_id(question)[:DIGITS]] if more or own else []
    return "-".join([question.name, budget, *corpus_part(corpus), *digits]).replace("/", "-")
