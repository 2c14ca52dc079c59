"""24 steps beside heavyball, whose rules are chains of parts; skipped where it is not installed.

`docs/optimizers.md` lists where they differ. It drops gradients in each step, so these are set anew before each.
"""

import importlib

import problem
import pytest
import torch
from parity import LR, WD, as_parameters, distance, groups, matrices, peer

from tuneopt.optim import ADOPT, MARS, SOAP, AdamW, AdEMAMix, Cautious, Muon, NAdamW, ScheduleFree, Scion
from tuneopt.optim.adamw import MatrixAdamW

ADAM = {"betas": (0.9, 0.98), "eps": 1e-10, "weight_decay": WD}
SAME = 1e-5


@pytest.fixture
def heavyball(monkeypatch):
    """Eager, which takes seconds less; and with its former Newton-Schulz, the usual quintic, for every shape."""
    package, utils = peer("heavyball"), importlib.import_module("heavyball.utils")
    for name in ("compile_mode", "compile_mode_recommended_to_none"):
        monkeypatch.setattr(utils, name, None)
    monkeypatch.setattr(utils, "zeropower_via_newtonschulz5", utils.legacy_zeropower_via_newtonschulz5)
    monkeypatch.setattr(utils, "zeroth_power_mode", "legacy_newtonschulz")
    return package


def plain(kind, **words):
    """A builder of ours with nothing clipped."""
    return lambda parameters: kind(parameters, LR, **words, max_grad_norm=0.0)


MARS_OF_STUDY = plain(MARS, **ADAM, gamma=0.025)
SLOW = {"eps": 1e-12, "weight_decay": WD, "alpha": 5.0}
ELEMENTWISE = {
    "adamw": (plain(AdamW, **ADAM), "AdamW", ADAM, (0, SAME)),
    "nadamw": (
        plain(NAdamW, **ADAM), "NAdam", {**ADAM, "momentum_decay": 1e9, "decoupled_weight_decay": True}, (0, SAME)
    ),
    "mars, strength 0.225": (MARS_OF_STUDY, "AdamW", {**ADAM, "mars": True, "mars_gamma": 0.2}, (0, SAME)),
    "mars, the same word": (MARS_OF_STUDY, "AdamW", {**ADAM, "mars": True, "mars_gamma": 0.025}, (0.05, 1)),
    "cautious": (plain(Cautious, **ADAM), "AdamW", {**ADAM, "caution": True}, (0, SAME)),
    "ademamix": (
        plain(AdEMAMix, betas=(0.8, 0.95), beta3=0.99, steps=40, **SLOW),
        "AdEMAMix",
        {"betas": (0.8, 0.95, 0.99), "beta3_warmup": 40, "alpha_warmup": 40, **SLOW},
        (0, SAME),
    ),
    "adopt": (plain(ADOPT, **ADAM), "ADOPT", ADAM, (0.1, 2)),
    "schedule_free": (plain(ScheduleFree, **ADAM), "SFAdamW", ADAM, (0, SAME)),
}  # fmt: skip


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise_rules(name, heavyball):
    """Its ADOPT corrects the bias of both averages and clips nothing; its MARS has g beta1 / (1 - g) as strength."""
    ours, theirs, words, (low, high) = ELEMENTWISE[name]
    assert low <= distance(ours, lambda p: getattr(heavyball, theirs)(groups(p), lr=LR, **words)) <= high


def chained(heavyball, *names, **words):
    """A builder of an optimizer from heavyball's parts, on one group."""
    parts = heavyball.chainable
    given = {"lr": LR, "eps": 1e-10, "weight_decay": 0.0, "storage_dtype": "float64", **words}
    return lambda p: parts.BaseOpt(list(p.values()), dict(given), fns=tuple(getattr(parts, name) for name in names))


NESTEROV = ("nesterov_momentum", "orthogonalize_update")
FREE = {"weight_decay": 0.0}
MUON = {"momentum": 0.9, "muon_epsilon": 1e-10, "weight_decay": WD}
PARTS = {
    "muon": (matrices(Muon, **MUON), NESTEROV, {"betas": (0.9, 0.0), "weight_decay": WD}),
    "muonh": (matrices(Muon, **{**MUON, **FREE}, hyperball=True), (*NESTEROV, "update_by_hyperball"), {"beta": 0.9}),
    "cautious decay": (
        matrices(Muon, **MUON, cautious_decay=True),
        NESTEROV,
        {"betas": (0.9, 0.0), "weight_decay": WD, "cautious_weight_decay": True},
    ),
    "scion": (
        matrices(Scion, momentum=0.9, weight_decay=WD),
        ("exp_avg", "orthogonalize_update"),
        {"betas": (0.9, 0.0), "weight_decay": WD},
    ),
    "adamh": (matrices(MatrixAdamW, **{**ADAM, **FREE}, hyperball=True), ("scale_by_adam", "update_by_hyperball"),
              {"betas": (0.9, 0.98)}),
    "adamc": (matrices(MatrixAdamW, **ADAM, decay_follows_lr=True), ("update_by_adamc",), {**ADAM, "max_lr": LR}),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_matrix_rules_from_its_parts(name, heavyball):
    """In float64, because its products round at random otherwise."""
    ours, parts, words = PARTS[name]
    theirs = chained(heavyball, *parts, **words)
    assert distance(ours, theirs, names=problem.hidden, dtype=torch.float64) <= SAME


@pytest.mark.parametrize(("every", "low", "high"), [(100, 0, SAME), (5, 0.05, 1)])
def test_soap_between_refreshes(every, low, high, heavyball):
    """Its refreshes come elsewhere, from factors that hold the newest gradient and whose bias is corrected."""
    rule = {"betas": (0.9, 0.98), "eps": 1e-12, "weight_decay": 0.0, "shampoo_beta": 0.9}
    ours = matrices(SOAP, **rule, precondition_frequency=every, bias_correction="updates")
    more = {"precondition_frequency": every, "merge_dims": False, "storage_dtype": "float64"}
    theirs = lambda p: heavyball.SOAP(list(p.values()), lr=LR, **rule, **more)  # noqa: E731
    assert low <= distance(ours, theirs, names=problem.square, dtype=torch.float64) <= high


def test_it_takes_gradients_away_and_its_scion_draws_weights_anew(heavyball):
    parameters = as_parameters(torch.float64)
    start = {name: value.detach().clone() for name, value in parameters.items()}
    optimizer = heavyball.Scion(list(parameters.values()), lr=0.0)
    for name, parameter in parameters.items():
        parameter.grad = torch.ones_like(start[name])
    optimizer.step()
    assert all(parameter.grad is None for parameter in parameters.values())
    assert not any(torch.allclose(value, start[name]) for name, value in parameters.items())
