"""The search space of Scion (Pethick et al., arXiv 2502.07529), with sign descent for embeddings, head and norms.

Paper ladder: grids of the study's appendix tables (`STUDY_TABLES`); the published points are its tuned optima.
Nano ladder: cut from the paper's around its tuned points, its start taken over from Muon's and not measured. As for
Muon, `learning_rate` is that of the matrices, and the sign group takes `scion_to_signum_lr` of it; there is no
warmup, and `decay` says how much of the run the schedule takes to fall. It may be 0 here, which is off: the study's
grid holds a flat schedule. `scion_epsilon` is in units of the momentum's norm; its nano grid has one value. Units,
meaning and bounds of the shared coordinates stand in `tuneopt.search.coordinate`.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate(
        {"paper": (0.008, 0.016, 0.032, 0.064, 0.128), "nano": (0.008, 0.016, 0.032)},
        {"paper": 0.016, "nano": 0.016},
        "peak of the schedule, for matrices",
    ),
    space.rate_share(
        "scion_to_signum_lr",
        "learning rate of the sign group over that of the matrices",
        {"paper": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), "nano": (0.2, 0.3, 0.5)},
        {"paper": 0.2, "nano": 0.3},
    ),
    space.momentum("decay of the average gradient that is orthogonalized"),
    space.Coordinate(
        name="decay",
        kind="fraction",
        unit="fraction of all steps",
        meaning="how much of the run the learning rate takes to fall linearly to its end; 1 is all of it, 0 is none",
        grids={"paper": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), "nano": (0.6, 0.8, 1.0)},
        starts={"paper": 0.4, "nano": 0.8},
        low=0,
        high=1.0,
        off=0,
    ),
    space.weight_decay(starts={"paper": 0}),  # off; the published optima have 0.1
    space.beta1(meaning="decay of the average gradient in the sign group"),
    space.frobenius_epsilon("scion_epsilon", (1e-20, 1e-15, 1e-10, 1e-05)),
    space.max_grad_norm("norm that the gradients of the sign group are clipped to; 0 is no clipping"),
    space.train_batch_size(),
)

FIXED: space.Values = {"lr_schedule": "linear", "min_lr_ratio": 0, "warmup": 0}

ORTHOGONALIZATION: space.Values = {"ns_coefficients": "quintic", "ns_precision": "fp32"}
"""What the study's code left to the machine, said here because results depend on it."""

ON_GPUS: space.Values = {**ORTHOGONALIZATION, "ns_precision": "tf32"}
"""The paper ladder's: fp32 products would take 8% of a step on a GPU, TF32 ones 1.3% (docs/optimizers.md)."""

# Rows: scale, ratio, loss in nats per token on the study's corpus, and what differs from the values above them.
PUBLISHED = space.tuned(
    {"beta1": 0.98, "decay": 1, "learning_rate": 0.008, "max_grad_norm": 2, "momentum": 0.95, "scion_epsilon": 1e-05,
     "scion_to_signum_lr": 0.1, "train_batch_size": 128, "weight_decay": 0.1, **FIXED},
    (
        ("130m", 1, 3.4738, {"beta1": 0.95, "decay": 0.8, "learning_rate": 0.016, "max_grad_norm": 1,
            "scion_epsilon": 1e-15, "scion_to_signum_lr": 0.2}),
        ("130m", 2, 3.3775, {"beta1": 0.95, "learning_rate": 0.016, "max_grad_norm": 1, "momentum": 0.9,
            "scion_epsilon": 1e-15, "scion_to_signum_lr": 0.2}),
        ("130m", 4, 3.3015, {"momentum": 0.9, "scion_epsilon": 1e-15, "scion_to_signum_lr": 0.2}),
        ("130m", 8, 3.2452, {"momentum": 0.9, "scion_to_signum_lr": 0.2}),
        ("300m", 1, 3.2311, {"decay": 0.8, "momentum": 0.9}),
        ("300m", 2, 3.1499, {"decay": 0.8}),
        ("300m", 4, 3.0857, {"decay": 0.8}),
        ("300m", 8, 3.0366, {"decay": 0.8, "learning_rate": 0.004}),
        ("520m", 1, 3.0794, {"momentum": 0.9}),
        ("520m", 2, 3.0068, {"learning_rate": 0.004}),
        ("520m", 4, 2.9507, {"train_batch_size": 256}),
        ("520m", 8, 2.9042, {"learning_rate": 0.004, "train_batch_size": 256}),
    ),
)  # fmt: skip

SPACE = space.SearchSpace(
    optimizer="scion",
    coordinates=COORDINATES,
    fixed={"paper": {**FIXED, **ON_GPUS}, "nano": {**FIXED, **ORTHOGONALIZATION}},
    source=space.STUDY_TABLES,
    grid_source="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the "
    "smaller budget; start after Muon's, not from a sweep of its own",
    published=PUBLISHED,
    options={"ns_coefficients": ("quintic", "polar_express"), "ns_precision": ("fp32", "tf32", "bf16")},
    switches=space.ORTHOGONAL_SWITCHES,
)
