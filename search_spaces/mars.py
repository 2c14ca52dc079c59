"""The search space of MARS (Yuan et al., arXiv 2411.10438): AdamW on variance-reduced gradients."""

from tuneopt.search.space import Coordinate, SearchSpace, Values, tuned

COORDINATES = (
    Coordinate(
        name="learning_rate",
        kind="scale-free",
        unit="weight per unit update",
        meaning="peak of the schedule",
        grids={"paper": (0.008, 0.016, 0.032), "nano": (0.004, 0.008, 0.016)},
        starts={"paper": 0.016, "nano": 0.008},
        low=1e-6,
        high=10.0,
    ),
    Coordinate(
        name="weight_decay",
        kind="scale-free",
        unit="per unit learning rate",
        meaning="decoupled decay, multiplied by the learning rate; norms and embeddings are spared",
        grids={"paper": (0, 0.1, 0.2), "nano": (0, 0.1, 0.2)},
        starts={"paper": 0.1, "nano": 0.1},
        low=0,
        high=10.0,
        off=0,
    ),
    Coordinate(
        name="beta1",
        kind="scale-free",
        unit="1",
        meaning="decay of the average gradient; enters the correction too",
        grids={"paper": (0.8, 0.9, 0.95, 0.98), "nano": (0.8, 0.9, 0.95)},
        starts={"paper": 0.95, "nano": 0.9},
        low=0,
        high=0.9999,
        extend="complement",
        off=0,
    ),
    Coordinate(
        name="beta2",
        kind="scale-free",
        unit="1",
        meaning="decay of the average squared gradient",
        grids={"paper": (0.9, 0.95, 0.98, 0.99), "nano": (0.9, 0.95, 0.98)},
        starts={"paper": 0.95, "nano": 0.95},
        low=0,
        high=0.9999,
        extend="complement",
        off=0,
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
    Coordinate(
        name="epsilon",
        kind="scale-free",
        unit="gradient",
        meaning="added to the root of the second moment; 1e-25 vanishes beside any gradient in fp32",
        grids={"paper": (1e-30, 1e-25, 1e-20, 1e-15, 1e-10), "nano": (1e-15, 1e-08)},
        starts={"paper": 1e-25, "nano": 1e-08},
        low=1e-30,
        high={"paper": 1e-5, "nano": 1e-8},
    ),
    Coordinate(
        name="train_batch_size",
        kind="scale-free",
        unit="sequences",
        meaning="sequences per optimizer step; the token budget stays, so twice the batch is half the steps",
        grids={"paper": (128, 256, 512, 1024), "nano": (8, 16, 32)},
        starts={"paper": 128, "nano": 8},
        low={"paper": 16, "nano": 8},
        high={"paper": 8192, "nano": 512},
    ),
    Coordinate(
        name="warmup",
        kind="steps",
        unit="steps; below 1 a fraction of all steps",
        meaning="linear rise of the learning rate to its peak; 0 is none",
        grids={"paper": (500, 1000, 2000, 4000), "nano": (0.05, 0.1, 0.2)},
        starts={"paper": 2000, "nano": 0.1},
        low=0,
        high={"paper": 32000, "nano": 0.5},
        off=0,
    ),
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
    source="paper ladder and published points: Wen, Hall, Ma, Liang, arXiv 2509.02046, appendix tables; "
    "start: its 130m, ratio 1",
    found="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the smaller "
    "budget; start after AdamW's, not from trials of its own",
    published=PUBLISHED,
)
