"""The search space of Sophia-H (Liu et al., arXiv 2305.14342): clipped steps over a Hutchinson Hessian estimate.

Paper ladder: grids of the study's appendix tables (`STUDY_TABLES`); the published points are its tuned optima, of
which there are six.
Nano ladder: cut from the paper's around its tuned points, its start measured here in a few short trials. Epsilon is
no guard against division by zero here but the least value of the denominator, gamma times the Hessian: it is tuned
over ten orders of magnitude and may reach 1e-3. A smaller gamma gives more entries a sign step. Units, meaning and
bounds of the shared coordinates stand in `tuneopt.search.coordinate`.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate(
        {"paper": (0.002, 0.004, 0.008, 0.016, 0.032), "nano": (0.001, 0.002, 0.004)}, {"paper": 0.004, "nano": 0.002}
    ),
    space.weight_decay({"paper": (0, 0.1, 0.2, 0.3)}),
    space.beta1(),
    space.beta2(
        {"paper": (0.9, 0.95, 0.98, 0.99, 0.995), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.99, "nano": 0.95},
        "decay of the average estimate of the Hessian's diagonal",
    ),
    space.epsilon(
        {"paper": (1e-17, 1e-12, 1e-07), "nano": (1e-07,)},
        {"paper": 1e-12, "nano": 1e-07},
        meaning="least value of gamma times the Hessian in the denominator",
        high=0.001,
    ),
    space.Coordinate(
        name="gamma",
        kind="scale-free",
        unit="1",
        meaning="factor of the Hessian in the denominator; the smaller, the more entries take a sign step",
        grids={"paper": (0.00625, 0.0125, 0.025, 0.05), "nano": (0.0125, 0.025, 0.05)},
        starts={"paper": 0.0125, "nano": 0.025},
        low=1e-5,
        high=100.0,
    ),
    space.train_batch_size(),
    space.warmup(starts={"paper": 4000}),
)

# Clipped at a norm of 1 in every tuned point of the study, hence no coordinate. `hessian_interval` is the rule's own.
FIXED: space.Values = {"lr_schedule": "cosine", "max_grad_norm": 1, "min_lr_ratio": 0}

# Rows: scale, ratio, loss in nats per token on the study's corpus, and what differs from the values above them.
PUBLISHED = space.tuned(
    {"beta1": 0.95, "beta2": 0.9, "epsilon": 1e-07, "gamma": 0.0125, "learning_rate": 0.004, "train_batch_size": 128,
     "warmup": 4000, "weight_decay": 0.1, **FIXED},
    (
        ("130m", 1, 3.544, {"weight_decay": 0}),
        ("130m", 2, 3.414, {}),
        ("130m", 4, 3.3276, {"beta2": 0.99, "weight_decay": 0.2}),
        ("130m", 8, 3.259, {"beta2": 0.95, "learning_rate": 0.002, "weight_decay": 0.2}),
        ("300m", 1, 3.2674, {"beta1": 0.9}),
        ("520m", 1, 3.1055, {"learning_rate": 0.002, "weight_decay": 0.3}),
    ),
)  # fmt: skip

SPACE = space.SearchSpace(
    optimizer="sophia",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=space.STUDY_TABLES,
    grid_source="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the "
    "smaller budget; start from a few short trials at nano-65k, ratio 0.4, not from a sweep of its own",
    published=PUBLISHED,
)
