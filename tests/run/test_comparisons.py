"""Comparisons within a budget, on the simulator: what they cost, that they are fair, that they can be killed, and that
what they state is so."""

from __future__ import annotations

import dataclasses
import re

import pytest
from comparison_worlds import MINUTE, planned, trials_at_home, true_speedup

from tuneopt.api.comparing import _simulated, comparison_plan, simulate_comparison
from tuneopt.api.questions import plan_text
from tuneopt.constants import DIFFERENCE_95
from tuneopt.run.options import RunOptions
from tuneopt.run.simulated import SimulatedBackend
from tuneopt.run.spine import run
from tuneopt.search.noise import SigmaLaw, SpreadModel, tuning_error
from tuneopt.search.plan import Ended
from tuneopt.search.queue import SchedulerQueue
from tuneopt.search.study import surfaces
from tuneopt.search.study.budget import (
    CARES,
    LEAST_STEPS,
    STARTING_SECONDS,
    TrialTime,
    device_seconds,
    draft,
    study_document,
)
from tuneopt.search.study.comparison import BASELINE, FEWEST_RATIOS, SEEDS, TUNING, further_ratio, rules_of
from tuneopt.search.study.expected import expected
from tuneopt.search.study.file import parse_study
from tuneopt.search.study.planner import StudyPlan
from tuneopt.search.study.surfaces import Surfaces
from tuneopt.spec import CorpusId, InputError


def as_priced(plan):
    """How long a trial takes if the plan's step times are right."""
    return lambda spec: plan.times[spec.optimizer].seconds(spec.regime.tokens)


@pytest.mark.parametrize(
    "rivals, minutes, about",
    [
        (("soap",), 5, {}),
        (("soap",), 8, {}),
        (("soap", "muon"), 20, {}),
        (("lion",), 30, {"slots": 1}),
        (("muon",), 30, {"slots": 8, "scale": "nano-147k"}),
    ],
)
def test_a_comparison_costs_what_it_was_planned_for(rivals, minutes, about):
    plan = planned(*rivals, minutes=minutes, **about)
    result = simulate_comparison(plan)
    assert result.spent_hours == pytest.approx(minutes * MINUTE, rel=0.15)
    assert plan.planned_hours <= minutes * MINUTE * 1.001
    assert result.certified and not result.stopped


def test_every_optimizer_gets_the_same_number_of_trials_where_they_meet():
    for rivals in (("soap", "muon"), ("lion", "kron")):
        plan = planned(*rivals, minutes=20)
        for seed in (0, 50):
            study = dataclasses.replace(plan.study, seed=seed)
            queue, _, _ = _simulated(study, plan.question, plan.times, None)
            counts = trials_at_home(plan, queue)
            assert set(counts) == {"adamw", *rivals}
            assert len(set(counts.values())) == 1, counts


def test_a_comparison_that_was_killed_ends_as_it_would_have():
    plan = planned("soap")
    noise = SigmaLaw().at(65536)
    worlds = Surfaces(plan.study, noise=noise)

    def queue(known: dict[str, Ended]) -> SchedulerQueue:
        agenda = StudyPlan(plan.study, CorpusId(plan.study.corpus, "", plan.study.vocabulary))
        return SchedulerQueue(agenda, known=lambda spec: known.get(spec.id), study=("comparison", "id"))

    def drive(known: dict[str, Ended]) -> SchedulerQueue:
        going = queue(known)
        run(going, SimulatedBackend(worlds.evaluate, slots=2, duration=as_priced(plan)), RunOptions())
        return going

    whole = drive({})
    ended = list(whole.outcomes.items())
    assert len(ended) > 30
    for count in (0, 1, 7, 14, 15, 28, len(ended) - 1, len(ended)):
        again = drive({trial: Ended(outcome, whole.seconds[trial]) for trial, outcome in ended[:count]})
        assert again.outcomes == whole.outcomes
        assert set(again.standings) == set(whole.standings)
        assert len(again.reused) == count


def test_the_statement_is_true_of_what_was_tuned():
    plan = planned("soap")
    inside, said = 0, 0
    for seed in range(10):
        result = simulate_comparison(plan, seed=100 * seed)
        (row,) = result.speedups
        truth = true_speedup(plan, result, "soap")
        inside += row["low"] <= truth <= row["high"]
        faster = row["low"] > 1
        said += faster == ("fewer tokens" in result.statement)
        assert f"{row['speedup']:.2f}x" in result.statement
    assert said == 10
    assert inside >= 7, "90% intervals: six or fewer of ten would come once in eighty times"


@pytest.mark.parametrize("speedup, beyond", [(3.0, True), (1.3, False), (0.6, True)])
def test_the_baseline_is_run_where_the_rivals_losses_land(monkeypatch, speedup, beyond):
    monkeypatch.setattr(surfaces, "published_speedup", lambda optimizer: 1.0 if optimizer == "adamw" else speedup)
    plan = planned("soap", minutes=20)
    result = simulate_comparison(plan)
    ratios = sorted(row["ratio"] for row in result.status["results"] if row["optimizer"] == "adamw")
    first = list(rules_of(plan.study).ratios)
    assert (ratios != first) == beyond
    if speedup > 1:
        assert ratios[-1] >= first[-1] and "extrapolated" not in result.statement
    else:
        assert ratios[0] < first[0]
    (row,) = result.speedups
    assert "extrapolated" not in row["flags"]
    assert row["speedup"] == pytest.approx(true_speedup(plan, result, "soap"), rel=0.15)


def test_further_ratios_go_up_before_they_go_down_and_stop_inside():
    line = {1.0: 4.0, 2.0: 3.8}
    assert further_ratio(line, [3.9]) is None
    assert further_ratio(line, [3.75]) == 4
    assert further_ratio(line, [4.05]) == 0.5
    assert further_ratio(line, [3.75, 4.05]) > 2
    assert further_ratio(line, [3.82], margin=0.05) > 2, "too near the end for its interval to lie inside"
    assert further_ratio(line, []) is None


def test_a_larger_budget_never_asks_for_less():
    known = [planned("soap", minutes=minutes) for minutes in (5, 8, 12, 20, 40, 80)]
    ratios = [rules_of(plan.study).ratios[0] for plan in known]
    assert ratios == sorted(ratios)
    for plan in known:
        rules = rules_of(plan.study)
        assert len(rules.ratios) >= FEWEST_RATIOS and rules.seeds >= CARES[0].seeds
        names = [[axis.name for axis in space.varied] for space in plan.study.spaces.values()]
        assert all(listed[0] == "learning_rate" or "learning_rate" in listed for listed in names)
        most = max(len(listed) for listed in names)
        for space, listed in zip(plan.question.spaces.values(), names, strict=True):
            assert len(listed) == min(most, len(space.varied)), "as many for each, or all that it has"
    steps = known[1].question.regime(ratios[1]).tokens / (8 * 128)
    assert steps >= LEAST_STEPS, "eight minutes are enough for runs that tell something"


def test_what_is_too_small_is_refused_with_what_would_do():
    with pytest.raises(InputError, match="too few") as refused:
        comparison_plan(["soap"], hours=1 * MINUTE, slots=2, ledger="nowhere")
    enough = int(str(refused.value).partition("about ")[2].partition(" minutes")[0])
    assert comparison_plan(["soap"], hours=enough * MINUTE, slots=2, ledger="nowhere").planned_hours > 0
    tokens = int(str(refused.value).partition("--tokens ")[2].partition(" ")[0])
    shorter = comparison_plan(["soap"], hours=1 * MINUTE, tokens=tokens, slots=2, ledger="nowhere")
    assert shorter.planned_hours <= 1.001 * MINUTE, "four digits of it are kept"
    with pytest.raises(InputError, match="or more, or take a smaller scale"):
        comparison_plan(["soap"], hours=0.6 * MINUTE, slots=2, ledger="nowhere", scale="1.2b", tokens_per_second=1.0)


def test_a_hopeless_budget_is_refused_before_steps_are_timed(tmp_path):
    told = []
    with pytest.raises(InputError, match="too few"):
        comparison_plan(["muon"], hours=15 * MINUTE, scale="6x384,seq=256", ledger=str(tmp_path), slots=2, measure=True,
                        note=told.append)  # fmt: skip
    assert told == []


def test_a_resolution_is_planned_backwards():
    hours = []
    for resolution in (0.06, 0.03, 0.015):
        plan = comparison_plan(["soap"], resolution=resolution, slots=2, ledger="nowhere")
        assert plan.powers[0].nats <= resolution
        hours.append(plan.planned_hours)
    assert hours == sorted(hours) and hours[-1] > 2 * hours[0]
    half = comparison_plan(["soap"], resolution=0.06, slots=2, ledger="nowhere").powers[0]
    assert half.halving_seeds == 4 * half.seeds


def test_what_a_plan_tells_apart_counts_the_choice_of_configurations():
    """As the intervals of its report will: no number of seeds comes below what tuning leaves open."""
    floor = DIFFERENCE_95 * tuning_error(SigmaLaw().at(65536))
    for resolution in (0.03, 0.015):
        power = comparison_plan(["soap"], resolution=resolution, slots=2, ledger="nowhere").powers[0]
        assert floor < power.tuned_nats == pytest.approx((power.nats**2 + floor**2) ** 0.5)
        assert power.tuned_speedup > power.speedup


def test_a_plan_is_kept_and_found_again_by_the_same_question(tmp_path):
    about = {"hours": 8 * MINUTE, "slots": 2, "ledger": str(tmp_path / "ledger")}
    first = comparison_plan(["soap"], keep=True, **about)
    again = comparison_plan(["soap"], tokens_per_second=10_000.0, **about)
    assert not first.stored and again.stored
    assert again.text == first.text and again.study == first.study
    other = comparison_plan(["soap"], tokens_per_second=10_000.0, seed=1, **about)
    assert not other.stored and other.text != first.text


def test_the_study_file_says_everything(tmp_path):
    plan = planned("soap")
    assert parse_study(plan.text).text == plan.study.text
    assert "learning_rate" in plan.text and "# Step times:" in plan.text
    phases = {
        standing.task.phase
        for standing in _simulated(plan.study, plan.question, plan.times, None)[0].standings.values()
    }
    assert phases == {TUNING, SEEDS, BASELINE}


@pytest.mark.parametrize(
    "change, told",
    [
        (("baseline: adamw", "baseline: adam"), "is not compared"),
        (("ratios: [0.5, 0.7071, 1.0]", "ratios: [1.0, 0.7071]"), "first of its ratios"),
        (("ratios: [0.5, 0.7071, 1.0]", "ratios: [0.5, 0.5]"), "listed twice"),
        (("trials: 7", "trial: 7"), "unknown key 'trial' of comparison"),
        (("seeds: 3", "seeds: 0"), "seeds must be at least 1"),
        (("coordinates: [learning_rate, weight_decay]", "coordinates: [learning_rat]"), "learning_rate"),
        (("policy: model", "policy: model\nmatch_budget: true"), "has no match_budget"),
    ],
)
def test_mistakes_in_a_comparison_are_named_with_their_line(change, told):
    text = planned("soap").text
    assert change[0] in text
    with pytest.raises(InputError, match=r"study\.yaml:\d+: ") as refused:
        parse_study(text.replace(*change))
    assert told in str(refused.value)


def test_what_is_expected_of_a_comparison_shrinks_to_nothing():
    """The reserve is spent once: when it has become seeds, nobody is promised its further ratio any more."""
    plan = planned("soap")
    worlds = Surfaces(plan.study, noise=SigmaLaw().at(65536))
    agenda = StudyPlan(plan.study, CorpusId(plan.study.corpus, "", plan.study.vocabulary))
    queue = SchedulerQueue(agenda, study=("comparison", "id"))
    run(queue, SimulatedBackend(worlds.evaluate, slots=2, duration=as_priced(plan)), RunOptions())
    order = list(queue.outcomes.items())
    ratios = {spec.regime.ratio for standing in queue.standings.values() for spec in standing.state.needed}
    assert ratios == set(rules_of(plan.study).ratios), "in this world the reserve becomes seeds"
    for count in range(len(order) * 3 // 4, len(order) + 1):
        known = {trial: Ended(outcome, queue.seconds[trial]) for trial, outcome in order[:count]}
        going = SchedulerQueue(agenda, known=lambda spec, known=known: known.get(spec.id), study=("comparison", "id"))
        left = sum(part.remaining for part in expected(agenda, going.standings))
        assert left <= len(order) - count + 2, (count, left)
        assert left or count == len(order)


@pytest.mark.parametrize("pace", [0.75, 0.85, 1.0, 1.15, 1.3])
@pytest.mark.parametrize("rivals, minutes", [(("soap",), 8), (("soap", "muon"), 20)])
def test_a_machine_that_is_faster_or_slower_than_its_steps_were_takes_as_long(rivals, minutes, pace):
    """What trials take besides their price comes out of the seeds that the reserve would buy, or goes into them."""
    plan = planned(*rivals, minutes=minutes)
    slower = {name: TrialTime(pace * time.fixed, time.rate / pace) for name, time in plan.times.items()}
    queue, seconds, _ = _simulated(plan.study, plan.question, slower, None)
    assert seconds + STARTING_SECONDS == pytest.approx(60 * minutes, rel=0.15)
    counts = trials_at_home(plan, queue)
    assert len(set(counts.values())) == 1, counts
    known = {trial: Ended(outcome, queue.seconds[trial]) for trial, outcome in queue.outcomes.items()}
    again = SchedulerQueue(queue.agenda, known=lambda spec: known.get(spec.id), study=("comparison", "id"))
    assert again.finished and set(again.outcomes) == set(queue.outcomes), "what trials took is all that decides"


@pytest.mark.parametrize("rates", [{"adamw": 6e4, "soap": 1.5e4}, {"adamw": 1.5e4, "soap": 6e4}])
def test_what_the_reserve_becomes_costs_no_more_than_it_held(rates):
    """Where a trial's fixed seconds weigh much, and a rival's tokens take longer or shorter than the baseline's."""
    question = planned("soap").question
    times = {name: TrialTime(12.0, rate) for name, rate in rates.items()}
    part = draft(question, times, SpreadModel({}))
    study = parse_study(plan_text(study_document(question, part, times, SpreadModel({})), part, times, "given"))
    for seed in range(5):
        queue, _, _ = _simulated(dataclasses.replace(study, seed=seed), question, times, None)
        specs = {spec.id: spec for standing in queue.standings.values() for spec in standing.state.needed}
        spent = sum(times[specs[trial].optimizer].seconds(specs[trial].regime.tokens) for trial in queue.outcomes)
        assert spent <= 1.02 * device_seconds(part, question, times)
        rules = rules_of(study)
        assert len(queue.outcomes) > 2 * (rules.trials + rules.seeds - 1) + 2 * (rules.rate_trials + rules.seeds - 1)


def test_prices_belong_to_optimizers_that_are_compared():
    text = planned("soap").text
    assert {"adamw", "soap"} == set(rules_of(parse_study(text)).prices)
    with pytest.raises(InputError, match="priced optimizer 'lion' is not compared"):
        parse_study(text.replace("    soap: [", "    lion: ["))
    with pytest.raises(InputError, match="prices lack soap"):  # its seconds would be counted as trials
        parse_study(re.sub(r"    soap: \[.*\]\n", "", text))
    with pytest.raises(InputError, match="two numbers of seconds"):
        parse_study(re.sub(r"    soap: \[.*\]", "    soap: [3]", text))
    without = re.sub(r"  prices:\n(    .*\n)+", "", text)
    assert "prices" not in parse_study(without).text, "comparisons from before there were any keep their ids"
    assert rules_of(parse_study(without)).price("soap", 0.5) == 0.5
