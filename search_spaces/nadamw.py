"""The search space of NAdamW (Dozat 2016): AdamW whose first moment looks one step ahead, at constant beta1.

Paper ladder: grids of the study's appendix tables (`STUDY_TABLES`); the published points are its tuned optima.
Nano ladder: cut from the paper's around its tuned points, its start taken over from AdamW's and not measured. Units,
meaning and bounds of the shared coordinates stand in `tuneopt.search.coordinate`; why a nano epsilon ends at 1e-8
stands in `search_spaces.adamw`.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate(
        {"paper": (0.008, 0.016, 0.032), "nano": (0.004, 0.008, 0.016)}, {"paper": 0.016, "nano": 0.008}
    ),
    space.weight_decay(),
    space.beta1(),
    space.beta2(),
    space.epsilon(starts={"paper": 1e-25, "nano": 1e-8}, high=space.EPSILON_HIGH),
    space.max_grad_norm(),
    space.train_batch_size(),
    space.warmup(),
)

# `nesterov` is what makes it another optimizer than AdamW, so it is no coordinate.
FIXED: space.Values = {"lr_schedule": "cosine", "min_lr_ratio": 0, "nesterov": True}

# Rows: scale, ratio, loss in nats per token on the study's corpus, and what differs from the values above them.
PUBLISHED = space.tuned(
    {"beta1": 0.95, "beta2": 0.98, "epsilon": 1e-10, "learning_rate": 0.008, "max_grad_norm": 1,
     "train_batch_size": 128, "warmup": 2000, "weight_decay": 0.1, **FIXED},
    (
        ("130m", 1, 3.5311, {"epsilon": 1e-25}),
        ("130m", 2, 3.3934, {}),
        ("130m", 4, 3.3171, {}),
        ("130m", 8, 3.2486, {}),
        ("300m", 1, 3.2477, {}),
        ("300m", 2, 3.1596, {}),
        ("300m", 4, 3.0899, {"train_batch_size": 256}),
        ("300m", 8, 3.0391, {"train_batch_size": 256}),
        ("520m", 1, 3.0926, {"warmup": 4000}),
        ("520m", 2, 3.0127, {"beta1": 0.98, "learning_rate": 0.004, "warmup": 4000}),
        ("520m", 4, 2.9541, {"beta1": 0.98, "learning_rate": 0.004, "warmup": 4000}),
        ("520m", 8, 2.9072, {"beta1": 0.98, "learning_rate": 0.004, "train_batch_size": 256, "warmup": 4000}),
    ),
)  # fmt: skip

# Scale, ratio and loss of the runs that the study made at hyperparameters predicted from the points above.
FURTHER = space.further(
    ("130m", 16, 3.2004), ("300m", 16, 2.9981),
    ("1.2b", 1, 2.9022), ("1.2b", 2, 2.8330), ("1.2b", 4, 2.7847), ("1.2b", 8, 2.7485),
)  # fmt: skip

SPACE = space.SearchSpace(
    optimizer="nadamw",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=space.STUDY_TABLES,
    grid_source="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the "
    "smaller budget; start after AdamW's, not from trials of its own",
    published=PUBLISHED,
    further=FURTHER,
)
