"""Constants of the science, each with its source. Nothing here is a default that a user would tune.

Units are nats per token unless said otherwise. What belongs to one algorithm alone stays in its file; what two files
must agree on stands here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

BASELINE = "adamw"
"""Whom rivals are compared with, unless said otherwise."""

SCHEDULES = ("cosine", "linear")
"""The schedules of the training loop: every optimizer can run under each of them."""

TOKENS_PER_PARAMETER = 20
"""One Chinchilla ratio: tokens per non-embedding parameter (Hoffmann et al., arXiv 2203.15556)."""

TOLERANCE = 0.003
"""Nats by which a change must beat an incumbent at the paper's scales (Wen et al., arXiv 2509.02046, section 3)."""

NEAR_OPTIMAL = 0.007
"""Nats above the best within which a value counts as near-optimal (Wen et al., arXiv 2509.02046, section 4)."""

ONE_SIDED_95 = 1.645
"""Standard normal quantile of 95%: a one-sided bound, and the half-width of a two-sided 90% interval."""

DIFFERENCE_95 = ONE_SIDED_95 * math.sqrt(2)
"""Standard deviations of one run that a difference of two runs stays below in 95% of cases when nothing differs."""

CONFIDENCE = 0.95
"""The confidence with which a certificate states its resolution; the usual one of the field."""

STEP_COSTS: Mapping[str, float] = {
    "learning_rate": 0.0082,
    "train_batch_size": 0.0136,
    "weight_decay": 0.0172,
    "warmup": 0.0046,
    "decay": 0.0032,
    "beta1": 0.0042,
    "beta2": 0.0042,
    "momentum": 0.0021,
    "gamma": 0.0019,
    "muon_to_adam_lr": 0.0027,
    "scion_to_signum_lr": 0.0036,
    "max_grad_norm": 0.0006,
    "epsilon": 0.0001,
    "muon_epsilon": 0.0007,
    "scion_epsilon": 0.0002,
}
"""Nats that one grid step from the tuned value costs: medians over the published stars of arXiv 2509.02046."""

OTHER_STEP_COST = 0.004
"""Nats for a coordinate that no published star varies; the middle of the above."""

NANO_LOSS = (3.06, 1.005, 0.3, 1_310_720)
"""(beta, alpha, B, unit): AdamW's loss at nano-65k on the embedded corpus is about beta + alpha (D / unit)^-B nats.

Through the means of six seeds at ratio 0.5 (4.296) and twelve at ratio 1 (4.064, benchmarks/noise_components.csv), with
a usual exponent. Only plans and simulations rest on it, never a result."""

VOCAB_SIZES = {"nano": 1024, "paper": 32_768}
"""Entries of the tokenizer of a corpus that brings none, by ladder; 1024 was measured (docs/lab-notebook.md)."""

LEAST_PARAMETERS = 1000
"""Parameters of the smallest model that is read or predicted: below it a count is one of millions or billions."""

LARGEST_RATIO = 1e6
"""Chinchilla budgets that a study may ask for: beyond it a number is one of tokens, or a slip."""
