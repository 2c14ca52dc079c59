"""The search space of ADOPT (Taniguchi et al., arXiv 2411.02853).

Paper ladder: betas 0.9 and 0.9999 and epsilon 1e-6 are the paper's; grids, and all of rate and batch, are ours, after
AdamW's. Nano ladder: a run has a thousand steps, so the second moment is an average over fewer.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate(
        {"paper": (0.001, 0.002, 0.004, 0.008), "nano": (0.004, 0.008, 0.016)}, {"paper": 0.002, "nano": 0.008}
    ),
    space.weight_decay(),
    space.beta1({"paper": (0.8, 0.9, 0.95), "nano": (0.8, 0.9, 0.95)}, {"paper": 0.9, "nano": 0.9}),
    space.beta2({"paper": (0.99, 0.999, 0.9999), "nano": (0.95, 0.98, 0.99)}, {"paper": 0.9999, "nano": 0.98}),
    space.epsilon(
        {"paper": (1e-10, 1e-8, 1e-6), "nano": (1e-8, 1e-6)},
        {"paper": 1e-6, "nano": 1e-6},
        "least root of the second moment that a gradient is divided by",
    ),
    space.max_grad_norm(),
    space.train_batch_size(),
    space.warmup(),
)

FIXED: space.Values = {"lr_schedule": "cosine", "min_lr_ratio": 0}

SPACE = space.SearchSpace(
    optimizer="adopt",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source="paper ladder: betas and epsilon of Taniguchi et al., arXiv 2411.02853; grids ours",
    grid_source="nano ladder, provisional: AdamW's rate, and a shorter second moment; not from a sweep",
)
