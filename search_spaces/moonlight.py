"""The search space of Moonlight's Muon (Liu et al., arXiv 2502.16982): Muon with one switch on.

With `scale=match_rms` an update has the root mean square of AdamW's, so that both parts share one learning rate, and
AdamW's values serve. Grids and starts of the rate are AdamW's (`search_spaces.adamw`). Everything else is Muon's
(`search_spaces.muon`), with its schedule and its nano batch.
"""

from tuneopt.search import space

SPACE = space.load_space("muon").switched(
    "moonlight",
    {"scale": "match_rms"},
    space.learning_rate(
        {"paper": (0.004, 0.008, 0.016, 0.032), "nano": (0.004, 0.008, 0.016)},
        {"paper": 0.008, "nano": 0.008},
        "peak of the schedule, for matrices and, times muon_to_adam_lr, for the rest",
    ),
    space.rate_share(
        "muon_to_adam_lr",
        "learning rate of the AdamW group over that of the matrices",
        grids={"paper": (0.5, 1.0, 2.0), "nano": (0.5, 1.0, 2.0)},
        starts={"paper": 1.0, "nano": 1.0},
    ),
    space.average(
        "momentum",
        "decay of the summed gradient that is orthogonalized",
        {"paper": (0.8, 0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.95, "nano": 0.95},
    ),
    source="paper ladder: one rate for both parts after Liu et al., arXiv 2502.16982; grids AdamW's",
    grid_source="nano ladder, provisional: after AdamW's, not from a sweep of its own",
)
