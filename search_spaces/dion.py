"""The search space of Dion (Ahn et al., arXiv 2512.16928, "Dion2"): Muon on a fraction of the momentum's rows.

Learning rate 0.01, a quarter of the rows and an error feedback of 0.95 are the defaults of its authors' code; the grids
around them are ours. `fraction` of the rows along a matrix's short side move in a step, and `momentum` is what those
keep of their momentum. Everything else is Muon's (`search_spaces.muon`), with its schedule and its nano batch.
"""

from tuneopt.search import space

MUON = space.load_space("muon")

SPACE = space.SearchSpace(
    optimizer="dion",
    coordinates=tuple(
        one
        for one in space.changed(
            MUON.coordinates,
            space.learning_rate(
                {"paper": (0.005, 0.01, 0.02, 0.04), "nano": (0.008, 0.016, 0.032)},
                {"paper": 0.01, "nano": 0.016},
                "peak of the schedule, for matrices",
            ),
            space.average(
                "momentum",
                "what rows that moved keep of their momentum",
                {"paper": (0.8, 0.9, 0.95, 0.98), "nano": (0.8, 0.9, 0.95)},
                {"paper": 0.95, "nano": 0.95},
            ),
            space.Coordinate(
                name="fraction",
                kind="fraction",
                unit="fraction of the rows",
                meaning="how many of a matrix's rows, along its short side, are orthogonalized in a step; 1 is all",
                grids={"paper": (0.125, 0.25, 0.5, 1.0), "nano": (0.25, 0.5, 1.0)},
                starts={"paper": 0.25, "nano": 0.25},
                low=0.01,
                high=1.0,
            ),
            space.rate_share(
                "dion_to_adam_lr",
                "learning rate of the AdamW group over that of the matrices",
                {"paper": (0.1, 0.2, 0.3), "nano": (0.2, 0.3, 0.5)},
                {"paper": 0.3, "nano": 0.3},
            ),
            space.frobenius_epsilon("dion_epsilon", (1e-25, 1e-20, 1e-15, 1e-10, 1e-05)),
        )
        if one.name not in ("muon_to_adam_lr", "muon_epsilon")
    ),
    fixed=MUON.fixed,
    source="paper ladder: defaults of the authors' code (arXiv 2512.16928); grids ours",
    grid_source="nano ladder, provisional: after Muon's, not from a sweep of its own",
    options=MUON.options,
    switches=tuple(one for one in space.ORTHOGONAL_SWITCHES if one.name != "row_normalize"),
)
