"""What a parameter or a state entry is made of may change under an optimizer that is at work."""

import copy

import pytest
import torch
from test_optim_buckets import Q, copied, each, equal, made, parameters, step

from tuneopt.optim import AdamW
from tuneopt.spec import InputError


@each
def test_data_of_another_dtype_goes_on_with_state_of_its_own(name):
    """``model.double()`` keeps every parameter and gives it other data."""
    named = parameters()
    optimizer = made(name, named)
    step(optimizer, named, 0)
    for parameter in named.values():
        parameter.data = parameter.data.double()
        parameter.grad = None
    step(optimizer, named, 1)
    tensors = [v for entry in optimizer.state.values() for v in entry.values() if isinstance(v, torch.Tensor)]
    assert {tensor.dtype for tensor in tensors} == {torch.float64}


@each
def test_data_that_grew_is_never_stepped_with_its_old_state(name):
    """A fused kernel would write past the end of the state: the process died later, of a damaged heap."""
    named = parameters()
    table = named["embed_tokens.weight"]
    optimizer = made(name, named)
    step(optimizer, named, 0)
    gradient = table.grad
    table.data = torch.ones(14, 8)
    table.grad = None
    with pytest.raises(InputError, match=r"of embed_tokens\.weight has shape .*not .*optimizer\.state\.pop"):
        step(optimizer, named, 1)
    optimizer.state.pop(table)
    table.data, table.grad = torch.ones(12, 8), gradient
    table.data = torch.ones(14, 8)
    with pytest.raises(InputError, match=r"gradient of embed_tokens\.weight has shape \(12, 8\), and it has \(14, 8\)"):
        optimizer.step()
    table.grad = None
    step(optimizer, named, 2, 3)  # the first step of some rules only measures
    assert not torch.equal(table, torch.ones(14, 8)) and optimizer.state[table]["step"] == 2


@each
@pytest.mark.parametrize("other", [lambda held: held.mT.contiguous().mT, lambda held: held.double()])
def test_a_tensor_put_into_an_entry_may_lie_otherwise_in_memory(name, other):
    named, twins = parameters(), parameters()
    optimizer, twin = made(name, named), made(name, twins)
    for own, stepper in ((named, optimizer), (twins, twin)):
        step(stepper, own, 0)
    entry = optimizer.state[named["embed_tokens.weight"]]
    for key in [key for key, held in entry.items() if isinstance(held, torch.Tensor) and held.ndim == 2]:
        entry[key] = other(entry[key])
    for own, stepper in ((named, optimizer), (twins, twin)):
        step(stepper, own, 1)
    assert equal(named, twins)


def test_a_tensor_of_another_shape_in_an_entry_is_refused():
    named = parameters()
    optimizer = AdamW(named.items())
    step(optimizer, named, 0)
    optimizer.state[named[Q]]["exp_avg"] = torch.zeros(3)
    with pytest.raises(InputError, match=r"'exp_avg' of layers\.0\.q\.weight has shape \(3,\), not \(8, 8\)"):
        step(optimizer, named, 1)


@each
def test_state_that_lacks_a_part_is_refused_by_name_and_starts_anew_as_a_whole(name):
    """One moment at zero under the count of the others moved weights by hundreds of learning rates."""
    named = parameters()
    optimizer = made(name, named, max_grad_norm=0.0)
    step(optimizer, named, 0, 1)
    for key in (Q, "embed_tokens.weight"):
        entry = optimizer.state[named[key]]
        for part in list(entry) if len(entry) > 2 else ["step"]:
            held, before = entry.pop(part), {other: p.detach().clone() for other, p in named.items()}
            with pytest.raises(InputError, match=rf"the state of {key} lacks '{part}'; put it back, or let"):
                step(optimizer, named, 2)
            assert equal(named, before)
            entry[part] = held
    step(optimizer, named, 2)
    assert optimizer.state[named[Q]]["step"] == 3
    twins = copied(named)
    fresh = made(name, twins, max_grad_norm=0.0)
    for part in [part for part in optimizer.state[named[Q]] if part != "step"]:
        optimizer.state[named[Q]].pop(part)
    step(optimizer, named, 3)
    step(fresh, twins, 3)
    assert optimizer.state[named[Q]]["step"] == 1
    torch.testing.assert_close(named[Q], twins[Q], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("saved", "into"), [("adamw", "lion"), ("lion", "adamw"), ("muon", "soap")])
def test_a_state_dict_of_another_optimizer_is_refused_when_it_is_loaded(saved, into):
    left, right = parameters(), parameters()
    one, other = made(saved, left), made(into, right)
    step(one, left, 0)
    step(other, right, 0)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(InputError, match="the state_dict is of another optimizer"):
        other.load_state_dict(one.state_dict())
    step(other, right, 1)
    assert [group["rule"] for group in other.param_groups] == [group["rule"] for group in before["param_groups"]]
