"""The search space of Prodigy (Mishchenko and Defazio, arXiv 2306.06101).

The rate multiplies the distance that the optimizer estimates, so it is searched around 1, the published value, where
the paper ladder starts. Grids, and all of betas and batch, are ours, after AdamW's. On the nano ladder the estimate is
too large for a rate: half of it, with the second moment of AdamW's start, was the best of five trials.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate({"paper": (0.5, 1.0, 2.0), "nano": (0.25, 0.5, 1.0)}, {"paper": 1.0, "nano": 0.5}),
    space.weight_decay(),
    space.beta1({"paper": (0.8, 0.9, 0.95), "nano": (0.8, 0.9, 0.95)}, {"paper": 0.9, "nano": 0.9}),
    space.beta2({"paper": (0.98, 0.99, 0.999), "nano": (0.95, 0.98, 0.99)}, {"paper": 0.99, "nano": 0.95}),
    space.epsilon({"paper": (1e-10, 1e-8), "nano": (1e-8,)}, {"paper": 1e-8, "nano": 1e-8}, high=space.EPSILON_HIGH),
    space.Coordinate(
        "initial_distance",
        "scale-free",
        "1",
        "what the estimate of the distance begins at",
        {"paper": (1e-6,), "nano": (1e-6,)},
        {"paper": 1e-6, "nano": 1e-6},
        low=1e-10,
        high=1.0,
    ),
    space.max_grad_norm(),
    space.train_batch_size(),
    space.warmup(),
)

FIXED: space.Values = {"lr_schedule": "cosine", "min_lr_ratio": 0}

SPACE = space.SearchSpace(
    optimizer="prodigy",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source="paper ladder: rate and first estimate of Mishchenko and Defazio, arXiv 2306.06101; grids ours",
    grid_source="nano ladder, provisional: by a few trials at nano-65k, ratio 1 (docs/lab-notebook.md)",
)
