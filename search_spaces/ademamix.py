"""The search space of AdEMAMix (Pagliardini et al., arXiv 2409.03137).

Paper ladder: betas 0.9, 0.999 and 0.9999, alpha 8 with both warmups over the whole run are published; the grids around
them, and those of rate and batch, are ours, after AdamW's. Nano ladder: a run has a thousand steps, in which an average
over ten thousand learns nothing, so `beta3` is smaller.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate(
        {"paper": (0.001, 0.002, 0.004, 0.008), "nano": (0.004, 0.008, 0.016)}, {"paper": 0.004, "nano": 0.008}
    ),
    space.weight_decay(),
    space.beta1({"paper": (0.8, 0.9, 0.95), "nano": (0.8, 0.9, 0.95)}, {"paper": 0.9, "nano": 0.9}),
    space.beta2({"paper": (0.98, 0.99, 0.999), "nano": (0.95, 0.98)}, {"paper": 0.999, "nano": 0.98}),
    space.average(
        "beta3",
        "decay of the slow average gradient, once it has warmed up",
        {"paper": (0.999, 0.9999), "nano": (0.98, 0.99, 0.996)},
        {"paper": 0.9999, "nano": 0.99},
    ),
    space.Coordinate(
        "alpha",
        "scale-free",
        "1",
        "weight of the slow average beside the fast one, once it has warmed up",
        {"paper": (4, 8, 16), "nano": (2, 4, 8)},
        {"paper": 8, "nano": 4},
        low=0,
        high=100.0,
        off=0,
    ),
    space.Coordinate(
        "slow_warmup",
        "fraction",
        "fraction of all steps",
        "steps over which weight and decay of the slow average rise; 0 is none",
        {"paper": (1.0,), "nano": (1.0,)},
        {"paper": 1.0, "nano": 1.0},
        low=0,
        high=1.0,
        off=0,
    ),
    space.epsilon({"paper": (1e-10, 1e-8), "nano": (1e-8,)}, {"paper": 1e-8, "nano": 1e-8}, high=space.EPSILON_HIGH),
    space.max_grad_norm(),
    space.train_batch_size(),
    space.warmup(),
)

FIXED: space.Values = {"lr_schedule": "cosine", "min_lr_ratio": 0}

SPACE = space.SearchSpace(
    optimizer="ademamix",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source="paper ladder: betas and alpha of Pagliardini et al., arXiv 2409.03137; grids ours",
    grid_source="nano ladder, provisional: AdamW's rate, and a slow average short enough for the run; not from a sweep",
)
