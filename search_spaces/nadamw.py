"""The search space of NAdamW (Dozat 2016): AdamW whose first moment looks one step ahead, at constant beta1."""

from tuneopt.search.space import (
    STUDY_TABLES,
    SearchSpace,
    Values,
    average,
    epsilon,
    learning_rate,
    max_grad_norm,
    train_batch_size,
    tuned,
    warmup,
    weight_decay,
)

COORDINATES = (
    learning_rate({"paper": (0.008, 0.016, 0.032), "nano": (0.004, 0.008, 0.016)}, {"paper": 0.016, "nano": 0.008}),
    weight_decay(),
    average(
        "beta1",
        "decay of the average gradient",
        {"paper": (0.8, 0.9, 0.95, 0.98), "nano": (0.8, 0.9, 0.95)},
        {"paper": 0.95, "nano": 0.9},
    ),
    average(
        "beta2",
        "decay of the average squared gradient",
        {"paper": (0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.95, "nano": 0.95},
    ),
    epsilon(
        {"paper": (1e-25, 1e-20, 1e-15, 1e-10), "nano": (1e-15, 1e-08)},
        {"paper": 1e-25, "nano": 1e-08},
        high={"paper": 1e-5, "nano": 1e-8},
    ),
    max_grad_norm(),
    train_batch_size(),
    warmup(),
)

FIXED: Values = {"lr_schedule": "cosine", "min_lr_ratio": 0, "nesterov": True}

PUBLISHED = tuned(
    {
        "beta1": 0.95,
        "beta2": 0.98,
        "epsilon": 1e-10,
        "learning_rate": 0.008,
        "max_grad_norm": 1,
        "train_batch_size": 128,
        "warmup": 2000,
        "weight_decay": 0.1,
        **FIXED,
    },
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
)

SPACE = SearchSpace(
    optimizer="nadamw",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=STUDY_TABLES,
    found="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the smaller "
    "budget; start after AdamW's, not from trials of its own",
    published=PUBLISHED,
)
