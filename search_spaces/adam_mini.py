"""The search space of Adam-mini (Zhang et al., arXiv 2406.16793): one second moment per neuron or head."""

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
        {"paper": (0.004, 0.008, 0.016, 0.032), "nano": (0.002, 0.004, 0.008)}, {"paper": 0.008, "nano": 0.004}
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
        "decay of the average squared gradient of a block",
        {"paper": (0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.98, "nano": 0.95},
    ),
    epsilon(
        {"paper": (1e-25, 1e-20, 1e-15, 1e-10), "nano": (1e-15, 1e-08)},
        {"paper": 1e-20, "nano": 1e-08},
        high={"paper": 1e-5, "nano": 1e-8},
    ),
    max_grad_norm(
        "joint norm that gradients of norms and other vectors are clipped to; 0 is no clipping", starts={"paper": 1}
    ),
    train_batch_size(),
    warmup(),
)

FIXED: Values = {"lr_schedule": "cosine", "min_lr_ratio": 0, "nesterov": False}

PUBLISHED = tuned(
    {
        "beta1": 0.9,
        "beta2": 0.98,
        "epsilon": 1e-10,
        "learning_rate": 0.004,
        "max_grad_norm": 1,
        "train_batch_size": 128,
        "warmup": 2000,
        "weight_decay": 0.1,
        **FIXED,
    },
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
)

SPACE = SearchSpace(
    optimizer="adam_mini",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=STUDY_TABLES,
    found="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the smaller "
    "budget; start: learning rate from three trials at nano-65k, ratio 0.5, the rest after AdamW's",
    published=PUBLISHED,
)
