"""Budgets in tokens and steps, and the coordinates that a budget is to tune."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import yaml

from tuneopt import api
from tuneopt.api.budgets import budget, chosen_coordinates, over
from tuneopt.api.questions import question_of
from tuneopt.commands.options import parse_count
from tuneopt.search.noise import SpreadModel
from tuneopt.search.space import load_space
from tuneopt.search.study.budget import TrialTime, draft, study_document
from tuneopt.search.study.file import parse_study
from tuneopt.search.sweep import Sweep
from tuneopt.spec import SCALES, CorpusId, InputError, Regime, ratio_of

NANO = SCALES["nano-65k"]
SPACE = load_space("adamw").on("nano")
CORPUS = CorpusId("text", "00ff", 1024)


@pytest.mark.parametrize(
    ("text", "count"), [("50M", 50_000_000), ("1.5k", 1500), ("2e6", 2_000_000), ("2_000", 2000), ("3B", 3 * 10**9)]
)
def test_counts_are_typed_as_people_write_them(text, count):
    assert parse_count(text, "--tokens") == count


@pytest.mark.parametrize("text", ["", "M", "many", "0", "-5", "1.5", "nan", "inf", "1e30", "50MM"])
def test_what_is_no_count_is_refused(text):
    with pytest.raises(InputError, match=r"^--tokens must be"):
        parse_count(text, "--tokens")


@pytest.mark.parametrize("scale", ["nano-65k", "nano-590k", "130m", "1.2b"])
@pytest.mark.parametrize("tokens", [1, 12_345, 999_999, 50_000_000, 7 * 10**10 + 1])
def test_a_budget_in_tokens_is_met_to_the_token(scale, tokens):
    assert Regime(SCALES[scale], ratio_of(SCALES[scale], tokens), CORPUS).tokens == tokens


def test_steps_are_those_of_the_batch_at_the_start():
    ratio, words = budget(NANO, SPACE, steps=2000)
    batch = int(SPACE.value(SPACE.start, "train_batch_size"))
    assert Regime(NANO, ratio, CORPUS).steps(batch) == 2000
    assert words == f"2,000 steps of {batch} sequences"
    larger = SPACE.begin_at({"train_batch_size": 2 * batch})
    assert Regime(NANO, budget(NANO, larger, steps=2000)[0], CORPUS).steps(2 * batch) == 2000


def test_one_budget_is_taken_and_two_are_refused():
    assert budget(NANO, SPACE) == (1.0, "") and budget(NANO, SPACE, default=None) == (None, "")
    assert budget(NANO, SPACE, ratio=0.5) == (0.5, "")
    with pytest.raises(InputError, match="give --ratio or --steps, not both"):
        budget(NANO, SPACE, ratio=1.0, steps=10)
    with pytest.raises(InputError, match="--ratio must be a positive number, not -1"):
        budget(NANO, SPACE, ratio=-1.0)


def test_the_words_of_a_budget_change_no_id_and_travel_with_it():
    plain = Regime(NANO, 0.5, CORPUS)
    asked = replace(plain, asked="655,360 tokens")
    assert asked == plain and Regime.from_dict(asked.to_dict()).asked == "655,360 tokens"
    assert "asked" not in plain.to_dict()
    first, second = Sweep(SPACE, plain), Sweep(SPACE, asked)
    assert first.id == second.id and first.spec(SPACE.start).id == second.spec(SPACE.start).id


def test_coordinates_that_are_not_named_are_held_at_the_start():
    space = over(SPACE, ("learning_rate", "beta2"))
    assert {axis.name for axis in space.varied} == {"learning_rate", "beta2"} and space.start == SPACE.start
    assert over(SPACE, ()) is SPACE
    with pytest.raises(InputError, match="unknown coordinate 'learningrate' of adamw; did you mean 'learning_rate'"):
        over(SPACE, ("learningrate",))
    assert over(SPACE, ("learning_rate", "momentum"), passing=True).varied[0].name == "learning_rate"
    with pytest.raises(InputError, match="is pinned to one value, so it cannot be tuned"):
        over(SPACE.pin({"learning_rate": 0.01}), ("learning_rate",))
    assert chosen_coordinates((), True) == ("learning_rate",)
    with pytest.raises(InputError, match="--quick tunes the learning rate alone"):
        chosen_coordinates(("beta1",), True)
    with pytest.raises(InputError, match="--coordinates names beta1 twice; keep one"):
        chosen_coordinates(("beta1", "warmup", "beta1"), False)


def test_a_quick_comparison_tunes_the_learning_rate_of_each_at_three_ratios_of_the_baseline():
    question = question_of(
        ["muon"], "adamw", {}, {}, coordinates=api.chosen_coordinates((), True), tokens=600_000, steps=None, ratio=None,
        scale="nano-65k", corpus="embedded", hours=2.0, resolution=None, seed=0, precision="fp32", compile=False,
        slots=2,
    )  # fmt: skip
    times = dict.fromkeys(question.spaces, TrialTime(1.0, 1e5))
    noise = SpreadModel(())
    part = draft(question, times, noise)
    study = parse_study(yaml.safe_dump(study_document(question, part, times, noise)))
    assert [[axis.name for axis in space.varied] for space in study.spaces.values()] == [["learning_rate"]] * 2
    assert len(part.ratios) == 3 and question.asked == "600,000 tokens"
    assert study.regimes("I", CORPUS)[0].tokens == question.regime(part.ratios[0]).tokens == 600_000


def test_commands_say_what_was_asked(tmp_path, monkeypatch, capsys):
    from tuneopt import cli

    def run(*words):
        monkeypatch.setattr("sys.argv", ["tuneopt", *words, "--ledger", str(tmp_path / "ledger")])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, capsys.readouterr()

    code, said = run("tune", "--optimizer", "muon", "--steps", "100", "--quick", "--dry-run", "--json")
    plain = json.loads(said.out)
    assert code == 0 and plain["per_trial"]["steps"] == 100
    assert plain["regime"]["asked"].startswith("100 steps of ") and plain["regime"]["tokens"] > 0
    code, said = run("tune", "--optimizer", "muon", "--tokens", "1M", "--coordinates", "learning_rate", "--dry-run")
    assert code == 0 and "asked: 1,000,000 tokens" in " ".join(said.out.split())
    for words, sentence in (
        (("--tokens", "1M", "--steps", "10"), "give --tokens or --steps, not both"),
        (("--tokens", "lots"), "--tokens must be a count such as 50M or 2000, not 'lots'"),
        (("--quick", "--coordinates", "beta1"), "--quick tunes the learning rate alone"),
        (("--quick", "--set", "learning_rate=0.01"), "is pinned to one value"),
    ):
        code, said = run("tune", "--optimizer", "muon", "--dry-run", *words)
        assert code == 2 and sentence in said.err and said.err.count("\n") == 1
