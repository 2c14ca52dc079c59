"""Constants of the science, each with its source. Nothing here is a default that a user would tune.

Units are nats per token unless said otherwise. What belongs to one algorithm alone stays in its file; what two files
must agree on stands here.
"""

from __future__ import annotations

import math

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
