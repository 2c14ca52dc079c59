"""The search space of Muon (Jordan et al., 2024), with AdamW for embeddings, head and norms.

Paper ladder: grids of the study's appendix tables (`STUDY_TABLES`); the published points are its tuned optima.
Nano ladder: cut from the paper's around its tuned points; learning rate and batch of the start were measured here
(docs/lab-notebook.md, "Where the nano starts come from"). An orthogonal update has the same size whatever the
gradient's, so `learning_rate` is that of the matrices, and the AdamW group takes `muon_to_adam_lr` of it. There is no
warmup: the schedule is flat, then falls linearly over `decay` of the run (at least 0.01). `muon_epsilon` is in units
of the momentum's norm. The nano grids of both epsilons have one value. Units, meaning and bounds of the shared
coordinates stand in `tuneopt.search.coordinate`.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate(
        {"paper": (0.008, 0.016, 0.032, 0.064, 0.128), "nano": (0.008, 0.016, 0.032)},
        {"paper": 0.016, "nano": 0.016},
        "peak of the schedule, for matrices",
    ),
    space.rate_share(
        "muon_to_adam_lr",
        "learning rate of the AdamW group over that of the matrices",
        {"paper": (0.1, 0.2, 0.3), "nano": (0.2, 0.3, 0.5)},
        {"paper": 0.2, "nano": 0.3},
    ),
    space.momentum("decay of the summed gradient that is orthogonalized"),
    space.Coordinate(
        name="decay",
        kind="fraction",
        unit="fraction of all steps",
        meaning="how much of the run the learning rate takes to fall linearly to its end; 1 is all of it",
        grids={"paper": (0.2, 0.4, 0.6, 0.8, 1.0), "nano": (0.6, 0.8, 1.0)},
        starts={"paper": 0.6, "nano": 0.8},
        low=0.01,
        high=1.0,
    ),
    space.weight_decay(),
    space.beta1(meaning="decay of the average gradient in the AdamW group"),
    space.beta2(meaning="decay of the average squared gradient in the AdamW group"),
    space.epsilon(
        {"paper": (1e-25, 1e-20, 1e-15, 1e-10), "nano": (1e-15,)},
        {"paper": 1e-15, "nano": 1e-15},
        meaning="added to the root of the second moment in the AdamW group; 1e-25 vanishes beside any gradient in fp32",
    ),
    space.frobenius_epsilon("muon_epsilon", (1e-25, 1e-20, 1e-15, 1e-10, 1e-05)),
    space.max_grad_norm("norm that the gradients of the AdamW group are clipped to; 0 is no clipping"),
    space.train_batch_size(),
)

# No warmup, as in the study: the schedule is flat at first. The tuned points hold these values too.
FIXED: space.Values = {"lr_schedule": "linear", "min_lr_ratio": 0, "warmup": 0}

ORTHOGONALIZATION: space.Values = {"ns_coefficients": "quintic", "ns_precision": "fp32"}
"""What the study's code left to the machine, said here because results depend on it."""

ON_GPUS: space.Values = {**ORTHOGONALIZATION, "ns_precision": "tf32"}
"""The paper ladder's: fp32 products would take 8% of a step on a GPU, TF32 ones 1.3% (docs/optimizers.md)."""

# Rows: scale, ratio, loss in nats per token on the study's corpus, and what differs from the values above them.
PUBLISHED = space.tuned(
    {"beta1": 0.8, "beta2": 0.98, "decay": 0.8, "epsilon": 1e-15, "learning_rate": 0.008, "max_grad_norm": 1,
     "momentum": 0.98, "muon_epsilon": 1e-05, "muon_to_adam_lr": 0.3, "train_batch_size": 128, "weight_decay": 0.1,
     **FIXED},
    (
        ("130m", 1, 3.4626, {"learning_rate": 0.016, "momentum": 0.95, "muon_to_adam_lr": 0.2}),
        ("130m", 2, 3.369, {}),
        ("130m", 4, 3.2947, {"momentum": 0.95}),
        ("130m", 8, 3.2373, {"decay": 1}),
        ("300m", 1, 3.2216, {}),
        ("300m", 2, 3.1433, {}),
        ("300m", 4, 3.0793, {"learning_rate": 0.004}),
        ("300m", 8, 3.0292, {"train_batch_size": 256}),
        ("520m", 1, 3.071, {"decay": 1, "epsilon": 1e-25}),
        ("520m", 2, 3.0019, {"decay": 1, "epsilon": 1e-25, "learning_rate": 0.004, "max_grad_norm": 2}),
        ("520m", 4, 2.9442, {"decay": 1, "epsilon": 1e-25, "max_grad_norm": 2, "train_batch_size": 256}),
        ("520m", 8, 2.9002, {"decay": 1, "epsilon": 1e-25, "max_grad_norm": 2, "train_batch_size": 256}),
    ),
)  # fmt: skip

# Scale, ratio and loss of the runs that the study made at hyperparameters predicted from the points above.
FURTHER = space.further(
    ("130m", 16, 3.1925), ("300m", 16, 2.9909),
    ("1.2b", 1, 2.8863), ("1.2b", 2, 2.8271), ("1.2b", 4, 2.7800), ("1.2b", 8, 2.7484),
)  # fmt: skip

SPACE = space.SearchSpace(
    optimizer="muon",
    coordinates=COORDINATES,
    fixed={"paper": {**FIXED, **ON_GPUS}, "nano": {**FIXED, **ORTHOGONALIZATION}},
    source=space.STUDY_TABLES,
    grid_source="nano ladder: grid cut from the paper's around its tuned points, with batches for the smaller budget; "
    "start from trials at nano-65k, ratio 1, over learning rate and batch (docs/lab-notebook.md)",
    published=PUBLISHED,
    further=FURTHER,
    options={"ns_coefficients": ("quintic", "polar_express"), "ns_precision": ("fp32", "tf32", "bf16")},
    switches=space.ORTHOGONAL_SWITCHES,
)
