"""The search space of AdamH (Wen et al., arXiv 2606.16899): AdamW with one switch on for its hidden matrices.

With `hyperball` a matrix keeps the norm that it began with, so `learning_rate` is the angle of its step; embedding,
head and vectors have AdamW at the same rate, and weight decay acts on the head alone. Starts are guesses.
Everything else is AdamW's (`search_spaces.adamw`).
"""

from tuneopt.search import space

COORDINATES = space.changed(
    space.load_space("adamw").coordinates,
    space.learning_rate(
        {"paper": (0.004, 0.008, 0.016, 0.032), "nano": (0.01, 0.02, 0.04)},
        {"paper": 0.016, "nano": 0.02},
        "peak of the schedule; for matrices as a share of their norm",
    ),
)

FIXED: space.Values = {"lr_schedule": "cosine", "min_lr_ratio": 0, "hyperball": True}

SPACE = space.SearchSpace(
    optimizer="adamh",
    coordinates=COORDINATES,
    fixed={"paper": FIXED, "nano": FIXED},
    source="no published table for this form; grids ours around AdamW's",
    grid_source="nano ladder, provisional: rate guessed from the size of AdamW's updates, not from a sweep",
    switches=space.APPLY_SWITCHES + space.FALLBACK_SWITCHES,
)
