"""The search space of Lion (Chen et al., arXiv 2302.06675): the sign of an interpolated momentum.

Paper ladder: grids of the study's appendix tables (`STUDY_TABLES`); the published points are its tuned optima.
Nano ladder: cut from the paper's around its tuned points; learning rate and decay were measured here in eight short
trials, the rest is AdamW's. Every entry moves by the learning rate itself, so that rates lie a factor of 8 below
AdamW's, and decay, which is multiplied by the rate, as much above: its grid goes to 1. There is no denominator, hence
no epsilon. Units, meaning and bounds of the shared coordinates stand in `tuneopt.search.coordinate`.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate(
        {"paper": (0.0005, 0.001, 0.002, 0.004, 0.008), "nano": (0.0005, 0.001, 0.002)}, {"paper": 0.002, "nano": 0.001}
    ),
    # Steps of 0.1 over the whole line, since rate times decay is what counts and the rate moves by factors of 2.
    space.weight_decay(
        {"paper": (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1), "nano": (0, 0.35, 0.7)},
        {"paper": 0.7, "nano": 0.35},
    ),
    space.beta1(meaning="weight of the momentum in the sign; the gradient has the rest"),
    space.beta2(meaning="decay of the momentum"),
    space.max_grad_norm(),
    space.train_batch_size(),
    space.warmup(),
)

FIXED: space.Values = {"lr_schedule": "cosine", "min_lr_ratio": 0}

# Rows: scale, ratio, loss in nats per token on the study's corpus, and what differs from the values above them.
PUBLISHED = space.tuned(
    {"beta1": 0.9, "beta2": 0.95, "learning_rate": 0.001, "max_grad_norm": 1, "train_batch_size": 128, "warmup": 2000,
     "weight_decay": 0.7, **FIXED},
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
)  # fmt: skip

SPACE = space.SearchSpace(
    optimizer="lion",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=space.STUDY_TABLES,
    grid_source="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the "
    "smaller budget; start: learning rate and decay from eight trials at nano-65k, ratio 0.5, the rest after AdamW's",
    published=PUBLISHED,
)
