"""The search space of KL-SOAP (Lin et al., arXiv 2509.03378): SOAP with one switch on.

With `factors=kl` each factor averages gradients that the other one has whitened. Paper ladder: learning rate 0.018 and
betas 0.95 and 0.9 are those of modded-nanogpt, which ran it at 124M on a hyperball (KLSOAPH), where a rate is a share
of the norm; the grids around them are ours, and without a hyperball nobody tuned them. Everything else is SOAP's
(`search_spaces.soap`).
"""

from tuneopt.search import space

SPACE = space.load_space("soap").switched(
    "kl_soap",
    {"factors": "kl"},
    space.learning_rate(
        {"paper": (0.009, 0.018, 0.036), "nano": (0.004, 0.008, 0.016)}, {"paper": 0.018, "nano": 0.008}
    ),
    space.beta2(
        {"paper": (0.9, 0.95, 0.98), "nano": (0.9, 0.95, 0.98)},
        {"paper": 0.9, "nano": 0.95},
        meaning="decay of the average squared gradient in the eigenbasis",
    ),
    source="paper ladder: rate and betas of KLSOAPH in modded-nanogpt, at 124M; grids ours",
    grid_source="nano ladder, provisional: after SOAP's, not from a sweep of its own",
)
