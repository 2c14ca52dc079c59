"""A forward and a backward pass at true shapes on a pretended CUDA: ``pretended_passes.py SCALE:LAYERS:SEQUENCES...``.

Prints for each the peak bytes over weights and gradients under bf16 autocast, written as it is (not compiled), the
products' FLOPs for each token, and waits.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from pretended_cuda import answer, counted, pretend

pretend()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from tuneopt.spec import SCALES  # noqa: E402
from tuneopt.training.model import Decoder  # noqa: E402

VOCABULARY = 128_256


def flash_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, is_causal: bool = True) -> torch.Tensor:
    """The kernel that a GPU takes: which one fits is asked of a driver, and there is none."""
    half = (tensor.to(torch.bfloat16) for tensor in (q, k, v))
    out: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention(*half, 0.0, is_causal)[0]
    return out


def addmm_flops(total: Any, left: Any, right: Any, *more: Any, **settings: Any) -> int:
    """Of a product that adds up in another dtype than its inputs', which torch's own count does not know."""
    return int(2 * left[0] * left[1] * right[1])


def one(scale: Any, sequences: int) -> dict[str, Any]:
    """What a pass over ``sequences`` of a scale needs."""
    with counted() as account:
        with torch.device("cuda"):
            model = Decoder(scale, VOCABULARY)
            tokens = torch.zeros(sequences, scale.seq_len + 1, dtype=torch.int64)
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter)
        account.peak = account.live
        before = account.live
        counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm: addmm_flops})
        with counter:
            with torch.autocast("cuda", torch.bfloat16):
                loss = model.loss(tokens[:, :-1], tokens[:, 1:])
            loss.backward()
    flops = counter.get_total_flops() / (sequences * scale.seq_len)
    return {"peak": account.peak - before, "flops": flops, "waits": dict(account.waits)}


F.scaled_dot_product_attention = flash_attention
found = {}
for word in sys.argv[1:]:
    name, layers, sequences = word.split(":")
    found[word] = one(replace(SCALES[name], layers=int(layers)), int(sequences))
answer(found)
