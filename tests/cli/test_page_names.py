"""Two questions never share the name of a report."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tuneopt import api
from tuneopt.api.comparing import comparison_plan
from tuneopt.search.sweep import Sweep
from tuneopt.spec import SCALES, CorpusId, InputError, Regime


def name_of(**changes) -> str:
    return api.page_name(api.plan(changes.pop("optimizer", "soap"), **changes)[0])


def test_the_usual_question_has_a_name_that_people_can_type():
    assert name_of() == "soap-nano-65k-1x"
    assert name_of(ratio=0.5) == "soap-nano-65k-0.5x"


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"overrides": {"lr_schedule": "linear"}}, {"replicates": 2}, {"starts": {"learning_rate": 0.004}}],
)
def test_any_other_question_has_digits_of_its_own(changes):
    assert name_of(**changes).startswith("soap-nano-65k-1x-") and name_of(**changes) != name_of(seed=2)


def test_a_run_too_short_for_the_declared_start_has_a_name_as_well():
    """It is asked for before anything runs, and after hours of training it would be too late to fail."""
    regime = Regime(SCALES["130m"], 0.25, CorpusId("embedded", "", 32768))  # 1,280 steps; the declared warmup has 2,000
    with pytest.raises(InputError, match="warmup"):
        Sweep(api.space_of("adamw").on("paper"), regime)
    sweep = Sweep(api.space_of("adamw").on("paper", {"warmup": 500}), regime)
    assert api.page_name(sweep) == f"adamw-130m-0.25x-{sweep.id[:6]}"


def test_corpora_have_pages_of_their_own():
    """Two folders of one name hold other texts: their content tells them apart."""
    sweep, _ = api.plan("soap")
    names = set()
    for digit in "ab":
        corpus = CorpusId("texts", digit * 16, 1024)
        names.add(api.page_name(replace(sweep, regime=replace(sweep.regime, corpus=corpus))))
    assert names == {"soap-nano-65k-1x-texts-aaaaaa", "soap-nano-65k-1x-texts-bbbbbb"}


def test_comparisons_are_named_after_their_budget():
    about = {"slots": 2, "ledger": "nowhere"}
    names = [
        comparison_plan(["soap"], hours=8 / 60, **about).page,
        comparison_plan(["soap"], hours=2, **about).page,
        comparison_plan(["soap"], resolution=0.03, **about).page,
        comparison_plan(["soap"], hours=8 / 60, seed=1, **about).page,
    ]
    assert names[:3] == [f"soap-vs-adamw-nano-65k-{budget}" for budget in ("8min", "2h", "0.03nats")]
    assert names[3].startswith("soap-vs-adamw-nano-65k-8min-") and len(set(names)) == 4
