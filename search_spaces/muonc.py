"""The search space of MuonC (Defazio, arXiv 2506.02285): Muon with one switch on.

With `decay_follows_lr` the decay of matrices is multiplied by the rate's share of its peak, so that over a run less
decays than under Muon at the same weight decay. Starts are Muon's, with a grid of decay that goes further up.
Everything else is Muon's (`search_spaces.muon`), with its schedule and its nano batch.
"""

from tuneopt.search import space

SPACE = space.load_space("muon").switched(
    "muonc",
    {"decay_follows_lr": True},
    space.weight_decay(
        {"paper": (0, 0.1, 0.2, 0.4), "nano": (0, 0.1, 0.2)},
        {"paper": 0.2, "nano": 0.1},
    ),
    source="paper ladder: as Muon's, with more decay; no published table",
    grid_source="nano ladder, provisional: after Muon's, not from a sweep of its own",
)
