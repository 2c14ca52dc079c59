"""What a trial can plan with on a GPU: counted from what CUDA says, here in its place."""

import pytest
import torch

from tuneopt.spec import CorpusId, Regime, Scale, TrialSpec
from tuneopt.training.building import WarmModels
from tuneopt.training.fitting import ALLOCATOR_VARIABLES, USABLE, available_bytes

CPU = torch.device("cpu")


def pretend(monkeypatch, free: int, reserved: int, allocated: int) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: told.append("emptied"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (told.append("asked") or free, 80_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: allocated)
    return told


def test_living_tensors_do_not_count_as_free(monkeypatch) -> None:
    told = pretend(monkeypatch, free=50_000, reserved=20_000, allocated=15_000)
    assert available_bytes(torch.device("cuda", 0)) == int(USABLE * 55_000)
    assert told == ["emptied", "asked"], "what an ended trial left is given back first"


@pytest.mark.parametrize(("share", "planned"), [(1.0, 55_000), (0.5, 25_000), (0.25, 5_000)])
def test_a_process_plans_with_its_share_of_a_device_that_others_use_too(
    monkeypatch, share: float, planned: int
) -> None:
    pretend(monkeypatch, free=50_000, reserved=20_000, allocated=15_000)
    assert available_bytes(torch.device("cuda", 0), share=share) == int(USABLE * planned)
    assert available_bytes(torch.device("cuda", 0), 5_000, share) == int(USABLE * (planned + 5_000))


def test_the_allocator_is_set_before_the_first_use_and_a_users_settings_stay(monkeypatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(torch.cuda.memory, "_set_allocator_settings", done.append)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: done.append(share))
    for name in ALLOCATOR_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    pretend(monkeypatch, free=50_000, reserved=0, allocated=0)
    monkeypatch.setattr("tuneopt.training.building.take_flash_attention_3", lambda device: False)
    models = WarmModels(torch.device("cuda", 0), share=0.25)
    assert done == [], "a worker that waits for ranks takes no memory"
    models.available_bytes()
    models.available_bytes()
    assert done == ["expandable_segments:True", 0.25]
    monkeypatch.setenv("PYTORCH_ALLOC_CONF", "backend:cudaMallocAsync")
    WarmModels(torch.device("cuda", 0)).available_bytes()
    assert done[2:] == [1.0]


def test_the_warm_model_of_the_trial_before_counts_as_free(monkeypatch) -> None:
    pretend(monkeypatch, free=50_000, reserved=20_000, allocated=20_000)
    engine = WarmModels(CPU)
    assert engine.available_bytes() == int(USABLE * 50_000)
    scale = Scale("flat", "nano", layers=1, d_model=32, d_ff=64, heads=1, seq_len=32)
    regime = Regime(scale, 1.0, CorpusId("text", "0" * 16, 97))
    engine.prepare(TrialSpec("adamw", TrialSpec.freeze({"train_batch_size": 2}), regime, micro_batch=2))
    assert engine.available_bytes() == int(USABLE * (50_000 + 4 * scale.total_parameters(97)))
