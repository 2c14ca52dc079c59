"""The search space of Sophia-H (Liu et al., arXiv 2305.14342): clipped steps over a Hutchinson Hessian estimate."""

from tuneopt.search.space import Coordinate, SearchSpace, Values, tuned

COORDINATES = (
    Coordinate(
        name="learning_rate",
        kind="scale-free",
        unit="weight per unit update",
        meaning="peak of the schedule",
        grids={"paper": (0.002, 0.004, 0.008, 0.016, 0.032), "nano": (0.001, 0.002, 0.004)},
        starts={"paper": 0.004, "nano": 0.002},
        low=1e-6,
        high=10.0,
    ),
    Coordinate(
        name="weight_decay",
        kind="scale-free",
        unit="per unit learning rate",
        meaning="decoupled decay, multiplied by the learning rate; norms and embeddings are spared",
        grids={"paper": (0, 0.1, 0.2, 0.3), "nano": (0, 0.1, 0.2)},
        starts={"paper": 0.1, "nano": 0.1},
        low=0,
        high=10.0,
        off=0,
    ),
    Coordinate(
        name="beta1",
        kind="scale-free",
        unit="1",
        meaning="decay of the average gradient",
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
        meaning="decay of the average estimate of the Hessian's diagonal",
        grids={"paper": (0.9, 0.95, 0.98, 0.99, 0.995), "nano": (0.9, 0.95, 0.98)},
        starts={"paper": 0.99, "nano": 0.95},
        low=0,
        high=0.9999,
        extend="complement",
        off=0,
    ),
    Coordinate(
        name="epsilon",
        kind="scale-free",
        unit="gradient",
        meaning="least value of gamma times the Hessian in the denominator",
        grids={"paper": (1e-17, 1e-12, 1e-07), "nano": (1e-07,)},
        starts={"paper": 1e-12, "nano": 1e-07},
        low=1e-25,
        high=0.001,
    ),
    Coordinate(
        name="gamma",
        kind="scale-free",
        unit="1",
        meaning="factor of the Hessian in the denominator; the smaller, the more entries take a sign step",
        grids={"paper": (0.00625, 0.0125, 0.025, 0.05), "nano": (0.0125, 0.025, 0.05)},
        starts={"paper": 0.0125, "nano": 0.025},
        low=1e-5,
        high=100.0,
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
        starts={"paper": 4000, "nano": 0.1},
        low=0,
        high={"paper": 32000, "nano": 0.5},
        off=0,
    ),
)

FIXED: Values = {"lr_schedule": "cosine", "max_grad_norm": 1, "min_lr_ratio": 0}

PUBLISHED = tuned(
    {
        "beta1": 0.95,
        "beta2": 0.9,
        "epsilon": 1e-07,
        "gamma": 0.0125,
        "learning_rate": 0.004,
        "train_batch_size": 128,
        "warmup": 4000,
        "weight_decay": 0.1,
        **FIXED,
    },
    (
        ("130m", 1, 3.544, {"weight_decay": 0}),
        ("130m", 2, 3.414, {}),
        ("130m", 4, 3.3276, {"beta2": 0.99, "weight_decay": 0.2}),
        ("130m", 8, 3.259, {"beta2": 0.95, "learning_rate": 0.002, "weight_decay": 0.2}),
        ("300m", 1, 3.2674, {"beta1": 0.9}),
        ("520m", 1, 3.1055, {"learning_rate": 0.002, "weight_decay": 0.3}),
    ),
)

SPACE = SearchSpace(
    optimizer="sophia",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source="paper ladder and published points: Wen, Hall, Ma, Liang, arXiv 2509.02046, appendix tables; "
    "start: its 130m, ratio 1",
    found="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the smaller "
    "budget; start from a few short trials at nano-65k, ratio 0.4, not from a sweep of its own",
    published=PUBLISHED,
)
