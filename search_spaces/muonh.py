"""The search space of MuonH (Wen et al., arXiv 2606.16899): Muon with one switch on.

With `hyperball` a matrix keeps the norm that it began with, so `learning_rate` is the angle of a step, and weight
decay acts on the head alone. Paper ladder: learning rate 0.02 at 130m (0.0075 at 1.2b), momentum 0.95 (0.98 at 1.2b)
and an AdamW part at 1 / 4.33 of the rate are published; the grids around them are ours. Everything else is Muon's
(`search_spaces.muon`), with its schedule and its nano batch.
"""

from tuneopt.search import space

SPACE = space.load_space("muon").switched(
    "muonh",
    {"hyperball": True},
    space.learning_rate(
        {"paper": (0.0075, 0.01, 0.015, 0.02, 0.03), "nano": (0.02, 0.04, 0.08)},
        {"paper": 0.02, "nano": 0.04},
        "peak of the schedule, for matrices, as a share of their norm",
    ),
    space.rate_share(
        "muon_to_adam_lr",
        "learning rate of the AdamW group over that of the matrices",
        grids={"paper": (0.1, 0.23, 0.3), "nano": (0.1, 0.2, 0.3)},
        starts={"paper": 0.23, "nano": 0.2},
    ),
    space.average(
        "momentum",
        "decay of the summed gradient that is orthogonalized",
        {"paper": (0.8, 0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.95, "nano": 0.95},
    ),
    source="paper ladder: Wen et al., arXiv 2606.16899; grids ours",
    grid_source="nano ladder, provisional: rate guessed from the size of Muon's updates, not from a sweep",
)
