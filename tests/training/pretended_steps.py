"""Optimizer steps at true shapes on a pretended CUDA: ``pretended_steps.py SCALE LAYERS STEPS NAME...``.

Prints by optimizer and step the operator calls, waits, state bytes, and the workspace: peak bytes of the step over
weights, gradients and state.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from typing import Any

from pretended_cuda import answer, counted, pretend

pretend()

import torch  # noqa: E402

from tuneopt.optim import create  # noqa: E402
from tuneopt.optim.factory import LOOP, implementation  # noqa: E402
from tuneopt.search.space import load_space  # noqa: E402
from tuneopt.spec import SCALES  # noqa: E402
from tuneopt.training.model import Decoder  # noqa: E402


def steps_of(name: str, scale: Any, vocabulary: int, steps: list[int]) -> dict[str, Any]:
    """Steps of one optimizer, each as if all before it had been taken."""
    config = {key: value for key, value in load_space(name).on(scale.ladder).start if key not in LOOP}
    with counted() as account:
        with torch.device("cuda"):
            model = Decoder(scale, vocabulary)
        optimizer = create(name, model, **scale.facts(implementation(name).model_facts), **config)
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        seen = {}
        before = account.live
        for step in steps:
            for bucket in optimizer.buckets():
                for entry in bucket.entries:
                    entry["step"] = step - 1
            if optimizer.hessian_interval:
                optimizer.update_hessian({p: torch.empty_like(p) for p in model.parameters()})
            account.calls.clear()
            account.waits.clear()
            account.peak = account.live
            optimizer.step()
            seen[str(step)] = {
                "calls": dict(account.calls),
                "waits": dict(account.waits),
                "state": account.live - before,
                "workspace": account.peak - account.live,
            }
    return seen


def resumed(name: str, scale: Any, vocabulary: int) -> dict[str, int]:
    """Bytes of state, and peak bytes while a checkpoint's state is taken over from the host."""
    config = {key: value for key, value in load_space(name).on(scale.ladder).start if key not in LOOP}
    facts = scale.facts(implementation(name).model_facts)
    with counted() as account:
        saved = create(name, Decoder(scale, vocabulary), **facts, **config)
        saved.buckets()
        state = saved.state_dict()
        with torch.device("cuda"):
            model = Decoder(scale, vocabulary)
        optimizer = create(name, model, **facts, **config)
        before = account.peak = account.live
        optimizer.load_state_dict(state)
        devices = {
            value.device.type
            for entry in optimizer.state.values()
            for value in entry.values()
            if value is not None and isinstance(value, torch.Tensor)
        }
    return {"state": account.live - before, "peak": account.peak - before, "on_host": int("cpu" in devices)}


def waited() -> dict[str, int]:
    """What an account says of a value that the host asks for."""
    with counted() as account:
        number = torch.ones(3, device="cuda").sum()
        with contextlib.suppress(Exception):  # a fake number has no value; asking is what counts
            number.item()
    return {name.split(" at ")[0]: count for name, count in account.waits.items()}


def main() -> None:
    """Print one JSON line."""
    if sys.argv[1] == "--wait":
        answer(waited())
    if sys.argv[1] == "--resume":
        scale = replace(SCALES["130m"], layers=2)
        answer({name: resumed(name, scale, 32_768) for name in sys.argv[2:]})
    scale = replace(SCALES[sys.argv[1]], layers=int(sys.argv[2]))
    steps = [int(word) for word in sys.argv[3].split(",")]
    answer({name: steps_of(name, scale, 128_256, steps) for name in sys.argv[4:]})


if __name__ == "__main__":
    main()
