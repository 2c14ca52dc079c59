"""The search space of Distributed Shampoo (Shi et al., arXiv 2309.06497) with the size of AdamW's updates.

Paper ladder: rate 0.0018, both betas 0.95 and roots every 10 steps are those of its authors' code in modded-nanogpt's
comparison at 124M; `shampoo_epsilon`, a share of the largest eigenvalue, is that of Anil et al., arXiv 2002.09018. The
grids around them are ours, with SOAP's blocks. Nano ladder: found by a few trials at nano-65k.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate(
        {"paper": (0.0009, 0.0018, 0.0036, 0.0072), "nano": (0.004, 0.008, 0.016)}, {"paper": 0.0018, "nano": 0.008}
    ),
    space.weight_decay(),
    space.beta1({"paper": (0.9, 0.95, 0.98), "nano": (0.8, 0.9, 0.95)}, {"paper": 0.95, "nano": 0.9}),
    space.beta2(
        {"paper": (0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.95, "nano": 0.95},
        meaning="decay of Shampoo's factors, and of the average squared gradient that gives updates their size",
    ),
    space.Coordinate(
        name="precondition_frequency",
        kind="steps",
        unit="steps",
        meaning="steps between two computations of the factors' inverse roots; 1 is every step",
        grids={"paper": (5, 10, 50), "nano": (5, 10, 20)},
        starts={"paper": 10, "nano": 10},
        low=1,
        high=1000,
    ),
    space.block_size({"paper": (128, 256, 512, 1024), "nano": (32, 128)}, {"paper": 256, "nano": 128}),
    space.Coordinate(
        name="shampoo_epsilon",
        kind="scale-free",
        unit="largest eigenvalue",
        meaning="added to the eigenvalues of a factor, as a share of the largest one",
        grids={"paper": (1e-6, 1e-5, 1e-4), "nano": (1e-6, 1e-5, 1e-4)},
        starts={"paper": 1e-6, "nano": 1e-6},
        low=1e-7,
        high=0.1,
    ),
    space.epsilon({"paper": (1e-10, 1e-8), "nano": (1e-8,)}, {"paper": 1e-8, "nano": 1e-8}, high=space.EPSILON_HIGH),
    space.max_grad_norm(),
    space.train_batch_size({"paper": (128, 256, 512)}),
    space.warmup(),
)

FIXED: space.Values = {"lr_schedule": "cosine", "min_lr_ratio": 0}

SPACE = space.SearchSpace(
    optimizer="shampoo",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source="paper ladder: rate, betas and frequency of modded-nanogpt's comparison at 124M, epsilon of Anil et al., "
    "arXiv 2002.09018; grids ours",
    grid_source="nano ladder, provisional: by a few trials at nano-65k, ratio 1 (docs/lab-notebook.md)",
    switches=(
        space.Switch("exponent", 0.25, "power of the inverse roots of both factors"),
        space.DECAY_FOLLOWS_LR,
        *space.FALLBACK_SWITCHES,
    ),
)
