"""The search space of NorMuon (Li et al., arXiv 2510.05491): Muon with one switch on.

`row_normalize` is the decay of the second moment by which the rows of an update are evened. Paper ladder: learning
rate 0.02 to 0.035, momentum and second moment 0.95 are published; the grids around them are ours. Everything else is
Muon's (`search_spaces.muon`), with its schedule and its nano batch.
"""

from tuneopt.search import space

SPACE = space.load_space("muon").switched(
    "normuon",
    {},
    space.learning_rate(
        {"paper": (0.01, 0.02, 0.035, 0.05), "nano": (0.008, 0.016, 0.032)},
        {"paper": 0.02, "nano": 0.016},
        "peak of the schedule, for matrices",
    ),
    space.average(
        "momentum",
        "decay of the summed gradient that is orthogonalized",
        {"paper": (0.8, 0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.95, "nano": 0.95},
    ),
    space.average(
        "row_normalize",
        "decay of the average squared row of an update",
        {"paper": (0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.95, "nano": 0.95},
    ),
    source="paper ladder: Li et al., arXiv 2510.05491; grids ours",
    grid_source="nano ladder, provisional: after Muon's, not from a sweep of its own",
)
