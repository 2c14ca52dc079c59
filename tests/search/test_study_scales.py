"""Scales of one's own in studies: their content names the study, and regimes go by their names."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tuneopt.scale_files import find_scale, ladder_note
from tuneopt.search.study.file import parse_study, read_study
from tuneopt.spec import CorpusId, InputError

SMALL = "family: gpt2\nlayers: 2\nd_model: 32\nseq_len: 64\n"

STUDY = """\
name: own
optimizers: [adamw, muon]
scales: [small.yaml, {name: larger, layers: 2, d_model: 48, seq_len: 64, ladder: nano}]
ratios: [1]
corpus: embedded
phase_1: {regimes: {small.yaml: [1]}}
phase_2: {regimes: {larger: [1]}}
phase_3: {regimes: {"2x64,seq=64": [1]}}
placement: {small: {ranks: 2}}
"""


def study_in(folder: Path, small: str = SMALL, text: str = STUDY):
    folder.mkdir(exist_ok=True)
    (folder / "small.yaml").write_text(small)
    (folder / "study.yaml").write_text(text)
    return read_study(folder / "study.yaml")


def test_scales_are_files_mappings_and_shorthands_and_regimes_go_by_their_names(tmp_path):
    study = study_in(tmp_path)
    assert (study.phase_1, study.phase_2, study.phase_3) == ((("small", 1),), (("larger", 1),), (("2x64,seq=64", 1),))
    assert study.scale("small") == find_scale(str(tmp_path / "small.yaml"))
    corpus = CorpusId("text", "00ff", 1024)
    assert [regime.scale.d_model for phase in ("I", "II", "III") for regime in study.regimes(phase, corpus)] == [
        32, 48, 64,
    ]  # fmt: skip
    assert study.placement["small"].ranks == 2


def test_the_content_of_a_scale_file_names_the_study_and_its_place_does_not(tmp_path):
    study = study_in(tmp_path / "here")
    assert study_in(tmp_path / "there").text == study.text
    edited = study_in(tmp_path / "here", SMALL.replace("layers: 2", "layers: 3"))
    assert edited.phase_1 == study.phase_1 and edited.text != study.text
    # What was read stays as it was read: an edit while a study runs changes none of its regimes.
    assert study.scale("small").layers == 2


def test_built_in_scales_leave_no_trace_in_a_study():
    study = parse_study("name: a\noptimizers: [lion]\nscales: nano-65k\nratios: 1\ncorpus: embedded\n")
    assert not study.scales and '"scales"' not in study.text


@pytest.mark.parametrize(
    ("old", "new", "line", "sentence"),
    [
        ("small.yaml, {", "small.yaml, lost.yaml, {", 3, "there is no scale file at lost.yaml"),
        ("name: larger", "name: small", 3, "two scales of the study are called 'small'"),
        ("name: larger, ", "", 3, "needs the key 'name'"),
        ("name: larger", "name: nano-65k", 3, "is the name of a built-in scale"),
        ("layers: 2, d_model: 48", "layers: 2, d_model: 48, depth: 3", 3, "unknown key 'depth'"),
        ("{small.yaml: [1]}", "{2x128: [1]}", 6, "2x128 is not among the study's scales (small, larger)"),
        ('"2x64,seq=64"', "130m", 8, "another ladder"),
        ("placement: {small:", "placement: {smal:", 9, "did you mean 'small'"),
    ],
)
def test_mistakes_have_their_line(tmp_path, old, new, line, sentence):
    assert STUDY.count(old) == 1
    with pytest.raises(InputError) as caught:
        study_in(tmp_path, text=STUDY.replace(old, new))
    assert f"study.yaml:{line}: " in str(caught.value) and sentence in str(caught.value)


def test_the_plan_says_whose_grids_apply():
    note = ladder_note(find_scale("6x384,seq=256"))
    assert "N = 14,155,776" in note and "ladder paper" in note and "130m" in note and "times smaller" in note
    assert ladder_note(find_scale("nano-65k")) == ""
    assert "2 times as large" in ladder_note(find_scale("8x128,ladder=nano"))


def test_a_comparison_writes_the_whole_scale_into_its_plan(tmp_path):
    from tuneopt.api.comparing import comparison_plan

    (tmp_path / "mine.yaml").write_text(SMALL)

    def plan():
        return comparison_plan(
            ["muon"], scale=str(tmp_path / "mine.yaml"), hours=1.0, ratio=1.0, tokens_per_second=1e5, slots=2,
            ledger=str(tmp_path / "ledger"), keep=True,
        )  # fmt: skip

    first = plan()
    (declared,) = yaml.safe_load(first.text)["scales"]
    assert declared["name"] == "mine" and declared["positions"] == "learned"
    assert first.study.scale("mine") == find_scale(str(tmp_path / "mine.yaml"))
    assert plan().stored
    (tmp_path / "mine.yaml").write_text(SMALL.replace("layers: 2", "layers: 3"))
    changed = plan()
    assert not changed.stored and changed.study.scale("mine").layers == 3


def test_budgets_of_a_study_may_be_tokens_and_then_are_equal_at_every_scale():
    text = "name: a\noptimizers: [lion]\nscales: [nano-65k, nano-147k]\ntokens: [1M, 2_500_000]\ncorpus: embedded\n"
    study = parse_study(text)
    corpus = CorpusId("text", "00ff", 1024)
    assert [regime.tokens for regime in study.regimes("I", corpus)] == [10**6, 2_500_000] * 2
    phased = parse_study(text + "phase_1: {regimes: {nano-65k: [1M]}}\nphase_2: {regimes: rest}\n")
    assert [regime.tokens for regime in phased.regimes("I", corpus)] == [10**6]
    assert len(phased.phase_2) == 3
    # A plain number is what the study's own budgets are, and one that the study has not is a budget in tokens too.
    plain = text + "phase_1: {regimes: {nano-65k: [1000000, 3e6]}}\nphase_2: {regimes: rest}\n"
    assert [regime.tokens for regime in parse_study(plain).regimes("I", corpus)] == [10**6, 3 * 10**6]
    assert parse_study(plain).phase_2 == phased.phase_2
    with pytest.raises(InputError, match=r"study.yaml:6: a budget in tokens must be a whole number"):
        parse_study(text + "phase_1: {regimes: {nano-65k: [0.5]}}\n")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("ratios: [1]", "ratios: [1]\ntokens: [1M]", "study.yaml:5: give ratios or tokens, not both"),
        ("ratios: [1]", "tokens: [lots]", "study.yaml:4: a budget in tokens must be a count such as 50M"),
        ("ratios: [1]", "steps: [2000]", "study.yaml:4: budgets of a study are ratios or tokens"),
        ("ratios: [1]\n", "", "a study needs the key 'ratios'"),
    ],
)
def test_budgets_that_contradict_each_other_are_refused(tmp_path, old, new, sentence):
    with pytest.raises(InputError) as caught:
        study_in(tmp_path, text=STUDY.replace(old, new))
    assert sentence in str(caught.value)


@pytest.mark.slow
def test_a_study_over_two_scales_of_ones_own_predicts_stops_and_goes_on(tmp_path):
    """Trained for real, in this process: Phase I at one scale, a prediction for the other, a limit in between."""
    from tuneopt import api
    from tuneopt.ledger import open_ledger

    words = ("sea", "ship", "storm", "whale", "night", "captain", "white", "over")
    texts = tmp_path / "texts"
    texts.mkdir()
    for number in range(200):
        picked = " ".join(words[(number * step + step // 3) % len(words)] for step in range(150))
        (texts / f"{number:03d}.txt").write_text(f"Chapter {number}. {picked}.")
    (tmp_path / "small.yaml").write_text("family: gpt2\nlayers: 1\nd_model: 16\nseq_len: 32\nladder: nano\n")
    (tmp_path / "large.yaml").write_text("family: gpt2\nlayers: 2\nd_model: 16\nseq_len: 32\nladder: nano\n")
    text = f"""\
name: own
optimizers:
  adamw: {{coordinates: [learning_rate], grid: {{learning_rate: [0.004, 0.008]}}, set: {{train_batch_size: 8}}}}
scales: [small.yaml, large.yaml]
ratios: [0.1]
corpus: {texts}
vocabulary: 272
replicates: 1
phase_1: {{regimes: {{small: [0.1]}}}}
phase_3: {{regimes: {{large: [0.1]}}}}
compile: false
evaluation: {{points: 1, curve_sequences: 16, final_sequences: 16}}
"""
    ledger = open_ledger(str(tmp_path / "ledger"))
    (tmp_path / "study.yaml").write_text(text + "limits: {max_trials: 2}\n")
    first = api.run_study(api.load_study(tmp_path / "study.yaml"), ledger, backend="inline")
    assert first.stopped and 1 <= len(first.run) <= 2
    (tmp_path / "study.yaml").write_text(text)
    study = api.load_study(tmp_path / "study.yaml")
    second = api.run_study(study, ledger, backend="inline")
    assert second.status["finished"] and not set(second.run) & set(first.run)
    third = api.run_study(study, ledger, backend="inline")
    assert not third.run  # all of it is in the ledger
    scales = {record.spec.regime.scale for record in ledger.records()}
    assert scales == {study.scale("small"), study.scale("large")}
    assert {row["scale"] for row in second.status["results"]} == {"small", "large"}
    # An edited file is another study, which says so, and counts none of the old trials.
    (tmp_path / "small.yaml").write_text("family: gpt2\nlayers: 1\nd_model: 32\nseq_len: 32\nladder: nano\n")
    edited = api.load_study(tmp_path / "study.yaml")
    assert api.study_status(edited, ledger)["results"] == [] or not api.study_status(edited, ledger)["finished"]
    (note,) = [note for note in api.scale_notes(edited.scales.values(), ledger) if "another study" in note]
    assert "another scale called small" in note
