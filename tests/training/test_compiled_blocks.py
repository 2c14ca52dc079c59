"""Models with large vocabularies compile block by block, with the results of plain code."""

from dataclasses import replace

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from tuneopt.ledger import Ledger
from tuneopt.spec import CorpusId, Regime, Scale, TrialSpec
from tuneopt.training.building import BuiltModel, WarmModels, can_compile, fresh
from tuneopt.training.config import ParallelConfig
from tuneopt.training.memory import CHUNKED_VOCABULARY
from tuneopt.training.run import run_ranks, run_trial
from tuneopt.training.second_order import hessian_diagonal

CPU = torch.device("cpu")
FLAT = Scale("flat", "nano", layers=5, d_model=32, d_ff=64, heads=1, seq_len=32)


def spec(vocab_size: int, **changes) -> TrialSpec:
    regime = Regime(FLAT, 1.0, CorpusId("text", "0" * 16, vocab_size))
    return replace(TrialSpec("adamw", TrialSpec.freeze({"train_batch_size": 4}), regime, micro_batch=2), **changes)


def window(vocab_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.randint(vocab_size, (2, 33), generator=torch.Generator().manual_seed(0))
    return tokens[:, :-1], tokens[:, 1:]


def gradients(made: BuiltModel, vocab_size: int) -> tuple[float, list[torch.Tensor]]:
    loss = made.loss(*window(vocab_size))
    return loss.item(), list(torch.autograd.grad(loss, list(made.model.parameters())))


def test_all_blocks_share_what_is_compiled_once(monkeypatch) -> None:
    """Two frames: a block and the kernel of the head's chunks; a deep model costs no more than a flat one."""
    torch._dynamo.reset()
    counter, compile = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile(function, backend=counter, **options))
    vocab = CHUNKED_VOCABULARY
    compiled = fresh(spec(vocab, compile=True), CPU)
    plain = fresh(spec(vocab), CPU)
    for _ in range(2):
        (loss, ours), (expected, reference) = gradients(compiled, vocab), gradients(plain, vocab)
        assert loss == pytest.approx(expected, rel=1e-6)
        for each, other in zip(ours, reference, strict=True):
            torch.testing.assert_close(each, other, rtol=1e-4, atol=1e-7)
    assert counter.frame_count == 2
    torch._dynamo.reset()


def test_the_hessian_stays_outside_compiled_code(monkeypatch) -> None:
    """Compiled code cannot be differentiated twice."""
    vocab = CHUNKED_VOCABULARY
    monkeypatch.setattr(torch, "compile", lambda function, **options: pytest.fail("it was about to run compiled code"))
    plain = fresh(spec(vocab), CPU)
    monkeypatch.setattr(torch, "compile", lambda function, **options: lambda *inputs: pytest.fail("compiled code ran"))
    compiled = fresh(spec(vocab, compile=True), CPU)
    found = [hessian_diagonal(made.model, *window(vocab), seed=0, step=0) for made in (plain, compiled)]
    assert all(torch.equal(a, b) for a, b in zip(found[0].values(), found[1].values(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_inductor_gives_the_gradients_of_plain_code(precision: str, checkpointing: bool) -> None:
    if not can_compile():
        pytest.skip("no C++ compiler")
    vocab = CHUNKED_VOCABULARY + 5
    compiled = WarmModels(CPU).prepare(spec(vocab, compile=True, precision=precision), checkpointing=checkpointing)
    plain = WarmModels(CPU).prepare(spec(vocab, precision=precision))
    (loss, ours), (expected, reference) = gradients(compiled, vocab), gradients(plain, vocab)
    assert loss == pytest.approx(expected, rel=1e-6 if precision == "fp32" else 1e-4)
    for each, other in zip(ours, reference, strict=True):
        assert each.dtype == torch.float32, "gradients of master weights"
        assert torch.dist(each, other) <= (1e-4 if precision == "fp32" else 0.02) * other.norm()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("vocab_size", [272, CHUNKED_VOCABULARY])
def test_compiled_ranks_end_with_the_loss_of_one_process(corpus, make_spec, tmp_path, vocab_size: int) -> None:
    """DDP around a loss that was compiled as a whole, and around one that was compiled by blocks."""
    if not can_compile():
        pytest.skip("no C++ compiler")
    made = make_spec(ratio=0.05, micro_batch=4)
    regime = replace(made.regime, corpus=replace(made.regime.corpus, vocab_size=vocab_size))
    made = replace(made, compile=True, regime=regime)
    whole = run_trial(replace(made, compile=False), corpus, Ledger(tmp_path / "one"))
    ranks = run_ranks(made, corpus, Ledger(tmp_path / "two"), ParallelConfig(ranks=2))
    assert ranks.select_loss == pytest.approx(whole.select_loss, rel=1e-4)
    assert ranks.environment["ranks"] == "2" and ranks.environment["micro_batch"] == "4"
