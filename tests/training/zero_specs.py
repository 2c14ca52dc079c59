"""One configuration of every optimizer for the tests of ZeRO."""

ONE_BETA = {"beta2": None, "epsilon": None}
MUON = {"momentum": 0.95, "muon_epsilon": 1e-5, "muon_to_adam_lr": 0.3, "lr_schedule": "linear", "decay": 0.8}
# Blocks no larger than the rank of a gradient. In larger ones Adam normalizes the rounding error of directions in
# which there is no gradient, and any other order of sums changes the loss by 3e-4, in one process too.
SOAP = {"shampoo_beta": 0.95, "precondition_frequency": 5, "block_size": 16, "partition_grads_into_blocks": True}
# Every direction reaches every other in these two: gradients that err by 1e-7 change losses by 1e-4 in blocks of 16
# (SOAP's by 2e-5), and by 3e-7 in blocks of 8.
SMALL = {**SOAP, "block_size": 8}

OPTIMIZERS = {
    "adamw": {},
    "nadamw": {},
    "mars": {"gamma": 0.025},
    "cautious": {},
    "lion": {"epsilon": None, "learning_rate": 0.001},
    "adam_mini": {},
    "sophia": {"gamma": 0.0125, "hessian_interval": 4, "learning_rate": 0.002},
    "muon": MUON,
    "scion": {"momentum": 0.95, "scion_epsilon": 1e-5, "scion_to_signum_lr": 0.3, **ONE_BETA},
    "kron": {"preconditioner_lr": 0.2, "update_prob_flat_start": 20, "normalize_grads": True, **ONE_BETA},
    "soap": SOAP,
    "kl_soap": {**SMALL, "factors": "kl"},
    "soap_muon": {**SMALL, "orthogonalize": "match_rms"},
    # Its roots blow up what rounding leaves in small eigenvalues, by epsilon.
    "shampoo": {"precondition_frequency": 5, "block_size": 8, "shampoo_epsilon": 1e-4},
    "muonh": {**MUON, "hyperball": True},
    "normuon": {**MUON, "row_normalize": 0.95},
    "muonc": {**MUON, "decay_follows_lr": True, "weight_decay": 0.5},
    "moonlight": {**MUON, "scale": "match_rms", "muon_to_adam_lr": 1.0},
    "adamh": {"hyperball": True},
    "adamc": {"decay_follows_lr": True, "weight_decay": 0.5},
    "sf_muon": {**MUON, "momentum": 0.9, "decay": 0.0},
    "ademamix": {"beta3": 0.99, "alpha": 4, "slow_warmup": 1.0},
    "adopt": {"epsilon": 1e-6},
    "schedule_free": {"lr_schedule": "linear", "decay": 0.0},
    # The rate of the others, as a distance that the estimate grows from.
    "prodigy": {"initial_distance": 0.001, "learning_rate": 1.0},
    "dion": {**{word: value for word, value in MUON.items() if not word.startswith("muon")}, "fraction": 0.25},
}
