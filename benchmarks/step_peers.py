"""Who takes part in the optimizer-step benchmark: our optimizers, and the public implementations of the same rules.

A candidate says which package it comes from, which extra installs that, how it is built on a model, and whether it
computes the rule that runs here (``same``), or something of about the same cost that moves parameters otherwise.
"""

from __future__ import annotations

from step_builders import (
    ADAM,
    BETAS,
    EPS,
    LR,
    WD,
    Candidate,
    adam_mini,
    begun,
    diagonal_rest,
    grouped,
    hybrid,
    in_training,
    late,
    mine,
    named,
    our_adam_mini,
    peer,
    sophia,
)

MOMENTUM_FREE = "momentum not bias-corrected"
EPS_MAX = "max(sqrt(v), eps) in place of sqrt(v) + eps"
OTHER_SCALE = "another shape factor and other norms for vectors"

SLOW = {**ADAM, "betas": (*BETAS, 0.9999), "alpha": 8.0}

CANDIDATES: dict[str, list[Candidate]] = {
    "adamw": [
        Candidate("tuneopt", "tuneopt", mine("AdamW", **ADAM)),
        Candidate("torch AdamW, fused", "torch", peer("torch.optim", "AdamW", **ADAM, fused=True)),
        Candidate("torch AdamW, foreach", "torch", peer("torch.optim", "AdamW", **ADAM, foreach=True)),
        Candidate("timm AdamW", "timm", peer("timm.optim.adamw", "AdamWLegacy", **ADAM)),
        Candidate("heavyball AdamW", "heavyball", peer("heavyball", "AdamW", **ADAM), False, EPS_MAX),
    ],
    "nadamw": [
        Candidate("tuneopt", "tuneopt", mine("NAdamW", **ADAM)),
        Candidate(
            "torch NAdam, foreach",
            "torch",
            peer("torch.optim", "NAdam", **ADAM, momentum_decay=1e9, decoupled_weight_decay=True, foreach=True),
            note="momentum_decay=1e9, decoupled_weight_decay=True",
        ),
        Candidate("timm NAdamW", "timm", peer("timm.optim.nadamw", "NAdamW", **ADAM), False, "bias correction with t"),
        Candidate("heavyball NAdam", "heavyball", peer("heavyball", "NAdam", **ADAM), False, "momentum schedule"),
    ],
    "mars": [
        Candidate("tuneopt", "tuneopt", mine("MARS", **ADAM)),
        Candidate(
            "pytorch_optimizer MARS",
            "pytorch_optimizer",
            peer("pytorch_optimizer", "MARS", **ADAM, optimize_1d=True),
            False,
            "clips each tensor; eps grows by 1 / sqrt(1 - beta2^t)",
        ),
        Candidate(
            "timm Mars",
            "timm",
            peer("timm.optim.mars", "Mars", **ADAM, optimize_1d=True),
            False,
            "clips each tensor; no correction in the first step",
        ),
    ],
    "cautious": [
        Candidate("tuneopt", "tuneopt", mine("Cautious", **ADAM)),
        Candidate("timm AdamW, caution", "timm", peer("timm.optim.adamw", "AdamWLegacy", **ADAM, caution=True)),
        Candidate("heavyball AdamW, caution", "heavyball", peer("heavyball", "AdamW", **ADAM, caution=True), False),
    ],
    "lion": [
        Candidate("tuneopt", "tuneopt", mine("Lion", lr=LR, betas=(0.9, 0.95), weight_decay=WD)),
        Candidate(
            "lion-pytorch",
            "lion_pytorch",
            peer("lion_pytorch", "Lion", lr=LR, betas=(0.9, 0.95), weight_decay=WD),
        ),
        Candidate("timm Lion", "timm", peer("timm.optim.lion", "Lion", lr=LR, betas=(0.9, 0.95), weight_decay=WD)),
        Candidate(
            "pytorch_optimizer Lion",
            "pytorch_optimizer",
            peer("pytorch_optimizer", "Lion", lr=LR, betas=(0.9, 0.95), weight_decay=WD),
        ),
    ],
    "adam_mini": [
        Candidate("tuneopt", "tuneopt", our_adam_mini),
        Candidate("adam-mini, official", "adam_mini", adam_mini, note="the same but for norms, one scalar there"),
    ],
    "sophia": [
        Candidate("tuneopt", "tuneopt", mine("Sophia", lr=LR, weight_decay=WD), note="without the Hessian pass"),
        Candidate("pytorch_optimizer SophiaH", "pytorch_optimizer", sophia, False, MOMENTUM_FREE),
    ],
    "muon": [
        Candidate("tuneopt, fp32", "tuneopt", mine("Muon", lr=LR, weight_decay=WD)),
        Candidate("tuneopt, bf16", "tuneopt", mine("Muon", lr=LR, weight_decay=WD, ns_precision="bf16")),
        Candidate(
            "torch Muon + fused AdamW",
            "torch",
            hybrid("torch.optim", "Muon", lr=LR, weight_decay=WD),
            note="products in bf16",
        ),
        Candidate(
            "pytorch_optimizer Muon + fused AdamW",
            "pytorch_optimizer",
            grouped("Muon", lr=LR, weight_decay=WD),
            note="products in bf16",
        ),
        Candidate(
            "heavyball Muon", "heavyball", peer("heavyball", "Muon", lr=LR), False, "another quintic, raw gradient"
        ),
    ],
    "scion": [
        Candidate("tuneopt, fp32", "tuneopt", mine("Scion", lr=LR, weight_decay=WD)),
        Candidate("tuneopt, bf16", "tuneopt", mine("Scion", lr=LR, weight_decay=WD, ns_precision="bf16")),
        Candidate(
            "pytorch_optimizer SCION",
            "pytorch_optimizer",
            peer("pytorch_optimizer", "SCION", lr=LR, weight_decay=WD),
            False,
            OTHER_SCALE,
        ),
        Candidate("heavyball Scion", "heavyball", peer("heavyball", "Scion", lr=LR), False, OTHER_SCALE),
    ],
    "kron": [
        Candidate(
            "tuneopt, blocks of 256",
            "tuneopt",
            late(mine("Kron", lr=LR, preconditioner_update_probability=0.1, update_prob_flat_start=0)),
            note="the study's blocks",
        ),
        Candidate(
            "tuneopt, whole matrices",
            "tuneopt",
            late(
                mine("Kron", lr=LR, preconditioner_update_probability=0.1, update_prob_flat_start=0, block_size=1 << 20)
            ),
            note="no blocks, as the peers",
        ),
        Candidate(
            "kron-torch",
            "kron_torch",
            diagonal_rest("kron_torch", {"preconditioner_update_probability": 0.1}),
            note="without blocks and normalisation",
            starts_otherwise=True,
        ),
        Candidate(
            "pytorch_optimizer Kron",
            "pytorch_optimizer",
            diagonal_rest("pytorch_optimizer", {"pre_conditioner_update_probability": 0.1}),
            note="without blocks, normalisation and damping",
            starts_otherwise=True,
        ),
    ],
    "soap": [
        Candidate("tuneopt, blocks of 256", "tuneopt", mine("SOAP", lr=LR), note="the study's blocks"),
        Candidate("tuneopt, whole matrices", "tuneopt", mine("SOAP", lr=LR, block_size=1 << 20), note="as the peers"),
        Candidate(
            "pytorch_optimizer SOAP + fused AdamW",
            "pytorch_optimizer",
            hybrid("pytorch_optimizer", "SOAP", lr=LR, precondition_frequency=10, shampoo_beta=0.95),
            note="without blocks",
            starts_otherwise=True,
        ),
        Candidate(
            "heavyball SOAP + fused AdamW",
            "heavyball",
            hybrid("heavyball", "SOAP", lr=LR, precondition_frequency=10),
            False,
            "another schedule and a debiased factor average",
        ),
    ],
    "ademamix": [
        Candidate("tuneopt", "tuneopt", mine("AdEMAMix", **ADAM, beta3=0.9999, alpha=8.0)),
        Candidate(
            "pytorch_optimizer AdEMAMix",
            "pytorch_optimizer",
            peer(
                "pytorch_optimizer", "AdEMAMix", **{**ADAM, "betas": (*BETAS, 0.9999)}, alpha=8.0, weight_decouple=True
            ),
        ),
        Candidate(
            "heavyball AdEMAMix",
            "heavyball",
            peer("heavyball", "AdEMAMix", **SLOW),
            False,
            EPS_MAX,
        ),
    ],
    "adopt": [
        Candidate("tuneopt", "tuneopt", begun(mine("ADOPT", **ADAM)), note="from its second step on"),
        Candidate(
            "pytorch_optimizer ADOPT",
            "pytorch_optimizer",
            begun(peer("pytorch_optimizer", "ADOPT", **ADAM)),
            note="its clip counts one step further",
            starts_otherwise=True,
        ),
        Candidate("heavyball ADOPT", "heavyball", begun(peer("heavyball", "ADOPT", **ADAM)), False, "debiased"),
    ],
    "prodigy": [
        Candidate("tuneopt", "tuneopt", mine("Prodigy", lr=1.0, betas=BETAS, weight_decay=WD)),
        Candidate(
            "pytorch_optimizer Prodigy",
            "pytorch_optimizer",
            peer("pytorch_optimizer", "Prodigy", lr=1.0, betas=BETAS, weight_decay=WD),
        ),
    ],
    "schedule_free": [
        Candidate("tuneopt", "tuneopt", mine("ScheduleFree", **ADAM)),
        Candidate("schedulefree", "schedulefree", in_training(peer("schedulefree", "AdamWScheduleFree", **ADAM))),
        Candidate(
            "pytorch_optimizer ScheduleFreeAdamW",
            "pytorch_optimizer",
            in_training(peer("pytorch_optimizer", "ScheduleFreeAdamW", **ADAM)),
        ),
        Candidate("heavyball SFAdamW", "heavyball", peer("heavyball", "SFAdamW", **ADAM), False, EPS_MAX),
    ],
    **{name: [Candidate("tuneopt", "tuneopt", named(name))] for name in ("dion", "sf_muon", "muonc", "soap_muon")},
    "shampoo": [Candidate("tuneopt", "tuneopt", begun(named("shampoo")), note="from its second step on")],
    "muonh": [Candidate("tuneopt", "tuneopt", named("muonh"))],
    "normuon": [
        Candidate("tuneopt, fp32", "tuneopt", named("normuon", momentum=0.95)),
        Candidate("tuneopt, bf16", "tuneopt", named("normuon", momentum=0.95, ns_precision="bf16")),
        Candidate(
            "pytorch_optimizer NorMuon + fused AdamW",
            "pytorch_optimizer",
            grouped("NorMuon", lr=LR, weight_decay=WD),
            note="products in bf16",
        ),
    ],
    "moonlight": [
        Candidate("tuneopt, fp32", "tuneopt", named("moonlight", momentum=0.95)),
        Candidate("tuneopt, bf16", "tuneopt", named("moonlight", momentum=0.95, ns_precision="bf16")),
        Candidate(
            "torch Muon, match_rms_adamw + fused AdamW",
            "torch",
            hybrid("torch.optim", "Muon", lr=LR, weight_decay=WD, adjust_lr_fn="match_rms_adamw"),
            note="products in bf16",
        ),
        Candidate(
            "pytorch_optimizer Muon, adjusted + fused AdamW",
            "pytorch_optimizer",
            grouped("Muon", lr=LR, weight_decay=WD, use_adjusted_lr=True),
            note="products in bf16",
        ),
    ],
    "adamh": [
        Candidate("tuneopt", "tuneopt", named("adamh")),
        Candidate(
            "heavyball HyperBallAdamW",
            "heavyball",
            peer("heavyball", "HyperBallAdamW", **{**ADAM, "weight_decay": 0.0}),
            False,
            "no momentum; embedding and head on balls too",
        ),
    ],
    "adamc": [
        Candidate("tuneopt", "tuneopt", named("adamc", beta1=BETAS[0], beta2=BETAS[1], epsilon=EPS)),
        Candidate("pytorch_optimizer AdamC", "pytorch_optimizer", peer("pytorch_optimizer", "AdamC", **ADAM)),
        Candidate("heavyball AdamC", "heavyball", peer("heavyball", "AdamC", **ADAM, max_lr=LR), False, EPS_MAX),
    ],
    "kl_soap": [
        Candidate("tuneopt, blocks of 256", "tuneopt", named("kl_soap")),
        Candidate(
            "heavyball KLSOAP + fused AdamW",
            "heavyball",
            hybrid("heavyball", "KLSOAP", lr=LR, precondition_frequency=10),
            False,
            "whole matrices; debiased factors",
        ),
    ],
}
"""For every optimizer our candidates first, then the peers."""

CYCLES = {"kron": 10, "soap": 10, "kl_soap": 10, "soap_muon": 10, "shampoo": 10}
"""Steps after which a rule with periodic work begins again; figures are taken over whole cycles."""
