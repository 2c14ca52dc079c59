"""The search space of Lion (Chen et al., arXiv 2302.06675): the sign of an interpolated momentum."""

from tuneopt.search.space import (
    STUDY_TABLES,
    SearchSpace,
    Values,
    average,
    learning_rate,
    max_grad_norm,
    train_batch_size,
    tuned,
    warmup,
    weight_decay,
)

COORDINATES = (
    learning_rate(
        {"paper": (0.0005, 0.001, 0.002, 0.004, 0.008), "nano": (0.0005, 0.001, 0.002)}, {"paper": 0.002, "nano": 0.001}
    ),
    weight_decay(
        {"paper": (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1), "nano": (0, 0.35, 0.7)},
        {"paper": 0.7, "nano": 0.35},
    ),
    average(
        "beta1",
        "weight of the momentum in the sign; the gradient has the rest",
        {"paper": (0.8, 0.9, 0.95, 0.98), "nano": (0.8, 0.9, 0.95)},
        {"paper": 0.95, "nano": 0.9},
    ),
    average(
        "beta2",
        "decay of the momentum",
        {"paper": (0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.95, "nano": 0.95},
    ),
    max_grad_norm(),
    train_batch_size(),
    warmup(),
)

FIXED: Values = {"lr_schedule": "cosine", "min_lr_ratio": 0}

PUBLISHED = tuned(
    {
        "beta1": 0.9,
        "beta2": 0.95,
        "learning_rate": 0.001,
        "max_grad_norm": 1,
        "train_batch_size": 128,
        "warmup": 2000,
        "weight_decay": 0.7,
        **FIXED,
    },
    (
        ("130m", 1, 3.5492, {"learning_rate": 0.002}),
        ("130m", 2, 3.4088, {"beta2": 0.98}),
        ("130m", 4, 3.3293, {}),
        ("130m", 8, 3.2508, {"beta2": 0.98}),
        ("300m", 1, 3.2676, {"weight_decay": 0.6}),
        ("300m", 2, 3.1702, {"beta2": 0.98}),
        ("300m", 4, 3.1004, {"beta2": 0.98, "train_batch_size": 256}),
        ("300m", 8, 3.0429, {"beta2": 0.98, "train_batch_size": 256}),
        ("520m", 1, 3.1076, {}),
        ("520m", 2, 3.0285, {"weight_decay": 0.6}),
        ("520m", 4, 2.9652, {"train_batch_size": 256, "weight_decay": 0.6}),
        ("520m", 8, 2.9147, {"learning_rate": 0.0005, "train_batch_size": 256, "weight_decay": 0.6}),
    ),
)

SPACE = SearchSpace(
    optimizer="lion",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=STUDY_TABLES,
    found="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the smaller "
    "budget; start: learning rate and decay from eight trials at nano-65k, ratio 0.5, the rest after AdamW's",
    published=PUBLISHED,
)
