"""Portions cover every entry once, are views, and stay small."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneopt.optim import portions as module
from tuneopt.optim.portions import portions, slices

SHAPES = st.lists(st.lists(st.integers(1, 9), min_size=0, max_size=3).map(tuple), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(shapes=SHAPES, limit=st.integers(1, 60))
def test_every_entry_is_visited_once_and_in_place(shapes, limit):
    before = module.PORTION
    module.PORTION = limit
    try:
        tensors = [torch.zeros(shape) for shape in shapes]
        twins = [torch.full(shape, float(row)) for row, shape in enumerate(shapes)]
        for positions, (mine, other) in portions([tensors, twins]):
            assert len(positions) == len(mine) == len(other)
            for position, tensor, twin in zip(positions, mine, other, strict=True):
                assert tensor.shape == twin.shape and bool((twin == position).all())
                tensor.add_(1)
        assert all(bool((tensor == 1).all()) for tensor in tensors)
    finally:
        module.PORTION = before


def test_large_tensors_are_cut_and_small_ones_put_together(monkeypatch):
    monkeypatch.setattr(module, "PORTION", 100)
    tensors = [torch.zeros(40), torch.zeros(30, 10), torch.zeros(50), torch.zeros(20), torch.zeros(5, 1000)]
    found = [(positions, [tuple(tensor.shape) for tensor in held]) for positions, (held,) in portions([tensors])]
    # Rows of a matrix stay together, and a row longer than a portion comes alone.
    assert [entry for entry in found if entry[0] == [1]] == [([1], [(10, 10)])] * 3
    assert [entry for entry in found if entry[0] == [4]] == [([4], [(1, 1000)])] * 5
    assert ([0, 2], [(40,), (50,)]) in found and ([3], [(20,)]) in found


def test_state_of_another_width_is_cut_along(monkeypatch):
    monkeypatch.setattr(module, "PORTION", 8)
    rows = [torch.arange(6.0).view(6, 1, 1)]
    for _, (matrix, numbers) in portions([[torch.zeros(6, 1, 4)], rows]):
        assert matrix[0].shape[0] == numbers[0].shape[0] == 2


def test_no_tensor_is_no_portion_of_consequence():
    assert [part for part in portions([[], []]) if part[1][0]] == []


def test_other_devices_take_large_portions():
    tensors = [torch.zeros(1000, 1000, device="meta"), torch.zeros(3, device="meta")]
    ((positions, (held,)),) = list(portions([tensors]))
    assert positions == [0, 1] and held == tensors
    huge = torch.zeros(3 * module.DEVICE_PORTION // 1024, 1024, device="meta")
    parts = [held[0] for positions, (held,) in portions([[tensors[0], huge, tensors[1]]]) if positions == [1]]
    assert [part.numel() for part in parts] == [module.DEVICE_PORTION] * 3


def test_stacks_of_other_devices_are_sliced_too():
    stack = torch.zeros(5, module.DEVICE_SLICE // 2 // 1024, 1024, device="meta")
    assert [len(stack[some]) for some in slices(stack)] == [2, 2, 1]
    assert list(slices(stack[:0])) == []
