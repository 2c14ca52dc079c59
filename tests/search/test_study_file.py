"""Study files: the ones in the repository, and every kind of mistake with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneopt.constants import NEAR_OPTIMAL
from tuneopt.declared import MAX_BYTES
from tuneopt.search.study.file import parse_study, read_study
from tuneopt.spec import SCALES, CorpusId, Evaluation, InputError, Regime

STUDIES = Path(__file__).resolve().parents[2] / "studies"

GOOD = """\
name: small
optimizers: [adamw, muon]
scales: [nano-65k, nano-147k]
ratios: [1, 2]
corpus: embedded
phase_1:
  regimes:
    nano-65k: [1, 2]
phase_2:
  regimes: rest
phase_3:
  regimes: {nano-262k: [1]}
  star: true
replicates: 2
limits:
  max_trials: 500
"""


def mistaken(old: str, new: str) -> str:
    assert GOOD.count(old) == 1, f"{old!r} stands once in the text"
    return GOOD.replace(old, new)


def test_the_paper_study_is_complete():
    study = read_study(STUDIES / "paper.yaml")
    assert len(study.optimizers) == 11
    assert study.phase_1 == (("130m", 1), ("130m", 2), ("130m", 4), ("130m", 8), ("300m", 1), ("520m", 1))
    assert len(study.phase_1) + len(study.phase_2) == 12
    assert {scale for scale, _ in study.phase_2} == {"300m", "520m"}
    assert study.phase_3 == (("1.2b", 1), ("1.2b", 2), ("1.2b", 4), ("1.2b", 8))
    assert (study.tolerance, study.near_optimal, study.replicates) == (0.003, 0.007, 3)


@pytest.mark.parametrize("name", ["nano", "smoke"])
def test_the_small_studies_have_all_three_phases(name):
    study = read_study(STUDIES / f"{name}.yaml")
    assert study.name == name and study.ladder == "nano"
    assert study.phase_1 and study.phase_2 and study.phase_3
    assert study.limits.max_trials and study.limits.max_device_seconds


def test_what_a_file_leaves_out_has_the_papers_value():
    study = parse_study(GOOD)
    assert (study.near_optimal, study.policy, study.seed, study.match_budget) == (NEAR_OPTIMAL, "joint", 0, False)
    assert study.phase_2 == (("nano-147k", 1), ("nano-147k", 2))
    assert study.star and study.vocabulary == 1024
    alone = parse_study("name: a\noptimizers: [lion]\nscales: nano-65k\nratios: 1e-1\ncorpus: embedded\n")
    assert alone.phase_1 == (("nano-65k", 0.1),) and alone.phase_2 == ()


def test_spaces_can_be_changed_in_the_file():
    changed = (
        "  adamw:\n    set: {beta1: 0.9}\n    grid: {learning_rate: [0.004, 8e-3]}\n    start: {weight_decay: 0.2}\n"
    )
    text = mistaken("optimizers: [adamw, muon]", f"optimizers:\n{changed}  muon:")
    space = parse_study(text).spaces["adamw"]
    assert space.by_name["beta1"].pinned
    assert space.by_name["learning_rate"].values == (0.004, 0.008)
    assert space.by_name["weight_decay"].start == 0.2


MISTAKES = [
    ("optimizers: [adamw, muon]", "optimizers: [adamw, moun]", 2, "unknown optimizer 'moun'; did you mean 'muon'"),
    ("optimizers: [adamw, muon]", "optimizers: []", 2, "at least one entry"),
    ("replicates: 2", "evaluation: {point: 5}", 14, "did you mean 'points'"),
    ("replicates: 2", "evaluation: {points: 0}", 14, "points must be at least 1"),
    ("optimizers: [adamw, muon]", "optimizers: [muon, muon]", 2, "listed twice"),
    ("scales: [nano-65k, nano-147k]", "scales: [nano-65k, nano-174k]", 3, "unknown scale 'nano-174k'"),
    ("scales: [nano-65k, nano-147k]", "scales: [nano-65k, 130m]", 3, "a study stays on one"),
    ("ratios: [1, 2]", "ratios: [0, 2]", 4, "positive number of Chinchilla budgets, not 0"),
    ("ratios: [1, 2]", "ratios: [1, 2, 1.0]", 4, "the budget 1 is listed twice; keep one"),
    ("ratios: [1, 2]", "ratios: [1, two]", 4, "a ratio must be a number, not 'two'"),
    ("ratios: [1, 2]", "ratios: [1, .inf]", 4, "a ratio must be a number"),
    ("ratios: [1, 2]", "ratios: [1, 1e30]", 4, "a ratio of 1e+30 is beyond any budget"),
    ("    nano-65k: [1, 2]", "    nano-65k: [1, 2e6]", 8, "a ratio of 2e+06 is beyond any budget"),
    ("corpus: embedded", "corpus: [embedded]", 5, "corpus must be a word, not a list"),
    ("replicates: 2", "replikates: 2", 14, "unknown key 'replikates' of a study; did you mean 'replicates'"),
    ("replicates: 2", "replicates: two", 14, "replicates must be a whole number, not 'two'"),
    ("replicates: 2", "replicates: 0", 14, "replicates must be at least 1"),
    ("replicates: 2", "replicates: 010", 14, "010 to another base than ten"),
    ("  max_trials: 500", "  max_device_hours: 1:30", 16, "1:30 to another base than ten"),
    ("replicates: 2", "replicates: 0_2", 14, "another base"),
    ("replicates: 2", "replicates: 2  # 0:30", None, None),
    ("  max_trials: 500", "  max_trials: 7", 16, "max_trials 7 is below the"),
    ("  max_trials: 500", "  max_trial: 500", 16, "did you mean 'max_trials'"),
    ("  max_trials: 500", "  max_device_hours: -1", 16, "must be above 0"),
    ("phase_1:\n  regimes:\n    nano-65k: [1, 2]\n", "", 6, "there is no phase_1"),
    ("    nano-65k: [1, 2]", "    nano-65k: [1, 0]", 8, "positive number"),
    ("    nano-65k: [1, 2]", "    nano-65k: [1, 1.0]", 8, "phase_1 lists nano-65k at ratio 1 twice; keep one"),
    ("[adamw, muon]", "{adamw: {coordinates: [warmup, warmup]}}", 2, "the coordinate warmup is listed twice; keep one"),
    ("    nano-65k: [1, 2]", "    nano-262k: [1]", 8, "not among the study's scales"),
    ("    nano-65k: [1, 2]", "    nano-65k: [1, 4000]\n    nano-65k: [1]", 9, "is given twice, first in line 8"),
    ("  regimes: rest", "  regimes: most", 10, "must be a mapping of scales to ratios, not 'most'"),
    ("  regimes: rest", "  regimes: {nano-65k: [2]}", 10, "which an earlier phase has"),
    ("{nano-262k: [1]}", "{130m: [1]}", 12, "another ladder"),
    ("  star: true", "  star: maybe", 13, "star must be true or false, not 'maybe'"),
    ("name: small", "name: &a small", None, None),
    ("name: small", "name: *a", 1, "anchors and aliases"),
    ("name: small", "name: {", 3, "not YAML"),
    ("name: small", "name: 2026-11-01", 1, "put it in quotes"),
    ("name: small", "name: !!python/object:os.system x", 1, "not YAML"),
    ("name: small\n", "", 1, "a study needs the key 'name'"),
]


@pytest.mark.parametrize(("old", "new", "line", "words"), MISTAKES, ids=[str(row[1])[:40] for row in MISTAKES])
def test_every_mistake_is_one_sentence_with_its_line(old, new, line, words):
    text = mistaken(old, new)
    if line is None:
        assert parse_study(text).name == "small"
        return
    with pytest.raises(InputError) as caught:
        parse_study(text, "some/study.yaml")
    message = str(caught.value)
    assert message.startswith(f"some/study.yaml:{line}: "), message
    assert words in message and "\n" not in message


@pytest.mark.parametrize("changes", ["decay: 0.5, lr_schedule: linear", "lr_schedule: linear, decay: 0.5"])
def test_a_change_may_need_another_one_that_stands_below_it(changes):
    study = parse_study(GOOD.replace("[adamw, muon]", f"{{adamw: {{set: {{{changes}}}}}, muon: {{}}}}"))
    assert dict(study.spaces["adamw"].start)["decay"] == 0.5


def test_a_mistake_in_a_space_has_the_line_of_its_hyperparameter():
    text = mistaken("[adamw, muon]", "\n  adamw:\n    set:\n      beta1: 0.9\n      bata2: 0.95\n  muon:")
    with pytest.raises(InputError, match=r"^study.yaml:6: unknown hyperparameter 'bata2'.*'beta2'"):
        parse_study(text)


def test_what_a_study_pins_begins_nowhere_else():
    changes = "{adamw: {set: {learning_rate: 0.001}, start: {learning_rate: 0.002}}, muon: {}}"
    with pytest.raises(InputError, match=r"^study.yaml:\d+: learning_rate is both pinned to a value and given a start"):
        parse_study(GOOD.replace("[adamw, muon]", changes))


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no study file at"):
        read_study(tmp_path / "none.yaml")
    large = tmp_path / "large.yaml"
    large.write_text("#" * (MAX_BYTES + 1))
    with pytest.raises(InputError, match=r"large.yaml:1: .*64 KiB"):
        read_study(large)
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(InputError, match=r"empty.yaml:1: the file is empty"):
        read_study(tmp_path / "empty.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(InputError, match="not UTF-8"):
        read_study(tmp_path / "latin.yaml")
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 5000 + "]" * 5000)
    with pytest.raises(InputError, match=r"deep.yaml:1: "):
        read_study(tmp_path / "deep.yaml")


def test_every_sweep_of_a_study_is_evaluated_as_it_says():
    study = parse_study(mistaken("replicates: 2", "evaluation: {points: 5, final_sequences: 64}"))
    assert study.evaluation == Evaluation(points=5, final_sequences=64)
    regime = Regime(SCALES["nano-65k"], 1.0, CorpusId("c", "f" * 64, 1024))
    sweep = study.sweep(study.spaces["adamw"], regime, compile=False)
    assert sweep.spec(sweep.space.start).evaluation == study.evaluation
    assert study.text != parse_study(GOOD).text
