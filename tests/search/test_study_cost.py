"""Memory and disk of a study's trials, and the ranks that help where one device is too small."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_study_planner import CORPUS, TEXT

from tuneopt import api
from tuneopt.api.devices import peak_bytes, slots_here, state_bytes
from tuneopt.run.options import RunOptions
from tuneopt.search.study.cost import HEADROOM, TrialShape, needs
from tuneopt.search.study.file import parse_study
from tuneopt.search.study.study import Devices
from tuneopt.spec import SCALES, CorpusId, InputError, Regime
from tuneopt.training.config import ParallelConfig
from tuneopt.training.memory import memory

PAPER = """\
name: large
optimizers: [adamw, muon, soap]
scales: [130m, 520m]
ratios: [1]
corpus: nowhere
vocabulary: 128256
precision: bf16
phase_1: {regimes: {130m: [1], 520m: [1]}}
phase_3: {regimes: {1.2b: [1]}}
"""
LARGE = parse_study(PAPER)
PLACES = [
    (name, Regime(SCALES[scale], 1, CorpusId("nowhere", "", 128256)))
    for name in LARGE.optimizers
    for scale in ("1.2b", "130m", "520m")
]


def test_the_need_of_a_scale_is_that_of_its_largest_trial_by_the_memory_model():
    found = needs(LARGE, PLACES, peak_bytes, state_bytes)
    assert [each.scale.name for each in found] == ["130m", "520m", "1.2b"]
    for each in found:
        regime = next(regime for _, regime in PLACES if regime.scale == each.scale)
        every = {
            name: memory(
                regime.scale, 128256, name, state_bytes(name), precision="bf16", micro_batch=1, head_chunk=1024
            ).total
            for name in LARGE.optimizers
        }
        assert each.peak_bytes == max(every.values()) == every[each.optimizer]
        assert each.enough is None


def test_too_small_a_device_is_told_the_fewest_ranks_and_the_lowest_stage():
    def model(asked: TrialShape) -> int:
        """Halves with every doubling of the ranks, and with every stage."""
        return int(asked.scale.parameters * 16 / asked.devices.ranks * (1 - 0.2 * asked.devices.zero))

    whole = 16 * SCALES["1.2b"].parameters
    found = needs(LARGE, PLACES, model, state_bytes, device_bytes=whole // 2, most_ranks=8)[-1]
    assert found.peak_bytes == whole and found.enough == Devices(2, 1, False)
    assert found.enough_bytes <= HEADROOM * (whole // 2)
    assert needs(LARGE, PLACES, model, state_bytes, device_bytes=whole // 2, most_ranks=1)[-1].enough is None
    assert needs(LARGE, PLACES, model, state_bytes, device_bytes=whole)[-1].enough is None
    tiny = needs(LARGE, PLACES, model, state_bytes, device_bytes=10, most_ranks=8)
    assert all(each.enough is None for each in tiny), "no number of ranks helps"


def test_ranks_that_no_batch_divides_among_are_not_proposed():
    study = parse_study(TEXT.replace("train_batch_size: 16", "train_batch_size: 10"))
    places = [("adamw", Regime(SCALES["nano-65k"], 1, CORPUS))]
    found = needs(study, places, lambda asked: 100 // asked.devices.ranks, state_bytes, device_bytes=30, most_ranks=64)
    assert found[0].enough is None, "a batch of 10 divides among 2 ranks and not among 4"


def test_a_declared_placement_is_what_is_judged_and_leaves_the_study_the_same():
    placed = replace(LARGE, placement={"1.2b": Devices(4, 2)})
    whole, part = (needs(study, PLACES, peak_bytes, state_bytes)[-1] for study in (LARGE, placed))
    assert part.devices == Devices(4, 2) and part.peak_bytes < whole.peak_bytes
    assert placed.text == LARGE.text
    assert parse_study(PAPER + "placement: {1.2b: {ranks: 4, zero: 2}}\n").placement == placed.placement
    assert placed.to_dict()["placement"] == {"1.2b": {"ranks": 4, "zero": 2, "offload": False}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{1.3b: {ranks: 2}}", "unknown key '1.3b'"),
        ("{130m: {rank: 2}}", "unknown key 'rank'"),
        ("{130m: {ranks: 0}}", "ranks must be at least 1"),
        ("{130m: {ranks: 2, zero: 4}}", "stage from 0 to 3"),
        ("{130m: {ranks: 2, offload: true}}", "offload needs ZeRO"),
        ("{130m: 2}", "must be a mapping"),
    ],
)
def test_a_placement_that_cannot_be_has_its_line(text, words):
    with pytest.raises(InputError, match=words) as error:
        parse_study(PAPER + f"placement: {text}\n")
    assert str(error.value).startswith("study.yaml:10")


def test_the_plan_refuses_with_the_number_and_says_what_would_do(tmp_path):
    study = parse_study(PAPER)
    plan = {"speed": api.Speed(mfu=0.4, peak_flops=1e15), "slots": 1}
    short = api.study_plan(study, str(tmp_path), device_bytes=40 * 2**30, **plan)
    largest = short["scales"][-1]
    assert short["fits"] is False and largest["fits"] is False
    assert f"at 1.2b needs {largest['peak_bytes'] / 2**30:.1f} GiB" in short["why"] and "40.0 GiB" in short["why"]
    enough = largest["enough"]
    assert f"placement: {{1.2b: {{ranks: {enough['ranks']}, zero: {enough['zero']}}}}}" in short["why"]
    mended = replace(study, placement={"1.2b": Devices(enough["ranks"], enough["zero"])})
    fitted = api.study_plan(mended, str(tmp_path), device_bytes=40 * 2**30, **plan)
    assert fitted["scales"][-1]["fits"] and "1.2b" not in fitted["why"]
    assert fitted["total"]["device_hours"] == pytest.approx(short["total"]["device_hours"])


def test_the_placement_that_is_proposed_can_be_pasted_and_fits(tmp_path):
    """With the offload that it was worked out for, too: without it the same ranks do not fit."""
    plan = {"speed": api.Speed(mfu=0.4, peak_flops=1e15), "slots": 1, "device_bytes": 24 * 2**30}
    study = replace(LARGE, placement={"1.2b": Devices(2, 1, True)})
    text = api.study_plan(study, str(tmp_path), **plan)["why"].partition(" at 1.2b needs")[2]
    text = text[text.index("placement: ") :].partition("}}")[0] + "}}"
    assert "offload: true" in text
    pasted = replace(study, placement=parse_study(PAPER + text + "\n").placement)
    assert api.study_plan(pasted, str(tmp_path), **plan)["scales"][-1]["fits"]


def test_a_close_fit_is_warned_of(tmp_path):
    plan = {"speed": api.Speed(mfu=0.4, peak_flops=1e15), "slots": 1}
    peak = api.study_plan(LARGE, str(tmp_path), **plan)["peak_bytes"]
    close = api.study_plan(LARGE, str(tmp_path), device_bytes=peak + 1, **plan)
    assert "1.2b" not in close["why"] and any("1.2b" in warning for warning in close["warnings"])
    roomy = api.study_plan(LARGE, str(tmp_path), device_bytes=2 * peak, **plan)
    assert not any("1.2b" in warning for warning in roomy["warnings"])


def test_planning_imports_no_torch(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from tuneopt import api; from tuneopt.search.study.file import parse_study\n"
        f"api.study_plan(parse_study({PAPER!r}), {str(tmp_path)!r}, api.Speed(mfu=0.4, peak_flops=1e15))\n"
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("gpus", "ranks", "here", "most", "slots", "said"),
    [
        (1, 1, 8, None, 8, ""),
        (0.25, 1, 1, None, 4, ""),
        (0.1, 1, 2, None, 20, ""),
        (1, 8, 8, None, 1, ""),
        (1, 4, 8, None, 2, ""),
        (1, 1, 8, 3, 3, ""),
        (1, 8, 4, None, 1, "a trial takes 8 GPUs and this machine has 4"),
        (1, 1, 0, None, 1, "a trial takes 1 GPU and this machine has 0"),
    ],
)
def test_a_sweep_is_planned_by_the_devices_that_its_trials_take(monkeypatch, gpus, ranks, here, most, slots, said):
    monkeypatch.setattr("torch.cuda.device_count", lambda: here)
    parallel = {"130m": ParallelConfig(ranks)} if ranks > 1 else {}
    found, missing = slots_here(RunOptions(max_concurrent=most, gpus_per_trial=gpus, parallel=parallel), "130m")
    assert found == slots and missing.startswith(said) and bool(missing) == bool(said)


def test_without_gpus_a_sweep_is_planned_by_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert slots_here(RunOptions(), "nano-65k") == (6, "")
    assert slots_here(RunOptions(parallel={"nano-65k": ParallelConfig(2)}), "nano-65k") == (3, "")


def test_a_paper_study_computes_in_bf16_unless_it_says_otherwise():
    silent = PAPER.replace("precision: bf16\n", "")
    assert silent != PAPER and parse_study(silent).precision == "bf16"
    assert parse_study(PAPER.replace("bf16", "fp32")).precision == "fp32"
    assert {scale.ladder: scale.precision for scale in SCALES.values()} == {"paper": "bf16", "nano": "fp32"}
