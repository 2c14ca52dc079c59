"""Newton-Schulz against the scalar map of singular values, and cutting matrices into blocks."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.optim.orthogonalize import check_precision, newton_schulz, quintic_map
from tuneopt.optim.tiles import cut, paste, tiles
from tuneopt.spec import InputError


def through_svd(matrices, eps):
    left, values, right = torch.linalg.svd(matrices.double(), full_matrices=False)
    values = quintic_map(values / (values.norm(dim=-1, keepdim=True) + eps))
    return left @ torch.diag_embed(values) @ right


@pytest.mark.parametrize("shape", [(8, 8), (4, 12), (12, 4), (3, 6, 6), (3, 20, 5), (2, 3, 4, 9)])
def test_equals_the_map_of_singular_values(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = through_svd(x, 1e-7)
    assert torch.dist(newton_schulz(x).double(), expected) < 1e-4 * expected.norm()
    assert torch.dist(newton_schulz(x.double()), expected) < 1e-10 * expected.norm()


def test_bf16_products_are_near_and_give_the_dtype_back():
    x = torch.randn(4, 16, 32, generator=torch.Generator().manual_seed(0))
    rough, exact = newton_schulz(x, precision="bf16"), newton_schulz(x)
    assert rough.dtype == torch.float32
    assert 1e-4 < torch.dist(rough, exact) / exact.norm() < 0.1


def test_unknown_precision_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'bf16'"):
        check_precision("bf61")


def test_zero_stays_zero_and_scale_does_not_matter():
    assert torch.equal(newton_schulz(torch.zeros(2, 3, 3)), torch.zeros(2, 3, 3))
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(newton_schulz(1e6 * x), newton_schulz(1e-3 * x), rtol=1e-3, atol=1e-3)


def test_the_band_that_the_proof_rests_on():
    values = torch.logspace(-2.6989, 0, 20001, dtype=torch.float64)  # from 0.002
    sent = quintic_map(values)
    assert 0.68 < sent.min() < 0.685
    assert 1.20 < sent.max() < 1.205
    assert quintic_map(torch.tensor(1e-4, dtype=torch.float64)) < 0.05


sides = st.integers(1, 17)


@settings(max_examples=60, deadline=None)
@given(rows=sides, columns=sides, block=st.integers(1, 20), count=st.integers(1, 3))
def test_tiles_cover_each_element_once(rows, columns, block, count):
    parts = tiles((rows, columns), block)
    assert 1 <= len(parts) <= 4
    assert sum(tile.count * tile.height * tile.width for tile in parts) == rows * columns
    assert all(1 <= tile.height <= block and 1 <= tile.width <= block for tile in parts)
    stack = torch.arange(count * rows * columns, dtype=torch.float32).reshape(count, rows, columns)
    rebuilt = torch.full_like(stack, -1.0)
    for tile in parts:
        blocks = cut(stack, tile)
        assert blocks.shape == (count * tile.count, tile.height, tile.width)
        paste(rebuilt, tile, blocks)
    assert torch.equal(rebuilt, stack)


def test_blocks_come_in_row_order():
    stack = torch.arange(16.0).reshape(1, 4, 4)
    (tile,) = tiles((4, 4), 2)
    assert cut(stack, tile)[1].tolist() == [[2.0, 3.0], [6.0, 7.0]]
    assert cut(stack, tile)[2].tolist() == [[8.0, 9.0], [12.0, 13.0]]
