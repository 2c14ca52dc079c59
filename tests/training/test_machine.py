"""MFU: the model's FLOPs over a peak that is listed, given or measured, and never made up."""

import pytest
import torch

from tuneopt.spec import SCALES
from tuneopt.training.machine import DEVICES, mfu, peak_of, speed_facts

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "bf16", "fp32"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5e12, 67e12),
        ("NVIDIA H100 PCIe", 756.5e12, 51e12),
        ("NVIDIA H200", 989.5e12, 67e12),
        ("NVIDIA A100-SXM4-80GB", 312e12, 19.5e12),
        ("NVIDIA L4", 121e12, 30.3e12),
    ],
)
def test_listed_devices(name: str, bf16: float, fp32: float) -> None:
    half, single = peak_of(name, "bf16"), peak_of(name, "fp32")
    assert half is not None and single is not None
    assert (half.flops, single.flops) == pytest.approx((bf16, fp32)) and "data sheet" in half.source


@pytest.mark.parametrize("name", ["cpu", "NVIDIA L40", "NVIDIA H1000", "NVIDIA GeForce GTX 1080", "NVIDIA T4", ""])
def test_other_devices_have_no_peak(name: str) -> None:
    assert peak_of(name, "bf16") is None


def test_no_entry_hides_another() -> None:
    for device in DEVICES:
        assert peak_of(device.name, "bf16").flops == device.bf16 * 1e12


def test_mfu_counts_the_model_over_all_devices() -> None:
    per_token = SCALES["130m"].flops_per_token(128_256)
    assert per_token == 6 * 134_217_728 + 6 * 32 * 4096 * 512 + 6 * 512 * 128_256
    peak = peak_of("NVIDIA H100 80GB HBM3", "bf16")
    assert mfu(1e6, per_token, peak, 2) == pytest.approx(1e6 * per_token / (2 * 989.5e12))
    assert mfu(1e6, per_token, None) is None


def test_a_record_says_unknown_where_no_peak_is_known(monkeypatch) -> None:
    assert speed_facts(1e5, 1e9, CPU, "fp32", 1) == {"mfu": "unknown", "peak_flops": "unknown"}
    monkeypatch.setattr("tuneopt.training.machine.device_name", lambda device: "NVIDIA H100 80GB HBM3")
    told = speed_facts(4e5, 1e9, CPU, "bf16", 1)
    assert told["mfu"] == "0.4042" and told["peak_flops"].startswith("9.895e+14 (NVIDIA H100 data sheet, SXM, bf16")
