"""Newton-Schulz against the scalar map of singular values, and cutting matrices into blocks."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.optim import Muon, Scion
from tuneopt.optim.orthogonalize import newton_schulz
from tuneopt.optim.portions import cut, paste, tiles
from tuneopt.optim.proof import UpdateCheck
from tuneopt.optim.reference.matrix import polynomial
from tuneopt.optim.testing import TinyModel
from tuneopt.spec import InputError


def spectral_map(values, steps=5, coefficients="quintic"):
    """Where Newton-Schulz sends singular values in [0, 1]: the scalar polynomials, one after another."""
    values = values / (1.01 if coefficients == "polar_express" else 1.0)
    for number in range(steps):
        a, b, c = polynomial(coefficients, number)
        values = a * values + b * values**3 + c * values**5
    return values


def band(steps, coefficients):
    """The least place to which a singular value in [0.002, 1] is sent, and the greatest for any value up to 1."""
    values = torch.logspace(-8, 0, 40001, dtype=torch.float64)
    sent = spectral_map(values, steps, coefficients)
    return float(sent[values >= 0.002].min()), float(sent.max())


def through_svd(matrices, eps, steps=5, coefficients="quintic"):
    left, values, right = torch.linalg.svd(matrices.double(), full_matrices=False)
    values = spectral_map(values / (values.norm(dim=-1, keepdim=True) + eps), steps, coefficients)
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


@pytest.mark.parametrize("steps", [1, 5, 8, 10])
@pytest.mark.parametrize("coefficients", ["quintic", "polar_express"])
def test_every_schedule_equals_its_map(steps, coefficients):
    x = torch.randn(3, 6, 14, generator=torch.Generator().manual_seed(1))
    expected = through_svd(x, 1e-7, steps, coefficients)
    assert torch.dist(newton_schulz(x, 1e-7, steps, "fp32", coefficients).double(), expected) < 1e-4 * expected.norm()
    rough = newton_schulz(x, 1e-7, steps, "bf16", coefficients)
    assert torch.dist(rough.double(), expected) < 0.1 * expected.norm()


def test_polar_express_ends_at_the_polar_factor_and_the_quintic_does_not():
    x = torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    left, _, right = torch.linalg.svd(x, full_matrices=False)
    found = {name: newton_schulz(x, 1e-12, 10, "fp32", name) for name in ("quintic", "polar_express")}
    assert torch.dist(found["polar_express"], left @ right) < 1e-9
    assert torch.dist(found["quintic"], left @ right) > 0.1


@pytest.mark.parametrize(
    ("steps", "coefficients", "low", "high"),
    [(5, "quintic", 0.681, 1.203), (5, "polar_express", 0.870, 1.124), (8, "polar_express", 1.0, 1.0)],
)
def test_bands(steps, coefficients, low, high):
    assert band(steps, coefficients) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))


def test_unknown_coefficients_name_the_nearest():
    with pytest.raises(InputError, match="did you mean 'polar_express'"):
        Muon(TinyModel(), ns_coefficients="polar_expres")


def test_unknown_precision_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'bf16'"):
        Muon(TinyModel(), ns_precision="bf61")


def test_zero_stays_zero_and_scale_does_not_matter():
    assert torch.equal(newton_schulz(torch.zeros(2, 3, 3)), torch.zeros(2, 3, 3))
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(newton_schulz(1e6 * x), newton_schulz(1e-3 * x), rtol=1e-3, atol=1e-3)


def test_the_band_that_the_documentation_states():
    values = torch.logspace(-2.6989, 0, 20001, dtype=torch.float64)  # from 0.002
    sent = spectral_map(values)
    assert 0.68 < sent.min() < 0.685
    assert 1.20 < sent.max() < 1.205
    assert spectral_map(torch.tensor(1e-4, dtype=torch.float64)) < 0.05


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
        paste(stack, tile, blocks)  # where they were cut from, as SOAP does
    assert torch.equal(rebuilt, stack)


def test_blocks_come_in_row_order():
    stack = torch.arange(16.0).reshape(1, 4, 4)
    (tile,) = tiles((4, 4), 2)
    assert cut(stack, tile)[1].tolist() == [[2.0, 3.0], [6.0, 7.0]]
    assert cut(stack, tile)[2].tolist() == [[8.0, 9.0], [12.0, 13.0]]


def watched(optimizer, parameters):
    check, draw = UpdateCheck(optimizer), torch.Generator().manual_seed(3)
    for _ in range(4):
        for parameter in parameters.values():
            parameter.grad = 0.1 * torch.randn(parameter.shape, generator=draw)
        check.before_step()
        optimizer.step()
        check.after_step()
    return check.proof()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("coefficients", ["quintic", "polar_express"])
@pytest.mark.parametrize("cls", [Muon, Scion])
def test_the_proof_fits_each_schedule_and_tells_them_apart(cls, coefficients, precision):
    draw = torch.Generator().manual_seed(0)
    shapes = {"layers.0.up_proj.weight": (32, 16), "norm.weight": (16,)}
    parameters = {name: torch.nn.Parameter(0.02 * torch.randn(shape, generator=draw)) for name, shape in shapes.items()}
    optimizer = cls(parameters.items(), 0.01, ns_coefficients=coefficients, ns_precision=precision)
    assert watched(optimizer, parameters).passed
    if precision == "fp32":
        other = "quintic" if coefficients == "polar_express" else "polar_express"
        impostor = cls(parameters.items(), 0.01, ns_coefficients=coefficients)
        rule = copy.copy(impostor.main)
        genuine = type(rule).direction
        rule.direction = lambda g, state, settings, step: genuine(
            rule, g, state, {**settings, "ns_coefficients": other}, step
        )
        impostor.rules = (rule, *impostor.rules[1:])
        assert not watched(impostor, parameters).passed
