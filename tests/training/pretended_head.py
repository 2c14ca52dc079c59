"""The head's chunked loss under autocast on a pretended CUDA, forward and backward."""

from __future__ import annotations

from pretended_cuda import answer, counted, pretend

pretend()

import torch  # noqa: E402

from tuneopt.training.head import Head  # noqa: E402
from tuneopt.training.memory import chunk_tokens  # noqa: E402

TOKENS, WIDTH, VOCABULARY = 2048, 64, 32_768

with counted() as account:
    with torch.device("cuda"):
        head = Head(WIDTH, VOCABULARY)
        x = torch.empty(1, TOKENS, WIDTH, requires_grad=True)
        targets = torch.empty(1, TOKENS, dtype=torch.int64)
    with torch.autocast("cuda", torch.bfloat16):
        loss = head(x, targets)
    loss.backward()
    dtypes = [str(tensor.grad.dtype) for tensor in (x, head.weight)]
chunk = chunk_tokens(TOKENS, VOCABULARY)
assert chunk is not None
answer(
    {
        "waits": dict(account.waits),
        "dtypes": dtypes,
        "addmm": account.calls["aten::addmm"],
        "chunks": -(-TOKENS // chunk),
    }
)
