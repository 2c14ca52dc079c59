"""The throughput benchmark: its GPU part's logic on a CPU, with a tiny shape and none of the heavy packages."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tuneopt.training.launch import launch

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPT = FOLDER / "train_throughput.py"
TINY = ["--scales", "tiny", "--vocabulary", "16400", "--precision", "bf16", "--modes", "eager", "--seconds", "0"]
TINY += ["--warm", "1", "--batch", "8", "--micro-batch", "2", "--seq-len", "16"]


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("train_throughput")


ALONE = """
import runpy, sys
for name in ("transformers", "ray", "datasets", "deepspeed", "optuna", "plotly", "tokenizers", "scipy", "pydantic"):
    sys.modules[name] = None  # as if it were not installed
sys.path.insert(0, sys.argv[1])
sys.argv = [sys.argv[1] + "/train_throughput.py", *sys.argv[2:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_torch_and_pyarrow_are_enough(tmp_path: Path) -> None:
    out = tmp_path / "result"
    options = [*TINY, "--optimizers", "adamw,muon,sophia", "--peak-flops", "1e11", "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", ALONE, str(FOLDER), *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads(out.with_suffix(".json").read_text())
    assert result["peer"] == "transformers was left out: it is not installed"
    assert result["peak"] == {"flops": 1e11, "source": "as given"}
    assert [row["optimizer"] for row in result["rows"]] == ["adamw", "muon", "sophia"]
    for row in result["rows"]:
        assert list(row["tokens_per_second"]) == ["tuneopt, eager"] and row["ratios"] == {}
        assert row["micro_batch"] == 2 and row["steps_timed"] >= 3
    table = out.with_suffix(".md").read_text()
    assert table.count("| tiny |") == 6 and "not installed" in table and "train_throughput.py" in table


@pytest.fixture
def result(bench, monkeypatch, tmp_path: Path):
    pytest.importorskip("transformers")
    monkeypatch.setattr(bench, "ENGINES", {})
    out = tmp_path / "result"
    bench.main([*TINY, "--precision", "fp32", "--optimizers", "adamw", "--out", str(out)])
    return json.loads(out.with_suffix(".json").read_text()), out.with_suffix(".md").read_text()


def test_both_sides_do_the_same_work(result) -> None:
    row = result[0]["rows"][0]
    ours, theirs = row["losses"].values()
    assert ours == pytest.approx(theirs, rel=1e-5), "the same weights and tokens"
    ours, theirs = row["tokens_per_second"].values()
    assert row["ratios"] == {"eager over transformers eager": pytest.approx(ours / theirs)}


def test_a_peer_without_room_is_left_out_and_said_so(bench, monkeypatch, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    import torch
    from transformers import LlamaForCausalLM

    def no_room(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(bench, "ENGINES", {})
    monkeypatch.setattr(LlamaForCausalLM, "forward", no_room)
    out = tmp_path / "result"
    bench.main([*TINY, "--optimizers", "adamw", "--out", str(out)])
    (row,) = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert list(row["tokens_per_second"]) == ["tuneopt, eager"] and row["steps_timed"] >= 3
    assert row["left_out"] == "transformers has no room for a pass of 2 x 16"


def test_the_parts_of_a_step_add_up(result) -> None:
    row = result[0]["rows"][0]
    assert set(row["breakdown"]) == {"forward", "backward", "optimizer", "data", "communication"}
    assert all(row["breakdown"][part] > 0 for part in ("forward", "backward", "optimizer", "data"))
    assert row["breakdown"]["communication"] == 0
    assert sum(row["shares"].values()) == pytest.approx(1)
    few = row["breakdown"]["optimizer"]
    rest = (sum(row["breakdown"].values()) - few) * 524_288 / (8 * 16)
    assert row["optimizer_share_at_524288_tokens"] == pytest.approx(few / (few + rest))


def test_no_peak_is_made_up(result) -> None:
    document, table = result
    assert document["peak"] == "unknown" and set(document["rows"][0]["mfu"].values()) == {None}
    assert "(unknown)" in table and "Peak for the MFU: unknown" in table


def test_mfu_counts_against_the_peak_of_all_devices(bench) -> None:
    row = {
        "scale": "130m", "seq_len": 4096, "batch": 32, "tokens_per_second": {"tuneopt, compiled": 2e5},
        "breakdown": {"forward": 0.3, "backward": 0.6, "optimizer": 0.05, "data": 0.0, "communication": 0.05},
    }  # fmt: skip
    bench.conclude(row, bench.Peak(989.5e12, "sheet"), 128_256, 2)
    per_token = 6 * 134_217_728 + 6 * 32 * 4096 * 512 + 6 * 512 * 128_256
    assert row["mfu"]["tuneopt, compiled"] == pytest.approx(2e5 * per_token / (2 * 989.5e12))
    assert row["optimizer_share_at_524288_tokens"] == pytest.approx(0.05 / (0.05 + 0.95 * 4))


def test_defaults_on_a_gpu_are_the_paper_ladder_and_all_optimizers(bench) -> None:
    wanted = bench.parse(["--device", "cuda"])
    assert wanted.scales == "130m,300m,520m,1.2b" and wanted.vocabulary == 128_256
    assert len(wanted.optimizers.split(",")) == 18 and (wanted.precision, wanted.modes) == ("bf16", "compile")
    wanted = bench.parse([])
    assert wanted.scales.startswith("nano-65k,") and (wanted.precision, wanted.modes) == ("fp32", "eager,compile")


@pytest.mark.slow
def test_ranks_share_the_work_and_show_what_communication_adds(tmp_path: Path) -> None:
    out = tmp_path / "ranks"
    command = [sys.executable, str(SCRIPT), *TINY, "--micro-batch", "1", "--optimizers", "adamw", "--out", str(out)]
    printed = list(launch(command, 2, {"PYTHONPATH": str(FOLDER)}))
    assert printed[-1].endswith("ranks.json")
    row = json.loads(out.with_suffix(".json").read_text())["rows"][0]
    assert row["breakdown"]["communication"] >= 0 and row["micro_batch"] == 1
    assert list(row["tokens_per_second"]) == ["tuneopt, eager"]


def test_a_measured_peak_is_that_of_products(bench) -> None:
    peak = bench.measured_peak(bench.torch.device("cpu"), "fp32", size=256, seconds=0.1)
    assert 1e8 < peak.flops < 1e14 and "256 x 256" in peak.source
