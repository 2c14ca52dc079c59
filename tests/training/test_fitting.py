"""How many sequences a pass takes: it follows the specification or the memory, and never changes what is computed."""

from dataclasses import replace

import pytest
import torch
from filelock import FileLock

from tuneopt.ledger import Ledger
from tuneopt.spec import SCALES, CorpusId, InputError, Regime, TrialSpec
from tuneopt.training.building import WarmModels
from tuneopt.training.config import ParallelConfig
from tuneopt.training.fitting import pass_sizes, reserved_bytes, sizes_within, step_memory
from tuneopt.training.kernels import kernels_of_this_machine
from tuneopt.training.loop import Training
from tuneopt.training.run import run_trial

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GIB = 2**30


def paper_spec(scale: str = "130m", batch: int = 128, optimizer: str = "adamw", precision: str = "bf16") -> TrialSpec:
    regime = Regime(SCALES[scale], 1.0, CorpusId("text", "0" * 16, 128_256))
    hyperparameters = TrialSpec.freeze({"train_batch_size": batch})
    return TrialSpec(optimizer, hyperparameters, regime, precision=precision, micro_batch=1)


def unasked() -> int:
    raise AssertionError("nothing is tried, so nobody asks what is free")


def test_a_cpu_takes_what_the_specification_says():
    spec = replace(paper_spec(), micro_batch=16)
    assert pass_sizes(spec, ParallelConfig(), CPU, unasked) == [16]
    assert pass_sizes(spec, ParallelConfig(ranks=16), CPU, unasked) == [8]
    assert pass_sizes(spec, ParallelConfig(sequences=5), CPU, unasked) == [4], (
        "the largest divisor of the batch within 5"
    )
    assert pass_sizes(replace(spec, micro_batch=48), ParallelConfig(), CPU, unasked) == [32]


def test_cuda_takes_the_largest_that_fits():
    spec = paper_spec()
    for gib, expected in ((1000, [16, 8, 4, 2, 1]), (1, [1])):
        assert pass_sizes(spec, ParallelConfig(), CUDA, lambda gib=gib: gib * GIB) == expected, (
            "65,536 tokens are enough"
        )
    assert pass_sizes(spec, ParallelConfig(sequences=2), CUDA, unasked) == [2]
    sizes = pass_sizes(spec, ParallelConfig(2, 2), CUDA, lambda: 80 * GIB)
    assert sizes and all(128 // 2 % size == 0 for size in sizes)


@pytest.mark.parametrize("scale", ["130m", "300m", "520m", "1.2b"])
def test_every_size_on_the_list_fits_and_the_next_does_not(scale: str):
    spec, placement = paper_spec(scale), ParallelConfig()
    for available in (16 * GIB, 40 * GIB, 80 * GIB):
        sizes = sizes_within(spec, placement, available)
        assert sizes == sorted(sizes, reverse=True) and all(128 % size == 0 for size in sizes)
        need = {size: step_memory(spec, placement, size).device for size in (1, 2, 4, 8, 16)}
        assert sizes == [size for size in (16, 8, 4, 2, 1) if need[size] <= available] or sizes == [1]
        assert need[16] > need[1]


def test_checkpointing_and_more_ranks_let_a_pass_take_more():
    spec, available = paper_spec("520m"), 40 * GIB
    plain = sizes_within(spec, ParallelConfig(), available)[0]
    assert sizes_within(spec, ParallelConfig(checkpointing=True), available)[0] > plain
    assert sizes_within(spec, ParallelConfig(ranks=8, zero=2), available)[0] >= plain


def test_what_a_step_needs_beside_the_pass_is_kept_free():
    spec = paper_spec()
    count = spec.regime.scale.total_parameters(128_256)
    assert reserved_bytes(spec, ParallelConfig(), 1) == 12 * count, "two moments, and the gradients of earlier passes"
    assert reserved_bytes(paper_spec(batch=16), ParallelConfig(), 16) == 8 * count, (
        "one pass makes its gradients itself"
    )
    assert reserved_bytes(replace(spec, optimizer="Mine@0123456789ab"), ParallelConfig(), 1) == 16 * count


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(InputError, match="does not divide among 3 ranks"):
        pass_sizes(paper_spec(), ParallelConfig(ranks=3), CPU, unasked)
    with pytest.raises(InputError, match="at least 1 sequence"):
        ParallelConfig(sequences=0)


class Small(WarmModels):
    """A device that holds ``most`` sequences of a pass and says so as CUDA does."""

    most = 2

    def exercise(self, warm, size: int, spec: TrialSpec) -> None:
        self.tried = [*getattr(self, "tried", []), size]
        super().exercise(warm, size, spec)  # leaves gradients behind, as a pass that fails half-way may
        if size > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_pass_that_does_not_fit_is_followed_by_a_smaller_one(make_spec):
    engine, spec = Small(CPU), make_spec()
    warm = engine.prepare(spec, [8, 4, 2, 1])
    assert warm.micro_batch == 2 and engine.tried == [8, 4, 2]
    assert all(parameter.grad is None for parameter in warm.model.parameters())
    assert engine.prepare(spec, [2, 1]).micro_batch == 2 and engine.tried == [8, 4, 2], "known to fit"
    with pytest.raises(torch.OutOfMemoryError):
        engine.prepare(spec, [8, 4])


def test_all_ranks_take_the_size_that_fits_on_the_fullest(make_spec):
    engine, heard = Small(CPU), []

    def agree(fits: bool) -> bool:
        heard.append(fits)
        return fits and len(heard) > 3

    assert engine.prepare(make_spec(), [4, 2, 1, 1], agree=agree).micro_batch == 1
    assert heard == [False, True, True, True]


def test_what_is_kept_free_depends_on_the_size_and_a_size_is_known_for_that_alone(make_spec):
    engine, spec = Small(CPU), make_spec()
    assert engine.prepare(spec, [2, 1], reserved=lambda size: 10 * size).micro_batch == 2
    assert engine.prepare(spec, [2, 1], reserved=lambda size: 10 * size).micro_batch == 2
    assert engine.tried == [2]
    assert engine.prepare(spec, [2, 1], reserved=lambda size: 11 * size).micro_batch == 2
    assert engine.tried == [2, 2], "another optimizer has more state"


def trained(spec, corpus, parallel=None, steps: int = 6) -> Training:
    training = Training(spec, corpus, None, parallel=parallel)
    for _ in range(steps):
        training.train_step()
    return training


def weights(training: Training) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in training.model.parameters()])


def test_ranks_agree_when_none_of_them_keeps_the_others_from_compiling(make_spec, monkeypatch):
    """A rank that waited for the others with the machine's lock on compiling in its hands would wait for ever."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)

    def agree(fits: bool) -> bool:
        place = kernels_of_this_machine()
        with FileLock(place.with_name(f".{place.name}.lock")).acquire(timeout=0):
            return fits

    spec = replace(make_spec(), compile=True)
    assert WarmModels(torch.device("cpu")).prepare(spec, agree=agree).micro_batch == spec.micro_batch


@pytest.mark.parametrize("sequences", [1, 4, 24])
def test_the_size_of_a_pass_changes_nothing_but_rounding(corpus, make_spec, sequences: int):
    spec = make_spec(train_batch_size=24, micro_batch=12)
    other = trained(spec, corpus, ParallelConfig(sequences=sequences))
    assert (other.micro_batch, other.passes) == (sequences, 24 // sequences)
    plain = trained(spec, corpus)
    assert plain.micro_batch == 12
    torch.testing.assert_close(weights(other), weights(plain), rtol=1e-4, atol=1e-6)
    losses = [each.held_out.losses(each.strategy.loss, final=True) for each in (other, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_batch_that_the_micro_batch_does_not_divide_is_trained_whole(corpus, make_spec):
    """24 sequences in passes of at most 16: two of 12, each of equal weight, and none is left out."""
    plain = trained(make_spec(train_batch_size=24, micro_batch=16), corpus, steps=1)
    whole = trained(make_spec(train_batch_size=24, micro_batch=24), corpus, steps=1)
    assert (plain.micro_batch, plain.passes, whole.passes) == (12, 2, 1)
    for ours, reference in zip(plain.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, reference.grad, rtol=1e-4, atol=1e-7)


def test_a_batch_below_the_micro_batch_is_one_pass(corpus, make_spec):
    training = trained(make_spec(train_batch_size=8, micro_batch=16), corpus, steps=1)
    assert (training.micro_batch, training.passes) == (8, 1)


SOPHIA = {"gamma": 0.02, "hessian_interval": 2, "beta1": 0.95, "beta2": 0.95, "epsilon": 1e-12, "max_grad_norm": 1.0}


@pytest.mark.parametrize("sequences", [2, 8, 16])
def test_the_hessian_takes_the_same_sequences_whatever_a_pass_takes(corpus, make_spec, sequences: int):
    spec = make_spec("sophia", train_batch_size=16, micro_batch=8, learning_rate=0.001, **SOPHIA)
    plain, other = trained(spec, corpus, steps=4), trained(spec, corpus, ParallelConfig(sequences=sequences), steps=4)
    assert other.extra_tokens == plain.extra_tokens == 2 * 8 * 32
    parameter = "layers.0.mlp.down_proj.weight"
    hessians = [each.optimizer.state[each.model.get_parameter(parameter)]["hessian"] for each in (plain, other)]
    assert hessians[0].abs().max() > 0
    torch.testing.assert_close(*hessians, rtol=1e-2, atol=1e-3 * float(hessians[0].abs().max()))


def test_the_record_says_how_it_ran_and_the_trial_stays_the_same(corpus, make_spec, tmp_path):
    spec = make_spec(ratio=0.05)
    plain = run_trial(spec, corpus, Ledger(tmp_path / "a"))
    placed = run_trial(
        spec,
        corpus,
        Ledger(tmp_path / "b"),
        parallel=ParallelConfig(sequences=2, checkpointing=True, deterministic=True),
    )
    assert plain.trial == placed.trial
    assert plain.environment["micro_batch"] == "8" and "checkpointing" not in plain.environment
    told = {name: placed.environment[name] for name in ("micro_batch", "checkpointing", "deterministic")}
    assert told == {"micro_batch": "2", "checkpointing": "blocks", "deterministic": "yes"}
    assert plain.environment["mfu"] == plain.environment["peak_flops"] == "unknown", "no peak is assumed of a CPU"
    assert placed.select_loss == pytest.approx(plain.select_loss, rel=1e-4)
    assert torch.are_deterministic_algorithms_enabled()
    trained(spec, corpus, steps=1)
    assert not torch.are_deterministic_algorithms_enabled(), "the next trial of a warm worker starts from its own"
