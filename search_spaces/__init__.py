"""Search spaces, one declarative module per optimizer, each with its table bound to ``SPACE``.

They import `tuneopt.search.space` and nothing else, so reading one costs no heavy import. What a coordinate means, its
unit and its bounds stand in `tuneopt.search.coordinate` where optimizers share it, and in the module where they do not.
A module reads from top to bottom: ``COORDINATES`` are what a sweep varies; ``FIXED`` is what the study set once and did
not tune, a part of every trial all the same (``--set`` changes it); ``PUBLISHED`` holds its tuned optima in twelve
regimes; ``SPACE`` binds them, and its ``grid_source`` says how far the nano grid and start are to be trusted. A
ladder that a coordinate leaves out has the usual grid of `tuneopt.search.coordinate`.

Each module's head says where its grids and starts come from; ids of sweeps and trials follow from the tables, so that a
changed grid begins a new sweep, while trials of the old one are reused where their values agree. The order of the
coordinates breaks ties and orders a star; a trial's id does not depend on it.
"""
