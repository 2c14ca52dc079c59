"""The search space of AdamC (Defazio, arXiv 2506.02285): AdamW with one switch on for its hidden matrices.

With `decay_follows_lr` the decay of matrices is multiplied by the rate's share of its peak; the head, which no
normalization follows, decays as under AdamW. Starts are AdamW's. Everything else is AdamW's (`search_spaces.adamw`).
"""

from tuneopt.search import space

COORDINATES = space.changed(
    space.load_space("adamw").coordinates,
    space.weight_decay(
        {"paper": (0, 0.1, 0.2, 0.4), "nano": (0, 0.1, 0.2)},
        {"paper": 0.2, "nano": 0.1},
    ),
)

FIXED: space.Values = {"lr_schedule": "cosine", "min_lr_ratio": 0, "decay_follows_lr": True}

SPACE = space.SearchSpace(
    optimizer="adamc",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source="paper ladder: as AdamW's, with more decay; no published table",
    grid_source="nano ladder, provisional: after AdamW's, not from a sweep of its own",
    switches=space.APPLY_SWITCHES + space.FALLBACK_SWITCHES,
)
