"""The search space of AdamW (Loshchilov and Hutter, arXiv 1711.05101): the baseline of every comparison.

Paper ladder: grids of the study's appendix tables (`STUDY_TABLES`); the published points are its tuned optima.
Nano ladder: the grids are cut from the paper's around its tuned points; the start was measured here, in a sweep of
its own and in trials over learning rate and batch (docs/lab-notebook.md, "Where the nano starts come from").  Units,
meaning and bounds of the shared coordinates stand in `tuneopt.search.coordinate`. A nano epsilon ends at 1e-8: the
start stands on that bound, which is an end and no edge, so that the flattest coordinate of all (0.0001 nats a step in
the published stars) opens no extension.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate(
        {"paper": (0.004, 0.008, 0.016, 0.032), "nano": (0.004, 0.008, 0.016)}, {"paper": 0.016, "nano": 0.008}
    ),
    space.weight_decay(),
    space.beta1({"paper": (0.9, 0.95, 0.98), "nano": (0.8, 0.9, 0.95)}, {"paper": 0.9, "nano": 0.9}),
    space.beta2(),
    space.epsilon(high=space.EPSILON_HIGH),  # beyond, it damps the update itself instead of guarding a division
    space.max_grad_norm(),
    space.train_batch_size(),
    space.warmup(),
)

# Without a floor, as in the study; `nesterov` makes NAdamW of it, which has a space and a name of its own.
FIXED: space.Values = {"lr_schedule": "cosine", "min_lr_ratio": 0, "nesterov": False}

# Rows: scale, ratio, loss in nats per token on the study's corpus, and what differs from the values above them.
PUBLISHED = space.tuned(
    {"beta1": 0.9, "beta2": 0.98, "epsilon": 1e-10, "learning_rate": 0.008, "max_grad_norm": 1,
     "train_batch_size": 128, "warmup": 2000, "weight_decay": 0.1, **FIXED},
    (
        ("130m", 1, 3.5291, {"epsilon": 1e-20}),
        ("130m", 2, 3.4078, {"epsilon": 1e-20}),
        ("130m", 4, 3.3217, {"epsilon": 1e-20}),
        ("130m", 8, 3.2606, {"epsilon": 1e-20, "train_batch_size": 256, "warmup": 1000}),
        ("300m", 1, 3.2629, {}),
        ("300m", 2, 3.1635, {"max_grad_norm": 2}),
        ("300m", 4, 3.0943, {"max_grad_norm": 2, "train_batch_size": 256}),
        ("300m", 8, 3.0423, {"max_grad_norm": 2, "train_batch_size": 256}),
        ("520m", 1, 3.1041, {"learning_rate": 0.004, "train_batch_size": 256, "warmup": 1000, "weight_decay": 0.2}),
        ("520m", 2, 3.0232, {"learning_rate": 0.004, "train_batch_size": 256, "warmup": 1000, "weight_decay": 0.2}),
        ("520m", 4, 2.9585, {"learning_rate": 0.004, "train_batch_size": 256, "warmup": 1000}),
        ("520m", 8, 2.9128, {"learning_rate": 0.004, "train_batch_size": 256, "warmup": 1000}),
    ),
)  # fmt: skip

# Scale, ratio and loss of the runs that the study made at hyperparameters predicted from the points above.
FURTHER = space.further(
    ("130m", 16, 3.2072), ("300m", 16, 3.0006),
    ("1.2b", 1, 2.9043), ("1.2b", 2, 2.8360), ("1.2b", 4, 2.7871), ("1.2b", 8, 2.7523),
)  # fmt: skip

SPACE = space.SearchSpace(
    optimizer="adamw",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=space.STUDY_TABLES,
    grid_source="nano ladder: grid cut from the paper's around its tuned points, with batches for the smaller budget; "
    "start from a sweep at nano-65k, ratio 1, that began at batch 16 and learning rate 0.016 (docs/lab-notebook.md)",
    published=PUBLISHED,
    further=FURTHER,
)
