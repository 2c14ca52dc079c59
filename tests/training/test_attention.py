"""Attention in blocks of queries: its first and second derivatives are those of plain products, in less memory."""

from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from live_bytes import LiveBytes
from torch.nn.attention import SDPBackend, sdpa_kernel

from tuneopt.training import second_order as layers
from tuneopt.training.memory import ATTENTION_ROWS
from tuneopt.training.second_order import twice_differentiable_attention


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The reference: torch's products of whole matrices."""
    with sdpa_kernel(SDPBackend.MATH):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def problem(sequences: int, heads: int, seq_len: int, width: int, dtype: torch.dtype = torch.float64, seed: int = 0):
    """Queries, keys, values and an output gradient, laid out in memory as the model's projections give them."""
    generator = torch.Generator().manual_seed(seed)
    shape = (sequences, seq_len, heads, width)
    return [torch.randn(shape, generator=generator, dtype=dtype).transpose(1, 2).requires_grad_() for _ in range(4)], [
        torch.randn(shape, generator=generator, dtype=dtype).transpose(1, 2) for _ in range(3)
    ]


def derivatives(attend, inputs, directions):
    """The output, its gradient, and the product of the second derivative with directions, by all four inputs."""
    q, k, v, g = inputs
    out = attend(q, k, v)
    first = torch.autograd.grad(out, (q, k, v), g, create_graph=True)
    return out, *first, *torch.autograd.grad(first, inputs, directions)


@settings(deadline=None, max_examples=15)
@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 17), st.integers(1, 5), st.integers(1, 20), st.integers(1, 200)
)
def test_derivatives_equal_plain_products(sequences, heads, seq_len, width, rows, elements):
    """Any number of blocks, tokens that they do not divide, and heads in several parts."""
    inputs, directions = problem(sequences, heads, seq_len, width, seed=rows)
    with patch.object(layers, "ATTENTION_ROWS", rows), patch.object(layers, "ATTENTION_ELEMENTS", elements):
        found = derivatives(twice_differentiable_attention, inputs, directions)
    for ours, reference in zip(found, derivatives(plain, inputs, directions), strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-12)


def test_numeric_derivatives_agree():
    (q, k, v, _), _ = problem(1, 2, 5, 3)
    with patch.object(layers, "ATTENTION_ROWS", 2):
        assert torch.autograd.gradcheck(twice_differentiable_attention, (q, k, v))
        assert torch.autograd.gradgradcheck(twice_differentiable_attention, (q, k, v))


def test_fp32_is_as_exact_as_plain_products():
    """Both round; neither may be much further from fp64 than the other. Scores are large enough for sharp rows."""
    inputs, directions = problem(1, 2, 2 * ATTENTION_ROWS + 88, 16, torch.float32)
    exact = derivatives(plain, [x.detach().double().requires_grad_() for x in inputs], [x.double() for x in directions])
    ours, reference = (derivatives(each, inputs, directions) for each in (twice_differentiable_attention, plain))
    for mine, theirs, truth in zip(ours, reference, exact, strict=True):
        assert mine.dtype == torch.float32
        error, allowed = torch.dist(mine.double(), truth), torch.dist(theirs.double(), truth)
        assert error < 2 * allowed + 1e-7 * truth.norm()


def test_no_query_sees_what_comes_later():
    """To the bit: other keys, values and directions beyond a block's end do not enter what belongs to its queries."""
    inputs, directions = problem(1, 1, 8, 3)
    with patch.object(layers, "ATTENTION_ROWS", 4):
        before = derivatives(twice_differentiable_attention, inputs, directions)
        for tensor in (*inputs[1:3], *directions):
            tensor.data[:, :, 4:] = 100.0
        after = derivatives(twice_differentiable_attention, inputs, directions)
    for number in (0, 1, 7):  # the output, the gradient by the queries, the product by the output's gradient
        assert torch.equal(before[number][:, :, :4], after[number][:, :, :4])
        assert not torch.equal(before[number][:, :, 4:], after[number][:, :, 4:])


def test_a_third_derivative_is_refused():
    inputs, directions = problem(1, 1, 4, 2)
    q, k, v, g = inputs
    first = torch.autograd.grad(twice_differentiable_attention(q, k, v), (q, k, v), g, create_graph=True)
    with pytest.raises(RuntimeError, match="no third derivative"):
        torch.autograd.grad(first, q, directions, create_graph=True)


def peak(attend, seq_len: int) -> int:
    """Bytes alive at once, but for inputs and directions."""
    inputs, directions = problem(1, 1, seq_len, 4, torch.float32)
    with LiveBytes() as live:
        derivatives(attend, inputs, directions)
    return live.peak


def test_memory_grows_with_the_tokens_not_with_their_square():
    short, long = 2 * ATTENTION_ROWS, 4 * ATTENTION_ROWS
    assert peak(twice_differentiable_attention, long) < 2.2 * peak(twice_differentiable_attention, short)
    assert peak(plain, long) > 3.5 * peak(plain, short), "the count sees what plain products hold"
    assert peak(twice_differentiable_attention, long) < 0.25 * peak(plain, long)


def test_a_block_stays_within_its_bytes():
    """However many heads there are: probabilities, three more matrices, and one while a sum is taken."""

    def peak_beside_vectors(heads: int) -> int:
        inputs, directions = problem(1, heads, 512, 2, torch.float32)
        with LiveBytes() as live:
            derivatives(twice_differentiable_attention, inputs, directions)
        return live.peak - 16 * inputs[0].nbytes

    with patch.object(layers, "ATTENTION_ELEMENTS", 2**17):
        matrix = 4 * 2**17
        assert 4 * matrix < peak_beside_vectors(1) < 5.2 * matrix
        assert peak_beside_vectors(8) < 5.2 * matrix
