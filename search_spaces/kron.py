"""The search space of Kron (Li, arXiv 2211.04422): PSGD with Kronecker-factored preconditioners.

Paper ladder: grids of the study's appendix tables (`STUDY_TABLES`); the published points are its tuned optima.
Nano ladder: cut from the paper's around its tuned points, its start measured here in a few short trials. Rates are as
low as Lion's, and decay is as high. Factors are fitted in each of the first `update_prob_flat_start` steps, then ever
more rarely, down to `preconditioner_update_probability`, which a nano run ends before it reaches: one value there.
Clipping counts only where gradients are not normalised. `partition_grads_into_blocks` has one value: it is a
coordinate so that a user's grid may add the other. Units, meaning and bounds of the shared coordinates stand in
`tuneopt.search.coordinate`.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate(
        {"paper": (0.0005, 0.001, 0.002, 0.004, 0.008), "nano": (0.002, 0.004, 0.008)}, {"paper": 0.002, "nano": 0.004}
    ),
    space.weight_decay({"paper": (0.0, 0.5, 0.7, 0.9), "nano": (0.0, 0.5, 0.7)}, {"paper": 0.9, "nano": 0.5}),
    space.beta1(
        {"paper": (0.9, 0.95, 0.98), "nano": (0.8, 0.9, 0.95)},
        {"paper": 0.98, "nano": 0.9},
        "decay of the average gradient that is preconditioned",
    ),
    space.Coordinate(
        name="preconditioner_lr",
        kind="scale-free",
        unit="1",
        meaning="step size of the factors",
        grids={"paper": (0.1, 0.2), "nano": (0.1, 0.2)},
        starts={"paper": 0.1, "nano": 0.2},
        low=0.001,
        high=1.0,
    ),
    space.Coordinate(
        name="preconditioner_update_probability",
        kind="scale-free",
        unit="fits per step",
        meaning="how often factors are fitted in the end; nano runs end before it is reached",
        # From 1 it takes log(1 / 0.05) / 0.001 = 3,000 steps after the flat start to fall so far (docs/optimizers.md).
        grids={"paper": (0.05, 0.1), "nano": (0.05,)},
        starts={"paper": 0.05, "nano": 0.05},
        low=0.001,
        high=1.0,
    ),
    space.Coordinate(
        name="update_prob_flat_start",
        kind="steps",
        unit="steps",
        meaning="steps in which factors are fitted every time; afterwards ever more rarely",
        grids={"paper": (500, 1000, 2000), "nano": (100, 250, 500)},
        starts={"paper": 500, "nano": 250},
        low=0,
        high=100000,
    ),
    space.block_size({"paper": (128, 256, 512), "nano": (32, 128)}, {"paper": 256, "nano": 128}),
    space.Coordinate(
        name="partition_grads_into_blocks",
        kind="categorical",
        unit="switch",
        meaning="whether matrices are cut into blocks at all",
        grids={"paper": (True,), "nano": (True,)},  # without, factors are as large as the matrix is wide
        starts={"paper": True, "nano": True},
    ),
    space.Coordinate(
        name="normalize_grads",
        kind="categorical",
        unit="switch",
        meaning="whether each matrix's gradient is brought to norm 1 first, in place of clipping",
        grids={"paper": (False, True), "nano": (False, True)},
        starts={"paper": True, "nano": True},
    ),
    space.max_grad_norm(
        "global norm that gradients are clipped to where they are not normalised; 0 is no clipping",
        grids={"paper": (0.0, 1.0, 2.0), "nano": (1.0,)},  # the nano start normalises, so clipping does nothing there
    ),
    space.train_batch_size(),
    space.warmup({"paper": (1000, 2000, 4000)}),
)

# Factors begin as the identity times the root of `preconditioner_init_scale`.
FIXED: space.Values = {"lr_schedule": "cosine", "min_lr_ratio": 0, "preconditioner_init_scale": 1}

# Rows: scale, ratio, loss in nats per token on the study's corpus, and what differs from the values above them.
PUBLISHED = space.tuned(
    {"beta1": 0.95, "block_size": 256, "learning_rate": 0.0005, "max_grad_norm": 1, "normalize_grads": True,
     "partition_grads_into_blocks": True, "preconditioner_lr": 0.2, "preconditioner_update_probability": 0.1,
     "train_batch_size": 128, "update_prob_flat_start": 2000, "warmup": 1000, "weight_decay": 0.5, **FIXED},
    (
        ("130m", 1, 3.4907, {"learning_rate": 0.002, "preconditioner_update_probability": 0.05, "weight_decay": 0.7}),
        ("130m", 2, 3.388, {"learning_rate": 0.002, "preconditioner_update_probability": 0.05}),
        ("130m", 4, 3.3028, {"learning_rate": 0.002, "preconditioner_update_probability": 0.05}),
        ("130m", 8, 3.2385, {"learning_rate": 0.001}),
        ("300m", 1, 3.2415, {"learning_rate": 0.001}),
        ("300m", 2, 3.1509, {"learning_rate": 0.001, "weight_decay": 0.7}),
        ("300m", 4, 3.0834, {"weight_decay": 0.7}),
        ("300m", 8, 3.0314, {"weight_decay": 0.7}),
        ("520m", 1, 3.0836, {"learning_rate": 0.001}),
        ("520m", 2, 3.0089, {}),
        ("520m", 4, 2.9462, {}),
        ("520m", 8, 2.9002, {}),
    ),
)  # fmt: skip

SPACE = space.SearchSpace(
    optimizer="kron",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=space.STUDY_TABLES,
    grid_source="nano ladder, provisional: grid cut from the paper's around its tuned points, with batches for the "
    "smaller budget; start from a few short trials at nano-65k, ratio 0.2, not from a sweep of its own",
    published=PUBLISHED,
    switches=space.APPLY_SWITCHES + space.FALLBACK_SWITCHES,
)
