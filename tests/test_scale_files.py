"""Scales of a user's own: files, shorthands, families, what they cost, and that today's scales keep their ids."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tuneopt import api
from tuneopt.ledger import Ledger
from tuneopt.scale_files import FAMILIES, FOLDER, find_scale, parse_scale
from tuneopt.spec import SCALES, InputError, TrialSpec
from tuneopt.training.batches import HeldOut
from tuneopt.training.ranks import Ranks
from tuneopt.training.run import run_trial
from tuneopt.training.weights import family_of


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_a_file_and_a_model_of_transformers(family: str) -> None:
    scale = find_scale(family)
    assert (FOLDER / f"{family}.yaml").is_file() and scale.name == family
    named = family_of(scale)
    assert named is not None and named.name == family
    assert api.scale_facts(family).family == named.architecture


def test_published_sizes_are_met() -> None:
    assert find_scale("gpt2").total_parameters(50_257) == 124_439_808  # 12 layers of 7.1M, 38.6M, 0.8M, one norm
    assert find_scale("llama").total_parameters(49_152) == pytest.approx(134.5e6, rel=1e-3)  # SmolLM2-135M
    assert find_scale("qwen3").total_parameters(151_936) == pytest.approx(596e6, rel=1e-3)  # Qwen3-0.6B
    assert find_scale("nanochat").total_parameters(65_536) == pytest.approx(561e6, rel=2e-3)  # d20


def test_a_shorthand_is_a_file_in_one_word(tmp_path: Path) -> None:
    short = find_scale("6x384,seq=256,family=gpt2")
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nfamily: gpt2\nlayers: 6\nd_model: 384\nseq_len: 256\n")
    assert find_scale(str(path)) == replace(short, name="mine")
    assert short.name == "6x384,seq=256,family=gpt2" and (short.d_ff, short.heads) == (1536, 6)


def test_an_option_without_a_use_is_refused() -> None:
    with pytest.raises(InputError, match="rope_base has no use without rotary positions"):
        find_scale("2x64,positions=learned,rope_base=500")
    learned = find_scale("2x64,positions=learned,family=qwen3")
    assert "rope_base" not in learned.declaration() and learned.norm_eps == 1e-6


def test_what_is_left_out_follows_from_the_ladder_that_is_nearest_in_size() -> None:
    small, large = find_scale("2x64"), find_scale("24x1024")
    assert (small.ladder, small.seq_len) == ("nano", SCALES["nano-65k"].seq_len)
    assert (large.ladder, large.seq_len) == ("paper", SCALES["130m"].seq_len)
    assert find_scale("2x64,ladder=paper").seq_len == SCALES["130m"].seq_len


def test_options_at_their_default_leave_no_trace() -> None:
    """One architecture has one spelling, so that one training has one id."""
    plain = find_scale("2x64")
    spelled = find_scale("2x64,kv_heads=2,head_dim=32,norm=rmsnorm,tied=false,rope_base=10000,init_std=0.02")
    assert replace(spelled, name=plain.name) == plain
    assert sorted(plain.to_dict()) == sorted(("name", "ladder", "layers", "d_model", "d_ff", "heads", "seq_len"))


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("6x385", "heads of even width"),
        ("6x384,heads=5", "5 heads do not divide d_model 384"),
        ("6x384,kv_heads=4", "kv_heads 4 do not divide 6 heads"),
        ("6x384,seqq=1", "unknown key 'seqq'"),
        ("6x384,norm=foo", "unknown norm 'foo'; known: rmsnorm, layernorm, rms"),
        ("6x384,tied=3", "tied must be true or false"),
        ("6x384,layers=3", "'layers' is given twice"),
        ("6x384,qk_norm=after_rope,positions=learned", "needs rotary positions"),
        ("0x64", "layers"),
        ("6x384,softcap=-1", "softcap must be at least 0"),
        ("gpt3", "did you mean 'gpt2'"),
        ("nowhere.yaml", "there is no scale file at nowhere.yaml"),
    ],
)
def test_bad_scales_are_answered_with_what_is_wrong(word: str, answer: str) -> None:
    with pytest.raises(InputError, match=answer):
        find_scale(word)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("layers: 2\n", r"my.yaml:1: a scale needs the key 'd_model'"),
        ("layers: 2\nd_model: 64\nname: 130m\n", r"my.yaml:3: '130m' is the name of a built-in scale"),
        ("layers: 2\nd_model: 64\nname: a/b\n", r"my.yaml:3: a scale's name cannot be 'a/b'"),
        ("layers: 2\nd_model: 64\nheads: 7\n", r"my.yaml:3: 7 heads do not divide"),
        ("layers: two\nd_model: 64\n", r"my.yaml:1: layers must be"),
        ("- 2\n", r"my.yaml:1: a scale must be a mapping"),
    ],
)
def test_a_file_is_answered_with_its_line(text: str, answer: str) -> None:
    with pytest.raises(InputError, match=answer):
        parse_scale(text, "my.yaml", "my")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trial_of_an_own_scale_trains_is_found_again_and_exports(family: str, tmp_path: Path) -> None:
    """End to end at toy size: its update check passes, its record round-trips, and transformers gives its loss."""
    from transformers import AutoModelForCausalLM

    word = f"1x32,seq=32,heads=2,kv_heads={2 if family == 'gpt2' else 1},family={family}"
    spec, corpus = api.single_trial("muon", scale=word, ratio=0.03, compile=False)
    spec = replace(spec, evaluation=replace(spec.evaluation, points=2, final_sequences=16))
    ledger = Ledger(tmp_path / "ledger")
    record = run_trial(spec, corpus, ledger, keep_weights=True)
    assert record.status == "completed" and record.proof["status"] == "passed"
    assert ledger.get(spec.id) == record and TrialSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    routed = {route["parameter"]: route["rule"] for route in record.routing}
    tables = {name for name in routed if "embed" in name or name == "lm_head.weight"}
    assert all(routed[name] != "muon" for name in tables) and "muon" in routed.values()
    done = api.export_model(spec.id, tmp_path / "model", ledger)

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()

    held = HeldOut.of(corpus, spec, Ranks(0, 1, torch.device("cpu")))
    losses = held.losses(
        lambda tokens, targets: torch.nn.functional.cross_entropy(
            model(tokens).logits.flatten(0, 1), targets.flatten()
        ),
        final=True,
    )
    assert losses == pytest.approx((record.select_loss, record.report_loss), rel=1e-5)
    assert "model.safetensors" in done.files


def test_the_command_shows_a_scale() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "tuneopt", "scale", "show", "gpt2", "--json"], capture_output=True, text=True, check=True
    )
    plain = json.loads(run.stdout)
    assert plain["scale"]["tied"] is True and plain["family"] == "GPT2LMHeadModel" and plain["step_seconds"] is None
    assert plain["tokens"] == 20 * plain["parameters"] and plain["memory_bytes"] > 16 * plain["parameters"]
