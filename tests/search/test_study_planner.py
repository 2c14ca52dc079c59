"""Studies on surfaces: phases, sensitivity, predictions, limits, resuming, equal budgets."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_helpers import drive

from tuneopt.run.simulated import as_outcome
from tuneopt.search.descent import CERTIFIED
from tuneopt.search.plan import Ended
from tuneopt.search.queue import Limits, SchedulerQueue
from tuneopt.search.standing import REPEATED
from tuneopt.search.study.cost import needs, plan_document
from tuneopt.search.study.expected import SENSITIVE, USUALLY_SENSITIVE, expected, forecasts
from tuneopt.search.study.file import parse_study
from tuneopt.search.study.planner import StudyPlan
from tuneopt.search.study.spent import SEEDS, START, spent
from tuneopt.search.study.status import RunUnderWay, results, status_document
from tuneopt.spec import CorpusId, TrialSpec

TEXT = """\
name: small
optimizers:
  adamw: {set: {beta1: 0.9, beta2: 0.95, epsilon: 1e-10, max_grad_norm: 1, train_batch_size: 16, warmup: 0.1},
          grid: {learning_rate: [0.004, 0.008, 0.016], weight_decay: [0, 0.1, 0.2]}}
  lion: {set: {beta1: 0.9, beta2: 0.95, max_grad_norm: 1, train_batch_size: 16, warmup: 0.1},
         grid: {learning_rate: [0.001, 0.002, 0.004], weight_decay: [0.1, 0.2]}}
scales: [nano-65k, nano-147k]
ratios: [1, 2]
corpus: made-up
phase_1: {regimes: {nano-65k: [1, 2], nano-147k: [1]}}
phase_2: {regimes: rest}
phase_3: {regimes: {nano-262k: [1]}, star: true}
replicates: 2
"""
CORPUS = CorpusId("made-up", "00ff", 1024)
BEST_RATE = {"nano-65k": 0.016, "nano-147k": 0.004, "nano-262k": 0.002}


def loss(spec: TrialSpec) -> float | None:
    """AdamW's best rate falls with the scale; Lion's is the same everywhere; weight decay hardly matters."""
    rate = float(spec.config["learning_rate"])
    best = BEST_RATE[spec.regime.scale.name] if spec.optimizer == "adamw" else 0.002
    steps = abs(rate / best - 1) if rate > best else abs(best / rate - 1)
    noise = 1e-4 * random.Random(spec.id).gauss(0, 1)
    return 4.0 + 0.05 * steps + 0.001 * float(spec.config["weight_decay"]) + noise


def plan(text: str = TEXT, **changes) -> StudyPlan:
    return StudyPlan(replace(parse_study(text), **changes), CORPUS)


def run(made: StudyPlan, slots: int = 7, evaluate=loss, **rest) -> SchedulerQueue:
    pool = SchedulerQueue(made, **rest)
    drive(pool, evaluate, slots=slots, duration=lambda spec: float(spec.regime.tokens))
    return pool


@pytest.fixture(scope="module")
def whole() -> tuple[StudyPlan, SchedulerQueue]:
    made = plan()
    return made, run(made)


def certificates(made: StudyPlan, pool: SchedulerQueue) -> dict:
    return {(each.optimizer, each.regime.label): (each.certified, each.best) for each in results(made, pool.standings)}


def test_all_three_phases_end_with_certificates(whole):
    made, pool = whole
    assert pool.finished and not pool.stopped
    held = results(made, pool.standings)
    assert len(held) == 2 * (3 + 1 + 1)
    assert all(each.standing.claim in (CERTIFIED, REPEATED) for each in held)
    assert [each.phase for each in held if each.optimizer == "lion"] == ["I"] * 3 + ["II", "III"]


def test_only_what_no_value_serves_everywhere_is_sensitive_and_swept_on(whole):
    made, pool = whole
    standings = pool.standings
    assert made.finding("adamw", standings).sensitive == ("learning_rate",)
    assert made.finding("lion", standings).sensitive == ()
    assert made.finding("lion", standings).shared["learning_rate"] == 0.002
    for standing in standings.values():
        if standing.task.phase == "II":
            varied = [axis.name for axis in standing.task.sweep.space.axes if not axis.pinned]
            assert varied == (["learning_rate"] if standing.task.optimizer == "adamw" else [])


@pytest.mark.parametrize("salt", range(4))
def test_the_winner_is_carried_on_and_not_the_luckiest_value_of_each_coordinate(salt):
    """With one regime in Phase I, where runs scatter by more than values matter and no coordinate scales.

    The winner is what the seeds of the finish ended on; the search alone often ends on its start.
    """
    made = plan(TEXT.replace("{nano-65k: [1, 2], nano-147k: [1]}", "{nano-65k: [1]}"))

    def noisy(spec: TrialSpec) -> float:
        return 4.0 + 0.03 * random.Random(f"{salt} {spec.id}").gauss(0, 1)

    pool = run(made, evaluate=noisy)
    for name in made.study.optimizers:
        assert made.finding(name, pool.standings).sensitive == ()
        mine = [each for each in pool.standings.values() if each.task.optimizer == name]
        (first,) = (each.state.descent for each in mine if each.task.phase == "I")
        for each in mine:
            if each.task.phase in ("II", "III"):
                assert each.task.sweep.space.start == first.incumbent


def test_one_bar_is_asked_of_every_optimizer_in_every_phase(whole):
    made, pool = whole
    names = tuple(made.study.optimizers)
    tasks = [standing.task for standing in pool.standings.values()]
    assert len(names) > 1 and {task.phase for task in tasks} >= {"I", "II", "III"}
    assert {task.evidence.optimizers for task in tasks} == {names}


def test_the_prediction_runs_and_its_distance_from_a_star_is_known(whole):
    made, pool = whole
    third = {each.optimizer: each for each in results(made, pool.standings) if each.phase == "III"}
    assert third["lion"].distance == pytest.approx(0, abs=0.003)
    assert third["adamw"].distance is not None and third["adamw"].distance >= 0
    forecast = next(iter(made.finding("adamw", pool.standings).forecasts.values()))
    assert third["adamw"].standing.task.sweep.space.start == forecast.config


def test_without_a_star_only_the_predicted_configuration_runs():
    made = plan(star=False)
    pool = run(made)
    for standing in pool.standings.values():
        if standing.task.phase == "III":
            assert {spec.hyperparameters for spec in standing.state.needed} == {standing.task.sweep.space.start}
            assert len(standing.trials) == made.study.replicates


def test_slots_change_the_clock_and_nothing_else(whole):
    made, pool = whole
    for slots in (1, 64):
        other = plan()
        assert certificates(other, run(other, slots)) == certificates(made, pool)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_killed_at_any_moment_it_ends_with_the_same_certificates(whole, data):
    made, pool = whole
    order = list(pool.outcomes)
    kept = set(data.draw(st.lists(st.sampled_from(order), unique=True, max_size=len(order))))
    kept |= set(order[: data.draw(st.integers(0, len(order)))])
    again = plan()
    resumed = SchedulerQueue(again, known=lambda spec: Ended(pool.outcomes[spec.id], 1.0) if spec.id in kept else None)
    clock = drive(resumed, loss, slots=data.draw(st.integers(1, 9)))
    assert certificates(again, resumed) == certificates(made, pool)
    assert not {each.spec.id for each in clock.runs} & kept, "a finished trial ran twice"


def test_trials_that_are_lost_block_nothing():
    made = plan()
    lost = {spec.id for tasks in made.first.values() for task in tasks for spec in task.sweep.state({}).pending[2:3]}
    pool = SchedulerQueue(made)
    drive(pool, loss, slots=5, crashes=lambda spec: spec.id in lost)
    assert pool.finished and pool.gave_up == lost
    assert not all(each.certified for each in results(made, pool.standings))


def test_a_limit_on_trials_stops_cleanly_and_goes_on_when_raised(whole):
    made, pool = whole
    stopped = run(plan(), limits=Limits(max_trials=50))
    assert len(stopped.outcomes) == 50 and stopped.stopped == "max_trials 50" and stopped.idle
    again = plan()
    resumed = run(again, known=lambda spec: Ended(stopped.outcomes[spec.id]) if spec.id in stopped.outcomes else None)
    assert certificates(again, resumed) == certificates(made, pool)


def test_a_limit_on_device_time_is_not_overrun():
    def seconds(spec: TrialSpec) -> float:
        return float(spec.regime.tokens)

    most = 30 * seconds(next(iter(plan().first["adamw"])).sweep.state({}).pending[0])
    pool = run(plan(), limits=Limits(max_device_seconds=most), expected=seconds)
    assert pool.stopped.startswith("max_device_hours") and pool.idle
    assert 0.7 * most < pool.device_seconds <= most


def test_the_budget_record_counts_every_trial_once(whole):
    _, pool = whole
    rows = spent(pool.standings, pool.outcomes, pool.seconds)
    assert sum(row.trials for row in rows) == len(pool.outcomes)
    assert sum(row.device_seconds for row in rows) == pytest.approx(pool.device_seconds)
    kinds = {row.coordinate for row in rows}
    assert {START, SEEDS, "learning_rate", "weight_decay"} <= kinds
    first = {(row.optimizer, row.coordinate): row.trials for row in rows if row.phase == "I"}
    assert first["adamw", START] == 3


def test_matched_budgets_are_equal_in_every_regime():
    made = plan(match_budget=True)
    pool = run(made)
    trials: dict[tuple[str, str], set[str]] = {}
    for standing in pool.standings.values():
        place = (standing.task.sweep.regime.label, standing.task.optimizer)
        trials.setdefault(place, set()).update(standing.trials)
    for label in {label for label, _ in trials}:
        counts = {name: len(ids) for (where, name), ids in trials.items() if where == label}
        assert len(set(counts.values())) == 1, (label, counts)
    assert pool.finished and any(standing.task.phase == "match" for standing in pool.standings.values())
    again = plan(match_budget=True)
    resumed = SchedulerQueue(again, known=lambda spec: Ended(pool.outcomes[spec.id]))
    assert resumed.finished and set(resumed.outcomes) == set(pool.outcomes)


def test_a_sweep_that_all_diverges_begins_again_lower():
    def stormy(spec: TrialSpec) -> float | None:
        rate = float(spec.config["learning_rate"])
        diverges = spec.optimizer == "adamw" and spec.regime.scale.name == "nano-147k" and rate > 0.0025
        return None if diverges else loss(spec)

    text = TEXT.replace("[0.004, 0.008, 0.016]", "[0.016, 0.032]")
    made = plan(text)
    pool = run(made, evaluate=stormy)
    again = [each for each in results(made, pool.standings) if each.attempts > 1]
    ended = results(made, pool.standings)
    assert again and all(each.standing.claim in (CERTIFIED, REPEATED) and each.best is not None for each in ended)
    assert again[0].regime.scale.name == "nano-147k"
    assert float(again[0].best.spec.config["learning_rate"]) <= 0.0025


def test_the_status_tells_phases_limits_and_what_is_left(whole):
    made, pool = whole
    done = status_document(made, pool)
    assert (done["phase"], done["finished"], done["eta_seconds"]) == ("done", True, 0)
    assert done["trials"]["ended"] == len(pool.outcomes) == sum(part["ended"] for part in done["phases"])
    half = run(plan(), limits=Limits(max_trials=40))
    trial = next(iter(next(each for each in half.standings.values() if each.pending).pending)).id
    under_way = status_document(plan(), half, RunUnderWay(4, {trial: 0.5, "abc": 0.0}))
    assert under_way["phase"] == "I" and not under_way["finished"]
    assert under_way["trials"]["running"] == 2 and under_way["eta_seconds"] > 0
    known, ahead = under_way["running"]
    assert (known["optimizer"], known["fraction"], ahead["optimizer"]) == ("adamw", 0.5, None)


def test_expectations_come_true_within_a_factor(whole):
    made, pool = whole
    before = sum(each.trials for each in expected(plan(), SchedulerQueue(plan()).standings))
    assert 0.4 < before / len(pool.outcomes) < 2.5
    after = expected(made, pool.standings)
    assert sum(each.remaining for each in after) == 0


def test_what_may_be_found_to_scale_is_the_range_of_a_forecast_until_it_is_known(whole):
    made, pool = whole

    def trials(agenda, standings):
        guesses = (SENSITIVE[0], USUALLY_SENSITIVE["paper"], SENSITIVE[1], None)
        return [sum(each.trials for each in expected(agenda, standings, guess)) for guess in guesses]

    fewest, on_paper, most, usual = trials(plan(), SchedulerQueue(plan()).standings)
    assert fewest == usual < on_paper <= most, "usually none on the nano ladder; spaces without a warmup have no third"
    assert len(set(trials(made, pool.standings))) == 1


def test_the_document_of_a_plan_has_the_range_of_trials_and_hours(whole):
    document = plan_document(
        plan(),
        forecasts(plan(), {}),
        lambda optimizer, regime: 36.0,
        needs(plan().study, [("adamw", plan().regimes("I")[0])], lambda shape: 1, lambda name: 2.0),
        off=(0.5, 2.0),
        slots=2,
        device_bytes=None,
        free_disk=None,
    )
    for part in (document["total"], document["left"]):
        assert part["trials_low"] <= part["trials"] < part["trials_high"]
        assert part["device_hours"] == pytest.approx(part["trials"] / 100)
        assert part["device_hours_low"] == pytest.approx(part["trials_low"] / 200)
        assert part["device_hours_high"] == pytest.approx(part["trials_high"] / 50)


def test_outcomes_told_in_another_order_lead_to_the_same_tasks(whole):
    _, pool = whole
    other = SchedulerQueue(plan())
    queue = []
    draw = random.Random(3)
    while not other.idle or queue:
        while (spec := other.next()) is not None:
            queue.append(spec)
        spec = queue.pop(draw.randrange(len(queue)))
        other.tell(spec, Ended(as_outcome(loss(spec))))
    assert set(other.standings) == set(pool.standings)
    assert other.outcomes == pool.outcomes
