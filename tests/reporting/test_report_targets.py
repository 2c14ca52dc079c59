"""Sentences of races to a target: nobody is first who ran alone, and what is left out is counted."""

import csv

import pytest

from tuneopt.analysis.noise import NoiseModel
from tuneopt.analysis.targets import TargetTrial, to_target
from tuneopt.reporting.chapters.targets import MOST_RACES
from tuneopt.reporting.compare import compare
from tuneopt.reporting.figures.races import FARTHEST, draw_races, races_info
from tuneopt.reporting.page import build_page
from tuneopt.reporting.sources import gather
from tuneopt.spec import InputError


@pytest.fixture(scope="module")
def races(tmp_path_factory):
    path = tmp_path_factory.mktemp("races") / "races.csv"
    head = ("optimizer", "ruleset", "workload", "study", "trial", "steps", "seconds", "loss", "metric", "best",
            "target", "target_steps", "target_seconds")  # fmt: skip
    rows = []
    for workload in [f"task{number}" for number in range(MOST_RACES)]:
        for optimizer, ruleset, seconds in (("adamw", "external", 60), ("soap", "external", 40), ("lion", "self", 90)):
            reached = "" if (optimizer, workload) == ("lion", "task0") else seconds
            rows += [(optimizer, ruleset, workload, study, 1, 100, 120, 0.5, "loss", 0.5, 0.6, reached, reached)
                     for study in range(3)]  # fmt: skip
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    material = gather(None, results=path)
    return build_page(material, compare(material))


def test_who_ran_alone_is_not_called_the_first(races):
    chapter = next(one for one in races.chapters if one.anchor == "targets")
    told = [*races.sentences, *chapter.lead]
    assert any("is reached first by SOAP in 40 s, then by AdamW in 60 s" in sentence for sentence in told)
    alone = [sentence for sentence in told if "Lion" in sentence]
    assert len(alone) == MOST_RACES and not any("first" in sentence for sentence in alone)
    assert "At task0 (self) Lion, the only optimizer there, does not reach 0.6." in alone
    assert "At task1 (self) Lion, the only optimizer there, reaches 0.6 in 90 s." in alone


def page_of(folder, rows, *targets):
    path = folder / "runs.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    material = gather(None, results=path)
    return build_page(material, compare(material, targets=targets))


def test_a_race_is_drawn_over_what_the_first_one_needs():
    """Who never arrived has no row, who ran alone no race; bounds are those of what the race is ranked by."""
    found = raced({"soap": (40, 50, 60), "adamw": (100, 90, 120), "lion": (None, None, 300)})
    info = races_info([*found, *raced({"muon": (10, 10, 10)}, "alone")])
    (lane,) = info.lanes
    assert (lane.label, lane.never) == ("task to 0.6", 1)
    first, second = lane.points
    assert (first.optimizer, first.times, first.low, first.high) == ("soap", 1.0, 0.8, 1.2)
    assert (second.optimizer, second.times, second.low, second.high) == ("adamw", 2.0, 1.8, 2.4)
    assert (first.needed, second.needed, second.equal) == ("50 s", "100 s", False)
    assert "1 optimizer that did not reach it: no row" in info.reading
    drawn = draw_races(info).plain()
    assert [trace["x"] for trace in drawn["data"] if trace["mode"] == "markers" and trace["x"] != [None]] == [[1], [2]]


def raced(times, task="task"):
    """What each optimizer needs, from the seconds of its studies."""
    trials = [TargetTrial(name, "text", task, "", str(study), 0.6, None, seconds)
              for name, own in times.items() for study, seconds in enumerate(own)]  # fmt: skip
    return to_target([], trials, NoiseModel({}))


def test_a_race_of_optimizers_that_stand_far_behind_stays_readable():
    info = races_info(raced({"soap": (10,) * 3, "adamw": (15,) * 3, "lion": (900,) * 3}))
    drawn = draw_races(info).plain()
    assert 10 ** drawn["layout"]["xaxis"]["range"][1] == pytest.approx(FARTHEST)
    last = [trace for trace in drawn["data"] if trace["mode"] == "markers" and trace["x"] != [None]][-1]
    assert last["x"] == [FARTHEST] and "90.00 times the first: 15 min" in last["text"][0]


def test_equals_are_not_called_the_first(tmp_path):
    rows = [{"optimizer": name, "scale": "130m", "ratio": ratio, "seed": seed, "loss": loss / ratio**0.1}
            for name, loss in (("adamw", 3.3), ("soap", 3.2)) for ratio in (1, 2) for seed in range(2)]  # fmt: skip
    (told,) = [one for one in page_of(tmp_path, rows, 3.4).sentences if "3.4 nats" in one]
    assert told == "At 130M SOAP and AdamW each reach 3.4 nats in 2.68 G tokens or fewer."


def test_a_race_that_was_asked_for_is_the_answer_where_no_speedup_is(tmp_path):
    rows = [{"optimizer": name, "scale": "130m", "ratio": ratio, "seed": seed, "loss": 3.27}
            for name, ratio in (("adamw", 2), ("soap", 1), ("muon", 1.01), ("lion", 1.5))
            for seed in range(4)]  # fmt: skip
    assert page_of(tmp_path, rows).answer.headline.startswith("4 optimizers in 4 regimes, no two in one")
    headline = page_of(tmp_path, rows, 3.28).answer.headline
    assert headline == "SOAP is first to 3.28 nats at 130M, not told from Muon"


def test_the_first_screen_counts_what_it_leaves_out_and_names_who_raced(races):
    chapter = next(one for one in races.chapters if one.anchor == "targets")
    left = len(chapter.lead)
    assert left > 0 and not set(chapter.lead) & set(races.sentences)
    assert races.sentences[-1] == f"{left} more stand under {chapter.title}."
    assert races.compared.endswith(f"AdamW, Lion and SOAP \u00b7 {2 * MOST_RACES} races to a target")


def test_the_tasks_of_a_log_stand_in_one_table_for_each_set_of_rules(races):
    _, external, own = next(one for one in races.chapters if one.anchor == "targets").blocks
    assert external.title == "To the target of each task (external)" and own.title.startswith("To the target")
    assert external.columns[:3] == ("task", "target", "optimizer") and "time" in external.columns
    assert [row[:3] for row in external.rows[:2]] == [("task0", "0.6", "SOAP"), ("task0", "0.6", "AdamW")]
    assert len(external.rows) == 2 * MOST_RACES


def test_a_headline_of_races_says_how_many_are_not_told_apart(tmp_path):
    """Where the studies of two optimizers overlap, the first of them may be first by chance."""
    rows = [{"optimizer": name, "workload": workload, "study": study, "trial": 1, "steps": 100, "seconds": 120,
             "loss": 0.5, "metric": "loss", "best": 0.5, "target": 0.6, "target_steps": 10, "target_seconds": seconds}
            for name, workload, times in (("adamw", "apart", (60, 61, 62)), ("soap", "apart", (40, 41, 42)),
                                          ("adamw", "close", (60, 61, 62)), ("soap", "close", (59, 61, 63)),
                                          ("adamw", "third", (60, 61, 62)), ("soap", "third", (50, 51, 52)))
            for study, seconds in enumerate(times)]  # fmt: skip
    headline = page_of(tmp_path, rows).answer.headline
    assert "(1 of these 3 not told apart from the next)" in headline


def ended(losses, **more):
    """Final losses by optimizer and steps, a seed each; None diverged."""
    return [{"optimizer": name, "parameters": 124_000_000, "tokens": 524_288 * steps, "steps": steps, "seed": seed,
             "loss": loss} | more
            for (name, steps), own in losses.items() for seed, loss in enumerate(own)]  # fmt: skip


def test_many_runs_that_the_rule_accepts_come_before_one_lucky_run(tmp_path):
    rows = ended({("adamw", 5000): [3.2783, 3.2777] * 4, ("muon", 6000): [3.2768, 3.2762] * 4}, hp_learning_rate=0.001)
    rows += ended({("adamw", 5000): [3.2775]}, hp_learning_rate=0.002)
    page = page_of(tmp_path, rows, 3.28, 3.28)
    assert page.answer.headline == "AdamW is first to 3.28 nats at 124M"
    (told,) = [one for one in page.sentences if "3.28 nats" in one]
    assert told == "At 124M, 3.28 nats is reached first by AdamW in 5,000 steps, then by Muon in 6,000 steps."


def test_the_margin_of_the_rule_is_stated_as_it_was_used(tmp_path):
    def note(spread):
        losses = [3.27 + sign * spread for sign in (-1, 1, -1, 1)]
        page = page_of(tmp_path, ended({("adamw", 5000): losses, ("muon", 4000): losses}), 3.28)
        chapter = next(one for one in page.chapters if one.anchor == "targets")
        return next(one.note for one in chapter.blocks if one.kind == "table")

    assert "at least 0.004 nats;" in note(0.0005) and note(0.0005).endswith("by up to 0.0013 nats.")
    assert "at least 0.004 nats;" not in note(0.02) and "by up to 0.0013 nats" not in note(0.02)


def test_steps_of_several_batch_sizes_are_compared_by_their_tokens(tmp_path):
    """Twice the batch makes half the steps of the same text."""
    rows = ended({("adamw", 5000): [3.27, 3.271]})
    other = [row | {"optimizer": "muon", "steps": row["steps"] * 2} for row in rows]
    (told,) = [one for one in page_of(tmp_path, [*rows, *other], 3.28).sentences if "3.28 nats" in one]
    assert told == "At 124M AdamW and Muon each reach 3.28 nats in 2.62 G tokens."
    uncounted = [row | {"optimizer": "muon", "steps": "", "tokens": row["tokens"] // 2} for row in rows]
    (told,) = [one for one in page_of(tmp_path, [*rows, *uncounted], 3.28).sentences if "3.28 nats" in one]
    assert "first by Muon in 1.31 G tokens, then by AdamW in 2.62 G tokens" in told


def test_a_target_that_the_shortest_runs_reach_may_need_fewer(tmp_path):
    rows = ended({("adamw", 5000): [3.27, 3.271], ("adamw", 6000): [3.25, 3.251],
                  ("muon", 3000): [3.32, 3.321], ("muon", 4000): [3.28, 3.281]})  # fmt: skip
    page = page_of(tmp_path, rows, 3.3)
    assert page.answer.headline == "Muon is first to 3.3 nats at 124M, of the lengths that were run"
    (told,) = [one for one in page.sentences if "3.3 nats" in one]
    assert "first by Muon in 4,000 steps, then by AdamW in 5,000 steps or fewer." in told
    page = page_of(tmp_path, rows, 3.275)
    assert page.answer.headline == "AdamW is first to 3.275 nats at 124M"


def test_a_race_names_the_runs_that_diverged(tmp_path):
    rows = ended({("adamw", 5000): [3.27, None, None, None, None], ("muon", 6000): [3.271, 3.272, 3.273]})
    page = page_of(tmp_path, rows, 3.28)
    assert page.answer.headline == "AdamW is first to 3.28 nats at 124M, where 4 of its 5 runs diverged"
    assert any(one.endswith(" are in no mean: 4 of 5 of AdamW.") for one in page.sentences)


def test_races_to_two_targets_are_two_races(tmp_path):
    rows = [{"optimizer": name, "workload": "w", "target_seconds": seconds, "target": target}
            for name, seconds, target in (("nadamw", 100, 3.0), ("shampoo", 80, 3.5))]  # fmt: skip
    assert not any(one.startswith("Areas") for one in page_of(tmp_path, rows).sentences)
    met = [row | {"target": target} for row in rows for target in (3.0, 3.5)]
    assert page_of(tmp_path, met).answer.headline.startswith("First to the target in 2 races: Shampoo in 2")


def test_seconds_are_not_compared_with_steps(tmp_path):
    rows = [{"optimizer": "nadamw", "workload": "w", "target_seconds": "", "target_steps": 1000},
            {"optimizer": "shampoo", "workload": "w", "target_seconds": 80, "target_steps": 900}]  # fmt: skip
    page = page_of(tmp_path, rows)
    assert any("first by Shampoo in 900 steps, then by NAdamW in 1,000 steps" in one for one in page.sentences)
    assert page.answer.headline == "Shampoo is first to the target at w, not told from NAdamW"
    table = next(one for one in page.chapters if one.anchor == "targets").blocks[-1]
    assert table.note.endswith(" Seconds are not compared at w, where some results have none.")
    with pytest.raises(InputError, match=r"no seconds to the target \(nadamw\) and some no steps \(shampoo\)"):
        page_of(tmp_path, [rows[0], rows[1] | {"target_steps": ""}])


def test_a_target_beside_a_log_that_has_its_own_is_refused(tmp_path):
    rows = [{"optimizer": "nadamw", "workload": "w", "target_seconds": 80}]
    with pytest.raises(InputError, match="when their own target was reached; leave the target out"):
        page_of(tmp_path, rows, 3.28)


@pytest.mark.parametrize(("unit", "words"), [("seconds", "in the same time"), ("steps", "after equally many steps")])
def test_equals_of_a_log_are_equal_in_the_unit_of_the_race(tmp_path, unit, words):
    rows = [{"optimizer": name, "workload": "w", f"target_{unit}": 80} for name in ("nadamw", "shampoo")]
    assert page_of(tmp_path, rows).answer.headline == f"NAdamW and Shampoo reach the target at w {words}"


def test_a_target_that_some_studies_reach_is_not_called_missed(tmp_path):
    def log(**times):
        return [{"optimizer": name, "workload": "w", "study": study, "target_seconds": seconds}
                for name, own in times.items() for study, seconds in enumerate(own)]  # fmt: skip

    page = page_of(tmp_path, log(nadamw=(100, None, None), shampoo=(200, 210, None)))
    assert page.answer.headline == "Shampoo is first to the target at w, not told from NAdamW"
    assert (
        "At w Shampoo alone reaches the target in most of its studies, in 3.5 min. Shampoo cannot be told from NAdamW "
        "there. In some studies only it was reached by NAdamW (1 of 3)."
    ) in page.sentences
    page = page_of(tmp_path, log(nadamw=(100, None, None), shampoo=(200, None, None)))
    assert page.answer.headline == "No optimizer reaches the target in most studies in the one task"
    assert any(one.startswith("No optimizer reaches the target in most of its studies at w.") for one in page.sentences)


def test_races_on_several_corpora_name_them(tmp_path):
    rows = []
    for corpus, (adamw, muon) in (("web", (5000, 6000)), ("code", (6000, 5000))):
        rows += ended({("adamw", adamw): [3.27, 3.271], ("muon", muon): [3.27, 3.271]}, corpus=corpus)
    told = [one for one in page_of(tmp_path, rows, 3.28).sentences if "first by" in one]
    assert [one.split(" in 5,000")[0] for one in told] == [
        "At web 124M, 3.28 nats is reached first by AdamW", "At code 124M, 3.28 nats is reached first by Muon"
    ]  # fmt: skip


def test_areas_under_profiles_say_which_tasks_they_are_over(tmp_path):
    def areas(*ran):
        rows = [{"optimizer": name, "workload": task, "target_seconds": seconds} for name, task, seconds in ran]
        return next(one for one in page_of(tmp_path, rows).sentences if one.startswith("Areas"))

    both = [("nadamw", "v", 100), ("muon", "v", 80)]
    assert areas(*both).endswith(": Muon 1.000, NAdamW 0.917.")
    assert areas(*both, ("nadamw", "w", 9)).endswith(
        " They are over 1 of the 2 tasks: one optimizer alone ran the rest."
    )
    told = areas(*both, ("nadamw", "w", 9), ("soap", "w", 9), ("soap", "v", 90))
    assert told.endswith(" A task that one did not run counts as not reached: Muon ran 1 of 2.")
