"""The search space of SOAP (Vyas et al., arXiv 2409.11321): Adam in the eigenbasis of Shampoo's factors.

Paper ladder: grids of the study's appendix tables (`STUDY_TABLES`); the published points are its tuned optima. The
start refreshes the basis every 10 steps, which its grid of 1 and 5 lacks; a start joins its grid.
Nano ladder: cut from the paper's around its tuned points, with blocks for smaller models (32 and 128, the largest
width); the start was measured here over learning rate and batch (docs/lab-notebook.md, "Where the nano starts come
from"). `precondition_frequency` counts steps between refreshes, at least 1: more often than every step cannot be.
Units, meaning and bounds of the shared coordinates stand in `tuneopt.search.coordinate`.
"""

from tuneopt.search import space

COORDINATES = (
    space.learning_rate(
        {"paper": (0.004, 0.008, 0.016), "nano": (0.004, 0.008, 0.016)}, {"paper": 0.008, "nano": 0.008}
    ),
    space.weight_decay(),
    space.beta1({"paper": (0.8, 0.9, 0.95), "nano": (0.8, 0.9, 0.95)}),
    space.beta2(
        {"paper": (0.9, 0.95, 0.98, 0.99), "nano": (0.9, 0.95, 0.98)},
        meaning="decay of the average squared gradient in the eigenbasis",
    ),
    space.average(
        "shampoo_beta",
        "decay of Shampoo's factors, whose eigenvectors are the basis",
        {"paper": (0.9, 0.95, 0.98, 0.99), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.95, "nano": 0.95},
    ),
    space.Coordinate(
        name="precondition_frequency",
        kind="steps",
        unit="steps",
        meaning="steps between two refreshes of the eigenbasis; 1 is every step",
        grids={"paper": (1, 5), "nano": (5, 10, 20)},
        starts={"paper": 10, "nano": 10},
        low=1,
        high=1000,
    ),
    space.block_size({"paper": (128, 256, 512), "nano": (32, 128)}, {"paper": 256, "nano": 128}),
    space.epsilon({"paper": (1e-20, 1e-15, 1e-10), "nano": (1e-15,)}, {"paper": 1e-15, "nano": 1e-15}),
    space.train_batch_size({"paper": (128, 256, 512)}),
    space.warmup({"paper": (500, 1000, 2000)}),
)

FIXED: space.Values = {
    "lr_schedule": "cosine",
    "max_grad_norm": 1,  # over all parameters; for most other optimizers a coordinate
    "min_lr_ratio": 0,
    "partition_grads_into_blocks": True,  # without, factors are as large as the matrix is wide
}

# Rows: scale, ratio, loss in nats per token on the study's corpus, and what differs from the values above them.
PUBLISHED = space.tuned(
    {"beta1": 0.95, "beta2": 0.99, "block_size": 512, "epsilon": 1e-10, "learning_rate": 0.008,
     "precondition_frequency": 10, "shampoo_beta": 0.95, "train_batch_size": 128, "warmup": 1000, "weight_decay": 0.1,
     **FIXED},
    (
        ("130m", 1, 3.4822, {"beta2": 0.98, "block_size": 256, "epsilon": 1e-15, "learning_rate": 0.016,
            "precondition_frequency": 1}),
        ("130m", 2, 3.3742, {"block_size": 256, "epsilon": 1e-15, "learning_rate": 0.016, "precondition_frequency": 1,
            "shampoo_beta": 0.98}),
        ("130m", 4, 3.2945, {"block_size": 256, "epsilon": 1e-15, "shampoo_beta": 0.98, "warmup": 500}),
        ("130m", 8, 3.2374, {"epsilon": 1e-15, "shampoo_beta": 0.98, "train_batch_size": 256}),
        ("300m", 1, 3.2309, {"shampoo_beta": 0.9}),
        ("300m", 2, 3.1474, {"shampoo_beta": 0.9}),
        ("300m", 4, 3.0824, {"shampoo_beta": 0.9, "train_batch_size": 256}),
        ("300m", 8, 3.0302, {"shampoo_beta": 0.9, "train_batch_size": 256}),
        ("520m", 1, 3.0789, {}),
        ("520m", 2, 3.0037, {"train_batch_size": 256}),
        ("520m", 4, 2.9443, {"learning_rate": 0.004, "train_batch_size": 256}),
        ("520m", 8, 2.8989, {"learning_rate": 0.004, "train_batch_size": 256}),
    ),
)  # fmt: skip

# Scale, ratio and loss of the runs that the study made at hyperparameters predicted from the points above.
FURTHER = space.further(
    ("130m", 16, 3.1912), ("300m", 16, 2.9897),
    ("1.2b", 1, 2.8978), ("1.2b", 2, 2.8293), ("1.2b", 4, 2.7825), ("1.2b", 8, 2.7485),
)  # fmt: skip

SWITCHES = (
    space.Switch(
        "factors",
        "shampoo",
        "what the bases are eigenvectors of: Shampoo's factors, or those that minimize a Kullback-Leibler divergence",
        ("shampoo", "kl"),
    ),
    space.Switch(
        "orthogonalize",
        "none",
        "Newton-Schulz of the whole update, times sqrt(max(1, out/in)) or 0.2 sqrt(max(out, in))",
        ("none", "spectral", "match_rms"),
    ),
    space.DECAY_FOLLOWS_LR,
    *space.FALLBACK_SWITCHES,
)

SPACE = space.SearchSpace(
    optimizer="soap",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source=space.STUDY_TABLES,
    grid_source="nano ladder: grid cut from the paper's around its tuned points, with batches and blocks for smaller "
    "models; start from trials at nano-65k, ratio 1, over learning rate and batch (docs/lab-notebook.md)",
    published=PUBLISHED,
    further=FURTHER,
    switches=SWITCHES,
)
