"""The search space of Cautious AdamW (Liang et al., arXiv 2411.16085): no entry moves against its gradient.

Paper ladder: grids of the study's appendix tables (`STUDY_TABLES`); the published points are its tuned optima.
Nano ladder: cut from the paper's around its tuned points, its start taken over from AdamW's and not measured. Units,
meaning and bounds of the shared coordinates stand in `tuneopt.search.coordinate`. Epsilon is added in two places, to
the root of the second moment and to the share of entries that are kept, as in the study; why it ends at 1e-8 on the
nano ladder stands in `search_spaces.adamw`.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate(
        {"paper": (0.008, 0.016, 0.032), "nano": (0.004, 0.008, 0.016)}, {"paper": 0.016, "nano": 0.008}
    ),
    space.weight_decay(),
    space.beta1({"paper": (0.8, 0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)}, {"paper": 0.95, "nano": 0.95}),
    space.beta2(starts={"paper": 0.98, "nano": 0.95}),
    space.epsilon(
        meaning="added to the root of the second moment, and to the share of entries that are kept",
        high=space.EPSILON_HIGH,
    ),
    space.max_grad_norm(),
    space.train_batch_size(),
    space.warmup(),
)

FIXED: space.Values = {"lr_schedule": "cosine", "min_lr_ratio": 0}

# Rows: scale, ratio, loss in nats per token on the study's corpus, and what differs from the values above them.
PUBLISHED = space.tuned(
    {"beta1": 0.98, "beta2": 0.98, "epsilon": 1e-25, "learning_rate": 0.008, "max_grad_norm": 1,
     "train_batch_size": 256, "warmup": 2000, "weight_decay": 0.1, **FIXED},
    (
        ("130m", 1, 3.5325, {"beta1": 0.95, "epsilon": 1e-15, "train_batch_size": 128}),
        ("130m", 2, 3.4009, {"epsilon": 1e-15, "max_grad_norm": 2, "train_batch_size": 128}),
        ("130m", 4, 3.3273, {"epsilon": 1e-15, "max_grad_norm": 2, "train_batch_size": 128}),
        ("130m", 8, 3.2502, {"epsilon": 1e-15, "max_grad_norm": 2}),
        ("300m", 1, 3.2587, {"max_grad_norm": 2, "train_batch_size": 128}),
        ("300m", 2, 3.1648, {}),
        ("300m", 4, 3.0938, {}),
        ("300m", 8, 3.0409, {}),
        ("520m", 1, 3.1003, {}),
        ("520m", 2, 3.0174, {}),
        ("520m", 4, 2.9557, {"learning_rate": 0.004}),
        ("520m", 8, 2.9102, {"learning_rate": 0.004}),
    ),
)  # fmt: skip

SPACE = space.SearchSpace(
    optimizer="cautious",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=space.STUDY_TABLES,
    grid_source="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the "
    "smaller budget; start after AdamW's, not from trials of its own",
    published=PUBLISHED,
)
