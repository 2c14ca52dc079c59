"""The search space of SOAP (Vyas et al., arXiv 2409.11321): Adam in the eigenbasis of Shampoo's factors."""

from tuneopt.search.space import (
    STUDY_TABLES,
    Coordinate,
    SearchSpace,
    Values,
    average,
    block_size,
    epsilon,
    learning_rate,
    train_batch_size,
    tuned,
    warmup,
    weight_decay,
)

COORDINATES = (
    learning_rate({"paper": (0.004, 0.008, 0.016), "nano": (0.004, 0.008, 0.016)}, {"paper": 0.008, "nano": 0.008}),
    weight_decay(),
    average(
        "beta1",
        "decay of the average gradient",
        {"paper": (0.8, 0.9, 0.95), "nano": (0.8, 0.9, 0.95)},
        {"paper": 0.95, "nano": 0.9},
    ),
    average(
        "beta2",
        "decay of the average squared gradient in the eigenbasis",
        {"paper": (0.9, 0.95, 0.98, 0.99), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.95, "nano": 0.95},
    ),
    average(
        "shampoo_beta",
        "decay of Shampoo's factors, whose eigenvectors are the basis",
        {"paper": (0.9, 0.95, 0.98, 0.99), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.95, "nano": 0.95},
    ),
    Coordinate(
        name="precondition_frequency",
        kind="steps",
        unit="steps",
        meaning="steps between two refreshes of the eigenbasis; 1 is every step",
        grids={"paper": (1, 5), "nano": (5, 10, 20)},
        starts={"paper": 10, "nano": 10},
        low=1,
        high=1000,
    ),
    block_size({"paper": (128, 256, 512), "nano": (32, 128)}, {"paper": 256, "nano": 128}),
    epsilon({"paper": (1e-20, 1e-15, 1e-10), "nano": (1e-15,)}, {"paper": 1e-15, "nano": 1e-15}),
    train_batch_size({"paper": (128, 256, 512)}),
    warmup({"paper": (500, 1000, 2000)}),
)

FIXED: Values = {"lr_schedule": "cosine", "max_grad_norm": 1, "min_lr_ratio": 0, "partition_grads_into_blocks": True}

PUBLISHED = tuned(
    {
        "beta1": 0.95,
        "beta2": 0.99,
        "block_size": 512,
        "epsilon": 1e-10,
        "learning_rate": 0.008,
        "precondition_frequency": 10,
        "shampoo_beta": 0.95,
        "train_batch_size": 128,
        "warmup": 1000,
        "weight_decay": 0.1,
        **FIXED,
    },
    (
        (
            "130m",
            1,
            3.4822,
            {"beta2": 0.98, "block_size": 256, "epsilon": 1e-15, "learning_rate": 0.016, "precondition_frequency": 1},
        ),
        (
            "130m",
            2,
            3.3742,
            {
                "block_size": 256,
                "epsilon": 1e-15,
                "learning_rate": 0.016,
                "precondition_frequency": 1,
                "shampoo_beta": 0.98,
            },
        ),
        ("130m", 4, 3.2945, {"block_size": 256, "epsilon": 1e-15, "shampoo_beta": 0.98, "warmup": 500}),
        ("130m", 8, 3.2374, {"epsilon": 1e-15, "shampoo_beta": 0.98, "train_batch_size": 256}),
        ("300m", 1, 3.2309, {"shampoo_beta": 0.9}),
        ("300m", 2, 3.1474, {"shampoo_beta": 0.9}),
        ("300m", 4, 3.0824, {"shampoo_beta": 0.9, "train_batch_size": 256}),
        ("300m", 8, 3.0302, {"shampoo_beta": 0.9, "train_batch_size": 256}),
        ("520m", 1, 3.0789, {}),
        ("520m", 2, 3.0037, {"train_batch_size": 256}),
        ("520m", 4, 2.9443, {"learning_rate": 0.004, "train_batch_size": 256}),
        ("520m", 8, 2.8989, {"learning_rate": 0.004, "train_batch_size": 256}),
    ),
)

SPACE = SearchSpace(
    optimizer="soap",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=STUDY_TABLES,
    found="nano ladder: grid cut from the paper's around its tuned points, with batches and blocks for smaller models; "
    "start from trials at nano-65k, ratio 1, over learning rate and batch (docs/lab-notebook.md)",
    published=PUBLISHED,
)
