"""A study that runs its baseline on until the rivals' losses lie between its own."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from search_helpers import drive

from tuneopt.search.plan import Ended
from tuneopt.search.queue import SchedulerQueue
from tuneopt.search.study.brackets import BRACKET
from tuneopt.search.study.expected import SENSITIVE, expected
from tuneopt.search.study.file import parse_study
from tuneopt.search.study.planner import StudyPlan
from tuneopt.spec import CorpusId, InputError, TrialSpec

TEXT = """\
name: small
optimizers:
  adamw: {set: {beta1: 0.9, beta2: 0.95, epsilon: 1e-10, max_grad_norm: 1, train_batch_size: 16, warmup: 0.1},
          grid: {learning_rate: [0.004, 0.008, 0.016], weight_decay: [0, 0.1]}}
  lion: {set: {beta1: 0.9, beta2: 0.95, max_grad_norm: 1, train_batch_size: 16, warmup: 0.1},
         grid: {learning_rate: [0.001, 0.002, 0.004], weight_decay: [0.1, 0.2]}}
scales: [nano-65k, nano-147k]
ratios: [1, 2]
corpus: made-up
phase_1: {regimes: {nano-65k: [1, 2], nano-147k: [1]}}
phase_2: {regimes: rest}
replicates: 2
bracket: adamw
"""
CORPUS = CorpusId("made-up", "00ff", 1024)
WORTH = {"adamw": 1.0, "lion": 1.6}
"""Budgets that a token of each is worth."""


def loss(spec: TrialSpec, worth: dict[str, float] = WORTH) -> float:
    """A power law of the tokens, each optimizer with its factor; AdamW's best rate halves where the model grows."""
    rate = float(spec.config["learning_rate"])
    best = {"nano-65k": 0.008, "nano-147k": 0.004}[spec.regime.scale.name] if spec.optimizer == "adamw" else 0.002
    steps = abs(rate / best - 1) if rate > best else abs(best / rate - 1)
    tokens = spec.regime.tokens * worth[spec.optimizer] / spec.regime.scale.parameters / 20
    return 3.0 + 0.8 * tokens**-0.4 + 0.05 * steps + 1e-4 * random.Random(spec.id).gauss(0, 1)


def plan(text: str = TEXT, **changes) -> StudyPlan:
    return StudyPlan(replace(parse_study(text), **changes), CORPUS)


def run(made: StudyPlan, evaluate=loss, **rest) -> SchedulerQueue:
    queue = SchedulerQueue(made, **rest)
    drive(queue, evaluate, slots=5, duration=lambda spec: float(spec.regime.tokens))
    return queue


def bracketed(queue: SchedulerQueue) -> set[tuple[str, str, float]]:
    tasks = [standing.task for standing in queue.standings.values() if standing.task.phase == BRACKET]
    return {(task.optimizer, task.sweep.regime.scale.name, task.sweep.regime.ratio) for task in tasks}


@pytest.fixture(scope="module")
def whole() -> tuple[StudyPlan, SchedulerQueue]:
    made = plan()
    return made, run(made)


def test_the_baseline_alone_goes_on_until_it_is_under_every_rival(whole):
    _, queue = whole
    assert queue.finished and bracketed(queue) == {("adamw", "nano-65k", 4.0), ("adamw", "nano-147k", 4.0)}
    losses: dict[tuple[str, str], list[float]] = {}
    for standing in queue.standings.values():
        task = standing.task
        losses.setdefault((task.sweep.regime.scale.name, task.optimizer), []).append(standing.state.best.report_loss)
    for scale in ("nano-65k", "nano-147k"):
        assert min(losses[scale, "adamw"]) < min(losses[scale, "lion"]) < max(losses[scale, "lion"])
        assert max(losses[scale, "lion"]) < max(losses[scale, "adamw"])


def test_its_further_sweeps_vary_what_scales_and_hold_the_rest(whole):
    made, queue = whole
    assert made.finding("adamw", queue.standings).sensitive == ("learning_rate",)
    for standing in queue.standings.values():
        if standing.task.phase == BRACKET:
            assert [axis.name for axis in standing.task.sweep.space.varied] == ["learning_rate"]
            assert standing.certified and standing.state.best.seeds == 2


def test_a_far_rival_is_followed_so_far_and_no_further():
    fast = run(plan(), lambda spec: loss(spec, {"adamw": 1.0, "lion": 3.2}))
    assert fast.finished and max(ratio for _, scale, ratio in bracketed(fast) if scale == "nano-65k") == 8.0
    under = run(plan(), lambda spec: 2.5 if spec.optimizer == "lion" else loss(spec))
    assert under.finished and {ratio for *_, ratio in bracketed(under)} == {8.0}


def test_nothing_is_asked_of_a_baseline_that_has_no_loss():
    queue = run(plan(), lambda spec: None if spec.optimizer == "adamw" else loss(spec))
    assert queue.finished and not bracketed(queue)


def test_a_slower_rival_asks_for_shorter_runs_and_an_equal_one_for_what_noise_needs():
    slow = run(plan(), lambda spec: loss(spec, {"adamw": 1.0, "lion": 0.7}))
    assert {ratio for *_, ratio in bracketed(slow)} == {0.5}
    apart = run(plan(bracket=None), loss)
    assert not bracketed(apart) and apart.finished


def test_resumed_from_records_it_asks_for_nothing_new(whole):
    _, queue = whole
    again = SchedulerQueue(plan(), known=lambda spec: Ended(queue.outcomes[spec.id]))
    assert again.finished and set(again.outcomes) == set(queue.outcomes)


def test_its_cost_is_foreseen_and_then_known(whole):
    made, queue = whole
    before = [part for part in expected(made, {}, SENSITIVE[1]) if part.phase == BRACKET]
    assert {(part.optimizer, part.regime.ratio, part.done) for part in before} == {("adamw", 4.0, 0)}
    assert all(part.remaining > 5 for part in before), "a star over all that may scale"
    usual = {part.remaining for part in expected(made, {}) if part.phase == BRACKET}
    assert usual == {made.study.replicates}, "seeds alone, where usually nothing scales"
    after = [part for part in expected(made, queue.standings) if part.phase == BRACKET]
    assert len(after) == 2 and all(part.remaining == 0 and part.done >= 4 for part in after)
    calm = run(plan(), lambda spec: loss(spec, {"adamw": 1.0, "lion": 0.999}))
    assert not [part for part in expected(made, calm.standings) if part.phase == BRACKET and part.remaining]


def test_a_study_without_it_keeps_its_name_and_a_wrong_one_is_refused_with_its_line():
    plain = parse_study(TEXT.replace("bracket: adamw\n", ""))
    assert "bracket" not in plain.text and parse_study(TEXT).text != plain.text
    with pytest.raises(InputError, match=r"study.yaml:13: the baseline 'adam' is not compared.*adamw"):
        parse_study(TEXT.replace("bracket: adamw", "bracket: adam"))
    with pytest.raises(InputError, match=r":13: .*must be a word"):
        parse_study(TEXT.replace("bracket: adamw", "bracket: true"))
