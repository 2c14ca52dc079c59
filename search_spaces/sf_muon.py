"""The search space of SF-Muon (Apte et al., arXiv 2605.23061): Muon inside Schedule-Free.

The rate is constant after its warmup. Muon's words are Muon's (`search_spaces.muon`), those of the average are
Schedule-Free's (`search_spaces.schedule_free`). Paper ladder: rate 0.01, share 0.9 and momentum 0.8 are defaults of
public code after the paper's algorithm 1, whose own tables were not at hand; grids are ours. Nano ladder: by a few
trials at nano-65k.
"""

from tuneopt.search import space

MUON = space.load_space("muon")

FIXED: space.Values = {"lr_schedule": "linear", "decay": 0.0, "min_lr_ratio": 0}

SPACE = space.SearchSpace(
    optimizer="sf_muon",
    coordinates=tuple(
        one
        for one in space.changed(
            MUON.coordinates,
            space.learning_rate(
                {"paper": (0.005, 0.01, 0.02), "nano": (0.016, 0.032, 0.064)},
                {"paper": 0.01, "nano": 0.032},
                "rate after the warmup, for matrices",
            ),
            space.rate_share(
                "muon_to_adam_lr",
                "learning rate of the AdamW group over that of the matrices",
                {"paper": (0.1, 0.2, 0.3), "nano": (0.125, 0.25, 0.5)},
                {"paper": 0.3, "nano": 0.25},
            ),
            space.average(
                "momentum",
                "decay of the summed gradient that is orthogonalized",
                {"paper": (0.8, 0.9, 0.95), "nano": (0.6, 0.8, 0.9)},
                {"paper": 0.8, "nano": 0.8},
            ),
            space.beta1(
                {"paper": (0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
                {"paper": 0.9, "nano": 0.9},
                "share of the average in the weights where gradients are taken",
            ),
            space.beta2(
                {"paper": (0.95, 0.98, 0.99), "nano": (0.95, 0.98, 0.99)},
                {"paper": 0.98, "nano": 0.98},
                "decay of the average squared gradient in the AdamW group",
            ),
            space.epsilon(
                {"paper": (1e-10, 1e-8), "nano": (1e-8,)},
                {"paper": 1e-8, "nano": 1e-8},
                "added to the root of the second moment in the AdamW group",
                high=space.EPSILON_HIGH,
            ),
            space.warmup(),
        )
        if one.name != "decay"
    ),
    fixed={
        ladder: {**FIXED, **{word: MUON.fixed[ladder][word] for word in ("ns_coefficients", "ns_precision")}}
        for ladder in ("paper", "nano")
    },
    source="paper ladder: public code after algorithm 1 of arXiv 2605.23061; grids ours",
    grid_source="nano ladder, provisional: by a few trials at nano-65k, ratio 1 (docs/lab-notebook.md)",
    options=MUON.options,
    switches=tuple(one for one in space.ORTHOGONAL_SWITCHES if one not in space.APPLY_SWITCHES),
)
