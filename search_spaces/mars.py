"""The search space of MARS (Yuan et al., arXiv 2411.10438): AdamW on variance-reduced gradients.

Paper ladder: grids of the study's appendix tables (`STUDY_TABLES`); the published points are its tuned optima.
Nano ladder: cut from the paper's around its tuned points, its start taken over from AdamW's and not measured. `gamma`
is off at 0, where MARS is AdamW: an end of its grid and no edge. Epsilon reaches down to 1e-30, the lowest value of
the study's grid, where the shared bound is 1e-25; why it ends at 1e-8 on the nano ladder stands in
`search_spaces.adamw`. Clipping is part of the rule (the corrected gradient has norm 1 at most), hence fixed. Units,
meaning and bounds of the shared coordinates stand in `tuneopt.search.coordinate`.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate(
        {"paper": (0.008, 0.016, 0.032), "nano": (0.004, 0.008, 0.016)}, {"paper": 0.016, "nano": 0.008}
    ),
    space.weight_decay(),
    space.beta1(meaning="decay of the average gradient; enters the correction too"),
    space.beta2({"paper": (0.9, 0.95, 0.98, 0.99), "nano": (0.9, 0.95, 0.98)}),
    space.Coordinate(
        name="gamma",
        kind="scale-free",
        unit="1",
        meaning="gamma beta1 / (1 - beta1) weighs the change of the gradient since the step before; 0 is AdamW",
        grids={"paper": (0.0125, 0.025, 0.05, 0.1), "nano": (0.0125, 0.025, 0.05)},
        starts={"paper": 0.025, "nano": 0.025},
        low=0,
        high=10.0,
        off=0,  # an end and no edge: an optimum there says that AdamW is as good
    ),
    space.epsilon(
        {"paper": (1e-30, 1e-25, 1e-20, 1e-15, 1e-10), "nano": (1e-15, 1e-08)},
        {"paper": 1e-25, "nano": 1e-08},
        low=1e-30,
        high=space.EPSILON_HIGH,
    ),
    space.train_batch_size(),
    space.warmup(),
)

FIXED: space.Values = {"lr_schedule": "cosine", "min_lr_ratio": 0, "max_grad_norm": 1.0}

# Rows: scale, ratio, loss in nats per token on the study's corpus, and what differs from the values above them.
PUBLISHED = space.tuned(
    {"beta1": 0.95, "beta2": 0.98, "epsilon": 1e-25, "gamma": 0.025, "learning_rate": 0.008, "train_batch_size": 128,
     "warmup": 2000, "weight_decay": 0.1, **FIXED},
    (
        ("130m", 1, 3.5363, {"beta1": 0.9, "beta2": 0.95, "learning_rate": 0.016}),
        ("130m", 2, 3.3949, {}),
        ("130m", 4, 3.3208, {"beta1": 0.9}),
        ("130m", 8, 3.2465, {"beta1": 0.98, "beta2": 0.99}),
        ("300m", 1, 3.2467, {"beta1": 0.98, "gamma": 0.05, "warmup": 1000}),
        ("300m", 2, 3.1565, {"beta1": 0.98, "beta2": 0.99, "gamma": 0.05, "warmup": 1000}),
        ("300m", 4, 3.0945, {"beta1": 0.98, "beta2": 0.99, "gamma": 0.05, "warmup": 1000}),
        ("300m", 8, 3.038, {"beta1": 0.98, "beta2": 0.99, "gamma": 0.05, "train_batch_size": 256, "warmup": 1000}),
        ("520m", 1, 3.0986, {"beta2": 0.95, "train_batch_size": 256}),
        ("520m", 2, 3.0137, {"train_batch_size": 256}),
        ("520m", 4, 2.953, {"train_batch_size": 256}),
        ("520m", 8, 2.9057, {"learning_rate": 0.004, "train_batch_size": 256}),
    ),
)  # fmt: skip

SPACE = space.SearchSpace(
    optimizer="mars",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=space.STUDY_TABLES,
    grid_source="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the "
    "smaller budget; start after AdamW's, not from trials of its own",
    published=PUBLISHED,
)
