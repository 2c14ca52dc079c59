"""What a trial can plan with on a GPU: counted from what CUDA says, here in its place."""

import torch

from tuneopt.spec import CorpusId, Regime, Scale, TrialSpec
from tuneopt.training.building import WarmModels
from tuneopt.training.fitting import USABLE, available_bytes

CPU = torch.device("cpu")


def pretend(monkeypatch, free: int, reserved: int, allocated: int) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: told.append("emptied"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (told.append("asked") or free, 80))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
    return told


def test_living_tensors_do_not_count_as_free(monkeypatch) -> None:
    told = pretend(monkeypatch, free=50_000, reserved=20_000, allocated=15_000)
    assert available_bytes(torch.device("cuda", 0)) == int(USABLE * 55_000)
    assert told == ["emptied", "asked"], "what an ended trial left is given back first"


def test_the_warm_model_of_the_trial_before_counts_as_free(monkeypatch) -> None:
    pretend(monkeypatch, free=50_000, reserved=20_000, allocated=20_000)
    engine = WarmModels(CPU)
    assert engine.available_bytes() == int(USABLE * 50_000)
    scale = Scale("flat", "nano", layers=1, d_model=32, d_ff=64, heads=1, seq_len=32)
    regime = Regime(scale, 1.0, CorpusId("text", "0" * 16, 97))
    engine.prepare(TrialSpec("adamw", TrialSpec.freeze({"train_batch_size": 2}), regime, micro_batch=2))
    assert engine.available_bytes() == int(USABLE * (50_000 + 4 * scale.total_parameters(97)))
