"""The search space of Schedule-Free AdamW (Defazio et al., arXiv 2405.15682).

The rate is constant after its warmup. Paper ladder: betas 0.9 and 0.999 are published; grids, and all of rate and
batch, are ours, after AdamW's.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate(
        {"paper": (0.002, 0.004, 0.008, 0.016), "nano": (0.004, 0.008, 0.016)}, {"paper": 0.004, "nano": 0.008}
    ),
    space.weight_decay(),
    space.beta1(
        {"paper": (0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.9, "nano": 0.9},
        "share of the average in the weights where gradients are taken",
    ),
    space.beta2({"paper": (0.98, 0.99, 0.999), "nano": (0.95, 0.98, 0.99)}, {"paper": 0.999, "nano": 0.98}),
    space.epsilon({"paper": (1e-10, 1e-8), "nano": (1e-8,)}, {"paper": 1e-8, "nano": 1e-8}, high=space.EPSILON_HIGH),
    space.max_grad_norm(),
    space.train_batch_size(),
    space.warmup(),
)

FIXED: space.Values = {"lr_schedule": "linear", "decay": 0.0, "min_lr_ratio": 0}

SPACE = space.SearchSpace(
    optimizer="schedule_free",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source="paper ladder: betas of Defazio et al., arXiv 2405.15682; grids ours",
    grid_source="nano ladder, provisional: by a few trials at nano-65k, ratio 1 (docs/lab-notebook.md)",
)
