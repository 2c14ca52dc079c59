"""The path of a GPU on a pretended one: devices and dtypes agree, nothing waits, memory is bounded at true shapes."""

import pytest
from pretended_cuda import reason_to_skip, run_pretended

from tuneopt.optim.info import BUILT_IN

pytestmark = pytest.mark.skipif(bool(reason_to_skip()), reason=reason_to_skip() or "can be pretended")

NAMES = [entry.name for entry in BUILT_IN]
GIB = 2**30


def test_a_wait_is_seen() -> None:
    """Else the test below could not fail."""
    assert run_pretended("pretended_steps.py", "--wait") == {"aten::_local_scalar_dense": 1}


def test_no_step_makes_the_host_wait() -> None:
    """Steps 1, 2 and 10: the first makes bases, the tenth refreshes them; an operator that mixes devices raises."""
    measured = run_pretended("pretended_steps.py", "130m", "1", "1,2,10", *NAMES)
    assert sorted(measured) == sorted(NAMES)
    waits = {(name, number): step["waits"] for name, steps in measured.items() for number, step in steps.items()}
    assert {key: value for key, value in waits.items() if value} == {}
    assert all(step["state"] > 0 and step["calls"] for steps in measured.values() for step in steps.values())


@pytest.mark.slow
def test_updates_of_the_largest_scale_are_bounded_beside_their_state() -> None:
    measured = run_pretended("pretended_steps.py", "1.2b", "32", "1,2,10", "muon", "scion", "soap", "kron", "cautious")
    workspace = {name: max(step["workspace"] for step in steps.values()) / GIB for name, steps in measured.items()}
    assert all(gib < 6 for gib in workspace.values()), workspace
    refresh = measured["soap"]["10"]["calls"]
    assert refresh["aten::geqrf"] <= 50 and "aten::linalg_qr" not in refresh, "one matrix at a time there are 36,864"


def test_the_heads_chunks_run_on_the_device() -> None:
    """Under autocast, forward and backward: bf16 products that add up in fp32, logits of one chunk at a time."""
    measured = run_pretended("pretended_head.py")
    assert measured["waits"] == {} and measured["dtypes"] == ["torch.float32", "torch.float32"]
    assert measured["addmm"] == measured["chunks"] > 1
