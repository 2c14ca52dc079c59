"""The search space of Lion (Chen et al., arXiv 2302.06675): the sign of an interpolated momentum."""

from tuneopt.search.space import Coordinate, SearchSpace, Values, tuned

COORDINATES = (
    Coordinate(
        name="learning_rate",
        kind="scale-free",
        unit="weight per unit update",
        meaning="peak of the schedule",
        grids={"paper": (0.0005, 0.001, 0.002, 0.004, 0.008), "nano": (0.0005, 0.001, 0.002)},
        starts={"paper": 0.002, "nano": 0.001},
        low=1e-6,
        high=10.0,
    ),
    Coordinate(
        name="weight_decay",
        kind="scale-free",
        unit="per unit learning rate",
        meaning="decoupled decay, multiplied by the learning rate; norms and embeddings are spared",
        grids={"paper": (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1), "nano": (0, 0.35, 0.7)},
        starts={"paper": 0.7, "nano": 0.35},
        low=0,
        high=10.0,
        off=0,
    ),
    Coordinate(
        name="beta1",
        kind="scale-free",
        unit="1",
        meaning="weight of the momentum in the sign; the gradient has the rest",
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
        meaning="decay of the momentum",
        grids={"paper": (0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
        starts={"paper": 0.95, "nano": 0.95},
        low=0,
        high=0.9999,
        extend="complement",
        off=0,
    ),
    Coordinate(
        name="max_grad_norm",
        kind="scale-free",
        unit="gradient norm",
        meaning="global norm that gradients are clipped to; 0 is no clipping",
        grids={"paper": (0, 1.0, 2.0), "nano": (0, 1.0, 2.0)},
        starts={"paper": 1.0, "nano": 1.0},
        low=0,
        high=1000.0,
        off=0,
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
    source="paper ladder and published points: Wen, Hall, Ma, Liang, arXiv 2509.02046, appendix tables; "
    "start: its 130m, ratio 1",
    found="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the smaller "
    "budget; start: learning rate and decay from eight trials at nano-65k, ratio 0.5, the rest after AdamW's",
    published=PUBLISHED,
)
