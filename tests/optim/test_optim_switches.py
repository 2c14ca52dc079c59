"""Switches of matrix rules and the names made of them: parity with the float64 references, conformance, off is off."""

import inspect

import pytest
import torch
from parity import LR, WD, as_parameters, error, follow, train
from watching import failed

from tuneopt.optim import Kron, Muon, Scion, UpdateCheck, create
from tuneopt.optim.adamw import AdamW, MatrixAdamW
from tuneopt.optim.factory import implementation
from tuneopt.optim.info import BUILT_IN
from tuneopt.optim.switches import normalized_rows
from tuneopt.optim.testing import OptimizerConformance, TinyModel, assert_equal_models, seed_gradients
from tuneopt.search.space import load_space
from tuneopt.spec import InputError

PRESETS = {entry.name: entry for entry in BUILT_IN if entry.preset}
OF_MUON = {"momentum": 0.9, "muon_epsilon": 1e-10, "muon_to_adam_lr": 0.3, "ns_steps": 5, "ns_coefficients": "quintic"}
OF_SCION = {"momentum": 0.9, "scion_epsilon": 1e-10, "scion_to_signum_lr": 0.3, "ns_steps": 5,
            "ns_coefficients": "quintic"}  # fmt: skip
OF_ADAM = {"beta1": 0.8, "beta2": 0.9, "epsilon": 1e-8}
OF_SOAP = {**OF_ADAM, "shampoo_beta": 0.9, "precondition_frequency": 5, "block_size": 16, "bias_correction": "steps",
           "ns_steps": 5, "ns_coefficients": "quintic"}  # fmt: skip
"""Square blocks have gradients of full rank: no basis is arbitrary but for signs, which an update does not see."""
COMMON = {"learning_rate": LR, "weight_decay": WD, "max_grad_norm": 0.0}
SWITCHES = {
    "hyperball": True,
    "cautious_decay": True,
    "decay_follows_lr": True,
    "scale": "match_rms",
    "row_normalize": 0.9,
    "fallback_weight_decay": 0.7,
    "fallback_learning_rate": 0.007,
}


def words_of(name):
    if name in ("kl_soap", "soap_muon"):
        return {**COMMON, **OF_SOAP}
    if name in ("adamh", "adamc"):
        return {**COMMON, **OF_ADAM}
    return {**COMMON, **(OF_SCION | {"beta1": 0.8} if name == "scion" else OF_MUON | OF_ADAM)}


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("name", PRESETS)
def test_presets_equal_their_references(name, dtype, tolerance):
    words = words_of(name)
    parameters = as_parameters(dtype)
    ours = train(parameters, create(name, parameters.items(), **words))
    tolerance *= 50 if "soap" in name else 1  # rounding turns eigenvectors, as in the parity tests of SOAP
    assert error(ours, follow(name, **{**words, **PRESETS[name].preset})) <= tolerance


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("name", ["muon", "scion"])
def test_every_switch_equals_its_reference_and_changes_something(name, switch):
    words, on = words_of(name), {switch: SWITCHES[switch]}
    parameters, plain = as_parameters(torch.float64), as_parameters(torch.float64)
    ours = train(parameters, create(name, parameters.items(), **words, **on))
    assert error(ours, follow(name, **words, **on)) <= 1e-12
    assert error(ours, train(plain, create(name, plain.items(), **words))) > 1e-3


def test_all_switches_together_equal_their_reference():
    """But for the decay of matrices, which a hyperball has not."""
    words = {**words_of("muon"), **SWITCHES, "hyperball": False}
    parameters = as_parameters(torch.float64)
    ours = train(parameters, create("muon", parameters.items(), **words))
    assert error(ours, follow("muon", **words)) <= 1e-12


@pytest.mark.parametrize("kind", [Muon, Scion, Kron, MatrixAdamW])
def test_a_hyperball_keeps_the_norm_of_matrices_and_decays_none_of_them(kind):
    start, model = TinyModel(width=16), TinyModel(width=16)
    optimizer = kind(model, hyperball=True, weight_decay=0.5)
    for seed in range(5):
        seed_gradients(model, seed)
        optimizer.step()
    for name, parameter in model.named_parameters():
        before = start.get_parameter(name)
        if name.endswith("proj.weight"):
            torch.testing.assert_close(parameter.norm(), before.norm(), rtol=1e-5, atol=0)
            assert not torch.allclose(parameter, before, atol=1e-5)


def test_cautious_decay_acts_where_update_and_weight_agree():
    plain, cautious = TinyModel(), TinyModel()
    for model, on in ((plain, False), (cautious, True)):
        optimizer = Muon(model, lr=0.01, weight_decay=0.5, cautious_decay=on)
        seed_gradients(model, 0)
        optimizer.step()
    start, free = TinyModel().q_proj.weight, TinyModel()
    optimizer = Muon(free, lr=0.01, weight_decay=0.0)
    seed_gradients(free, 0)
    optimizer.step()
    agree = (start - free.q_proj.weight) * start >= 0
    assert 0 < int(agree.sum()) < agree.numel()
    expected = torch.where(agree, plain.q_proj.weight, free.q_proj.weight)
    torch.testing.assert_close(cautious.q_proj.weight, expected)
    assert torch.equal(cautious.lm_head.weight, plain.lm_head.weight), "the fallback has no switch"


def test_rows_are_evened_at_the_norm_that_they_had():
    update = torch.randn(3, 6, 10, generator=torch.Generator().manual_seed(0))
    update[:, 0] *= 50
    moment = torch.zeros(3, 6, 1)
    even = normalized_rows(update.clone(), moment, 0.9)
    torch.testing.assert_close(even.norm(dim=(1, 2)), update.norm(dim=(1, 2)))
    torch.testing.assert_close(even.norm(dim=2), even.norm(dim=2).mean(dim=1, keepdim=True).expand(3, 6))


@pytest.mark.parametrize("name", ["muon", "scion", "kron", "soap", "adamh"])
def test_matrices_all_takes_embedding_and_head_and_the_proof_knows(name):
    model = TinyModel(width=16)
    optimizer = create(name, model, matrices="all", max_grad_norm=0.0)
    rules = {route.parameter: (route.rule, route.decay) for route in optimizer.routing}
    main = optimizer.main.name
    assert rules["embed_tokens.weight"] == (main, False) and rules["lm_head.weight"] == (main, True)
    assert rules["norm.weight"][0] != main
    words = {**{k: v for k, v in optimizer.defaults.items() if k not in ("lr", "betas", "eps")}, "heads": 1}
    beta1, beta2 = optimizer.defaults.get("betas", (0, 0))
    words |= {"learning_rate": optimizer.defaults["lr"], "epsilon": optimizer.defaults.get("eps", 0)}
    check = UpdateCheck(optimizer, name, hyperparameters={"beta1": beta1, "beta2": beta2, **words}, model=model)
    for seed in range(14):
        seed_gradients(model, seed)
        check.before_step()
        optimizer.step()
        check.after_step()
    proof = check.proof()
    assert proof.passed, failed(proof)
    assert {f"{main}.embedding", f"{main}.head"} <= {claim.name for claim in proof.checks}


@pytest.mark.parametrize("kind", [Muon, Scion])
def test_a_switch_that_is_off_leaves_bits_and_state_alone(kind):
    plain, named = TinyModel(), TinyModel()
    off = {"scale": "spectral", "row_normalize": 0.0, "split_heads": False, "hyperball": False, "cautious_decay": False,
           "decay_follows_lr": False, "matrices": "hidden", "fallback_weight_decay": None,
           "fallback_learning_rate": None}  # fmt: skip
    older = kind(plain)
    for group in older.param_groups:  # a checkpoint of before the switches
        for word in off:
            del group[word]
    optimizers = (older, kind(named, **off))
    for seed in range(4):
        for model, optimizer in zip((plain, named), optimizers, strict=True):
            seed_gradients(model, seed)
            optimizer.step()
    assert_equal_models(plain, named)
    assert optimizers[0].state_bytes() == optimizers[1].state_bytes()


def test_a_switch_that_is_off_is_no_part_of_a_configuration():
    space = load_space("muon")
    off = {switch.name: switch.off for switch in space.switches if switch.off is not None}
    for ladder in space.ladders:
        assert space.on(ladder, {name: str(value) for name, value in off.items()}).start == space.on(ladder).start
    on = dict(space.on("nano", {"hyperball": "true", "fallback_learning_rate": "0.01"}).start)
    assert on == {**dict(space.on("nano").start), "hyperball": True, "fallback_learning_rate": 0.01}


@pytest.mark.parametrize("name", ["muon", "scion", "kron", "soap", *PRESETS])
def test_spaces_list_and_constructors_declare_the_same_switches(name):
    entry = next(entry for entry in BUILT_IN if entry.name == name)
    space, signature = load_space(name), inspect.signature(implementation(name)).parameters
    assert [switch.name for switch in space.switches] == list(entry.switches)
    for switch in space.switches:
        assert signature[switch.name].default == switch.off
    fixed = dict(space.on("nano").start)
    assert {word: fixed[word] for word in entry.preset} == dict(entry.preset)


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("muonh", {"hyperball": "false"}, "muonh is named after its switch hyperball; leave it on"),
        ("muon", {"hyperball": "perhaps"}, "hyperball must be true or false"),
        ("muon", {"scale": "spectrum"}, "did you mean 'spectral'"),
        ("muon", {"row_normalize": "1.5"}, "row_normalize must be at least 0 and below 1"),
        ("muon", {"fallback_learning_rate": "-1"}, "fallback_learning_rate must be at least 0"),
        ("kl_soap", {"factors": "shampoo"}, "kl_soap is named after its switch factors; leave it on"),
        ("soap_muon", {"orthogonalize": "spectra"}, "did you mean 'spectral'"),
        ("soap", {"hyperball": "true"}, "unknown hyperparameter 'hyperball' of soap"),
    ],
)
def test_switches_are_refused_in_a_sentence(name, given, sentence):
    with pytest.raises(InputError, match=sentence):
        load_space(name).on("nano", given)


def test_words_of_a_preset_may_change_but_for_off():
    start = dict(load_space("soap_muon").on("nano", {"orthogonalize": "spectral"}).start)
    assert start["orthogonalize"] == "spectral"


def test_create_refuses_to_turn_a_preset_off():
    with pytest.raises(InputError, match="muonh is named after its switch hyperball"):
        create("muonh", TinyModel(), hyperball=False)
    with pytest.raises(InputError, match="unknown hyperball 'yes'"):
        create("muon", TinyModel(), hyperball="yes")


def test_the_fallback_has_a_rate_and_a_decay_of_its_own():
    optimizer = Muon(TinyModel(), lr=0.02, fallback_learning_rate=0.005, fallback_weight_decay=0.3)
    for group in optimizer.param_groups:
        if group["rule"] == "adamw":
            decays = any(name.startswith("lm_head") for name in group["param_names"])
            assert (group["lr"], group["weight_decay"]) == (0.005, 0.3 if decays else 0.0)
        else:
            assert (group["lr"], group["weight_decay"]) == (0.02, 0.1)


def test_adamw_over_whole_matrices_is_adamw():
    ours, theirs = as_parameters(), as_parameters()
    mine = train(ours, MatrixAdamW(ours.items(), LR, weight_decay=WD))
    assert error(mine, train(theirs, AdamW(theirs.items(), LR, weight_decay=WD))) <= 1e-6


class TestMuonWithDecayInRows(OptimizerConformance):
    def make(self, params, **overrides):
        return Muon(params, row_normalize=0.9, cautious_decay=True, **overrides)


class TestMuonH(OptimizerConformance):
    def make(self, params, **overrides):
        return Muon(params, hyperball=True, **overrides)

    def test_norms_and_embeddings_do_not_decay(self):
        """Nor do matrices: the head alone."""
        model = TinyModel()
        optimizer = self.make(model, weight_decay=0.5)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        rate = next(g["lr"] for g in optimizer.param_groups if "lm_head.weight" in g["param_names"])
        for (name, before), after in zip(TinyModel().named_parameters(), model.parameters(), strict=True):
            factor = 1 - 0.5 * rate if name.startswith("lm_head") else 1.0
            torch.testing.assert_close(after, before * factor, rtol=1e-6, atol=1e-9)


class TestAdamC(OptimizerConformance):
    def make(self, params, **overrides):
        return MatrixAdamW(params, decay_follows_lr=True, **overrides)
