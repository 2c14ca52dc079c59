"""Scales, regimes, budgets and identities."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneopt.errors import enough
from tuneopt.scale_files import find_scale
from tuneopt.spec import (
    SCALES,
    CorpusId,
    InputError,
    Regime,
    TrialSpec,
    canonical,
    canonical_json,
    identity,
    nearest,
)

CORPUS = CorpusId("made-up", "0123456789abcdef", 512)
CONFIG = {"learning_rate": 0.01, "beta1": 0.9, "train_batch_size": 16, "max_grad_norm": 1.0, "nesterov": False}


def spec(**changes: object) -> TrialSpec:
    base = TrialSpec("adamw", TrialSpec.freeze(CONFIG), Regime(SCALES["nano-65k"], 1.0, CORPUS))
    return replace(base, **changes)  # type: ignore[arg-type]


@given(st.floats(1e-9, 1e9))
def test_a_number_that_is_proposed_is_enough(least):
    assert least <= float(enough(least)) * (1 + 1e-12) <= 10.001 * least
    assert len(f"{float(enough(least)):e}".split("e")[0].rstrip("0.")) == 1


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("130m", 134217728),
        ("300m", 301989888),
        ("520m", 536870912),
        ("1.2b", 1207959552),
        ("nano-65k", 65536),
        ("nano-147k", 147456),
        ("nano-262k", 262144),
        ("nano-590k", 589824),
        ("nano-1m", 1048576),
    ],
)
def test_parameter_counts_are_those_of_the_ladder(name: str, parameters: int) -> None:
    assert find_scale(name).parameters == parameters


@pytest.mark.parametrize("scale", SCALES.values(), ids=lambda scale: scale.name)
def test_counts_agree_with_the_real_model(scale) -> None:
    import torch

    from tuneopt.training.model import Decoder

    with torch.device("meta"):
        model = Decoder(scale, 512)
    assert sum(p.numel() for p in model.parameters()) == scale.total_parameters(512)
    in_layers = sum(p.numel() for name, p in model.named_parameters() if "layers" in name and p.ndim == 2)
    assert in_layers == scale.parameters
    assert scale.d_model % scale.heads == 0 and scale.d_model // scale.heads % 2 == 0


def test_flops_per_token_against_counting_each_matrix_product() -> None:
    scale, vocab = SCALES["nano-262k"], 512
    products = 4 * scale.d_model**2 + 3 * scale.d_model * scale.d_ff  # multiply-adds per token and layer
    mean_context = scale.seq_len / 2  # causal: a token attends to half the sequence on average
    attention = 2 * mean_context * scale.d_model  # scores, then the weighted sum of values
    forward = 2 * (scale.layers * (products + attention) + scale.d_model * vocab)
    assert scale.flops_per_token(vocab) == 3 * forward  # the backward pass costs two forward passes


def test_budget_in_tokens_steps_and_flops() -> None:
    regime = Regime(SCALES["nano-65k"], 2, CORPUS)
    assert regime.tokens == 2 * 20 * 65536
    assert regime.steps(16) == 2 * 20 * 65536 // (16 * 128)
    assert regime.flops == regime.tokens * SCALES["nano-65k"].flops_per_token(512)
    assert regime.label == "nano-65k/2x"


@pytest.mark.parametrize("batch", [8, 16, 32, 64, 128])
@pytest.mark.parametrize("scale", [s for s in SCALES.values() if s.ladder == "nano"], ids=lambda s: s.name)
def test_nano_batches_spend_the_whole_budget(scale, batch: int) -> None:
    regime = Regime(scale, 1, CORPUS)
    assert regime.steps(batch) * batch * scale.seq_len == regime.tokens


@pytest.mark.parametrize("ratio", [0, -1, math.nan, math.inf])
def test_impossible_ratios_are_refused(ratio: float) -> None:
    with pytest.raises(InputError, match="ratio"):
        Regime(SCALES["130m"], ratio, CORPUS)


@pytest.mark.parametrize("batch", [0, -4, 10**9])
def test_batches_outside_the_budget_are_refused(batch: int) -> None:
    with pytest.raises(InputError, match="train_batch_size"):
        Regime(SCALES["nano-65k"], 1, CORPUS).steps(batch)


def test_unknown_scale_names_the_nearest() -> None:
    with pytest.raises(InputError, match="nano-65k"):
        find_scale("nano65k")
    with pytest.raises(InputError, match="known: nano-65k"):
        find_scale("999")


def test_nearest_lists_everything_when_nothing_is_close() -> None:
    assert nearest("sopa", ["adamw", "sophia", "soap"]) == "did you mean 'soap'?"
    assert nearest("LerningRate", ["learning_rate", "beta1"]) == "did you mean 'learning_rate'?"
    assert nearest("zzz", ["adamw", "soap"]) == "known: adamw, soap"


def test_the_id_of_a_fixed_specification_never_changes() -> None:
    # A changed value here makes every ledger in the world forget its trials: raise SEMANTICS only on purpose.
    assert spec().id == GOLDEN


GOLDEN = "be4a8257ca9fa164"


def test_the_id_is_the_same_in_another_process() -> None:
    text = json.dumps(spec().to_dict())
    code = "import json,sys;from tuneopt.spec import TrialSpec;print(TrialSpec.from_dict(json.load(sys.stdin)).id)"
    done = subprocess.run(
        [sys.executable, "-c", code], input=text, capture_output=True, text=True, env={"PYTHONHASHSEED": "77"}
    )
    assert done.stdout.strip() == spec().id, done.stderr


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "soap"},
        {"seed": 1},
        {"data_seed": 1},
        {"precision": "bf16"},
        {"compile": True},
        {"micro_batch": 8},
        {"regime": Regime(SCALES["nano-65k"], 2, CORPUS)},
        {"regime": Regime(SCALES["nano-65k"], 1, replace(CORPUS, fingerprint="other"))},
        {"hyperparameters": TrialSpec.freeze({**CONFIG, "learning_rate": 0.02})},
        {"semantics": 99},
    ],
    ids=lambda change: next(iter(change)),
)
def test_everything_a_result_depends_on_changes_the_id(change: dict) -> None:
    assert spec(**change).id != spec().id


def test_two_specifications_that_train_alike_are_one() -> None:
    plain, same = spec(seed=3), spec(seed=3, data_seed=3)
    assert same == plain and same.id == plain.id and same.order_seed == 3
    assert "data_seed" not in same.to_dict()  # so the record's JSON is that of earlier releases
    # What follows the seed goes on following it under another one.
    assert replace(same, seed=4).order_seed == 4
    assert TrialSpec.from_dict({**plain.to_dict(), "data_seed": 3}) == plain


def test_another_data_order_is_another_trial_and_survives_json() -> None:
    crossed = {spec(seed=w, data_seed=o).id for w in range(3) for o in range(3)}
    assert len(crossed) == 9
    assert {spec(seed=seed).id for seed in range(3)} < crossed
    other = spec(data_seed=-5)
    assert TrialSpec.from_dict(json.loads(json.dumps(other.to_dict()))) == other
    assert replace(other, data_seed=None).id == spec().id


@pytest.mark.parametrize("seed", [True, 1.0, "1", 2**63, [0]])
def test_a_data_seed_that_is_no_whole_number_is_refused(seed: object) -> None:
    with pytest.raises(InputError, match="data_seed"):
        spec(data_seed=seed)
    with pytest.raises(InputError, match="data_seed"):
        TrialSpec.from_dict({**spec().to_dict(), "data_seed": seed})


def test_the_name_of_a_corpus_is_no_part_of_its_identity() -> None:
    renamed = Regime(SCALES["nano-65k"], 1, replace(CORPUS, name="moved elsewhere"))
    assert spec(regime=renamed).id == spec().id


def test_one_number_has_one_spelling() -> None:
    assert spec(hyperparameters=TrialSpec.freeze({**CONFIG, "max_grad_norm": 1})).id == spec().id
    assert canonical_json({"b": 1.0, "a": -0.0}) == '{"a":0,"b":1}'


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.isprintable)
values = st.one_of(st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False), names)


@given(st.dictionaries(names, values, max_size=8))
def test_specifications_survive_json(config: dict) -> None:
    original = spec(hyperparameters=TrialSpec.freeze(config))
    again = TrialSpec.from_dict(json.loads(json.dumps(original.to_dict())))
    assert again == original and again.id == original.id
    assert original.id == identity(original.to_dict()), "put together from parts, it hashes the same text"
    assert replace(original, data_seed=3).id == identity(replace(original, data_seed=3).to_dict())


@pytest.mark.parametrize("value", [math.nan, math.inf, None, [1]])
def test_values_without_a_canonical_form_are_refused(value: object) -> None:
    with pytest.raises(InputError):
        canonical(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("plain", [{}, {"regime": 3}, [], {"optimizer": "adamw", "unknown": 1}])
def test_what_is_no_specification_is_refused(plain: object) -> None:
    with pytest.raises(InputError, match="not a trial specification"):
        TrialSpec.from_dict(plain)  # type: ignore[arg-type]


def test_losses_in_bits_per_byte_need_the_bytes_of_a_token_and_change_no_id():
    plain = Regime(SCALES["nano-65k"], 1.0, CorpusId("text", "00ff", 1024))
    known = replace(plain, bytes_per_token=2.5)
    assert plain.bits_per_byte(3.0) is None and known.bits_per_byte(None) is None
    assert known.bits_per_byte(math.log(2)) == pytest.approx(1 / 2.5)
    assert known == plain and Regime.from_dict(known.to_dict()).bytes_per_token == 2.5
    first, second = (TrialSpec("adamw", (("train_batch_size", 8),), regime) for regime in (plain, known))
    assert first.id == second.id and "bytes_per_token" not in plain.to_dict()
    with pytest.raises(InputError, match="bytes per token must be a positive number"):
        replace(plain, bytes_per_token=0)
