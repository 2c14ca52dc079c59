"""The search space of Adam-mini (Zhang et al., arXiv 2406.16793): one second moment per neuron or head.

Paper ladder: grids of the study's appendix tables (`STUDY_TABLES`); the published points are its tuned optima.
Nano ladder: cut from the paper's around its tuned points; the learning rate was measured here in three short trials,
the rest is AdamW's. Its rates lie below AdamW's on both ladders. Units, meaning and bounds of the shared coordinates
stand in `tuneopt.search.coordinate`; why a nano epsilon ends at 1e-8 stands in `search_spaces.adamw`. `max_grad_norm`
clips the vectors alone.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate(
        {"paper": (0.004, 0.008, 0.016, 0.032), "nano": (0.002, 0.004, 0.008)}, {"paper": 0.008, "nano": 0.004}
    ),
    space.weight_decay(),
    space.beta1({"paper": (0.9, 0.95, 0.98), "nano": (0.8, 0.9, 0.95)}, {"paper": 0.9, "nano": 0.9}),
    space.beta2(starts={"paper": 0.98, "nano": 0.95}, meaning="decay of the average squared gradient of a block"),
    space.epsilon(high=space.EPSILON_HIGH),
    space.max_grad_norm(
        "joint norm that gradients of norms and other vectors are clipped to; 0 is no clipping", starts={"paper": 1}
    ),
    space.train_batch_size(),
    space.warmup(),
)

FIXED: space.Values = {"lr_schedule": "cosine", "min_lr_ratio": 0, "nesterov": False}

# Rows: scale, ratio, loss in nats per token on the study's corpus, and what differs from the values above them.
PUBLISHED = space.tuned(
    {"beta1": 0.9, "beta2": 0.98, "epsilon": 1e-10, "learning_rate": 0.004, "max_grad_norm": 1,
     "train_batch_size": 128, "warmup": 2000, "weight_decay": 0.1, **FIXED},
    (
        ("130m", 1, 3.5421, {"epsilon": 1e-15, "learning_rate": 0.008}),
        ("130m", 2, 3.4147, {"epsilon": 1e-20, "learning_rate": 0.008, "max_grad_norm": 2}),
        ("130m", 4, 3.3279, {"learning_rate": 0.008}),
        ("130m", 8, 3.2636, {"learning_rate": 0.008}),
        ("300m", 1, 3.2721, {"epsilon": 1e-25, "max_grad_norm": 2, "weight_decay": 0.2}),
        ("300m", 2, 3.1781, {"epsilon": 1e-25, "max_grad_norm": 2, "weight_decay": 0.2}),
        ("300m", 4, 3.1029, {"epsilon": 1e-25, "max_grad_norm": 2}),
        ("300m", 8, 3.0494, {"epsilon": 1e-25, "learning_rate": 0.002, "max_grad_norm": 2, "weight_decay": 0.2}),
        ("520m", 1, 3.1118, {"max_grad_norm": 0, "warmup": 4000}),
        ("520m", 2, 3.0273, {"warmup": 4000}),
        ("520m", 4, 2.9629, {"warmup": 4000}),
        ("520m", 8, 2.9115, {"train_batch_size": 256, "warmup": 4000}),
    ),
)  # fmt: skip

SPACE = space.SearchSpace(
    optimizer="adam_mini",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=space.STUDY_TABLES,
    grid_source="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the "
    "smaller budget; start: learning rate from three trials at nano-65k, ratio 0.5, the rest after AdamW's",
    published=PUBLISHED,
)
