"""The chunked head: its values, gradients and curvature are those of whole logits, which never exist."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tuneopt.spec import Scale
from tuneopt.training.head import Head, chunked_cross_entropy, fused_slope, loss_and_slope
from tuneopt.training.memory import CHUNK_ELEMENTS, CHUNKED_VOCABULARY, chunk_tokens
from tuneopt.training.model import Decoder
from tuneopt.training.second_order import hessian_diagonal

SCALE = Scale("short", "nano", layers=2, d_model=16, d_ff=32, heads=1, seq_len=32)
VOCAB = CHUNKED_VOCABULARY + 7


def whole(x: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The reference: all logits at once."""
    return F.cross_entropy(x @ weight.T, targets)


def problem(tokens: int, width: int, vocab: int, dtype: torch.dtype = torch.float64, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, width, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(vocab, width, generator=generator, dtype=dtype).requires_grad_()
    return x, weight, torch.randint(vocab, (tokens,), generator=generator)


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(2, 30), st.integers(1, 50), st.integers(0, 99))
def test_loss_gradients_and_curvature_equal_whole_logits(tokens, width, vocab, chunk, seed):
    x, weight, targets = problem(tokens, width, vocab, seed=seed)
    along = [torch.randn_like(x), torch.randn_like(weight)]

    def derivatives(loss: torch.Tensor):
        first = torch.autograd.grad(3 * loss, (x, weight), create_graph=True)
        return loss, *first, *torch.autograd.grad(first, (x, weight), along)

    chunked = derivatives(chunked_cross_entropy(x, weight, targets, chunk))
    for ours, reference in zip(chunked, derivatives(whole(x, weight, targets)), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-11)


def test_numeric_derivatives_agree():
    x, weight, targets = problem(7, 3, 5)

    def loss(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return chunked_cross_entropy(x, weight, targets, 3) * 2

    assert torch.autograd.gradcheck(loss, (x, weight))
    assert torch.autograd.gradgradcheck(loss, (x, weight))


def test_first_gradients_without_a_graph_and_a_second_backward_pass():
    x, weight, targets = problem(9, 4, 6)
    reference = torch.autograd.grad(whole(x, weight, targets), (x, weight))
    loss = chunked_cross_entropy(x, weight, targets, 4) * 0.5
    for _ in range(2):  # the gradients that were kept go with the first backward pass; the second computes them anew
        for ours, expected in zip(torch.autograd.grad(loss, (x, weight), retain_graph=True), reference, strict=True):
            torch.testing.assert_close(ours, 0.5 * expected)


def test_without_gradients_none_are_computed():
    x, weight, targets = problem(9, 4, 6)
    with torch.no_grad(), Products() as products:
        loss = chunked_cross_entropy(x, weight, targets, 3)
    assert products.count == 3, "one product for each chunk, none for a gradient"
    torch.testing.assert_close(loss, whole(x, weight, targets).detach())


class Products(TorchDispatchMode):
    """Counts matrix products."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += function._overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_)
        return function(*args, **(kwargs or {}))


class Largest(TorchDispatchMode):
    """Notes the most elements of any tensor that an operation makes, other than of a parameter's own shape."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.vocab, self.rows = vocab, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for each in out if isinstance(out, tuple | list) else (out,):
            if isinstance(each, torch.Tensor) and each.ndim == 2 and each.shape[1] == self.vocab:
                self.rows = max(self.rows, each.shape[0])
            elif isinstance(each, torch.Tensor) and each.ndim == 3 and each.shape[2] == self.vocab:
                self.rows = max(self.rows, each.shape[0] * each.shape[1])
        return out


@pytest.mark.parametrize("order", ["training", "evaluation", "hessian"])
def test_logits_of_a_pass_never_exist_whole(order: str):
    model = Decoder(SCALE, VOCAB)
    model.initialize(0)
    tokens = torch.randint(VOCAB, (4, 33))
    window = tokens[:, :-1], tokens[:, 1:]
    with Largest(VOCAB) as seen:
        if order == "training":
            model.loss(*window).backward()
        elif order == "evaluation":
            with torch.no_grad():
                model.loss(*window)
        else:
            hessian_diagonal(model, *window, seed=0, step=0)
    assert seen.rows == chunk_tokens(128, VOCAB) == 32
    with Largest(VOCAB) as seen:
        model(window[0])
    assert seen.rows == 128, "asked for logits, it gives all of them, and the spy sees them"


def test_the_model_loss_equals_whole_logits_in_fp32():
    model = Decoder(SCALE, VOCAB)
    model.initialize(1)
    tokens = torch.randint(VOCAB, (3, 33))

    def gradients(loss: torch.Tensor) -> list[torch.Tensor]:
        return list(torch.autograd.grad(loss, list(model.parameters())))

    chunked = model.loss(tokens[:, :-1], tokens[:, 1:])
    reference = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert chunked.dtype == torch.float32
    assert chunked.item() == pytest.approx(reference.item(), rel=1e-6)
    for ours, expected in zip(gradients(chunked), gradients(reference), strict=True):
        assert torch.dist(ours, expected) <= 2e-6 * expected.norm()


def test_bf16_is_as_near_to_fp32_as_whole_logits_are():
    """Products in bf16, the rest in fp32: one rounding per chunk in place of one."""
    x, weight, targets = problem(64, 32, 500, torch.float32)
    exact = torch.autograd.grad(whole(x, weight, targets), (x, weight))
    with torch.autocast("cpu", torch.bfloat16):
        plain = F.cross_entropy(F.linear(x, weight).float(), targets)
        chunked = chunked_cross_entropy(x, weight, targets, 16)
    assert chunked.dtype == torch.float32 and chunked.item() == pytest.approx(plain.item(), rel=1e-6)
    pairs = zip(torch.autograd.grad(chunked, (x, weight)), torch.autograd.grad(plain, (x, weight)), exact, strict=True)
    for ours, theirs, true in pairs:
        assert ours.dtype == torch.float32
        assert 0 < torch.dist(ours, true) < 1.1 * torch.dist(theirs, true) < 0.02 * true.norm()


@given(st.integers(1, 2**20), st.integers(1, 2**18))
def test_chunks_follow_from_shapes_and_stay_within_bounds(tokens: int, vocab: int):
    chunk = chunk_tokens(tokens, vocab)
    if vocab < CHUNKED_VOCABULARY:
        assert chunk is None
        return
    assert chunk is not None and chunk.bit_count() == 1
    assert chunk == 1 or (4 * chunk <= tokens + 3 and chunk * vocab <= CHUNK_ELEMENTS)


def test_a_sequence_of_the_paper_is_cut_in_four():
    assert chunk_tokens(4096, 128_256) == 1024
    assert chunk_tokens(16 * 4096, 128_256) == 4096
    assert chunk_tokens(2048, 1024) is None


def test_small_vocabularies_run_the_plain_operations():
    """Bit for bit: results of the nano ladder must not move."""
    head, x = Head(16, 97), torch.randn(2, 5, 16, requires_grad=True)
    targets = torch.randint(97, (2, 5))
    loss = head(x, targets)
    reference = F.cross_entropy(F.linear(x, head.weight).flatten(0, 1).float(), targets.flatten())
    assert torch.equal(loss, reference)
    wanted = (x, head.weight)
    ours, theirs = torch.autograd.grad(loss, wanted), torch.autograd.grad(reference, wanted)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_capped_logits_give_the_same_loss_in_chunks():
    torch.manual_seed(4)
    head = Head(16, VOCAB, softcap=3.0)
    x = torch.randn(2, 64, 16, requires_grad=True)
    with torch.no_grad():
        head.weight.normal_()
    targets = torch.randint(VOCAB, (2, 64))
    assert chunk_tokens(targets.numel(), VOCAB) is not None, "chunks are what is tested"
    logits = 3.0 * torch.tanh(F.linear(x, head.weight) / 3.0)
    reference = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert head(x).abs().max() <= 3.0 and torch.allclose(head(x), logits)
    loss = head(x, targets)
    assert loss.item() == pytest.approx(reference.item(), rel=1e-6)
    ours, expected = (torch.autograd.grad(value, (x, head.weight)) for value in (loss, reference))
    assert all(torch.dist(a, b) <= 2e-6 * b.norm() for a, b in zip(ours, expected, strict=True))


def test_the_slope_of_compiled_kernels_is_that_of_the_others():
    torch.manual_seed(5)
    logits, targets = torch.randn(64, 300) * 4, torch.randint(300, (64,))
    normalizer = torch.logsumexp(logits, dim=-1, keepdim=True)
    fused = fused_slope(logits, normalizer, targets, 64)
    _, slope = loss_and_slope(logits.clone(), targets, 64)
    assert torch.allclose(fused, slope, rtol=0, atol=1e-9)
    _, gradient = logits.requires_grad_(), torch.autograd.grad(F.cross_entropy(logits, targets), logits)[0]
    assert torch.allclose(fused, gradient, rtol=1e-5, atol=1e-8)
