"""The search space of AdamW (Loshchilov and Hutter, arXiv 1711.05101): the baseline of every comparison."""

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
    learning_rate(
        {"paper": (0.004, 0.008, 0.016, 0.032), "nano": (0.004, 0.008, 0.016)}, {"paper": 0.016, "nano": 0.008}
    ),
    weight_decay(),
    average(
        "beta1",
        "decay of the average gradient",
        {"paper": (0.9, 0.95, 0.98), "nano": (0.8, 0.9, 0.95)},
        {"paper": 0.9, "nano": 0.9},
    ),
    average(
        "beta2",
        "decay of the average squared gradient",
        {"paper": (0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.95, "nano": 0.95},
    ),
    epsilon(
        {"paper": (1e-25, 1e-20, 1e-15, 1e-10), "nano": (1e-15, 1e-8)},
        {"paper": 1e-20, "nano": 1e-8},
        high={"paper": 1e-5, "nano": 1e-8},
    ),
    max_grad_norm(),
    train_batch_size(),
    warmup(),
)

FIXED: Values = {"lr_schedule": "cosine", "min_lr_ratio": 0, "nesterov": False}

PUBLISHED = tuned(
    {
        "beta1": 0.9,
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
)

SPACE = SearchSpace(
    optimizer="adamw",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=STUDY_TABLES,
    found="nano ladder: grid cut from the paper's around its tuned points, with batches for the smaller budget; "
    "start from a sweep at nano-65k, ratio 1, that began at batch 16 and learning rate 0.016 (docs/lab-notebook.md)",
    published=PUBLISHED,
)
