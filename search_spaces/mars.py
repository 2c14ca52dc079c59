"""The search space of MARS (Yuan et al., arXiv 2411.10438): AdamW on variance-reduced gradients."""

from tuneopt.search.space import (
    STUDY_TABLES,
    Coordinate,
    SearchSpace,
    Values,
    average,
    epsilon,
    learning_rate,
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
        "decay of the average gradient; enters the correction too",
        {"paper": (0.8, 0.9, 0.95, 0.98), "nano": (0.8, 0.9, 0.95)},
        {"paper": 0.95, "nano": 0.9},
    ),
    average(
        "beta2",
        "decay of the average squared gradient",
        {"paper": (0.9, 0.95, 0.98, 0.99), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.95, "nano": 0.95},
    ),
    Coordinate(
        name="gamma",
        kind="scale-free",
        unit="1",
        meaning="gamma beta1 / (1 - beta1) weighs the change of the gradient since the step before; 0 is AdamW",
        grids={"paper": (0.0125, 0.025, 0.05, 0.1), "nano": (0.0125, 0.025, 0.05)},
        starts={"paper": 0.025, "nano": 0.025},
        low=0,
        high=10.0,
        off=0,
    ),
    epsilon(
        {"paper": (1e-30, 1e-25, 1e-20, 1e-15, 1e-10), "nano": (1e-15, 1e-08)},
        {"paper": 1e-25, "nano": 1e-08},
        low=1e-30,
        high={"paper": 1e-5, "nano": 1e-8},
    ),
    train_batch_size(),
    warmup(),
)

FIXED: Values = {"lr_schedule": "cosine", "min_lr_ratio": 0, "max_grad_norm": 1.0}

PUBLISHED = tuned(
    {
        "beta1": 0.95,
        "beta2": 0.98,
        "epsilon": 1e-25,
        "gamma": 0.025,
        "learning_rate": 0.008,
        "train_batch_size": 128,
        "warmup": 2000,
        "weight_decay": 0.1,
        **FIXED,
    },
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
)

SPACE = SearchSpace(
    optimizer="mars",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=STUDY_TABLES,
    found="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the smaller "
    "budget; start after AdamW's, not from trials of its own",
    published=PUBLISHED,
)
