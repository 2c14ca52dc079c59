"""The search space of SOAP-Muon (Vyas et al., nikhilvyas.github.io/SOAP_Muon.pdf): SOAP with one switch on.

With `orthogonalize=match_rms` an update is orthogonal and has the root mean square of AdamW's, so that matrices and the
rest share one learning rate, as they do under SOAP; `spectral` is the published scale, for which the rest needs a rate
of its own (`fallback_learning_rate`). Grids and starts are SOAP's (`search_spaces.soap`), as is everything else.
"""

from tuneopt.search import space

SPACE = space.load_space("soap").switched(
    "soap_muon",
    {"orthogonalize": "match_rms"},
    space.learning_rate(
        {"paper": (0.004, 0.008, 0.016, 0.032), "nano": (0.004, 0.008, 0.016)}, {"paper": 0.008, "nano": 0.008}
    ),
    source="paper ladder: after SOAP's, at the scale of Liu et al., arXiv 2502.16982; grids ours",
    grid_source="nano ladder, provisional: after SOAP's, not from a sweep of its own",
)
