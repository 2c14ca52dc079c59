"""`tuneopt study`: the shapes of its documents, its exit codes, and the paper's study on surfaces."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tuneopt import api, cli
from tuneopt.spec import InputError

STUDIES = Path(__file__).resolve().parents[2] / "studies"
PAPER = Path(__file__).resolve().parents[3] / "shared" / "paper"

SMALL = """\
name: small
optimizers:
  adamw: {set: {beta1: 0.9, beta2: 0.95, epsilon: 1e-10, max_grad_norm: 1, warmup: 1000},
          grid: {learning_rate: [0.004, 0.008], train_batch_size: [128, 256]}}
scales: [130m, 300m]
ratios: [1, 2]
corpus: nowhere
vocabulary: 128256
phase_1: {regimes: {130m: [1, 2], 300m: [1]}}
phase_2: {regimes: rest}
phase_3: {regimes: {520m: [1]}, star: true}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """The command line in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["tuneopt", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_plan_has_the_promised_shape(small, tmp_path, monkeypatch, capsys):
    code = run(monkeypatch, "study", "plan", small, "--ledger", tmp_path / "none", "--mfu", 0.4, "--peak-flops", 1e15,
               "--memory", 80, "--slots", 2, "--json")  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert [phase["name"] for phase in document["phases"]] == ["I", "II", "III"]
    for phase in document["phases"]:
        assert phase["trials"] > 0 and phase["tokens"] > 0
        training = phase["flops"] / 0.4e15 / 3600
        assert training < phase["device_hours"] < 1.001 * training, "evaluation is counted, and small at these scales"
    assert document["total"]["trials"] == sum(phase["trials"] for phase in document["phases"])
    assert document["peak_bytes"] > 520e6 * 16, "weights, gradients and two moments in fp32"
    assert document["fits"] is True and document["why"] == ""


def test_what_cannot_fit_is_said_with_the_number(small, tmp_path):
    speed = api.Speed(mfu=0.4, peak_flops=1e15)
    document = api.study_plan(api.load_study(small), str(tmp_path / "none"), speed, slots=2, device_bytes=2**30)
    assert document["fits"] is False
    assert "adamw at 520m needs" in document["why"] and "1.0 GiB" in document["why"]


def test_tokens_per_second_count_at_the_smallest_scale(small, tmp_path):
    study = api.load_study(small)
    fast = api.study_plan(study, str(tmp_path), api.Speed(tokens_per_second=2e5), slots=1)
    slow = api.study_plan(study, str(tmp_path), api.Speed(tokens_per_second=1e5), slots=1)
    assert slow["total"]["device_hours"] == pytest.approx(2 * fast["total"]["device_hours"])
    for words in ({"mfu": 0.4}, {"tokens_per_second": -1.0}, {"tokens_per_second": 1.0, "mfu": 0.4, "peak_flops": 1.0}):
        with pytest.raises(InputError):
            api.Speed(**words)


def test_a_mistake_ends_with_two_and_its_place(small, monkeypatch, capsys):
    small.write_text(SMALL.replace("ratios: [1, 2]", "ratios: [0]"))
    assert run(monkeypatch, "study", "plan", small) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"tuneopt: {small}:6: a ratio must be") and printed.err.count("\n") == 1


def test_a_simulated_study_ends_with_its_certificates(small, monkeypatch, capsys):
    code = run(monkeypatch, "study", "run", small, "--simulate", "--slots", 4, "--noise", 0.001, "--json")
    document = json.loads(capsys.readouterr().out)
    assert code == 0 and document["finished"] and document["phase"] == "done"
    assert all(result["certificate"]["complete"] for result in document["results"])
    assert 0 < document["simulation"]["utilisation"] <= 1
    assert document["simulation"]["surfaces"] == {"adamw": {"tuned point": 5}}
    third = [result for result in document["results"] if result["phase"] == "III"]
    assert third[0]["distance"] is not None
    assert run(monkeypatch, "study", "run", small, "--simulate", "--spent") == 0
    shown = capsys.readouterr().out
    assert "scaling-sensitive" in shown and "other seeds" in shown


def test_a_simulation_writes_the_report_that_it_is_asked_for_and_no_other(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "out" / "simulated.html"
    words = ["study", "run", small, "--simulate", "--slots", 4, "--json"]
    assert run(monkeypatch, *words) == 0 and not list(tmp_path.rglob("*.html"))
    assert json.loads(capsys.readouterr().out)["report"] == ""
    assert run(monkeypatch, *words, "-o", path) == 0
    assert json.loads(capsys.readouterr().out)["report"] == str(path)
    page = path.read_text()
    assert "a simulation of the study small" in page and "nothing was trained" in page.lower()
    assert "study run" in page and "--simulate" in page
    assert list(tmp_path.rglob("*.html")) == [path]


def test_a_study_is_reported_over_its_own_baseline_or_another(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    lion = "  lion: {set: {beta1: 0.9, beta2: 0.95, max_grad_norm: 1, warmup: 1000, train_batch_size: 128},\n" + (
        "         grid: {learning_rate: [0.0005, 0.001], weight_decay: [0.5, 0.7]}}\n"
    )
    file.write_text(SMALL.replace("scales:", lion + "scales:", 1))
    plain = api.load_study(file)
    assert api.report_baseline(plain) is None and api.report_baseline(plain, "Lion") == "lion"
    with pytest.raises(InputError, match="soap"):
        api.report_baseline(plain, "soap")
    file.write_text(file.read_text() + "bracket: lion\n")
    bracketing = api.load_study(file)
    assert api.report_baseline(bracketing) == "lion" and api.report_baseline(bracketing, "adamw") == "adamw"
    page = tmp_path / "page.html"
    api.simulate_study(plain, slots=8, report=page, baseline="lion")
    assert "over Lion" in page.read_text()


def test_a_limit_ends_a_run_with_three(small, monkeypatch, capsys):
    small.write_text(SMALL + "limits: {max_trials: 40}\n")
    assert run(monkeypatch, "study", "run", small, "--simulate", "--json") in (0, 3)
    document = json.loads(capsys.readouterr().out)
    assert document["trials"]["ended"] <= 40
    assert bool(document["stopped"]) != document["finished"]


def test_a_bad_table_of_stars_is_bad_input(small, tmp_path, monkeypatch, capsys):
    stars = tmp_path / "stars.json"
    for text in ("nothing", "{}", '[{"optimizer": "adamw"}]'):
        stars.write_text(text)
        assert run(monkeypatch, "study", "run", small, "--simulate", "--stars", stars) == 2
        assert "table of stars" in capsys.readouterr().err


@pytest.mark.slow
def test_the_papers_study_runs_whole_on_its_stars():
    if not (PAPER / "stars.json").is_file():
        pytest.skip("the published stars do not lie beside this clone")
    document = api.simulate_study(api.load_study(STUDIES / "paper.yaml"), stars=PAPER / "stars.json").to_dict()
    assert len(document["results"]) == 11 * (12 + 4)
    assert all(result["certificate"]["complete"] for result in document["results"])
    assert document["simulation"]["utilisation"] >= 0.9
    found = {finding["optimizer"]: set(finding["sensitive"]) for finding in document["findings"]}
    assert found["muon"] == found["scion"] == {"learning_rate"}
    assert found["cautious"] == {"train_batch_size"}
    assert {"learning_rate", "warmup"} <= found["adam_mini"] <= {"learning_rate", "weight_decay", "warmup"}
    assert found["adamw"] == {"learning_rate", "weight_decay", "train_batch_size"}
