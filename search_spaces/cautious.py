"""The search space of Cautious AdamW (Liang et al., arXiv 2411.16085): no entry moves against its gradient."""

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
        {"paper": (0.8, 0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.95, "nano": 0.95},
    ),
    average(
        "beta2",
        "decay of the average squared gradient",
        {"paper": (0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.98, "nano": 0.95},
    ),
    epsilon(
        {"paper": (1e-25, 1e-20, 1e-15, 1e-10), "nano": (1e-15, 1e-08)},
        {"paper": 1e-20, "nano": 1e-08},
        meaning="added to the root of the second moment, and to the share of entries that are kept",
        high={"paper": 1e-5, "nano": 1e-8},
    ),
    max_grad_norm(),
    train_batch_size(),
    warmup(),
)

FIXED: Values = {"lr_schedule": "cosine", "min_lr_ratio": 0}

PUBLISHED = tuned(
    {
        "beta1": 0.98,
        "beta2": 0.98,
        "epsilon": 1e-25,
        "learning_rate": 0.008,
        "max_grad_norm": 1,
        "train_batch_size": 256,
        "warmup": 2000,
        "weight_decay": 0.1,
        **FIXED,
    },
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
)

SPACE = SearchSpace(
    optimizer="cautious",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=STUDY_TABLES,
    found="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the smaller "
    "budget; start after AdamW's, not from trials of its own",
    published=PUBLISHED,
)
