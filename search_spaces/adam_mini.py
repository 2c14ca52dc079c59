"""The search space of Adam-mini (Zhang et al., arXiv 2406.16793): one second moment per neuron or head."""

from tuneopt.search.space import Coordinate, SearchSpace, Values, tuned

COORDINATES = (
    Coordinate(
        name="learning_rate",
        kind="scale-free",
        unit="weight per unit update",
        meaning="peak of the schedule",
        grids={"paper": (0.004, 0.008, 0.016, 0.032), "nano": (0.002, 0.004, 0.008)},
        starts={"paper": 0.008, "nano": 0.004},
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
        meaning="decay of the average gradient",
        grids={"paper": (0.9, 0.95, 0.98), "nano": (0.8, 0.9, 0.95)},
        starts={"paper": 0.9, "nano": 0.9},
        low=0,
        high=0.9999,
        extend="complement",
        off=0,
    ),
    Coordinate(
        name="beta2",
        kind="scale-free",
        unit="1",
        meaning="decay of the average squared gradient of a block",
        grids={"paper": (0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
        starts={"paper": 0.98, "nano": 0.95},
        low=0,
        high=0.9999,
        extend="complement",
        off=0,
    ),
    Coordinate(
        name="epsilon",
        kind="scale-free",
        unit="gradient",
        meaning="added to the root of the second moment; 1e-25 vanishes beside any gradient in fp32",
        grids={"paper": (1e-25, 1e-20, 1e-15, 1e-10), "nano": (1e-15, 1e-08)},
        starts={"paper": 1e-20, "nano": 1e-08},
        low=1e-25,
        high={"paper": 1e-5, "nano": 1e-8},
    ),
    Coordinate(
        name="max_grad_norm",
        kind="scale-free",
        unit="gradient norm",
        meaning="joint norm that gradients of norms and other vectors are clipped to; 0 is no clipping",
        grids={"paper": (0, 1.0, 2.0), "nano": (0, 1.0, 2.0)},
        starts={"paper": 1, "nano": 1.0},
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
    source="paper ladder and published points: Wen, Hall, Ma, Liang, arXiv 2509.02046, appendix tables; "
    "start: its 130m, ratio 1",
    found="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the smaller "
    "budget; start: learning rate from three trials at nano-65k, ratio 0.5, the rest after AdamW's",
    published=PUBLISHED,
)
